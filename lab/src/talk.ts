// Panel 5. A run is opened; what it reads or writes streams in, with the state of its last layer after every piece.
import "./talk.css";
import { Bars } from "./bars";
import { Coloured } from "./coloured";
import { type Answer, type Connection, LostConnection } from "./connection";
import { field, make, select } from "./element";
import { Heat, visible } from "./heat";
import { Held } from "./held";
import { around, type Scale, share } from "./palette";
import type { Panel } from "./panel";
import { Prompt } from "./prompt";
import { t } from "./words_talk";

/** What was chosen and typed last: it survives another language and another panel. */
const form = { run: "", typed: "" };

/** Pieces after which the unit that moves most stays chosen. */
const ENOUGH = 20;

let view: View | null = null;

export const panel: Panel = {
  key: "talk",
  title: () => t("title"),
  about: () => t("about"),
  open(root, connection) {
    view = new View(root, connection);
  },
  close() {
    view?.close();
    view = null;
  },
  keys: () => [["↑ ↓", t("keyUnit")]],
};

/** What was read or written so far. */
interface Text {
  pieces: string[];
  /** The state of the last layer after each piece. */
  states: Float32Array[];
  /** What it says or weighs after each piece: [name, share]. */
  shares: [string, number][][];
  tags: [string, number][] | null;
}

class View {
  private opened: Answer | null = null;
  private text: Text = nothing();
  private unit: number | null = null;
  /** Colour by this label's probability; null: by the unit. */
  private label: string | null = null;
  private scale: Scale = around(1);
  private chosen: number | null = null;
  private asking = false;
  private askAgain = false;
  private drawing = 0;
  private closed = false;
  private readonly offs: (() => void)[];

  private readonly facts = make("div", { class: "facts" });
  private readonly message = make("p", { class: "note", role: "status", hidden: true });
  private readonly body = make("div", { class: "conversation", hidden: true });
  private readonly prompt = new Prompt(
    () => void this.generate(),
    () => void this.ask("talk.stop"),
  );
  private readonly coloured = new Coloured((index) => this.choose(index));
  private readonly textTitle = make("h2");
  private readonly empty = make("p", { class: "note" }, t("empty"));
  private readonly colourBy = make("div", { class: "segments" });
  private readonly bars = new Bars();
  private readonly heat = new Heat(t("states"), (step, unit) => this.pick(step, unit), 260);
  private readonly unitBox = make("input", { type: "number", min: 0, oninput: () => this.typeUnit() });
  private readonly held = new Held(
    (unit, value) => this.hold(unit, value),
    () => this.unitBox.valueAsNumber,
  );

  constructor(
    root: HTMLElement,
    private readonly connection: Connection,
  ) {
    const runs: Answer[] = connection.hello.runs;
    this.offs = [
      connection.on("talk.piece", (event) => this.piece(event)),
      connection.on("talk.done", () => this.done()),
      connection.on("talk.failed", ({ error }) => this.done(error)),
      connection.on("connection", ({ state }) => state === "open" && this.comeBack()),
    ];
    root.append(
      ...(runs.length ? [this.header(runs)] : [make("p", { class: "card note" }, t("none"))]),
      this.message,
      this.body,
    );
    if (!runs.length) return;
    if (!runs.some(({ name }) => name === form.run)) form.run = runs[0].name;
    void this.openRun();
  }

  close(): void {
    this.closed = true;
    cancelAnimationFrame(this.drawing);
    for (const off of this.offs) off();
    if (this.prompt.writing) void this.ask("talk.stop");
    this.coloured.close();
    this.heat.close();
  }

  private header(runs: Answer[]): HTMLElement {
    const list = select(
      runs.map(({ name, task }) => [name, `${name} · ${task}`]),
      form.run,
      (run) => {
        form.run = run;
        form.typed = "";
        void this.openRun();
      },
    );
    list.name = "run";
    return make("section", { class: "card opened" }, field(t("run"), list), this.facts);
  }

