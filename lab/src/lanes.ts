// The lanes of a race: each cell's score over the updates, with the moments when it began to remember and when it
// forgot (its score, once better, fell back to what guessing gives), and below them the losses of all.
import "./lanes.css";
import type { Answer } from "./connection";
import { Curve, type Mark, percent, type Points } from "./curve";
import { make } from "./element";
import { t } from "./words_race";

export interface Start {
  lanes: { name: string; parameters: number }[];
  chance: { loss: number; score: number };
  /** The share that is right, or of the variance that is explained: larger is better. */
  score: "accuracy" | "explained";
}

const MOST_POINTS = 1500;

export class Lanes {
  readonly root: HTMLElement;
  private readonly lanes: Lane[];
  private readonly curve: Curve;
  private readonly losses = new Map<number, (number | null)[]>();
  private drawing = 0;

  constructor(private readonly start: Start) {
    this.lanes = start.lanes.map((one, place) => new Lane(one.name, one.parameters, place, start));
    this.curve = new Curve({
      lines: [...start.lanes.map(({ name }, place) => ({ name, colour: colourOf(place) })),
        { name: t("chance"), colour: "--quiet", dashed: true, width: 1.5 }],
      across: t("update"), height: 240, logarithmic: true,
    });
    this.root = make("div", { class: "stack" },
      make("div", { class: "lanes" }, ...this.lanes.map(({ root }) => root)),
      make("section", { class: "card stack" }, make("h2", {}, t("losses")), this.curve.root));
  }

  update(fields: Answer): void {
    for (const [step, loss] of fields.points as [number, number | null][]) {
      const row = this.losses.get(step) ?? this.lanes.map(() => null);
      row[fields.lane] = loss;
      this.losses.set(step, row);
    }
    this.lanes[fields.lane].update(fields);
    this.drawing ||= requestAnimationFrame(() => this.draw());
  }

  /** One lane has ended, or all have. */
  done({ lane, message }: Answer): void {
    if (lane === undefined) for (const one of this.lanes) one.end("");
    else this.lanes[lane].end(message);
  }

  close(): void {
    cancelAnimationFrame(this.drawing);
    this.curve.close();
    for (const lane of this.lanes) lane.close();
  }

  private draw(): void {
    this.drawing = 0;
    for (const lane of this.lanes) lane.draw();
    const all = [...this.losses].sort(([one], [other]) => one - other);
    const by = Math.ceil(all.length / MOST_POINTS);
    const kept = all.filter((_, k) => k % by === 0 || k === all.length - 1);
    const steps = kept.map(([step]) => step);
    const lines = this.lanes.map((_, place) => kept.map(([, row]) => row[place]));
    this.curve.set([steps, ...lines, steps.map(() => this.start.chance.loss)] as Points);
  }
}

type Point = { step: number; score: number | null };

/** One cell: where it stands, and when it remembered and forgot. */
class Lane {
  readonly root: HTMLElement;
  readonly marks: Mark[] = [];
  private readonly score = make("b", { "data-shows": "score" }, "–");
  private readonly word = make("p", { class: "word", role: "status" }, t("guessing"));
  private readonly at = make("span", { class: "note", "data-shows": "step" });
  private readonly curve: Curve;
  private points: Point[] = [];
  private remembers = false;

  constructor(name: string, parameters: number, private readonly place: number, private readonly start: Start) {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = `var(${colourOf(place)})`;
    this.curve = new Curve({
      lines: [{ name, colour: colourOf(place), filled: true }, { name: t("chance"), colour: "--quiet", dashed: true, width: 1 }],
      across: t("update"), height: 130, legend: false, range: [0, 1], write: percent,
    });
    this.root = make("section", { class: "card lane", "data-lane": place },
      make("header", {}, swatch, make("h2", {}, name), make("span", { class: "note" }, t("weights", { n: parameters.toLocaleString() }))),
      make("div", { class: "now" }, this.score, make("span", { class: "note" }, t(start.score)), this.at), this.word, this.curve.root);
  }

  update({ step, length, score, forgets }: Answer): void {
    this.score.textContent = score === null ? "–" : percent(score);
    this.at.textContent = t("updateOf", { n: step });
    this.points.push({ step, score });
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, k) => k % 2 === 0);
    if (forgets === this.remembers) this.turn(!forgets, step, length);
  }

  draw(): void {
    const { points, start } = this;
    this.curve.set([points.map(({ step }) => step), points.map(({ score }) => score), points.map(() => start.chance.score)], this.marks);
  }

  end(message: string): void {
    this.root.classList.add("ended");
    if (message) this.say(message, "lost");
  }

  close(): void {
    this.curve.close();
  }

  private turn(remembers: boolean, step: number, length: number): void {
    this.remembers = remembers;
    const name = t(remembers ? "markHas" : "markForgets");
    this.marks.push({ at: step, name, colour: remembers ? colourOf(this.place) : "--bad" });
    this.say(t(remembers ? "has" : "forgot", { step, length }), remembers ? "has" : "lost");
  }

  private say(text: string, kind: string): void {
    this.word.textContent = text;
    this.word.className = `word ${kind}`;
  }
}

function colourOf(place: number): string {
  return `--lane-${place + 1}`;
}
