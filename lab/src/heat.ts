// Units down, steps across, a number as a colour. The picture is painted once for a set of numbers; the chosen row and
// the place under the pointer lie on a second canvas, and the play head, with the curtain over what has not come yet, is
// an element that only moves: so 256 x 200 keep up with the screen.
import "./heat.css";
import { make } from "./element";
import { css, exact, pixel, ramp, type Scale } from "./palette";
import { SANS, Surface, token } from "./surface";
import { t } from "./words_heat";

export interface Numbers {
  /** [steps, units], row after row. */
  values: Float32Array;
  steps: number;
  units: number;
  scale: Scale;
  /** What each step is called. */
  names: readonly string[];
}

/** Margins that other pictures along the same steps share. */
export const LEFT = 40;
export const RIGHT = 8;
const BOTTOM = 24;

export class Heat {
  readonly root: HTMLElement;
  private readonly picture: Surface;
  private readonly over: Surface;
  private readonly curtain = make("div", { class: "curtain", hidden: true });
  private readonly image = document.createElement("canvas");
  private readonly readout = make("output", { class: "readout" });
  private readonly legend = make("div", { class: "ramp" });
  private numbers: Numbers | null = null;
  private colours: Uint32Array = new Uint32Array();
  private colourful = "";
  private position: number | null = null;
  private hides: "after" | "before" | "none" = "after";
  private unit = 0;
  private hovered: [step: number, unit: number] | null = null;

  constructor(
    name: string,
    private readonly picked: (step: number, unit: number) => void,
    private readonly height = 320,
  ) {
    this.picture = new Surface(height, (context) => this.paint(context), { "aria-hidden": "true" });
    this.over = new Surface(height, (context) => this.overlay(context), {
      class: "over",
      tabindex: 0,
      role: "application",
      "aria-label": `${name}. ${t("how")}`,
      onpointermove: (event: PointerEvent) => this.hover(event),
      onpointerleave: () => this.leave(),
      onpointerdown: (event: PointerEvent) => this.press(event),
      onkeydown: (event: KeyboardEvent) => this.key(event),
    });
    const plot = make(
      "div",
      { class: "plot" },
      this.picture.canvas,
      make("div", { class: "stepping" }, this.curtain),
      this.over.canvas,
    );
    this.root = make("figure", { class: "heat" }, plot, make("figcaption", {}, this.legend, this.readout));
  }

  /** Shows other numbers. The same object again, with more steps, is painted anew too. */
  show(numbers: Numbers | null): void {
    this.numbers = numbers;
    this.hovered = null;
    this.colourful = "";
    this.picture.again();
    this.over.again();
    this.moveCurtain();
    this.say();
  }

  /** Moves the play head; null: there is none. hides: the steps that have not come yet, "before" where it reads
   * backwards. */
  head(position: number | null, hides: "after" | "before" | "none" = "after"): void {
    if (position === this.position && hides === this.hides) return;
    const step = this.step;
    [this.position, this.hides] = [position, hides];
    this.moveCurtain();
    if (!this.hovered && this.step !== step) this.say();
  }

  select(unit: number): void {
    this.unit = unit;
    this.over.again();
    this.say();
  }

  close(): void {
    this.picture.close();
    this.over.close();
  }

  /** The step whose number is said where nothing is pointed at: the play head's, or the last. */
  private get step(): number {
    const steps = this.numbers?.steps ?? 1;
    return within(Math.floor((this.position ?? steps - 1) + 1e-6), steps);
  }

  private moveCurtain(): void {
    this.curtain.hidden = this.position === null || !this.numbers?.steps;
    if (this.curtain.hidden) return;
    const before = this.hides === "before";
    const share = Math.min(1, (this.position! + (before ? 0 : 1)) / this.numbers!.steps);
    this.curtain.dataset.hides = this.hides;
    this.curtain.style.transform = `translateX(${100 * (before ? share - 1 : share)}%)`;
  }

  private get across(): number {
    return (this.picture.width - LEFT - RIGHT) / Math.max(1, this.numbers!.steps);
  }

  private get down(): number {
    return (this.height - BOTTOM) / this.numbers!.units;
  }