  private async openRun(): Promise<void> {
    this.say(t("opening"));
    this.body.hidden = true;
    const opened = await this.ask("talk.open", { run: form.run });
    if (!opened || this.closed) return;
    this.say("");
    this.opened = opened;
    this.text = nothing();
    [this.unit, this.label, this.chosen, this.scale] = [null, null, null, around(1)];
    this.held.show(opened.held);
    this.prompt.begin(opened.example);
    this.facts.replaceChildren(
      ...opened.facts.map(([name, value]: [string, unknown]) =>
        make("span", {}, `${name} `, make("b", {}, String(value))),
      ),
    );
    this.drawBody();
    this.redraw();
    if (opened.says !== "pieces") void this.read();
  }

  private drawBody(): void {
    const writes = this.opened!.says === "pieces";
    const text = make(
      "section",
      { class: "card stack" },
      make("div", { class: "heading" }, this.textTitle, this.colourBy),
      this.empty,
      this.coloured.root,
    );
    const says = make(
      "section",
      { class: "card stack", "data-part": "says" },
      make("h2", {}, t(writes ? "choices" : "says")),
      this.bars.root,
    );
    this.unitBox.ariaLabel = t("unit");
    this.unitBox.max = String(this.opened!.units - 1);
    const state = make(
      "section",
      { class: "card stack", "data-part": "state" },
      make(
        "div",
        { class: "heading" },
        make("h2", {}, t("states")),
        make("label", { class: "unit" }, t("unit"), this.unitBox),
      ),
      this.heat.root,
      this.held.root,
    );
    this.body.replaceChildren(
      make("div", { class: "stack" }, writes ? this.prompt.root : this.typing(), text),
      make("div", { class: "stack" }, this.opened!.says !== "tags" && says, state),
    );
    this.body.dataset.open = form.run;
    this.body.hidden = false;
  }

  /** A classifier or a tagger reads while one types. */
  private typing(): HTMLElement {
    form.typed ||= this.opened!.example ?? "";
    const typed = make("textarea", {
      name: "typed",
      rows: 4,
      spellcheck: "false",
      oninput: () => ((form.typed = typed.value), void this.read()),
    });
    typed.value = form.typed;
    return make("section", { class: "card" }, field(t("type"), typed));
  }

  /** After a lost connection: a generator goes on by itself if it was writing, else what is typed is read again. */
  private comeBack(): void {
    if (!this.connection.hello.running.includes("talk")) this.done();
    if (this.opened && this.opened.says !== "pieces") void this.read();
  }

  private async generate(): Promise<void> {
    this.text = nothing();
    this.chosen = null;
    this.say("");
    this.redraw();
    this.prompt.writing = true;
    if (!(await this.ask("talk.generate", this.prompt.asked))) this.done();
  }

  private piece({ piece, state, choices }: Answer): void {
    this.text.pieces.push(piece);
    this.text.states.push(this.connection.decode(state));
    this.text.shares.push(choices ?? []);
    this.redraw();
  }

  private done(error?: string): void {
    this.prompt.writing = false;
    if (error) this.say(error, true);
  }

  /** Reads what is typed: one question on its way at a time, and the last text counts. */
  private async read(): Promise<void> {
    if (this.asking) return void (this.askAgain = true);
    this.asking = true;
    do {
      this.askAgain = false;
      const answer = form.typed ? await this.ask("talk.type", { text: form.typed }) : { pieces: [], states: null };
      if (this.closed) return;
      if (answer) this.take(answer);
    } while (this.askAgain);
    this.asking = false;
  }

  private take({ pieces, states, labels, probabilities, tags, note }: Answer): void {
    this.say(note ?? "");
    const rows = (array: Answer | null) => {
      if (!array) return [];
      const [count, size] = array.shape;
      const numbers = this.connection.decode(array as { shape: number[]; data: string });
      return Array.from({ length: count }, (_, k) => numbers.subarray(k * size, (k + 1) * size));
    };
    const shares = rows(probabilities ?? null).map((row) => [...row].map((p, k): [string, number] => [labels[k], p]));
    this.text = { pieces, states: rows(states), shares, tags: tags ?? null };
    if (this.chosen !== null && this.chosen >= pieces.length) this.chosen = null;
    this.redraw();
  }

