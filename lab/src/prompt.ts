// What a generator goes on from, and how: the form above what it writes.
import { field, make } from "./element";
import { t } from "./words_talk";

/** What was chosen last: it survives another language and another panel. */
const form = { prompt: "", temperature: 0.8, length: 200, seed: 1 };

export class Prompt {
  readonly root: HTMLElement;
  private readonly go = make("button", { class: "primary", type: "submit" }, t("generate"));
  private readonly stop: HTMLButtonElement;
  private readonly text = make("textarea", { name: "prompt", rows: 2, spellcheck: "false" });

  constructor(write: () => void, stop: () => void) {
    this.stop = make("button", { type: "button", disabled: true, onclick: stop }, t("stop"));
    this.text.addEventListener("input", () => (form.prompt = this.text.value));
    this.root = make(
      "form",
      { class: "card stack" },
      field(t("prompt"), this.text),
      make("div", { class: "controls" }, warmth(), number("length", 1, 2000), number("seed", 0, 2 ** 31)),
      make("div", { class: "row" }, this.go, this.stop),
    );
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      write();
    });
  }

  get asked(): typeof form {
    return { ...form };
  }

  get writing(): boolean {
    return !this.stop.disabled;
  }

  set writing(now: boolean) {
    this.go.disabled = now;
    this.stop.disabled = !now;
  }

  /** Another run: a prompt that suits it. */
  begin(example: string): void {
    this.text.value = form.prompt = example;
  }
}

function warmth(): HTMLElement {
  const said = make("output", {}, form.temperature.toFixed(2));
  const slider = make("input", { type: "range", name: "temperature", min: 0, max: 2, step: 0.05 });
  slider.value = String(form.temperature);
  slider.ariaLabel = t("temperature");
  slider.addEventListener("input", () => {
    form.temperature = slider.valueAsNumber;
    said.textContent = form.temperature.toFixed(2);
  });
  return make("label", { class: "field" }, make("span", { class: "name" }, t("temperature"), said), slider);
}

function number(name: "length" | "seed", min: number, max: number): HTMLElement {
  const box = make("input", { type: "number", name, min, max, value: form[name] });
  box.addEventListener("input", () => (form[name] = box.valueAsNumber));
  return field(t(name), box);
}
