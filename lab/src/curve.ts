// Curves that grow while one looks: uPlot, with a legend of our own that says the value under the pointer or, without
// one, the last. Colours are names of CSS properties, read when drawn, so that a change of theme needs nothing here.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./curve.css";
import { make } from "./element";
import { colour, onRepaint } from "./paint";

export type Line = { name: string; colour: string; dashed?: boolean; filled?: boolean; width?: number };
export type Mark = { at: number; name: string; colour?: string };
export type Points = [across: number[], ...lines: (number | null)[][]];

export interface CurveOptions {
  lines: Line[];
  /** What the horizontal axis counts, said in the legend. */
  across: string;
  height?: number;
  logarithmic?: boolean;
  range?: [low: number, high: number];
  /** false: no legend above; the place around the curve says its numbers. */
  legend?: boolean;
  /** How values are written. */
  write?: (value: number) => string;
}

/** Where drawings that stand below a curve end, too. */
const RIGHT = 14;
const TICKS = "11px system-ui, sans-serif";

export class Curve {
  readonly root: HTMLElement;
  private readonly plot: uPlot;
  private readonly values: HTMLElement[];
  private readonly place: HTMLElement;
  private readonly sized: ResizeObserver;
  private readonly forgetTheme = onRepaint(() => this.plot.redraw(false));
  private marks: Mark[] = [];

  constructor(private readonly options: CurveOptions) {
    this.values = options.lines.map(() => make("span", { class: "value" }));
    this.place = make("span", { class: "across" });
    const canvas = make("div", { class: "canvas" });
    this.root = make("div", { class: "curve empty" }, options.legend === false ? null : this.legend(), canvas);
    this.plot = new uPlot(this.settings(options.height ?? 200), this.nothing(), canvas);
    this.sized = new ResizeObserver(() => this.plot.setSize({ width: canvas.clientWidth, height: this.height }));
    this.sized.observe(canvas);
  }

  /** Draws these points in place of the last ones, and vertical marks over them. */
  set(points: Points, marks: Mark[] = []): void {
    this.marks = marks;
    this.root.classList.toggle("empty", points[0].length === 0);
    this.plot.setData(points as uPlot.AlignedData);
    this.say(this.pointed());
  }

  close(): void {
    this.sized.disconnect();
    this.forgetTheme();
    this.plot.destroy();
  }

  private get height(): number {
    return this.options.height ?? 200;
  }

  private get write(): (value: number) => string {
    return this.options.write ?? written;
  }

  private nothing(): uPlot.AlignedData {
    return [[], ...this.options.lines.map(() => [])] as uPlot.AlignedData;
  }

  private legend(): HTMLElement {
    const items = this.options.lines.map((line, k) => {
      const swatch = make("i", { class: line.dashed ? "dashed" : "", "aria-hidden": "true" });
      swatch.style.setProperty("--colour", `var(${line.colour})`);
      return make("span", { class: "item" }, swatch, line.name, this.values[k]);
    });
    return make("div", { class: "legend" }, ...items, this.place);
  }

  /** The point under the pointer, if it is over the curve. */
  private pointed(): number | null {
    const { left, idx } = this.plot?.cursor ?? {};
    return left !== undefined && left >= 0 ? (idx ?? null) : null;
  }

  /** The legend at one point, or at the last of each line. */
  private say(index: number | null): void {
    const [across, ...lines] = this.plot.data as Points;
    this.values.forEach((value, k) => {
      const number = index === null ? lines[k].findLast((one) => one !== null) : lines[k][index];
      value.textContent = number == null ? "" : this.write(number);
    });
    const at = index === null ? across.at(-1) : across[index];
    this.place.textContent = at === undefined ? "" : `${this.options.across} ${written(at)}`;
  }

  private settings(height: number): uPlot.Options {
    const { lines, logarithmic, range } = this.options;
    return {
      width: 320,
      height,
      // Above: room for the names of marks; to the right: for half of the last number.
      padding: [18, RIGHT, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: {
        x: { time: false },
        y: logarithmic ? { distr: 3, range: wholeDecades } : { range: range ?? roomy },
      },
      axes: [
        { stroke: () => colour("--quiet"), font: TICKS, size: 20, gap: 4, grid: { show: false }, ticks: { show: false },
          values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? written(tick) : "")) },
        { stroke: () => colour("--quiet"), font: TICKS, size: 46, gap: 6, grid: { stroke: () => colour("--line"), width: 1 },
          ticks: { show: false }, splits: logarithmic ? (_, __, low, high) => decades(low, high) : undefined,
          values: (_, ticks) => ticks.map((tick) => (logarithmic ? power(tick) : this.write(tick))) },
      ],
      series: [{}, ...lines.map((line): uPlot.Series => ({
        stroke: () => colour(line.colour),
        width: line.width ?? 2,
        dash: line.dashed ? [5, 5] : undefined,
        fill: line.filled ? () => faint(line.colour) : undefined,
        points: { show: false },
      }))],
      hooks: {
        draw: [() => this.drawMarks()],
        setCursor: [() => this.say(this.pointed())],
      },
    };
  }

  private drawMarks(): void {
    const { ctx, bbox } = this.plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.lineWidth = ratio;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    // The newest first: where names would meet, it is the one that is written.
    let free = Infinity;
    for (const mark of [...this.marks].reverse()) {
      const x = Math.round(this.plot.valToPos(mark.at, "x", true)) + 0.5;
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(mark.colour ?? "--quiet");
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const width = ctx.measureText(mark.name).width + 8 * ratio;
      const left = x + width < bbox.left + bbox.width ? x : x - width;
      if (left + width > free) continue;
      ctx.fillText(mark.name, left + 4 * ratio, bbox.top - 5 * ratio);
      free = left;
    }
    ctx.restore();
  }
}

/** A number with three digits that count. */
export function written(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10_000 || size < 0.001) return value.toExponential(size >= 10_000 ? 1 : 0).replace("e+", "e");
  return String(Number(value.toPrecision(Math.max(3, Math.floor(Math.log10(size)) + 1))));
}

/** A share, as a whole percentage. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`.replace("-", "−");
}

function faint(name: string): string {
  return `color-mix(in srgb, ${colour(name)} 12%, transparent)`;
}

function roomy(_: uPlot, low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1];
  const room = 0.08 * (high - low || 1);
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

function wholeDecades(_: uPlot, low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || low <= 0) return [1e-3, 1];
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high) - 1e-9)];
  return [10 ** from, 10 ** Math.max(to, from + 1)];
}

/** Whole powers of ten between two, not more than a handful. */
function decades(low: number, high: number): number[] {
  const [from, to] = [Math.round(Math.log10(low)), Math.round(Math.log10(high))];
  const by = Math.ceil((to - from + 1) / 6);
  return Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, k) => Number(`1e${to - k * by}`)).reverse();
}

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** 0.01, 0.1, 1, 10, 100; beyond these 10⁻³. */
function power(value: number): string {
  const exponent = Math.round(Math.log10(value));
  if (Math.abs(exponent) <= 2) return String(value);
  return `10${exponent < 0 ? "⁻" : ""}${[...String(Math.abs(exponent))].map((digit) => RAISED[Number(digit)]).join("")}`;
}
