// The network unrolled over the steps: what it reads below, a row of cells for each layer, what it expects next above.
// A cell shows its state, one tile a unit. It lights up when the play head comes to it; a layer that reads backwards
// has come from the end, so that its cells are lit from the head onwards.
import "./unroll.css";
import { visible } from "./heat";
import { exact, pixel, ramp } from "./palette";
import { type Layer, patternScale, type Recording } from "./recording";
import { MONO, SANS, Surface, token } from "./surface";
import { t } from "./words_think";

const LEAST_PITCH = 62;
const MOST_PITCH = 92;
const BETWEEN = 24;
const READS = 44;
const EXPECTS = 34;
const GUTTER = 84;
const GUTTER_NARROW = 20;

type Spot = { step: number; layer: number };

export class Unroll {
  readonly canvas: HTMLCanvasElement;
  private readonly surface: Surface;
  private recording: Recording | null = null;
  private position = 0;
  private chosen = 0;
  private pointed: Spot | null = null;
  private tiles: HTMLCanvasElement[] = [];
  private tiled = "";

  constructor(private readonly picked: (step: number, layer: number) => void) {
    this.surface = new Surface(200, (context) => this.draw(context), {
      class: "unroll",
      tabindex: 0,
      role: "application",
      "aria-label": t("unrolled"),
      onpointerdown: (event: PointerEvent) => this.press(event),
      onpointermove: (event: PointerEvent) => this.point(event),
      onpointerleave: () => this.point(null),
      onkeydown: (event: KeyboardEvent) => this.key(event),
    });
    this.canvas = this.surface.canvas;
  }

  show(recording: Recording): void {
    this.recording = recording;
    this.tiled = "";
    this.surface.again();
  }

  head(position: number): void {
    if (position === this.position) return;
    this.position = position;
    this.surface.again();
  }

  choose(layer: number): void {
    this.chosen = layer;
    this.surface.again();
  }

  close(): void {
    this.surface.close();
  }

  private get gutter(): number {
    return this.surface.width < 640 ? GUTTER_NARROW : GUTTER;
  }

  /** From one step to the next: short sequences have larger cells. */
  private get pitch(): number {
    const each = (this.surface.width - this.gutter) / Math.max(1, this.recording!.length);
    return Math.round(Math.max(LEAST_PITCH, Math.min(MOST_PITCH, each)));
  }

  private get cell(): number {
    return this.pitch - BETWEEN;
  }

  private get row(): number {
    return this.cell + BETWEEN + 2;
  }

  private get expects(): number {
    return this.recording?.next ? EXPECTS : 12;
  }

  /** Whether it reads words, for which letters are set smaller. */
  private get wordy(): boolean {
    return this.recording!.steps.some((name) => name.length > 3);
  }

  /** Where step 0 stands: the head walks to the middle, stays there, and walks on when the end is in sight. */
  private get origin(): number {
    const room = this.surface.width - this.gutter;
    const whole = this.recording!.length * this.pitch;
    const back = Math.max(0, Math.min(whole - room, (this.position + 0.5) * this.pitch - room / 2));
    return this.gutter + this.pitch / 2 - back;
  }

  private x(step: number): number {
    return this.origin + step * this.pitch;
  }

  private y(layer: number): number {
    return this.expects + (this.recording!.layers.length - 1 - layer + 0.5) * this.row;
  }

  private draw(context: CanvasRenderingContext2D): void {
    if (!this.recording) return;
    const tall = this.expects + this.row * this.recording.layers.length + READS;
    if (this.surface.height !== tall) return void requestAnimationFrame(() => (this.surface.tall = tall));
    this.tile();
    const first = Math.max(0, Math.floor(-this.x(0) / this.pitch + this.gutter / this.pitch));
    const last = Math.min(this.recording.length - 1, Math.ceil((this.surface.width - this.x(0)) / this.pitch));
    this.drawHead(context);
    context.save();
    context.beginPath();
    context.rect(this.gutter - 4, 0, this.surface.width, this.surface.height);
    context.clip();
    for (let step = first; step <= last; step++) {
      this.drawEnds(context, step);
      for (const layer of this.recording.layers) if (step < layer.steps) this.drawCell(context, step, layer);
    }
    context.restore();
    if (this.gutter === GUTTER) this.drawNames(context);
  }

  private drawHead(context: CanvasRenderingContext2D): void {
    context.fillStyle = token("--wash");
    context.beginPath();
    context.roundRect(this.x(this.position) - this.pitch / 2 + 3, 2, this.pitch - 6, this.surface.height - 4, 8);
    context.fill();
  }