  private paint(context: CanvasRenderingContext2D): void {
    if (!this.numbers?.steps) return;
    this.fill();
    const wide = this.across * this.numbers.steps;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, LEFT, 0, wide, this.height - BOTTOM);
    context.font = `11px ${SANS}`;
    context.fillStyle = token("--quiet");
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const unit of ticks(this.numbers.units, this.down, 26)) {
      context.fillText(String(unit), LEFT - 7, Math.max(6, (unit + 0.5) * this.down));
    }
    context.textAlign = "center";
    const names = this.numbers.names.map(visible);
    const named =
      names.length >= this.numbers.steps && names.every((name) => context.measureText(name).width + 2 < this.across);
    const steps = named ? names.map((_, k) => k) : counted(this.numbers.steps, this.across);
    for (const step of steps) {
      const name = named ? names[step] : String(step + 1);
      context.fillText(name, LEFT + (step + 0.5) * this.across, this.height - BOTTOM / 2 + 1);
    }
  }

  /** One pixel a number, in the theme's colours. */
  private fill(): void {
    const theme = token("--zero");
    if (this.colourful === theme) return;
    this.colourful = theme;
    const { values, steps, units, scale } = this.numbers!;
    this.colours = ramp();
    this.image.width = steps;
    this.image.height = units;
    const data = new ImageData(steps, units);
    const pixels = new Uint32Array(data.data.buffer);
    for (let step = 0; step < steps; step++) {
      for (let unit = 0; unit < units; unit++) {
        pixels[unit * steps + step] = pixel(this.colours, scale, values[step * units + unit]);
      }
    }
    this.image.getContext("2d")!.putImageData(data, 0, 0);
    this.drawLegend();
  }

  private drawLegend(): void {
    const { scale } = this.numbers!;
    const from = scale.oneSided ? 128 : 0;
    const stops = Array.from({ length: 17 }, (_, k) => css(this.colours[Math.round(from + (k / 16) * (256 - from))]));
    const bar = make("div", { class: "bar" });
    bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const marks = scale.marks.map(([place, text]) => {
      const mark = make("span", {}, text);
      mark.style.left = `${100 * (scale.oneSided ? place : (place + 1) / 2)}%`;
      return mark;
    });
    this.legend.replaceChildren(bar, make("div", { class: "marks" }, ...marks));
  }

  private overlay(context: CanvasRenderingContext2D): void {
    if (!this.numbers?.steps) return;
    const { across, down } = this;
    const right = LEFT + across * this.numbers.steps;
    context.strokeStyle = token("--ink");
    context.lineWidth = 1;
    context.strokeRect(LEFT + 0.5, Math.max(0.5, this.unit * down - 0.5), right - LEFT - 1, Math.max(3, down));
    if (this.hovered) {
      const [step, unit] = this.hovered;
      context.lineWidth = 2;
      context.strokeRect(LEFT + step * across, unit * down, Math.max(3, across), Math.max(3, down));
    }
  }

  private place(event: PointerEvent): [number, number] | null {
    if (!this.numbers?.steps) return null;
    const step = Math.floor((event.offsetX - LEFT) / this.across);
    const unit = Math.floor(event.offsetY / this.down);
    if (step < 0 || step >= this.numbers.steps || unit < 0 || unit >= this.numbers.units) return null;
    return [step, unit];
  }

  private hover(event: PointerEvent): void {
    this.hovered = this.place(event);
    if (event.buttons) this.press(event);
    this.over.again();
    this.say();
  }

  private leave(): void {
    this.hovered = null;
    this.over.again();
    this.say();
  }

  private press(event: PointerEvent): void {
    const place = this.place(event);
    if (place) this.picked(...place);
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
      PageUp: [0, -16],
      PageDown: [0, 16],
    };
    const move = moves[event.key];
    if (!move || !this.numbers?.steps) return;
    event.preventDefault();
    event.stopPropagation();
    const { steps, units } = this.numbers;
    this.picked(within(this.step + move[0], steps), within(this.unit + move[1], units));
  }

  private say(): void {
    if (!this.numbers?.steps) return void (this.readout.textContent = "");
    const { values, units, names } = this.numbers;
    const [step, unit] = this.hovered ?? [this.step, this.unit];
    const value = values[step * units + unit];
    this.readout.replaceChildren(
      t("place", { unit, step: step + 1, name: visible(names[step] ?? "") }),
      make("b", { "data-value": value }, exact(value)),
    );
  }
}

/** A space or an end of line that one can see. */
export function visible(piece: string): string {
  return piece === " " ? "␣" : piece.replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

function within(index: number, size: number): number {
  return Math.max(0, Math.min(size - 1, index));
}

/** Indices that lie at least `apart` pixels from one another, in steps that people count in. */
function ticks(size: number, each: number, apart: number): number[] {
  const by = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((step) => step * each >= apart) ?? size;
  return Array.from({ length: Math.ceil(size / by) }, (_, k) => k * by).filter((k) => k < size);
}

/** The first step, and those whose number, counted from 1, is round. */
function counted(steps: number, each: number): number[] {
  const [, second] = ticks(steps, each, 52);
  const by = second ?? steps;
  return [...new Set([0, ...Array.from({ length: Math.floor(steps / by) }, (_, k) => (k + 1) * by - 1)])];
}
