// One unit of a layer over the steps: a lane for each of its values, gates first, on the same steps as the heat map.
import { make } from "./element";
import { LEFT, RIGHT } from "./heat";
import { exact } from "./palette";
import type { Kind, Layer } from "./recording";
import { MONO, Surface, token } from "./surface";

const LANE = 44;
const GAP = 10;

type Lane = { name: string; values: Float32Array; low: number; high: number };

export class Strips {
  readonly root: HTMLElement;
  private readonly labels = make("div", { class: "labels", "aria-hidden": "true" });
  private readonly line = make("div", { class: "head" });
  private readonly surface: Surface;
  private readonly name: string;
  private lanes: Lane[] = [];
  private position = 0;
  private said = -1;

  constructor(
    name: string,
    private readonly picked: (step: number) => void,
  ) {
    this.name = name;
    this.surface = new Surface(LANE, (context) => this.draw(context), {
      role: "img",
      "aria-label": name,
      onpointerdown: (event: PointerEvent) => this.press(event),
      onpointermove: (event: PointerEvent) => event.buttons && this.press(event),
    });
    this.root = make(
      "div",
      { class: "strips" },
      this.surface.canvas,
      make("div", { class: "stepping" }, this.line),
      this.labels,
    );
  }

  show(layer: Layer, unit: number, kind: Kind): void {
    const order = [...layer.gates, ...layer.names.filter((name) => !layer.gates.includes(name))];
    const there = order.filter((name) => layer.has(name, kind));
    this.lanes = there.map((name) => lane(layer, name, unit, kind)).filter((one) => one !== null);
    this.labels.replaceChildren(...this.lanes.map(({ name }) => make("span", {}, make("b", {}, name), make("output"))));
    this.surface.tall = Math.max(1, this.lanes.length) * (LANE + GAP);
    this.surface.again();
    this.said = -1;
    this.head(this.position);
  }

  head(position: number): void {
    this.position = position;
    if (!this.steps) return;
    this.line.style.transform = `translateX(${(100 * Math.min(this.steps, position + 1)) / this.steps}%)`;
    this.say(Math.min(this.steps - 1, Math.floor(position + 1e-6)));
  }

  close(): void {
    this.surface.close();
  }

  private get steps(): number {
    return this.lanes[0]?.values.length ?? 0;
  }

  private get across(): number {
    return (this.surface.width - LEFT - RIGHT) / Math.max(1, this.steps);
  }

  private draw(context: CanvasRenderingContext2D): void {
    if (!this.steps) return;
    this.lanes.forEach((lane, k) => this.drawLane(context, lane, k * (LANE + GAP) + GAP / 2));
  }

  /** The numbers of a step, beside the names and for a screen reader. */
  private say(step: number): void {
    if (step === this.said) return;
    this.said = step;
    const said = this.lanes.map(({ values }) => exact(values[step]));
    said.forEach((text, k) => (this.labels.children[k].lastElementChild!.textContent = text));
    this.surface.canvas.ariaLabel = `${this.name}: ${this.lanes.map(({ name }, k) => `${name} ${said[k]}`).join(", ")}`;
  }

  private drawLane(context: CanvasRenderingContext2D, lane: Lane, top: number): void {
    const { values, low, high } = lane;
    const up = (value: number) => top + LANE - ((value - low) / (high - low || 1)) * LANE;
    const zero = up(Math.max(low, Math.min(high, 0)));
    const right = LEFT + this.across * values.length;
    context.fillStyle = token("--sunken");
    context.fillRect(LEFT, top, right - LEFT, LANE);
    const path = () => {
      context.beginPath();
      context.moveTo(LEFT, up(values[0]));
      values.forEach((value, k) => {
        context.lineTo(LEFT + k * this.across, up(value));
        context.lineTo(LEFT + (k + 1) * this.across, up(value));
      });
    };
    path();
    context.lineTo(right, zero);
    context.lineTo(LEFT, zero);
    context.globalAlpha = 0.14;
    context.fillStyle = token("--accent");
    context.fill();
    context.globalAlpha = 1;
    path();
    context.strokeStyle = token("--accent");
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
    context.fillStyle = token("--line");
    context.fillRect(LEFT, Math.round(zero) - 0.5, right - LEFT, 1);
    this.drawEnds(context, lane, top);
  }

  private drawEnds(context: CanvasRenderingContext2D, lane: Lane, top: number): void {
    context.fillStyle = token("--quiet");
    context.textBaseline = "top";
    context.textAlign = "right";
    context.font = `10px ${MONO}`;
    context.fillText(end(lane.high), LEFT - 6, top);
    context.textBaseline = "bottom";
    context.fillText(end(lane.low), LEFT - 6, top + LANE);
  }

  private press(event: PointerEvent): void {
    const step = Math.floor((event.offsetX - LEFT) / this.across);
    if (step >= 0 && step < this.steps) this.picked(step);
  }
}

/** null where the value has no such unit: one number for all of them, or one for each head. */
function lane(layer: Layer, name: string, unit: number, kind: Kind): Lane | null {
  const { values, steps, units } = layer.series(name, kind);
  if (unit >= units) return null;
  const own = Float32Array.from({ length: steps }, (_, step) => values[step * units + unit]);
  const gate = kind === "values" && layer.gates.includes(name);
  if (gate && own.every((value) => value >= 0 && value <= 1)) return { name, values: own, low: 0, high: 1 };
  const most = own.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;
  const round = kind === "values" && most <= 1 && most > 0.3 ? 1 : most;
  return { name, values: own, low: own.some((value) => value < 0) ? -round : 0, high: round };
}

function end(value: number): string {
  const text = Math.abs(value) >= 0.01 || value === 0 ? String(Number(value.toPrecision(2))) : value.toExponential(0);
  return text.replace("-", "−");
}