  private lit(step: number, layer: Layer): boolean {
    return layer.direction === "backward" ? step >= Math.floor(this.position + 1e-6) : step <= this.position + 1e-6;
  }

  private drawCell(context: CanvasRenderingContext2D, step: number, layer: Layer): void {
    const [x, y] = [this.x(step), this.y(layer.index)];
    const lit = this.lit(step, layer);
    const now = step === Math.floor(this.position + 1e-6);
    this.drawArrows(context, step, layer, lit);
    context.save();
    context.beginPath();
    context.roundRect(x - this.cell / 2, y - this.cell / 2, this.cell, this.cell, 7);
    if (lit) {
      context.save();
      context.clip();
      context.imageSmoothingEnabled = false;
      const side = Math.ceil(Math.sqrt(layer.units));
      context.drawImage(
        this.tiles[layer.index],
        step * side,
        0,
        side,
        Math.ceil(layer.units / side),
        x - this.cell / 2,
        y - this.cell / 2,
        this.cell,
        this.cell,
      );
      context.restore();
    }
    const chosen = now && layer.index === this.chosen;
    const pointed = this.pointed?.step === step && this.pointed.layer === layer.index;
    context.lineWidth = chosen || pointed ? 2 : 1;
    context.strokeStyle = chosen || pointed ? token("--accent") : token(lit ? "--edge" : "--line");
    context.stroke();
    context.restore();
  }

  /** From the cell before (or after) to this one, and from this one up to the next layer. */
  private drawArrows(context: CanvasRenderingContext2D, step: number, layer: Layer, lit: boolean): void {
    const [x, y] = [this.x(step), this.y(layer.index)];
    const way = layer.direction === "backward" ? -1 : 1;
    const from = step - way;
    if (from >= 0 && from < layer.steps) {
      const begin = this.x(from) + (way * this.cell) / 2;
      arrow(context, begin + 3 * way, y, x - (way * this.cell) / 2 - 3 * way, y, token(lit ? "--edge" : "--line"));
      this.drawPulse(context, step, way, y, begin, x - (way * this.cell) / 2);
    }
    const colour = token(lit ? "--edge" : "--line");
    const [below, above] = [this.recording!.layers[layer.index - 1], this.recording!.layers[layer.index + 1]];
    if (!below) arrow(context, x, y + this.row / 2 + 4, x, y + this.cell / 2 + 3, colour);
    if (above ? feeds(layer, above) : this.recording!.next) {
      arrow(context, x, y - this.cell / 2 - 3, x, y - this.row + this.cell / 2 + (above ? 3 : 4), colour);
    }
    if (below && pair(below, layer)) this.drawPair(context, x, y);
  }

  /** Both directions of a layer read the same and hand on together. */
  private drawPair(context: CanvasRenderingContext2D, x: number, y: number): void {
    context.strokeStyle = token("--line");
    context.lineWidth = 1;
    context.beginPath();
    context.roundRect(x - this.cell / 2 - 5, y - this.cell / 2 - 5, this.cell + 10, this.cell + this.row + 10, 10);
    context.stroke();
  }

  /** What is handed on, on its way while it plays. */
  private drawPulse(
    context: CanvasRenderingContext2D,
    step: number,
    way: number,
    y: number,
    begin: number,
    end: number,
  ): void {
    const along = this.position - Math.floor(this.position + 1e-6);
    const arriving = Math.floor(this.position + 1e-6) + 1;
    if (along < 0.02 || (way === 1 ? step !== arriving : step !== arriving - 1)) return;
    context.fillStyle = token("--accent");
    context.beginPath();
    context.arc(begin + (end - begin) * along, y, 4, 0, 2 * Math.PI);
    context.fill();
  }

  private drawEnds(context: CanvasRenderingContext2D, step: number): void {
    const { steps, next } = this.recording!;
    const read = step <= this.position + 1e-6;
    context.textAlign = "center";
    context.textBaseline = "middle";
    if (step < steps.length) {
      context.font = `${this.wordy ? 13 : 17}px ${MONO}`;
      context.fillStyle = token(read ? "--ink" : "--quiet");
      context.globalAlpha = read ? 1 : 0.55;
      context.fillText(visible(cut(steps[step])), this.x(step), this.surface.height - READS / 2 + 4, this.pitch - 4);
    }
    const best = next?.[step]?.[0];
    if (best && read) {
      context.globalAlpha = 0.3 + 0.7 * best[1];
      context.font = `${this.wordy ? 12 : 15}px ${MONO}`;
      context.fillStyle = token("--accent");
      context.fillText(visible(cut(best[0])), this.x(step), EXPECTS / 2 - 2, this.pitch - 4);
    }
    context.globalAlpha = 1;
  }

