// Gradients through time: the norm of dL/dh at every step, now and at the first update, and below it the same for every
// update so far, one row each. Where truncation cut, nothing is drawn.
import { Curve, written } from "./curve";
import { make } from "./element";
import { colour, onRepaint } from "./paint";
import { t } from "./words_learn";

const ROWS = 160;
/** What is above zero is always seen. */
const FAINTEST = 0.06;
/** Shades run over the powers of ten that there are, but not over fewer than 2 or more than 8. */
const [FEWEST, MOST] = [2, 8];

export class Through {
  readonly root: HTMLElement;
  private readonly canvas = make("canvas", { role: "img" });
  private readonly reach = make("b", { "data-shows": "reach" });
  private readonly scale = make("span");
  private readonly notes: HTMLElement;
  private readonly first = make("span");
  private readonly last = make("span");
  private readonly curve: Curve;
  private readonly forgetTheme = onRepaint(() => this.paint());
  private rows: { step: number; norms: number[] }[] = [];
  private every = 1;
  private seen = 0;
  private latest = "";

  constructor() {
    const lines = [
      { name: t("normNow"), colour: "--accent", filled: true },
      { name: t("normFirst"), colour: "--quiet", dashed: true, width: 1.5 },
    ];
    this.curve = new Curve({ lines, across: t("stepOf"), height: 210, logarithmic: true });
    this.notes = make("div", { class: "stack", hidden: true },
      make("p", { class: "note" }, t("reach"), " ", this.reach, " ", t("reachSteps")),
      make("p", { class: "note" }, t("pastNote"), " ", this.scale));
    this.root = make("div", { class: "through" }, this.curve.root,
      make("div", { class: "past" }, make("div", { class: "updates", "aria-hidden": "true" }, this.first, this.last), this.canvas),
      this.notes);
  }

  /** The server looks at gradients less often than it tells of updates: what it has not looked at anew is no new row. */
  add(step: number, gradients: (number | null)[]): void {
    const written = String(gradients);
    if (written === this.latest) return;
    this.latest = written;
    this.show(step, gradients.map((norm) => norm ?? NaN));
  }

  private show(step: number, gradients: number[]): void {
    if (this.seen++ % this.every === 0) this.rows.push({ step, norms: gradients });
    if (this.rows.length > ROWS) {
      this.rows = this.rows.filter((_, k) => k % 2 === 0);
      this.every *= 2;
    }
    const positive = (values: number[]) => values.map((value) => (value > 0 && Number.isFinite(value) ? value : null));
    this.curve.set([gradients.map((_, k) => k + 1), positive(gradients), positive(this.rows[0].norms)]);
    const steps = reach(gradients);
    this.notes.hidden = false;
    this.reach.textContent = String(steps);
    this.canvas.setAttribute("aria-label", t("pastLabel", { steps, last: written(gradients.at(-1) ?? 0), first: written(gradients[0] ?? 0) }));
    this.first.textContent = String(this.rows[0].step);
    this.last.textContent = String(step);
    this.paint();
  }

  clear(): void {
    this.rows = [];
    this.every = 1;
    this.seen = 0;
    this.latest = "";
  }

  close(): void {
    this.curve.close();
    this.forgetTheme();
  }

  /** One pixel for each update and step; the browser stretches it. */
  private paint(): void {
    const steps = this.rows[0]?.norms.length ?? 0;
    if (!steps) return;
    const { canvas, rows } = this;
    Object.assign(canvas, { width: steps, height: rows.length });
    const context = canvas.getContext("2d")!;
    const image = context.createImageData(steps, rows.length);
    const there = rows.flatMap(({ norms }) => norms.filter((norm) => norm > 0 && Number.isFinite(norm)));
    if (!there.length) return;
    const [least, most] = [Math.min(...there), Math.max(...there)];
    const decades = Math.min(MOST, Math.max(FEWEST, Math.log10(most / least)));
    this.scale.textContent = t("scale", { most: written(most), least: written(most / 10 ** decades) });
    const [red, green, blue] = channels(colour("--accent"));
    rows.forEach(({ norms }, row) => {
      norms.forEach((norm, k) => {
        const share = norm > 0 ? FAINTEST + (1 - FAINTEST) * Math.min(1, Math.max(0, 1 + Math.log10(norm / most) / decades)) : 0;
        image.data.set([red, green, blue, 255 * share], 4 * (row * steps + k));
      });
    });
    context.putImageData(image, 0, 0);
  }
}

/** How many steps back from the last the norm is at least 1 % of the last step's: how far the loss reaches. */
export function reach(gradients: number[]): number {
  const last = gradients.at(-1) ?? 0;
  const first = gradients.findIndex((norm) => norm >= 0.01 * last && norm > 0);
  return first < 0 ? 0 : gradients.length - 1 - first;
}

function channels(colour: string): [number, number, number] {
  const [red, green, blue] = (colour.match(/\d+(\.\d+)?/g) ?? ["0", "0", "0"]).map(Number);
  return [red, green, blue];
}
