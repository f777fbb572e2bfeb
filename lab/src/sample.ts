// One example of the problem as the network answers it now: what it read, what was wanted, what it said.
import "./sample.css";
import { Curve, written } from "./curve";
import { append, make } from "./element";
import { t } from "./words_learn";

type One = string | number | null;
export type Sample = {
  kind: "symbols" | "values";
  /** One per step; several numbers per step if the input has several features. */
  input: (One | number[])[];
  /** One per step, null where nothing is asked, or one for the whole sequence. */
  wanted: One[];
  said: One[];
};

export class SampleView {
  readonly root = make("div", { class: "sample" });
  private curve: Curve | null = null;

  show(sample: Sample): void {
    if (sample.kind === "values" && !Array.isArray(sample.input[0])) return this.drawCurve(sample);
    this.close();
    const rows = sample.kind === "values" ? [bars(sample)] : [
      letters(t("input"), sample.input), letters(t("wanted"), sample.wanted), letters(t("said"), sample.said, sample.wanted),
    ];
    const scroller = make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("sample") }, make("div", { class: "rows" }, ...rows));
    const before = this.root.querySelector(".scroll")?.scrollLeft;
    this.root.replaceChildren(scroller);
    scroller.scrollLeft = before ?? scroller.scrollWidth;
    if (sample.kind === "values") append(this.root, answer(sample));
  }

  close(): void {
    this.curve?.close();
    this.curve = null;
  }

  private drawCurve({ input, wanted, said }: Sample): void {
    if (!this.curve) {
      const lines = [
        { name: t("input"), colour: "--ink", width: 1.5 },
        { name: t("wanted"), colour: "--edge", width: 4 },
        { name: t("said"), colour: "--accent" },
      ];
      this.curve = new Curve({ lines, across: t("stepOf"), height: 190 });
      this.root.replaceChildren(this.curve.root);
    }
    this.curve.set([input.map((_, k) => k + 1), ...([input, wanted, said] as (number | null)[][])]);
  }
}

/** A row of symbols; where `truth` is given, each is marked as right or wrong. */
function letters(name: string, row: (One | number[])[], truth?: One[]): HTMLElement {
  const cells = row.map((one, k) => {
    const asked = truth && truth[k] !== null;
    return make("span", { class: asked ? (one === truth[k] ? "right" : "wrong") : one === null ? "none" : "" }, one === null ? "" : String(one));
  });
  return make("div", { class: "letters" }, make("span", { class: "name" }, name), ...cells);
}

/** Pairs of a number and a marker as bars, the marked ones in the accent colour. */
function bars({ input }: Sample): HTMLElement {
  const pairs = input as number[][];
  const most = Math.max(...pairs.map(([number]) => Math.abs(number)), 1e-9);
  const all = pairs.map(([number, marker]) => {
    const bar = make("i", { class: marker ? "marked" : "", title: written(number) });
    bar.style.height = `${(100 * Math.abs(number)) / most}%`;
    return bar;
  });
  return make("div", { class: "bars" }, make("span", { class: "name" }, t("input")), make("div", {}, ...all));
}

/** The sum that is asked at the end. */
function answer({ input, wanted, said }: Sample): HTMLElement {
  const last = (row: One[]) => written(Number(row.findLast((one) => one !== null) ?? NaN));
  const marked = (input as number[][]).filter(([, marker]) => marker).map(([number]) => written(number));
  return make("p", { class: "answer" }, `${marked.join(" + ")} = `,
    make("b", { "data-shows": "wanted" }, last(wanted)), t("said"), " ", make("b", { class: "said", "data-shows": "said" }, last(said)));
}
