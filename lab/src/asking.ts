// What a panel asks of the server; what the server refuses is shown in the panel, in the server's own words.
import { type Answer, type Connection, LostConnection } from "./connection";
import { make } from "./element";

export class Asking {
  readonly error = make("p", { class: "error", role: "alert", hidden: true });

  constructor(private readonly connection: Connection) {}

  /** The answer, or null where it was refused. A lost connection is said by the shell. */
  async ask(name: string, fields: Answer = {}): Promise<Answer | null> {
    this.fail("");
    try {
      return await this.connection.request(name, fields);
    } catch (error) {
      if (!(error instanceof LostConnection)) this.fail((error as Error).message);
      return null;
    }
  }

  fail(message: string): void {
    this.error.textContent = message;
    this.error.hidden = !message;
  }
}
