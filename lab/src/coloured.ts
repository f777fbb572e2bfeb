// A text whose pieces have the colour of one number each, with room above each piece for a word about it.
import "./coloured.css";
import { make } from "./element";
import { visible } from "./heat";
import { css, exact, inkOn, pixel, ramp, type Scale } from "./palette";

export class Coloured {
  readonly root = make("div", { class: "coloured", dir: "auto" });
  private pieces: HTMLElement[] = [];
  private texts: string[] = [];
  private numbers: number[] = [];
  private scale: Scale | null = null;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private readonly again = () => this.paint(0);

  constructor(private readonly picked: (index: number) => void) {
    this.root.addEventListener("click", (event) => {
      const index = this.pieces.indexOf((event.target as HTMLElement).closest<HTMLElement>(".piece")!);
      if (index >= 0) this.picked(index);
    });
    this.dark.addEventListener("change", this.again);
    addEventListener("themechange", this.again);
  }

  /** `tags`: a word for each piece. Pieces that are as before are left in place: a growing text costs what is new. */
  show(texts: string[], numbers: number[], scale: Scale, tags: (string | null)[] | null = null): void {
    const same =
      this.scale === scale &&
      texts.length >= this.texts.length &&
      this.texts.every((text, k) => text === texts[k]) &&
      this.numbers.every((number, k) => number === numbers[k]) &&
      !tags;
    const from = same ? this.texts.length : 0;
    if (!same) this.root.replaceChildren();
    this.pieces.length = from;
    for (let k = from; k < texts.length; k++) {
      const tag = tags?.[k];
      const piece = make(
        "span",
        { class: tag ? "piece tagged" : "piece", title: `${visible(texts[k])}  ${exact(numbers[k])}` },
        make("span", { class: "ink" }, shown(texts[k])),
        tag ? make("span", { class: "tag" }, tag) : null,
      );
      this.pieces.push(piece);
      this.root.append(piece);
    }
    [this.texts, this.numbers, this.scale] = [[...texts], [...numbers], scale];
    this.paint(from);
  }

  mark(index: number): void {
    this.pieces.forEach((piece, k) => piece.classList.toggle("here", k === index));
  }

  close(): void {
    this.dark.removeEventListener("change", this.again);
    removeEventListener("themechange", this.again);
  }

  private paint(from: number): void {
    if (!this.scale) return;
    const colours = ramp();
    for (let k = from; k < this.pieces.length; k++) {
      const colour = pixel(colours, this.scale, this.numbers[k]);
      const ink = this.pieces[k].firstElementChild as HTMLElement;
      ink.style.backgroundColor = css(colour);
      ink.style.color = inkOn(colour);
    }
  }
}

/** An end of line stays one, with a sign before it that can be coloured. */
function shown(piece: string): string {
  return piece.replaceAll("\n", "↵\n");
}
