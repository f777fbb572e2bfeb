// Panel 1. A network reads; the play head says how far it has come, and everything on the panel follows it.
import "./think.css";
import { type Connection, LostConnection } from "./connection";
import { append, make } from "./element";
import { Heat, visible } from "./heat";
import { Numbers } from "./numbers";
import type { Panel } from "./panel";
import { exact } from "./palette";
import { Player } from "./player";
import { type Kind, type Layer, Recording } from "./recording";
import { Setup } from "./setup";
import { Strips } from "./strips";
import { Transport } from "./transport";
import { rowName, Unroll } from "./unroll";
import { t } from "./words_think";

let view: View | null = null;

export const panel: Panel = {
  key: "think",
  title: () => t("title"),
  about: () => t("about"),
  open(root, connection) {
    view = new View(root, connection);
  },
  close() {
    view?.close();
    view = null;
  },
  keys: () => [
    ["Space", t("keyPlay")],
    ["← →", t("keyStep")],
    ["↑ ↓", t("keyUnit")],
    ["↑ ↓", t("keyLayer")],
  ],
};

class View {
  private recording: Recording | null = null;
  private layer!: Layer;
  private value = "";
  private kind: Kind = "values";
  private unit = 0;
  private closed = false;
  /** Where the arithmetic is of. */
  private at = "";
  private offs: (() => void)[] = [];

  private readonly player = new Player(1, () => this.follow());
  private readonly unroll = new Unroll((step, layer) => this.pick(step, layer));
  private readonly heat = new Heat(t("units"), (step, unit) => this.pick(step, this.layer.index, unit));
  private readonly strips = new Strips(t("lanes", { unit: "" }), (step) => this.pick(step));
  private readonly numbers: Numbers;

  private readonly setup: Setup;
  private readonly transport = new Transport(this.player, (step) => this.seek(step));
  private readonly message = make("p", { class: "note", role: "status" });
  private readonly stage = make("div", { class: "stage stack", hidden: true });
  private readonly facts = make("div", { class: "facts" });
  private readonly choices = make("div", { class: "choices row" });
  private readonly unitBox = make("input", { type: "number", min: 0, oninput: () => this.typeUnit() });
  private readonly scaleNote = make("p", { class: "note" }, t("logarithmic"));
  private readonly laneTitle = make("h2");
  private readonly where = make("p", { class: "where" });

  constructor(
    root: HTMLElement,
    private readonly connection: Connection,
  ) {
    this.numbers = new Numbers(connection);
    this.setup = new Setup(connection.hello, () => void this.think());
    this.drawStage();
    root.append(this.setup.root, this.message, this.stage);
    this.offs.push(
      connection.on("think.progress", ({ share }) =>
        this.say(t("training", { share: `${Math.round(100 * share)} %` })),
      ),
    );
    addEventListener("keydown", this.key);
    void this.think();
  }

  close(): void {
    this.closed = true;
    removeEventListener("keydown", this.key);
    for (const off of this.offs) off();
    this.player.pause();
    for (const part of [this.unroll, this.heat, this.strips, this.numbers]) part.close();
  }

  private async think(): Promise<void> {
    const { asked } = this.setup;
    if (!asked) return this.say(t("noText"));
    this.say(t("thinking"));
    try {
      const { recording } = await this.connection.request("think", asked);
      if (this.closed) return;
      this.say("");
      this.show(new Recording(recording));
    } catch (error) {
      if (this.closed) return;
      // Asked again, it waits for the connection.
      if (error instanceof LostConnection) return this.think();
      this.say((error as Error).message, true);
    }
  }

  private drawStage(): void {
    const network = make("section", { class: "card network" }, this.facts, this.unroll.canvas, this.transport.root);
    this.unitBox.ariaLabel = t("unit");
    const units = make(
      "section",
      { class: "card stack" },
      make("div", { class: "heading" }, make("h2", {}, t("units"))),
      this.choices,
      this.heat.root,
      this.scaleNote,
      make("div", { class: "heading" }, this.laneTitle, make("label", { class: "unit" }, t("unit"), this.unitBox)),
      this.strips.root,
    );
    const arithmetic = make(
      "section",
      { class: "card arithmetic" },
      make("h2", {}, t("arithmetic")),
      this.where,
      this.numbers.root,
      make("p", { class: "note" }, t("brace")),
    );
    this.stage.append(network, make("div", { class: "below" }, units, arithmetic));
  }

  private show(recording: Recording): void {
    this.recording = recording;
    this.at = "";
    this.layer = recording.layers[0];
    this.value = this.layer.states[0] ?? this.layer.names[0];
    this.kind = "values";
    this.unit = this.layer.liveliest();
    this.transport.show(recording.length);
    this.stage.hidden = false;
    this.drawFacts();
    this.unroll.show(recording);
    this.player.reset(recording.length);
    this.showLayer();
    // Who pressed Watch goes on with Space.
    if (document.activeElement?.matches(".setup button")) this.transport.play.focus({ preventScroll: true });
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.player.play();
  }

