// Numbers as colours: blue is above zero, orange below, the paper's own shade is zero. Every legend says its ends.
export interface Scale {
  /** Where a number lies: -1 and 1 are the ends of the ramp, 0 its middle. */
  place(value: number): number;
  /** Marks for the legend: [place, text]. */
  marks: [number, string][];
  /** From 0 upwards only: gates and probabilities. */
  oneSided: boolean;
  /** The size that has the last colour. */
  most: number;
}

const HALF = 128;
const DECADES = 4;

/** 0 to 1. */
export const share: Scale = {
  place: (value) => value,
  marks: [
    [0, "0"],
    [0.5, "0.5"],
    [1, "1"],
  ],
  oneSided: true,
  most: 1,
};

/** From -most to most; what lies beyond has the colour of the end. */
export function around(most: number): Scale {
  const end = short(most);
  return {
    place: (value) => value / most,
    marks: [
      [-1, `−${end}`],
      [0, "0"],
      [1, end],
    ],
    oneSided: false,
    most,
  };
}

/** Around zero in tenfold steps, over four decades: gradients, which are small long before they are gone. */
export function decades(most: number): Scale {
  const floor = most / 10 ** DECADES;
  const whole = Math.log1p(10 ** DECADES);
  const place = (value: number) => (Math.sign(value) * Math.log1p(Math.abs(value) / floor)) / whole;
  const half = most / 100;
  return {
    place,
    marks: [
      [-1, `−${short(most)}`],
      [place(-half), `−${short(half)}`],
      [0, "0"],
      [place(half), short(half)],
      [1, short(most)],
    ],
    oneSided: false,
    most,
  };
}

/** A scale that fits: gates from 0 to 1, states that stay within 1 around 1, others by all but their outliers. */
export function fitting(values: Float32Array, gate: boolean): Scale {
  let low = 0;
  let most = 0;
  for (const value of values) {
    if (value < low) low = value;
    if (Math.abs(value) > most) most = Math.abs(value);
  }
  if (gate && low >= 0 && most <= 1) return share;
  if (most <= 1 && most > 0.3) return around(1);
  const sizes = values.map(Math.abs).sort();
  return around(sizes[Math.floor(0.995 * (sizes.length - 1))] || most || 1);
}

/** The largest size of a number, for a scale of gradients. */
export function largest(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
}

/** 257 colours from -1 to 1 as pixels (little-endian RGBA), in the theme of now. */
export function ramp(): Uint32Array {
  const style = getComputedStyle(document.documentElement);
  const stops = ["--below-end", "--below", "--zero", "--above", "--above-end"].map((name) =>
    rgb(style.getPropertyValue(name)),
  );
  return Uint32Array.from({ length: 2 * HALF + 1 }, (_, k) => {
    const along = (k / (2 * HALF)) * (stops.length - 1);
    const first = Math.min(Math.floor(along), stops.length - 2);
    const [r, g, b] = stops[first].map((from, c) => Math.round(from + (along - first) * (stops[first + 1][c] - from)));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

/** The pixel of a number. */
export function pixel(colours: Uint32Array, scale: Scale, value: number): number {
  return colours[HALF + Math.round(HALF * Math.max(-1, Math.min(1, scale.place(value))))];
}

/** The same colour as CSS has it. */
export function css(pixel: number): string {
  return `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;
}

/** Ink that can be read on this colour. */
export function inkOn(pixel: number): string {
  const [r, g, b] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#16181b" : "#f5f5f2";
}

/** A number with two or three digits that count. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000 || size < 0.001) return value.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(2)));
}

/** A number as it stands in a read-out: always three decimals, a true minus. */
export function exact(value: number): string {
  const text = Math.abs(value) < 0.0005 && value !== 0 ? value.toExponential(1) : value.toFixed(3);
  return text.replaceAll("-", "−");
}

function rgb(hex: string): number[] {
  return [1, 3, 5].map((from) => parseInt(hex.trim().slice(from, from + 2), 16));
}
