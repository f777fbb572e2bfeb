// The controls of the play head: play, back, on, where it is, how fast.
import { make, select } from "./element";
import type { Player } from "./player";
import { t } from "./words_think";

const SPEEDS = [2, 6, 15, 40];

export class Transport {
  readonly root: HTMLElement;
  readonly play = make("button", { class: "play", type: "button", onclick: () => this.player.toggle() });
  private readonly place = make("output", { class: "place" });
  private readonly slider = make("input", { type: "range", min: 0, step: 1 });
  private steps = 1;

  constructor(
    private readonly player: Player,
    private readonly seek: (step: number) => void,
  ) {
    this.slider.ariaLabel = t("position");
    this.slider.addEventListener("input", () => seek(this.slider.valueAsNumber));
    this.root = make(
      "div",
      { class: "transport" },
      this.play,
      this.button("start", "«", () => -player.step),
      this.button("back", "‹", () => -1),
      this.button("on", "›", () => 1),
      this.slider,
      this.place,
      this.speed(),
    );
  }

  show(steps: number): void {
    this.steps = steps;
    this.slider.max = String(steps - 1);
  }

  follow(): void {
    const { step, playing } = this.player;
    const label = t(playing ? "pause" : "play");
    if (this.play.ariaLabel !== label) {
      this.play.ariaLabel = this.play.title = label;
      this.play.textContent = playing ? "❚❚" : "▶";
    }
    const place = t("step", { n: step + 1, all: this.steps });
    if (this.place.textContent === place) return;
    this.place.textContent = place;
    this.slider.value = String(step);
  }

  private button(key: "start" | "back" | "on", sign: string, by: () => number): HTMLElement {
    const go = () => this.seek(this.player.step + by());
    return make("button", { type: "button", title: t(key), "aria-label": t(key), "data-do": key, onclick: go }, sign);
  }

  private speed(): HTMLElement {
    const options = SPEEDS.map((each): [string, string] => [String(each), `${each} / s`]);
    const speed = select(options, String(this.player.speed), (each) => (this.player.speed = Number(each)));
    speed.ariaLabel = speed.title = t("speed");
    return speed;
  }
}
