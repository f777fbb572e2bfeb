// Formulas, set by KaTeX from what the server derives. A wide one scrolls inside its own box, also by keyboard.
import katex from "katex";
import "katex/dist/katex.min.css";
import "./formula.css";
import { make } from "./element";

/** Set `latex` into `root`, in place of what it held. */
export function setFormula(root: HTMLElement, latex: string): void {
  katex.render(latex, root, { displayMode: true, throwOnError: false, strict: "ignore", trust: false });
}

/** A box with a formula. `name` is what a screen reader calls it. */
export function formula(latex: string, name: string): HTMLElement {
  const box = make("div", { class: "formula", tabindex: 0, role: "group", "aria-label": name });
  setFormula(box, latex);
  return box;
}
