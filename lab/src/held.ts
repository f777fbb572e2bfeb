// Units that are held at a value, and the form that holds one more.
import { field, make } from "./element";
import { exact } from "./palette";
import { t } from "./words_talk";

export class Held {
  readonly root: HTMLElement;
  private readonly value = make("input", { type: "number", step: 0.1, value: 0 });
  private readonly list = make("div", { class: "held row" });
  private readonly units = new Map<number, number>();

  /** hold: does it, null lets go; says whether it was done. unit: the one that is chosen now. */
  constructor(
    private readonly hold: (unit: number, value: number | null) => Promise<boolean>,
    unit: () => number,
  ) {
    const form = make(
      "form",
      { class: "hold row" },
      field(t("hold"), this.value),
      make("button", { type: "submit" }, t("apply")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (Number.isFinite(this.value.valueAsNumber)) void this.change(unit(), this.value.valueAsNumber);
    });
    this.root = make("div", { class: "stack" }, form, this.list);
  }

  show(held: [unit: number, value: number][]): void {
    this.units.clear();
    for (const [unit, value] of held) this.units.set(unit, value);
    this.draw();
  }

  private async change(unit: number, value: number | null): Promise<void> {
    if (!(await this.hold(unit, value))) return;
    if (value === null) this.units.delete(unit);
    else this.units.set(unit, value);
    this.draw();
  }

  private draw(): void {
    const each = [...this.units].map(([unit, value]) => {
      const name = t("release", { unit, value: exact(value) });
      const release = () => void this.change(unit, null);
      const text = `${t("unit")} ${unit} = ${exact(value)}  ×`;
      return make(
        "button",
        { type: "button", class: "held-unit", "aria-label": name, title: name, onclick: release },
        text,
      );
    });
    this.list.replaceChildren(...(each.length ? each : [make("p", { class: "note" }, t("without"))]));
  }
}
