// Panel 3, Race: the same problem, the same data, several cells side by side on the server.
import "./race.css";
import { Asking } from "./asking";
import type { Answer, Connection } from "./connection";
import { onKeys, slider } from "./controls";
import { append, field, make, select } from "./element";
import { Lanes, type Start } from "./lanes";
import type { Panel } from "./panel";
import { t } from "./words_race";
import { problemAbout, problemName } from "./words_problems";

const MOST_LANES = 6;
/** A race begins with sequences that every cell can learn. */
const SHORT = 10;

/** Kept while another panel is open, and in another language. */
const chosen = { problem: "order", cells: ["elman", "lstm", "gru"], length: 0, grow: 5, hidden: 24, lr: 0.01, seed: 0 };

class Race {
  private readonly track = make("div", { class: "stack", "data-shows": "track" });
  private readonly go = make("button", { class: "primary", "data-do": "go", onclick: () => this.toggle() }, t("start"));
  private readonly length = make("b", { "data-shows": "length" }, "–");
  private readonly server: Asking;
  private readonly chips = make("div", { class: "chips", role: "list", "aria-label": t("lanes") });
  private readonly about = make("p", { class: "note" });
  private readonly knobs = make("div", { class: "controls" });
  private readonly offs: (() => void)[];
  private lanes: Lanes | null = null;
  private running = false;

  constructor(root: HTMLElement, private readonly connection: Connection) {
    this.server = new Asking(connection);
    this.drawChips();
    append(root, make("div", { class: "race stack" },
      make("section", { class: "card stack" }, this.problems(), this.about, this.chips, this.knobs,
        make("div", { class: "row foot" }, this.go, make("p", { class: "note" }, t("lengthNow"), " ", this.length))),
      this.server.error, this.track));
    this.track.append(make("p", { class: "note idle" }, t("idle")));
    this.offs = [
      connection.on("race.update", (fields) => this.update(fields)),
      connection.on("race.done", (fields) => this.done(fields)),
      connection.on("race.failed", ({ error }) => (this.become(false), this.server.fail(error))),
      onKeys({ " ": () => this.toggle() }),
    ];
  }

  close(): void {
    for (const off of this.offs) off();
    if (this.running) void this.server.ask("race.stop");
    this.lanes?.close();
  }

  private problems(): HTMLElement {
    const { problems } = this.connection.hello;
    const group = make("div", { class: "segments", role: "group", "aria-label": t("problem") });
    const choose = (name: string) => {
      const problem = problems.find((one: Answer) => one.name === name) ?? problems[0];
      if (chosen.problem !== name || !chosen.length) chosen.length = Math.max(problem.shortest, SHORT);
      chosen.problem = problem.name;
      this.about.textContent = problemAbout(problem);
      for (const button of group.children) button.setAttribute("aria-pressed", String((button as HTMLElement).dataset.name === chosen.problem));
      this.drawKnobs();
    };
    for (const one of problems) group.append(make("button", { "data-name": one.name, onclick: () => choose(one.name) }, problemName(one)));
    choose(chosen.problem);
    return group;
  }

  private drawKnobs(): void {
    const { problems } = this.connection.hello;
    const shortest = problems.find((one: Answer) => one.name === chosen.problem)?.shortest ?? 4;
    const seed = make("input", { type: "number", min: 0, step: 1, value: chosen.seed });
    seed.addEventListener("input", () => seed.validity.valid && (chosen.seed = seed.valueAsNumber || 0));
    this.knobs.replaceChildren(
      slider(t("length"), { from: shortest, to: 100, step: 1, value: chosen.length }, (value) => (chosen.length = value)),
      slider(t("grow"), { from: 0, to: 20, step: 1, value: chosen.grow, write: growth }, (value) => (chosen.grow = value)),
      slider(t("hidden"), { from: 4, to: 64, step: 2, value: chosen.hidden }, (value) => (chosen.hidden = value)),
      slider(t("lr"), { from: -4, to: -0.5, step: 0.05, value: chosen.lr, logarithmic: true }, (value) => (chosen.lr = value)),
      field(t("seed"), seed));
  }

  private drawChips(): void {
    const free = this.connection.hello.cells.filter(({ name }: Answer) => !chosen.cells.includes(name));
    const chips = chosen.cells.map((name) => {
      const out = make("button", {
        class: "plain", "aria-label": t("remove", { name }), title: t("remove", { name }), disabled: chosen.cells.length === 1,
        onclick: () => this.choose(chosen.cells.filter((one) => one !== name)),
      }, "×");
      return make("span", { class: "chip", role: "listitem" }, name, out);
    });
    const add = select([["", `+ ${t("add")}`], ...free.map(({ name }: Answer): [string, string] => [name, name])], "",
      (name) => name && this.choose([...chosen.cells, name]));
    add.setAttribute("aria-label", t("add"));
    add.disabled = chosen.cells.length >= MOST_LANES;
    this.chips.replaceChildren(...chips, add);
  }

  private choose(cells: string[]): void {
    chosen.cells = cells;
    this.drawChips();
    this.chips.querySelector("select")!.focus();
  }

  private async toggle(): Promise<void> {
    if (this.running) {
      await this.server.ask("race.stop");
      return this.become(false);
    }
    const start = await this.server.ask("race.start", chosen);
    if (!start) return;
    this.lanes?.close();
    this.lanes = new Lanes(start as unknown as Start);
    this.track.replaceChildren(this.lanes.root);
    this.become(true);
  }

  private update(fields: Answer): void {
    this.length.textContent = String(fields.length);
    this.lanes?.update(fields);
  }

  private done(fields: Answer): void {
    this.lanes?.done(fields);
    if (fields.lane === undefined) this.become(false);
  }

  private become(running: boolean): void {
    this.running = running;
    this.go.textContent = t(running ? "stop" : "start");
    this.go.classList.toggle("primary", !running);
  }
}

let open: Race | null = null;

export const panel: Panel = {
  key: "race",
  title: () => t("title"),
  about: () => t("about"),
  open(root, connection) {
    open = new Race(root, connection);
  },
  close() {
    open?.close();
    open = null;
  },
  keys: () => [["Space", t("keyStart")]],
};

function growth(steps: number): string {
  return steps ? t("growSteps", { n: steps }) : t("stays");
}
