// A small editor for the equations of a cell: a plain text area over a copy of its text in colours, with the numbers
// of the lines and a mark at the one that is wrong. Tab leaves it, as it leaves any field.
import "./editor.css";
import { make } from "./element";

export type Fault = { line: number; column: number | null };

const PIECES =
  /(?<comment>#.*)|(?<string>"""[\s\S]*?(?:"""|$)|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)|(?<decorator>@cell)\b|(?<word>[A-Za-z_]\w*)|(?<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?<other>[\s\S])/g;
const KEYWORDS = new Set(["def", "return", "for", "in", "if", "else", "range", "import", "from", "and", "or", "not"]);

export class Editor {
  readonly root: HTMLElement;
  readonly area: HTMLTextAreaElement;
  private readonly colours = make("pre", { class: "colours", "aria-hidden": "true" });
  private readonly numbers = make("div", { class: "numbers", "aria-hidden": "true" });
  private fault: Fault | null = null;

  constructor(name: string, text: string, private readonly changed: (text: string) => void) {
    this.area = make("textarea", {
      "aria-label": name, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
      oninput: () => this.edited(), onkeydown: (event: KeyboardEvent) => this.indent(event),
    });
    const sheet = make("div", { class: "sheet" }, this.colours, this.area);
    this.root = make("div", { class: "editor" }, this.numbers, make("div", { class: "paper" }, sheet));
    this.area.value = text;
    this.draw();
  }

  get text(): string {
    return this.area.value;
  }

  set text(to: string) {
    this.area.value = to;
    this.edited();
  }

  /** Marks a line, or none. */
  mark(fault: Fault | null): void {
    this.fault = fault;
    this.area.setAttribute("aria-invalid", String(fault !== null));
    this.draw();
  }

  /** Puts the caret where the fault is. */
  goTo({ line, column }: Fault): void {
    const before = this.text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.area.focus();
    this.area.setSelectionRange(before + (column ?? 0), before + (column ?? 0));
  }

  private edited(): void {
    this.fault = null;
    this.draw();
    this.changed(this.text);
  }

  /** A new line begins where the one before began, and deeper after a colon. */
  private indent(event: KeyboardEvent): void {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing) return;
    event.preventDefault();
    const { selectionStart: start, selectionEnd: end } = this.area;
    const line = this.text.slice(0, start).split("\n").at(-1)!;
    const space = /^ */.exec(line)![0] + (line.trimEnd().endsWith(":") ? "    " : "");
    this.area.setRangeText(`\n${space}`, start, end, "end");
    this.edited();
  }

  private draw(): void {
    const lines = this.text.split("\n");
    const wrong = Math.min(this.fault?.line ?? 0, lines.length);
    this.numbers.replaceChildren(
      ...lines.map((_, k) => make("span", { class: k + 1 === wrong ? "wrong" : "" }, k + 1)));
    this.colours.replaceChildren(...coloured(this.text), "\n");
    this.root.style.setProperty("--wrong", String(wrong));
    this.root.classList.toggle("has-fault", wrong > 0);
  }
}

/** The text in spans by what a piece is. */
function coloured(text: string): (Node | string)[] {
  const parts: (Node | string)[] = [];
  for (const { groups, index, 0: piece } of text.matchAll(PIECES)) {
    const kind = groups!.word ? kindOfWord(piece, text[index + piece.length]) : kindOf(groups!);
    const last = parts.at(-1);
    if (kind) parts.push(make("span", { class: kind }, piece));
    else if (typeof last === "string") parts[parts.length - 1] = last + piece;
    else parts.push(piece);
  }
  return parts;
}

function kindOf(groups: Record<string, string | undefined>): string {
  return ["comment", "string", "decorator", "number"].find((kind) => groups[kind] !== undefined) ?? "";
}

function kindOfWord(word: string, next: string | undefined): string {
  if (KEYWORDS.has(word)) return "keyword";
  if (next === "(") return "function";
  return "";
}
