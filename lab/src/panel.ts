// What a panel of the lab is. main.ts opens one at a time.
import type { Connection } from "./connection";

export interface Panel {
  /** Its place in the address: #think. */
  readonly key: string;
  title(): string;
  /** One sentence under the title: what there is to see here. */
  about(): string;
  /** Fills `root`, which is empty. Called again after close: another language, a new session. */
  open(root: HTMLElement, connection: Connection): void;
  /** Stops what runs and lets go of timers and handlers. `root` is emptied afterwards. */
  close(): void;
  /** Keys of its own, for the list of shortcuts: [["Space", "play or pause"]]. */
  keys?(): [key: string, does: string][];
}
