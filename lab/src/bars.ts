// Shares as bars: what a model weighs, likeliest first or in the order of its labels.
import "./bars.css";
import { make } from "./element";
import { exact } from "./palette";

export class Bars {
  readonly root = make("div", { class: "shares", role: "list" });
  private names: string[] = [];

  show(shares: [name: string, share: number][]): void {
    const names = shares.map(([name]) => name);
    if (names.join("\n") !== this.names.join("\n")) {
      this.names = names;
      this.root.replaceChildren(
        ...names.map((name) =>
          make(
            "div",
            { class: "bar", role: "listitem", "data-name": name },
            make("span", { class: "label", dir: "auto" }, name),
            make("span", { class: "track" }, make("i")),
            make("output"),
          ),
        ),
      );
    }
    const best = Math.max(...shares.map(([, share]) => share));
    shares.forEach(([, share], k) => {
      const bar = this.root.children[k] as HTMLElement;
      bar.classList.toggle("best", share === best);
      bar.querySelector("i")!.style.width = `${100 * share}%`;
      const said = bar.querySelector("output")!;
      said.textContent = exact(share);
      said.dataset.value = String(share);
    });
  }
}
