// The play head: where we are in the sequence, between one step and the next while it plays.
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Player {
  /** From 0 to the last step; a fraction while gliding on. */
  position = 0;
  playing = false;
  /** Steps a second. */
  speed = 6;
  private exactly = 0;
  private before = 0;
  private frame = 0;

  constructor(
    private steps: number,
    private readonly moved: () => void,
  ) {}

  get step(): number {
    return Math.floor(this.position + 1e-6);
  }

  reset(steps: number): void {
    this.pause();
    this.steps = steps;
    this.seek(0);
  }

  toggle(): void {
    if (this.playing) this.pause();
    else this.play();
  }

  play(): void {
    if (this.step >= this.steps - 1) this.position = 0;
    this.exactly = this.position;
    this.playing = true;
    this.before = performance.now();
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame((now) => this.tick(now));
    this.moved();
  }

  /** Comes to rest on a whole step. */
  pause(): void {
    cancelAnimationFrame(this.frame);
    this.playing = false;
    this.position = this.step;
    this.moved();
  }

  seek(step: number): void {
    this.exactly = this.position = Math.max(0, Math.min(this.steps - 1, step));
    this.moved();
  }

  private tick(now: number): void {
    // The first frame may bear a time before the click.
    const passed = Math.max(0, now - this.before) / 1000;
    this.exactly = Math.min(this.steps - 1, this.exactly + this.speed * passed);
    this.before = Math.max(now, this.before);
    this.position = still.matches ? Math.floor(this.exactly) : this.exactly;
    if (this.exactly >= this.steps - 1) return this.pause();
    this.moved();
    this.frame = requestAnimationFrame((next) => this.tick(next));
  }
}
