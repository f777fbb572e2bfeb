// What drawings on a canvas need of the theme: the colours of CSS properties, and word of a change.
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The value now of a CSS property that holds a colour. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Calls `paint` whenever colours have changed, until the function returned is called. */
export function onRepaint(paint: () => void): () => void {
  dark.addEventListener("change", paint);
  addEventListener("themechange", paint);
  return () => {
    dark.removeEventListener("change", paint);
    removeEventListener("themechange", paint);
  };
}