  /** Once before the next frame, however much arrived. */
  private redraw(): void {
    this.drawing ||= requestAnimationFrame(() => {
      this.drawing = 0;
      if (!this.closed) this.draw();
    });
  }

  private draw(): void {
    const { pieces, states, shares, tags } = this.text;
    const steps = states.length;
    const units = this.opened!.units;
    this.empty.hidden = steps > 0;
    const unit = this.unit ?? (steps ? liveliest(states) : 0);
    // Of a few states nobody can say yet which unit moves most.
    if (steps >= ENOUGH) this.unit = unit;
    if (document.activeElement !== this.unitBox) this.unitBox.value = String(unit);
    const most = states.reduce(
      (most, state) => state.reduce((size, value) => Math.max(size, Math.abs(value)), most),
      0,
    );
    const end = [1, 2, 5, 10, 20, 50, 100].find((round) => round >= most) ?? most;
    if (end !== this.scale.most) this.scale = around(end);
    const label = this.label !== null && shares.length === pieces.length ? this.label : null;
    const numbers = pieces.map((_, k) =>
      label === null ? (states[k]?.[unit] ?? 0) : shares[k].find(([name]) => name === label)![1],
    );
    this.coloured.show(pieces, numbers, label === null ? this.scale : share, tags && tags.map(([tag]) => tag));
    this.coloured.root.classList.toggle("words", this.opened!.says !== "pieces" && pieces.join("") !== form.typed);
    this.coloured.mark(this.chosen ?? -1);
    this.textTitle.textContent = t("text", { unit });
    this.drawColourBy(unit);
    const at = Math.min(this.chosen ?? steps - 1, shares.length - 1);
    this.bars.show((shares[at] ?? []).map(([name, p]) => [visible(name), p]));
    const values = new Float32Array(steps * units);
    states.forEach((state, k) => values.set(state, k * units));
    this.heat.show(steps ? { values, steps, units, scale: this.scale, names: pieces } : null);
    this.heat.head(this.chosen, "none");
    this.heat.select(unit);
  }

  private drawColourBy(unit: number): void {
    const labels: string[] = this.opened!.says === "label" ? (this.text.shares[0] ?? []).map(([name]) => name) : [];
    const options: (string | null)[] = labels.length && labels.length <= 6 ? [null, ...labels] : [];
    this.colourBy.replaceChildren(
      ...options.map((label) =>
        make(
          "button",
          {
            type: "button",
            "aria-pressed": String(label === this.label),
            onclick: () => ((this.label = label), this.redraw()),
          },
          label ?? `${t("unit")} ${unit}`,
        ),
      ),
    );
  }

  private choose(index: number): void {
    this.chosen = index === this.chosen ? null : index;
    this.redraw();
  }

  private pick(step: number, unit: number): void {
    this.unit = unit;
    this.chosen = step;
    this.redraw();
  }

  private typeUnit(): void {
    const unit = this.unitBox.valueAsNumber;
    if (!Number.isInteger(unit) || unit < 0 || unit >= this.opened!.units) return;
    this.unit = unit;
    this.redraw();
  }

  private async hold(unit: number, value: number | null): Promise<boolean> {
    if (!(await this.ask("talk.edit", { unit, value }))) return false;
    if (this.opened!.says !== "pieces") void this.read();
    return true;
  }

  /** The answer, or null once its error is shown. */
  private async ask(name: string, fields: Answer = {}): Promise<Answer | null> {
    try {
      return await this.connection.request(name, fields);
    } catch (error) {
      if (!this.closed && !(error instanceof LostConnection)) this.say((error as Error).message, true);
      return null;
    }
  }

  private say(text: string, wrong = false): void {
    this.message.textContent = text;
    this.message.className = wrong ? "error" : "note";
    this.message.hidden = !text;
  }
}

function nothing(): Text {
  return { pieces: [], states: [], shares: [], tags: null };
}

/** The unit that moves most. */
function liveliest(states: Float32Array[]): number {
  const spread = Array.from(states[0], (_, unit) => {
    const values = states.map((state) => state[unit]);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  });
  return spread.indexOf(Math.max(...spread));
}
