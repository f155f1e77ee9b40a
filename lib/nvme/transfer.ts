/**
 * A call that takes many commands: a long read or write, Write Zeroes or Deallocate of many blocks. Its commands are made
 * as there is room for them, so it takes memory for what is in flight, whatever its length.
 */
import type { Command } from './command.js';
import { PendingCall } from './pending-call.js';

export class Transfer extends PendingCall {
  /** Parts that were sent, or wait to be sent again. */
  outCount = 0;
  /** Made, and waiting for room. */
  #made: Command | undefined;
  readonly #parts: Iterator<Command, void>;
  #isDone = false;

  /** `parts` makes the commands, in order, one when it is asked for one. */
  constructor(name: string, parts: Iterator<Command, void>) {
    super(name);
    this.#parts = parts;
  }

  /** All commands were sent. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** The command to be sent next; undefined where there is none left. Throws what making it throws. */
  peek(): Command | undefined {
    if (this.#made === undefined && !this.#isDone) {
      const { value, done } = this.#parts.next();
      if (done === true) this.#isDone = true;
      else {
        value.transfer = this;
        this.#made = value;
      }
    }
    return this.#made;
  }

  /** That command was sent. */
  advance(): void {
    this.#made = undefined;
    this.outCount++;
  }
}
