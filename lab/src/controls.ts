// Controls of a panel that say their own value: sliders, on a plain or a logarithmic scale, and keys of a panel.
import "./controls.css";
import { field, make } from "./element";

export type SliderOptions = {
  from: number;
  to: number;
  step: number;
  value: number;
  /** How a value is written. */
  write?: (value: number) => string;
  /** The scale is logarithmic: from, to and step are powers of ten, value and what comes out are not. */
  logarithmic?: boolean;
  /** Said while the slider does nothing. */
  note?: string;
};

export type Slider = HTMLLabelElement & { limit(to: number): void; enable(enabled: boolean): void };

/** A slider under its name and value. `changed` hears every movement. */
export function slider(name: string, options: SliderOptions, changed: (value: number) => void): Slider {
  const { from, to, step, logarithmic, write = String } = options;
  const read = (place: number) => (logarithmic ? Number((10 ** place).toPrecision(2)) : place);
  const input = make("input", { type: "range", min: from, max: to, step, "aria-label": name });
  // Not an <output>: the label would be taken for its, not for the slider's.
  const said = make("span", { class: "said" }, write(options.value));
  input.value = String(logarithmic ? Math.log10(options.value) : options.value);
  const show = () => {
    said.textContent = write(read(input.valueAsNumber));
    input.setAttribute("aria-valuetext", said.textContent);
  };
  input.addEventListener("input", () => (show(), changed(read(input.valueAsNumber))));
  show();
  const label = field(name, input, options.note);
  label.querySelector(".name")!.append(said);
  return Object.assign(label, {
    limit(most: number) {
      input.max = String(most);
      show();
    },
    enable(enabled: boolean) {
      input.disabled = !enabled;
      label.querySelector(".note")?.toggleAttribute("hidden", enabled);
    },
  });
}

/** Calls `act` by the key pressed anywhere but in a field where it would be typed. The function returned stops it. */
export function onKeys(act: Record<string, () => void>): () => void {
  const listen = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement;
    const taken = target.closest("textarea, select, dialog, [contenteditable], input:not([type=range])");
    const pressed = event.key === " " && target.closest("button, a, summary, input");
    if (taken || pressed || event.ctrlKey || event.metaKey || event.altKey || !act[event.key]) return;
    event.preventDefault();
    act[event.key]();
  };
  addEventListener("keydown", listen);
  return () => removeEventListener("keydown", listen);
}

/** `act` once nothing more has come for a while. */
export function settled(milliseconds: number, act: () => void): { soon(): void; cancel(): void } {
  let timer = 0;
  return {
    soon() {
      clearTimeout(timer);
      timer = window.setTimeout(act, milliseconds);
    },
    cancel: () => clearTimeout(timer),
  };
}
