// What the first panel looks at: a small network trained here, or a run; and what it reads.
import type { Answer } from "./connection";
import { append, field, make, select } from "./element";
import { t } from "./words_think";

/** What was asked for last: it survives another language and another panel. */
const form = { source: "", cell: "lstm", hidden: "32", layers: "1", seed: "1", text: "", target: "" };
const SIZES = ["8", "16", "32", "64", "128", "256"];
const DEPTHS = ["1", "2", "3"];

export class Setup {
  readonly root = make("form", {
    class: "card setup",
    onsubmit: (event: Event) => {
      event.preventDefault();
      this.watch();
    },
  });

  constructor(
    private readonly hello: Answer,
    private readonly watch: () => void,
  ) {
    if (!this.known().includes(form.source)) form.source = this.known()[0];
    this.draw();
  }

  /** The request's fields; null where there is nothing to read yet. */
  get asked(): Answer | null {
    const { source, cell, hidden, layers, seed, text, target } = form;
    const name = source.slice(source.indexOf(" ") + 1);
    if (!this.demo) return text ? { source: { kind: "run", run: name }, text, ...(target ? { target } : {}) } : null;
    const sizes = { hidden: Number(hidden), layers: Number(layers), seed: Number(seed) };
    return { source: { kind: "demo", demo: name, cell, ...sizes }, text };
  }

  private get demo(): Answer | undefined {
    return this.hello.demos.find(({ name }: Answer) => form.source === `demo ${name}`);
  }

  private known(): string[] {
    const { demos, runs } = this.hello;
    return [...demos.map(({ name }: Answer) => `demo ${name}`), ...runs.map(({ name }: Answer) => `run ${name}`)];
  }

  private choose(source: string): void {
    form.source = source;
    form.text = this.demo?.text ?? "";
    form.target = "";
    this.draw();
    this.root.querySelector<HTMLElement>("[name=source]")!.focus();
    if (this.demo) this.watch();
  }

  private draw(): void {
    const { demo } = this;
    if (demo) form.text ||= demo.text;
    const controls = make("div", { class: "controls" }, field(t("model"), this.sources()));
    if (demo) {
      const cells = this.hello.cells.map(({ name }: Answer) => name);
      append(controls, field(t("cell"), this.list("cell", cells)), field(t("hidden"), this.list("hidden", SIZES)));
      append(controls, field(t("layers"), this.list("layers", DEPTHS)), field(t("seed"), this.seed()));
    }
    const text = make("textarea", { name: "text", rows: 1, spellcheck: "false" });
    text.value = form.text;
    text.addEventListener("input", () => (form.text = text.value));
    const target = make("input", { name: "target", value: form.target, oninput: () => (form.target = target.value) });
    const read = make("div", { class: "reading" }, field(t("text"), text), !demo && field(t("target"), target));
    append(read, make("button", { class: "primary", type: "submit" }, t("watch")));
    this.root.replaceChildren(controls, read);
  }

  private sources(): HTMLElement {
    const list = make("select", { name: "source", onchange: () => this.choose(list.value) });
    const group = (label: string, kind: string, entries: Answer[]) => {
      const options = entries.map(({ name }) => {
        const value = `${kind} ${name}`;
        return make("option", { value, selected: form.source === value }, name);
      });
      if (entries.length) list.append(make("optgroup", { label }, ...options));
    };
    group(t("demos"), "demo", this.hello.demos);
    group(t("runs"), "run", this.hello.runs);
    return list;
  }

  private list(name: "cell" | "hidden" | "layers", values: string[]): HTMLElement {
    const options = values.map((value): [string, string] => [value, value]);
    const control = select(options, form[name], (value) => (form[name] = value));
    control.name = name;
    return control;
  }

  private seed(): HTMLElement {
    const seed = make("input", { type: "number", name: "seed", min: 0, value: form.seed });
    seed.addEventListener("input", () => (form.seed = seed.value));
    return seed;
  }
}