  private drawNames(context: CanvasRenderingContext2D): void {
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.font = `12px ${SANS}`;
    const say = (text: string, y: number, colour = "--quiet") => {
      context.fillStyle = token(colour);
      context.fillText(text, 0, y, GUTTER - 12);
    };
    say(t("reads"), this.surface.height - READS / 2 + 4);
    if (this.recording!.next) say(t("expects"), EXPECTS / 2 - 2);
    for (const layer of this.recording!.layers) {
      say(layer.cell, this.y(layer.index) - 8, layer.index === this.chosen ? "--accent" : "--ink");
      say(rowName(layer, this.recording!), this.y(layer.index) + 9);
    }
  }

  /** Each layer's states as a strip of small pictures, one a step. */
  private tile(): void {
    const theme = token("--zero");
    if (this.tiled === theme) return;
    this.tiled = theme;
    const colours = ramp();
    this.tiles = this.recording!.layers.map((layer) => {
      const { values, steps, units } = layer.series(layer.states[0] ?? layer.names[0], "values");
      const scale = patternScale(values);
      const side = Math.ceil(Math.sqrt(layer.units));
      const high = Math.ceil(layer.units / side);
      const image = new ImageData(Math.max(1, steps * side), high);
      const pixels = new Uint32Array(image.data.buffer).fill(0);
      for (let step = 0; step < steps; step++) {
        for (let unit = 0; unit < units; unit++) {
          const place = Math.floor(unit / side) * steps * side + step * side + (unit % side);
          pixels[place] = pixel(colours, scale, values[step * units + unit]);
        }
      }
      const strip = document.createElement("canvas");
      [strip.width, strip.height] = [image.width, image.height];
      strip.getContext("2d")!.putImageData(image, 0, 0);
      return strip;
    });
  }

  private spot(event: PointerEvent): Spot | null {
    if (!this.recording || event.offsetX < this.gutter - 4) return null;
    const step = Math.round((event.offsetX - this.origin) / this.pitch);
    const layer = this.recording.layers.length - 1 - Math.floor((event.offsetY - this.expects) / this.row);
    if (step < 0 || step >= this.recording.length) return null;
    return { step, layer: Math.max(0, Math.min(this.recording.layers.length - 1, layer)) };
  }

  private press(event: PointerEvent): void {
    const spot = this.spot(event);
    if (spot) this.picked(spot.step, spot.layer);
  }

  private point(event: PointerEvent | null): void {
    this.pointed = event && this.spot(event);
    this.canvas.style.cursor = this.pointed ? "pointer" : "";
    const spot = this.pointed;
    const best = spot && this.recording?.next?.[spot.step];
    this.canvas.title = best ? best.map(([piece, p]) => `${visible(piece)} ${exact(p)}`).join("\n") : "";
    this.surface.again();
  }

  private key(event: KeyboardEvent): void {
    const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!up || !this.recording) return;
    event.preventDefault();
    const layer = Math.max(0, Math.min(this.recording.layers.length - 1, this.chosen + up));
    this.picked(Math.floor(this.position + 1e-6), layer);
  }
}

/** "layer 2", with its direction where the network reads both ways, and its module where there are several. */
export function rowName(layer: Layer, { layers }: Recording): string {
  const both = layers.some(({ direction }) => direction === "backward");
  const several = layers.some(({ module }) => module !== layer.module);
  const arrow = !both ? "" : layer.direction === "backward" ? " ←" : " →";
  return `${several ? `${layer.module.split(".")[0]} ` : ""}${t("layer", { n: layer.depth + 1 })}${arrow}`;
}

function pair(one: Layer, other: Layer): boolean {
  return one.module === other.module && one.depth === other.depth;
}

function feeds(below: Layer, above: Layer): boolean {
  return below.module === above.module && below.depth !== above.depth;
}

function cut(piece: string): string {
  return piece.length > 9 ? `${piece.slice(0, 8)}…` : piece;
}

function arrow(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  toX: number,
  toY: number,
  colour: string,
): void {
  const [dx, dy] = [Math.sign(toX - x), Math.sign(toY - y)];
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 1.25;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(toX - 4 * dx, toY - 4 * dy);
  context.stroke();
  context.beginPath();
  context.moveTo(toX, toY);
  context.lineTo(toX - 5 * dx - 3 * dy, toY - 5 * dy - 3 * dx);
  context.lineTo(toX - 5 * dx + 3 * dy, toY - 5 * dy + 3 * dx);
  context.fill();
}