  private drawFacts(): void {
    const { loss, lossOf, answers, about, leftOut, next } = this.recording!;
    const said = answers
      .slice(0, 3)
      .map(([answer, p]) => make("span", { class: "said" }, visible(String(answer)), ` ${exact(p)}`));
    const key = lossOf === "text" || lossOf === "target" || lossOf === "answer" ? (`loss.${lossOf}` as const) : "loss";
    this.facts.replaceChildren();
    append(
      this.facts,
      said.length > 0 && make("span", {}, `${t(next ? "soon" : "answer")} `, make("b", {}, ...said)),
      loss !== null && make("span", {}, `${t(key)} `, make("b", { "data-fact": "loss" }, exact(loss))),
      leftOut.length > 0 && make("span", {}, t("leftOut", { names: leftOut.join(", ") })),
      about && make("span", { class: "trained" }, about),
    );
  }

  /** The layer's names to choose from, then its numbers. */
  private showLayer(): void {
    const { layer } = this;
    const names = layer.offered(this.kind);
    if (!names.includes(this.value)) this.value = names[0];
    const focused = (document.activeElement as HTMLElement | null)?.dataset?.value;
    this.drawChoices(names);
    if (focused) this.choices.querySelector<HTMLElement>(`[data-value="${CSS.escape(focused)}"]`)?.focus();
    this.scaleNote.hidden = this.kind === "values";
    const series = layer.series(this.value, this.kind);
    this.heat.show({ ...series, names: this.recording!.steps });
    this.unitBox.max = String(layer.units - 1);
    this.unroll.choose(layer.index);
    this.showUnit();
  }

  private drawChoices(names: string[]): void {
    const rows = this.recording!.layers.map((row): Choice => [String(row.index), rowName(row, this.recording!)]);
    const kinds: Choice[] = [
      ["values", t("values")],
      ["gradients", t("gradients")],
    ];
    const again = () => this.showLayer();
    const named = names.map((name): Choice => [name, name]);
    const values = choices(t("value"), named, this.value, (name) => ((this.value = name), again()));
    values.classList.add("names");
    this.choices.replaceChildren();
    append(
      this.choices,
      rows.length > 1 &&
        choices(t("layerName"), rows, String(this.layer.index), (row) => this.pick(this.player.step, Number(row))),
      values,
      this.layer.hasGradients && choices(t("kind"), kinds, this.kind, (kind) => ((this.kind = kind as Kind), again())),
    );
  }

  private showUnit(): void {
    this.unit = Math.min(this.unit, this.layer.units - 1);
    if (document.activeElement !== this.unitBox) this.unitBox.value = String(this.unit);
    this.laneTitle.textContent = t("lanes", { unit: this.unit });
    this.heat.select(this.unit);
    this.strips.show(this.layer, this.unit, this.kind);
    this.follow();
  }

  /** Everything that moves with the play head. */
  private follow(): void {
    if (!this.recording || this.closed) return;
    const { position, step, playing } = this.player;
    this.unroll.head(position);
    // A gradient has come from the end: it is there at every step.
    this.heat.head(
      position,
      this.kind === "gradients" ? "none" : this.layer.direction === "backward" ? "before" : "after",
    );
    this.strips.head(position);
    this.transport.follow();
    const at = `${step}/${this.unit}/${this.layer.index}/${playing}`;
    if (this.at === at) return;
    this.at = at;
    const name = visible(this.recording.steps[step] ?? "");
    this.where.textContent = t("where", {
      layer: rowName(this.layer, this.recording),
      step: step + 1,
      name,
      unit: this.unit,
    });
    this.numbers.ask(
      {
        recording: this.recording.id,
        layer: this.layer.index,
        step: Math.min(step, this.layer.steps - 1),
        unit: this.unit,
      },
      playing,
    );
  }

  private seek(step: number): void {
    this.player.pause();
    this.player.seek(step);
  }

  private pick(step: number, layer = this.layer.index, unit = this.unit): void {
    this.unit = unit;
    this.seek(step);
    if (layer !== this.layer.index) {
      this.layer = this.recording!.layers[layer];
      this.showLayer();
    } else this.showUnit();
  }

  private typeUnit(): void {
    const unit = this.unitBox.valueAsNumber;
    if (Number.isInteger(unit) && unit >= 0 && unit < this.layer.units)
      this.pick(this.player.step, this.layer.index, unit);
  }

  private readonly key = (event: KeyboardEvent): void => {
    const target = event.target as HTMLElement;
    if (
      !this.recording ||
      target.closest("input, textarea, select, dialog, .tabs") ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey
    )
      return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) this.seek(this.player.step + by);
    else if (event.key === " " && !target.closest("button, a")) this.player.toggle();
    else return;
    event.preventDefault();
  };

  private say(text: string, wrong = false): void {
    this.message.textContent = text;
    this.message.className = wrong ? "error" : "note";
    this.message.hidden = !text;
  }
}

type Choice = [value: string, text: string];

/** Buttons, one of which is pressed. */
function choices(name: string, offered: Choice[], chosen: string, pick: (value: string) => void): HTMLElement {
  const group = make("div", { class: "segments", role: "group", "aria-label": name });
  for (const [value, text] of offered) {
    const pressed = { "aria-pressed": String(value === chosen), "data-value": value };
    group.append(make("button", { type: "button", ...pressed, onclick: () => pick(value) }, text));
  }
  return group;
}
