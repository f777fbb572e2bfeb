// The equations of one unit at one step with their real numbers, as the server derives them. While the play head runs
// there is one question on its way at a time, and the last one asked is the one that counts.
import katex from "katex";
import { type Connection, LostConnection } from "./connection";
import { make } from "./element";
import { formula } from "./formula";
import { exact } from "./palette";
import { t } from "./words_think";

interface Equation {
  name: string;
  latex: string;
  /** null where this unit is beyond what the equation makes. */
  numbers_latex: string | null;
  value: number | null;
}

export interface Question {
  recording: string | number;
  layer: number;
  step: number;
  unit: number;
}

/** While it plays: milliseconds between two questions. Setting formulas takes longer than a frame lasts. */
const AT_MOST_EVERY = 250;

export class Numbers {
  readonly root = make("div", { class: "numbers-of" });
  private asked: Question | null = null;
  private playing = false;
  private busy = false;
  private symbols = "";

  constructor(private readonly connection: Connection) {}

  ask(question: Question, playing: boolean): void {
    this.asked = question;
    this.playing = playing;
    if (!this.busy) void this.next();
  }

  close(): void {
    this.asked = null;
  }

  private async next(): Promise<void> {
    this.busy = true;
    while (this.asked) {
      const question = this.asked;
      this.asked = null;
      try {
        const { equations } = await this.connection.request("numbers", { ...question });
        await this.show(equations);
      } catch (error) {
        if (!(error instanceof LostConnection)) this.say((error as Error).message);
      }
      for (let waited = 0; this.playing && waited < AT_MOST_EVERY; waited += 50) await later(50);
    }
    this.busy = false;
  }

  /** The symbols stay where they are as long as they are the same; their numbers are put in one equation a frame while
   * it plays, so that the play head keeps its pace, else at once. */
  private async show(equations: Equation[]): Promise<void> {
    const symbols = equations.map(({ latex }) => latex).join("\n");
    if (symbols !== this.symbols) this.root.replaceChildren(...equations.map(section));
    this.symbols = symbols;
    for (const [k, equation] of equations.entries()) {
      if (this.playing) await later(0);
      putIn(this.root.children[k] as HTMLElement, equation);
    }
  }

  private say(message: string): void {
    this.symbols = "";
    this.root.replaceChildren(make("p", { class: "error" }, message));
  }
}

function section({ name, latex, numbers_latex, value }: Equation): HTMLElement {
  return make(
    "section",
    { "data-name": name },
    make("div", { class: "symbols" }, formula(latex, t("equation", { name }))),
    make("div", {
      class: "filled",
      role: "group",
      "aria-label": t("withNumbers", { name }),
      hidden: numbers_latex === null,
    }),
    make("output", { hidden: value === null }),
  );
}

/** Long sums break into lines, which formulas that stand by themselves do not; products stay in one piece. */
function putIn(section: HTMLElement, { numbers_latex, value }: Equation): void {
  const [filled, output] = [section.querySelector<HTMLElement>(".filled")!, section.querySelector("output")!];
  filled.hidden = numbers_latex === null;
  output.hidden = value === null;
  if (numbers_latex === null || value === null) return;
  const text = `= ${numbers_latex.replaceAll("\\cdot", "{\\,\\cdot\\,}")}`;
  katex.render(text, filled, { throwOnError: false, strict: "ignore", trust: false });
  output.dataset.value = String(value);
  output.textContent = exact(value);
}

/** After the next frame, and at least so many milliseconds. */
function later(milliseconds: number): Promise<void> {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, milliseconds)));
}
