// Panel 4, Write a cell: equations on the left; on the right what follows from them, as they are typed.
import "./write.css";
import type { Answer, Connection } from "./connection";
import { LostConnection } from "./connection";
import { settled } from "./controls";
import { Editor, type Fault } from "./editor";
import { append, field, make, select } from "./element";
import { examples } from "./examples";
import { setFormula } from "./formula";
import { Lanes, type Start } from "./lanes";
import type { Panel } from "./panel";
import { t } from "./words_write";
import { problemName } from "./words_problems";

const TYPING = 150;
/** Sequences begin short and grow, as in Race. */
const RACE = { grow: 5, hidden: 24, seed: 0, lr: 0.01 };
const SHORT = 10;

/** Kept while another panel is open, and in another language. */
let text = examples[0].text;
let problem = "order";

class Write {
  private readonly editor = new Editor(t("equations"), text, (to) => {
    text = to;
    this.check.soon();
  });
  private readonly check = settled(TYPING, () => void this.read());
  private readonly verdict = make("div", { class: "verdict", role: "status" }, t("checking"));
  private readonly forward = formulaBox(t("formula"), "formula");
  private readonly backward = formulaBox(t("backward"), "backward");
  private readonly diagram = make("div", { class: "diagram scroll", tabindex: 0, role: "group", "aria-label": t("diagram") });
  private readonly plan = make("pre", { class: "scroll", tabindex: 0, "aria-label": t("plan"), role: "group", "data-shows": "plan" });
  private readonly right = make("div", { class: "stack follows" });
  private readonly go = make("button", { class: "primary", "data-do": "race", onclick: () => this.race() }, t("race"));
  private readonly track = make("section", { class: "stack", hidden: true, "data-shows": "race" });
  private readonly offs: (() => void)[];
  private lanes: Lanes | null = null;
  private racing = false;
  private name = "";

  constructor(root: HTMLElement, private readonly connection: Connection) {
    const begin = select([["", t("choose")], ...examples.map(({ name }): [string, string] => [name, name])], "", (name) => {
      this.editor.text = examples.find((one) => one.name === name)?.text ?? this.editor.text;
    });
    const problems = select(connection.hello.problems.map((one: Answer) => [one.name, problemName(one)]), problem, (name) => (problem = name));
    problems.name = "problem";
    append(this.right,
      card(t("formula"), null, this.forward), card(t("diagram"), null, this.diagram),
      card(t("backward"), t("backwardAbout"), this.backward), card(t("plan"), t("planAbout"), this.plan));
    append(root, make("div", { class: "write" },
      make("div", { class: "stack pen" }, field(t("from"), begin), this.editor.root, this.verdict,
        make("div", { class: "row" }, this.go, field(t("on"), problems))),
      make("div", { class: "stack" }, this.track, this.right)));
    this.editor.area.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.race();
    });
    this.offs = [
      connection.on("race.update", (fields) => this.lanes?.update(fields)),
      connection.on("race.done", (fields) => this.done(fields)),
      connection.on("race.failed", ({ error }) => (this.becomeRacing(false), this.refuse({ message: error }))),
    ];
    void this.read();
  }

  close(): void {
    this.check.cancel();
    for (const off of this.offs) off();
    if (this.racing) this.connection.request("race.stop").catch(lostIsSaid);
    this.lanes?.close();
  }

  /** What the server finds in the text; an answer to an older text is dropped. */
  private async read(): Promise<void> {
    const asked = text;
    const answer = await this.connection.request("cell.check", { text: asked }).catch(lostIsSaid);
    if (!answer || asked !== text) return;
    this.go.disabled = !answer.found && !this.racing;
    this.right.classList.toggle("stale", !answer.found);
    if (answer.found) this.show(answer);
    else this.refuse(answer);
  }

  private show({ name, kind, parameters, latex, backward_latex, diagram, plan }: Answer): void {
    this.name = name;
    this.editor.mark(null);
    this.verdict.className = "verdict good";
    this.verdict.textContent = t("good", { name, kind, n: parameters.toLocaleString() });
    setFormula(this.forward, latex);
    setFormula(this.backward, backward_latex);
    this.diagram.replaceChildren(drawing(diagram));
    this.plan.textContent = plan;
  }

  private refuse({ message, line, column }: Answer): void {
    const fault: Fault | null = line ? { line, column: column ?? null } : null;
    this.editor.mark(fault);
    this.verdict.className = "verdict bad";
    this.verdict.replaceChildren(
      make("p", { "data-shows": "message" }, message),
      make("p", { class: "note" }, this.name ? t("stale") : ""));
    if (fault) append(this.verdict, make("button", { class: "plain", onclick: () => this.editor.goTo(fault) }, t("goTo")));
  }

  private async race(): Promise<void> {
    if (this.racing) {
      await this.connection.request("race.stop").catch(lostIsSaid);
      return this.becomeRacing(false);
    }
    if (this.go.disabled) return;
    try {
      const start = await this.connection.request("race.start", { ...RACE, problem, length: this.shortest(), cells: [{ text }, "lstm"] });
      this.begin(start as unknown as Start);
    } catch (error) {
      if (!(error instanceof LostConnection)) this.refuse({ message: (error as Error).message });
    }
  }

  private shortest(): number {
    return Math.max(SHORT, this.connection.hello.problems.find(({ name }: Answer) => name === problem).shortest);
  }

  private begin(start: Start): void {
    this.lanes?.close();
    this.lanes = new Lanes(start);
    this.track.replaceChildren(make("h2", {}, t("result", { name: start.lanes[0].name })), this.lanes.root);
    this.track.hidden = false;
    this.becomeRacing(true);
    this.track.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  private done(fields: Answer): void {
    this.lanes?.done(fields);
    if (fields.lane === undefined) this.becomeRacing(false);
  }

  private becomeRacing(racing: boolean): void {
    this.racing = racing;
    this.go.textContent = t(racing ? "stop" : "race");
    this.go.classList.toggle("primary", !racing);
  }
}

let open: Write | null = null;

export const panel: Panel = {
  key: "write",
  title: () => t("title"),
  about: () => t("about"),
  open(root, connection) {
    open = new Write(root, connection);
  },
  close() {
    open?.close();
    open = null;
  },
  keys: () => [["Ctrl Enter", t("keyRace")]],
};

function card(title: string, about: string | null, content: HTMLElement): HTMLElement {
  return make("section", { class: "card stack" }, make("h2", {}, title), about ? make("p", { class: "note" }, about) : null, content);
}

function formulaBox(name: string, shows: string): HTMLElement {
  return make("div", { class: "formula", tabindex: 0, role: "group", "aria-label": name, "data-shows": shows });
}

/** The drawing without its own style: colours come from the theme of the page. */
function drawing(svg: string): Element {
  const root = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
  for (const style of root.querySelectorAll("style")) style.remove();
  return document.importNode(root, true);
}

/** A lost connection is said by the shell; anything else is a fault of ours. */
function lostIsSaid(error: Error): null {
  if (error instanceof LostConnection) return null;
  throw error;
}
