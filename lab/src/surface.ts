// A canvas as sharp as the screen, as wide as its place, drawn again when either or the theme changes.
import { make } from "./element";

export class Surface {
  readonly canvas: HTMLCanvasElement;
  readonly context: CanvasRenderingContext2D;
  width = 0;
  height = 0;
  private readonly sized: ResizeObserver;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private waiting = 0;

  /** `draw` is called with a clear canvas, in CSS pixels. */
  constructor(
    height: number,
    private readonly draw: (context: CanvasRenderingContext2D) => void,
    attributes = {},
  ) {
    this.canvas = make("canvas", attributes);
    this.context = this.canvas.getContext("2d")!;
    this.height = height;
    this.sized = new ResizeObserver(() => this.fit());
    this.sized.observe(this.canvas);
    this.dark.addEventListener("change", this.again);
    addEventListener("themechange", this.again);
  }

  set tall(height: number) {
    this.height = height;
    this.canvas.style.height = `${height}px`;
    this.fit();
  }

  /** Draws before the next frame is shown, once, however often it is asked. */
  readonly again = (): void => {
    this.waiting ||= requestAnimationFrame(() => this.paint());
  };

  close(): void {
    cancelAnimationFrame(this.waiting);
    this.sized.disconnect();
    this.dark.removeEventListener("change", this.again);
    removeEventListener("themechange", this.again);
  }

  private fit(): void {
    const ratio = devicePixelRatio;
    this.width = this.canvas.clientWidth;
    this.canvas.style.height = `${this.height}px`;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.paint();
  }

  private paint(): void {
    cancelAnimationFrame(this.waiting);
    this.waiting = 0;
    if (!this.width) return;
    this.context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    this.draw(this.context);
  }
}

/** The value now of a CSS property that holds a colour. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export const SANS = 'system-ui, "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif';
export const MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace';
