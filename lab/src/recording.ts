// A recording as the server sends it, with its arrays unpacked when they are first looked at.
import { type Answer, decode, type EncodedArray } from "./connection";
import { around, decades, fitting, largest, type Scale } from "./palette";

export type Kind = "values" | "gradients";

export interface Series {
  values: Float32Array;
  steps: number;
  units: number;
  scale: Scale;
}

export class Layer {
  readonly index: number;
  /** The module's path in the network, and which of its layers this is. */
  readonly module: string;
  readonly depth: number;
  readonly direction: "forward" | "backward";
  readonly cell: string;
  readonly units: number;
  readonly names: string[];
  readonly states: string[];
  readonly gates: string[];
  readonly latex: string;
  private readonly encoded: Record<Kind, Record<string, EncodedArray>>;
  private readonly unpacked = new Map<string, Series>();
  private readonly sizes = new Map<string, number>();

  constructor(fields: Answer, index: number) {
    this.index = index;
    this.module = fields.name ?? "";
    this.depth = fields.layer ?? index;
    this.direction = fields.direction;
    this.cell = fields.cell;
    this.units = fields.units;
    this.names = fields.names;
    this.states = fields.states;
    this.gates = fields.gates ?? [];
    this.latex = fields.latex ?? "";
    this.encoded = { values: fields.values ?? {}, gradients: fields.gradients ?? {} };
  }

  get steps(): number {
    return this.encoded.values[this.names[0]].shape[0];
  }

  get hasGradients(): boolean {
    return Object.keys(this.encoded.gradients).length > 0;
  }

  has(name: string, kind: Kind): boolean {
    return name in this.encoded[kind];
  }

  /** The names in the order in which they are offered: states, gates, the others. */
  offered(kind: Kind): string[] {
    const all = new Set([...this.states, ...this.gates, ...this.names]);
    return [...all].filter((name) => this.has(name, kind));
  }

  series(name: string, kind: Kind): Series {
    const key = `${kind} ${name}`;
    let series = this.unpacked.get(key);
    if (!series) {
      const [steps, units] = this.encoded[kind][name].shape;
      const values = decode(this.encoded[kind][name]);
      const scale = kind === "values" ? fitting(values, this.gates.includes(name)) : decades(this.steepest());
      this.unpacked.set(key, (series = { values, steps, units, scale }));
    }
    return series;
  }

  /** The unit of the first state that moves most: a good one to begin with. */
  liveliest(): number {
    const { values, steps, units } = this.series(this.states[0] ?? this.names[0], "values");
    let best = 0;
    let most = -1;
    for (let unit = 0; unit < units; unit++) {
      let [sum, squares] = [0, 0];
      for (let step = 0; step < steps; step++) {
        const value = values[step * units + unit];
        sum += value;
        squares += value * value;
      }
      const variance = squares / steps - (sum / steps) ** 2;
      if (variance > most) [best, most] = [unit, variance];
    }
    return best;
  }

  /** The largest gradient of any name, so that all of a layer share one scale. */
  private steepest(): number {
    const names = Object.keys(this.encoded.gradients);
    if (!this.sizes.size) for (const name of names) this.sizes.set(name, largest(decode(this.encoded.gradients[name])));
    return Math.max(...this.sizes.values());
  }
}

export class Recording {
  readonly id: string | number;
  readonly steps: string[];
  readonly layers: Layer[];
  readonly loss: number | null;
  /** What the loss is of: "text", "target" or the "answer" that the model gives. */
  readonly lossOf: string;
  readonly answers: [string, number][];
  /** What the network expected to come after each step, likeliest first. */
  readonly next: [string, number][][] | null;
  readonly about: string;
  /** Names that were too large to keep. */
  readonly leftOut: string[];

  constructor(fields: Answer) {
    this.id = fields.id;
    this.steps = fields.steps;
    this.layers = fields.layers.map((layer: Answer, index: number) => new Layer(layer, index));
    this.loss = fields.loss ?? null;
    this.lossOf = fields.loss_of ?? "";
    this.leftOut = fields.left_out ?? [];
    this.answers = fields.answers ?? [];
    this.next = fields.next ?? null;
    this.about = fields.about ?? "";
  }

  get length(): number {
    return Math.max(this.steps.length, ...this.layers.map(({ steps }) => steps));
  }
}

/** A state for a small picture, where only its pattern counts. */
export function patternScale(values: Float32Array): Scale {
  const scale = fitting(values, false);
  return scale.oneSided ? around(1) : scale;
}
