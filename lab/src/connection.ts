// The one socket of this tab. Requests are answered by id; events go to their handlers; a lost connection comes back
// by itself, with the session's token, so that what the server knows of this tab is still there.
export type Answer = Record<string, any>;
export type EncodedArray = { shape: number[]; data: string };
type Handler = (fields: Answer) => void;
type Waiting = { resolve: (answer: Answer) => void; reject: (error: Error) => void };

const FIRST_WAIT = 250;
const LONGEST_WAIT = 4000;

export class Connection {
  state: "open" | "lost" = "lost";
  /** What the server said of itself: version, cells, problems, runs, demos. */
  hello: Answer = {};

  private socket: WebSocket | null = null;
  private token: string | null = null;
  private last = 0;
  private wait = FIRST_WAIT;
  private readonly waiting = new Map<number, Waiting>();
  private readonly handlers = new Map<string, Set<Handler>>();

  constructor(private readonly url: string) {
    this.connect();
  }

  /** The answer's fields. Rejects with the server's own words, or when the connection is lost meanwhile. */
  request(name: string, fields: Answer = {}): Promise<Answer> {
    if (this.state === "lost" && name !== "hello" && name !== "resume") {
      return new Promise((resolve, reject) => {
        const off = this.on("connection", ({ state }) => {
          if (state !== "open") return;
          off();
          this.request(name, fields).then(resolve, reject);
        });
      });
    }
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.socket!.send(JSON.stringify({ id, do: name, ...fields }));
    });
  }

  /** Calls `handler` for every such event, until the function that it returns is called. "connection" is our own event:
   * {state: "open" | "lost" | "refused", fresh: true if the server no longer knew this session, error: why refused}. */
  on(event: string, handler: Handler): () => void {
    const all = this.handlers.get(event) ?? new Set();
    this.handlers.set(event, all.add(handler));
    return () => all.delete(handler);
  }

  /** The numbers of an array, row after row. */
  decode(array: EncodedArray): Float32Array {
    return decode(array);
  }

  private connect(): void {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => this.greet();
    socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    socket.onclose = () => this.lose();
  }

  private async greet(): Promise<void> {
    const before = this.token;
    try {
      const hello = await this.request("hello", before ? { token: before } : {});
      this.hello = hello;
      this.token = hello.token;
      this.wait = FIRST_WAIT;
      this.state = "open";
      this.tell("connection", { state: "open", fresh: before !== null && hello.token !== before });
    } catch (error) {
      if (!(error instanceof LostConnection))
        this.tell("connection", { state: "refused", error: (error as Error).message });
      this.socket?.close();
    }
  }

  private receive(message: Answer): void {
    if (typeof message.event === "string") return this.tell(message.event, message);
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.ok) waiting?.resolve(message);
    else waiting?.reject(new Error(message.error));
  }

  private lose(): void {
    const lost = this.state === "open";
    this.state = "lost";
    for (const { reject } of this.waiting.values()) reject(new LostConnection());
    this.waiting.clear();
    if (lost) this.tell("connection", { state: "lost" });
    setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }

  private tell(event: string, fields: Answer): void {
    for (const handler of [...(this.handlers.get(event) ?? [])]) handler(fields);
  }
}

/** The connection went while an answer was awaited; the shell says so, a panel need not. */
export class LostConnection extends Error {}

export function decode({ shape, data }: EncodedArray): Float32Array {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  const expected = shape.reduce((product, size) => product * size, 1);
  if (numbers.length !== expected) throw new Error(`an array of shape ${shape} came with ${numbers.length} numbers`);
  return numbers;
}
