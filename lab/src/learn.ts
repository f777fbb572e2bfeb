// Panel 2, Watch it learn: a small network trains on the server; here one turns its knobs and sees what follows.
import "./learn.css";
import { Asking } from "./asking";
import type { Answer, Connection } from "./connection";
import { onKeys, settled, type Slider, slider } from "./controls";
import { Curve, type Mark, percent, written } from "./curve";
import { append, field, make, select } from "./element";
import type { Panel } from "./panel";
import { SampleView } from "./sample";
import { Through } from "./through";
import { t } from "./words_learn";
import { problemAbout, problemName } from "./words_problems";

const MOST_POINTS = 2000;
const NO_CLIP = 100;
const SHORT = 12;
/** Where the page has one column, what is seldom turned is folded away. */
const NARROW = 768;

/** Kept while another panel is open, and in another language. */
const chosen = { problem: "copy", cell: "lstm", hidden: 32, length: 12, truncation: 12, clip: 1, forget_bias: 1, lr: 0.01, seed: 0 };

class Learn {
  private readonly gauges = {
    step: gauge(t("update"), "step"), loss: gauge(t("loss"), "loss"), score: gauge(t("accuracy"), "score"),
    norm: gauge(t("norm"), "norm"), clips: gauge(t("clipped"), "clips"), seconds: gauge(t("seconds"), "seconds"),
  };
  private readonly loss = new Curve({
    lines: [{ name: t("loss"), colour: "--accent" }, { name: t("lossChance"), colour: "--quiet", dashed: true, width: 1.5 }],
    across: t("update").toLowerCase(), height: 210, logarithmic: true,
  });
  private readonly through = new Through();
  private readonly sample = new SampleView();
  private readonly facts = make("p", { class: "note", role: "status" }, t("idle"));
  private readonly server: Asking;
  private readonly go = make("button", { class: "primary", "data-do": "go", onclick: () => this.toggle() }, t("start"));
  private readonly again = make("button", { "data-do": "again", disabled: true, onclick: () => this.start() }, t("restart"));
  private readonly anew = settled(250, () => this.state !== "idle" && this.start());
  private readonly offs: (() => void)[] = [];
  private readonly knobs = make("div", { class: "stack" });
  private truncation!: Slider;
  private forgetBias!: Slider;
  private state: "idle" | "running" | "paused" = "idle";
  private points: { step: number; loss: number | null }[] = [];
  private chance: number | null = null;
  private marks: Mark[] = [];
  private step = 0;

  constructor(root: HTMLElement, private readonly connection: Connection) {
    this.server = new Asking(connection);
    this.drawKnobs();
    append(root, make("div", { class: "learn" },
      make("aside", { class: "card stack knobs" }, make("div", { class: "row" }, this.go, this.again), this.knobs),
      make("div", { class: "stack" }, this.server.error,
        make("div", { class: "gauges" }, ...Object.values(this.gauges).map(({ root }) => root)),
        make("div", { class: "pair" },
          make("div", { class: "stack" },
            make("section", { class: "card stack" }, make("h2", {}, t("lossCurve")), this.loss.root, this.facts),
            make("section", { class: "card stack" }, make("h2", {}, t("sample")), this.sample.root)),
          make("section", { class: "card stack" }, make("h2", {}, t("through")), make("p", { class: "note" }, t("throughAbout")),
            this.through.root)))));
    this.offs.push(
      connection.on("learn.update", (update) => this.update(update)),
      connection.on("learn.done", ({ message }) => this.end(message)),
      connection.on("learn.failed", ({ error }) => this.end(error)),
      onKeys({ " ": () => this.toggle(), r: () => this.start() }),
    );
  }

  close(): void {
    this.anew.cancel();
    for (const off of this.offs) off();
    if (this.state !== "idle") this.server.ask("learn.stop");
    this.loss.close();
    this.through.close();
    this.sample.close();
  }

  private drawKnobs(): void {
    this.knobs.replaceChildren(...this.live(), this.anews());
  }

  /** Another problem begins with sequences as short as it can have; a network learns those while one looks. */
  private changeProblem(name: string): void {
    chosen.problem = name;
    chosen.length = chosen.truncation = Math.max(SHORT, this.problem().shortest);
    this.drawKnobs();
    this.knobs.querySelector<HTMLElement>("[name=problem]")!.focus();
    this.anew.soon();
  }

  private problem(): Answer {
    const { problems } = this.connection.hello;
    return problems.find(({ name }: Answer) => name === chosen.problem) ?? problems[0];
  }

  private live(): HTMLElement[] {
    const set = (name: "lr" | "clip" | "truncation", label: string, value: string) => {
      if (this.state === "idle") return;
      const dragged = (mark: Mark) => mark.name.startsWith(label) && this.step - mark.at < 30;
      this.marks = [...this.marks.filter((mark) => !dragged(mark)), { at: this.step, name: `${label} ${value}` }];
      this.server.ask("learn.set", { [name]: name === "clip" && chosen.clip >= NO_CLIP ? 0 : chosen[name] });
    };
    this.truncation = slider(t("truncation"), { from: 1, to: chosen.length, step: 1, value: chosen.truncation, write: steps },
      (value) => ((chosen.truncation = value), set("truncation", "↤", String(value))));
    return [
      make("h3", {}, t("live")),
      slider(t("lr"), { from: -4, to: 0, step: 0.05, value: chosen.lr, logarithmic: true },
        (value) => ((chosen.lr = value), set("lr", "η", String(value)))),
      slider(t("clip"), { from: -2, to: 2, step: 0.05, value: chosen.clip, logarithmic: true, write: writeClip },
        (value) => ((chosen.clip = value), set("clip", "✂", writeClip(value)))),
      this.truncation,
    ];
  }

  private anews(): HTMLElement {
    const { problems, cells } = this.connection.hello;
    const change = <Name extends keyof typeof chosen>(name: Name) => (value: (typeof chosen)[Name]) => {
      chosen[name] = value;
      this.anew.soon();
    };
    const seed = make("input", { type: "number", min: 0, step: 1, value: chosen.seed });
    seed.addEventListener("input", () => seed.validity.valid && change("seed")(seed.valueAsNumber || 0));
    this.forgetBias = slider(t("forgetBias"), { from: -2, to: 4, step: 0.25, value: chosen.forget_bias, note: t("forgetNote") },
      change("forget_bias"));
    this.forgetBias.enable(this.hasForgetGate());
    const problem = select(problems.map((one: Answer) => [one.name, problemName(one)]), chosen.problem, (name) => this.changeProblem(name));
    problem.name = "problem";
    const cell = select(cells.map(({ name }: Answer) => [name, name]), chosen.cell, (name) => {
      change("cell")(name);
      this.forgetBias.enable(this.hasForgetGate());
    });
    cell.name = "cell";
    const open = this.knobs.querySelector("details")?.open ?? innerWidth > NARROW;
    return make("details", { class: "stack", open },
      make("summary", {}, make("h3", {}, t("anew"))),
      field(t("problem"), problem), make("span", { class: "note" }, problemAbout(this.problem())),
      field(t("cell"), cell),
      slider(t("hidden"), { from: 2, to: 128, step: 2, value: chosen.hidden }, change("hidden")),
      slider(t("length"), { from: this.problem().shortest, to: 100, step: 1, value: chosen.length }, (value) => {
        chosen.truncation = chosen.truncation === chosen.length ? value : Math.min(chosen.truncation, value);
        this.truncation.limit(value);
        change("length")(value);
      }),
      this.forgetBias,
      field(t("seed"), seed));
  }

  private hasForgetGate(): boolean {
    return this.connection.hello.cells.find(({ name }: Answer) => name === chosen.cell)?.forget_bias ?? false;
  }

  private toggle(): void {
    if (this.state === "idle") return void this.start();
    const to = this.state === "running" ? "paused" : "running";
    this.server.ask(to === "paused" ? "learn.pause" : "learn.resume");
    this.become(to);
  }

  private async start(): Promise<void> {
    this.anew.cancel();
    const clip = chosen.clip >= NO_CLIP ? 0 : chosen.clip;
    const forget_bias = this.hasForgetGate() ? chosen.forget_bias : null;
    const answer = await this.server.ask("learn.start", { ...chosen, clip, forget_bias });
    if (!answer) return;
    this.points = [];
    this.marks = [];
    this.through.clear();
    for (const gauge of Object.values(this.gauges)) gauge.say("–");
    this.chance = answer.chance ?? null;
    this.facts.textContent = `${t("parameters")} ${answer.parameters.toLocaleString()}`;
    this.become("running");
  }

  private update({ step, loss, score, norm, clips, seconds, points: made, gradients, sample }: Answer): void {
    this.step = step;
    for (const [step, loss] of made) this.points.push({ step, loss });
    while (this.points.length > MOST_POINTS) this.points = this.points.filter((_, k) => k % 2 === 0);
    const { points, gauges } = this;
    this.loss.set([points.map((p) => p.step), points.map((p) => p.loss), points.map(() => this.chance)], this.marks);
    gauges.step.say(String(step));
    gauges.loss.say(number(loss));
    gauges.score.say(score === null ? "–" : percent(score), t(sample.kind === "symbols" ? "accuracy" : "explained"));
    gauges.norm.say(number(norm));
    gauges.clips.say(String(clips));
    gauges.seconds.say(seconds.toFixed(1));
    this.through.add(step, gradients);
    this.sample.show(sample);
  }

  private end(message?: string): void {
    this.become("idle");
    if (message) this.server.fail(message);
  }

  private become(state: "idle" | "running" | "paused"): void {
    this.state = state;
    this.go.textContent = t(state === "idle" ? "start" : state === "running" ? "pause" : "resume");
    this.go.classList.toggle("primary", state !== "running");
    this.again.disabled = state === "idle";
  }
}

let open: Learn | null = null;

export const panel: Panel = {
  key: "learn",
  title: () => t("title"),
  about: () => t("about"),
  open(root, connection) {
    open = new Learn(root, connection);
  },
  close() {
    open?.close();
    open = null;
  },
  keys: () => [["Space", t("keyPause")], ["R", t("keyRestart")]],
};

type Gauge = { root: HTMLElement; say(text: string, name?: string): void };

/** A large number under its name. */
function gauge(name: string, key: string): Gauge {
  const [title, value] = [make("span", {}, name), make("b", { "data-shows": key }, "–")];
  return {
    root: make("div", { class: "gauge" }, title, value),
    say(text, name) {
      value.textContent = text;
      if (name) title.textContent = name;
    },
  };
}

function number(value: number | null): string {
  return value === null ? "–" : written(value);
}

function steps(count: number): string {
  if (count >= chosen.length) return t("allSteps", { n: count });
  return count === 1 ? t("oneStep") : t("stepsBack", { n: count });
}

function writeClip(value: number): string {
  return value >= NO_CLIP ? t("noClip") : String(value);
}
