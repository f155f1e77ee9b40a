/** Commands whose turn has not come, with memory of their own: what they came in was only lent. */
import { Fifo } from '../fifo.js';
import { closeFds } from '../native.js';
import type { Message } from './commands.js';

/** What a command costs beside its payload, roughly, so that small ones count too. */
const OVERHEAD = 256;

export class PendingCommands {
  readonly #fdCost: number;
  readonly #messages = new Fifo<Message>();
  #bytes = 0;

  /** An fd counts as `fdCost` bytes: there are fewer of them than there is memory. */
  constructor(fdCost: number) {
    this.#fdCost = fdCost;
  }

  get length(): number {
    return this.#messages.length;
  }

  /** Memory that is held. */
  get bytes(): number {
    return this.#bytes;
  }

  push(message: Message): void {
    this.#messages.push(owned(message));
    this.#bytes += this.#costOf(message);
  }

  /** Puts a command before those that wait. */
  pushFirst(message: Message): void {
    this.#messages.pushFirst(owned(message));
    this.#bytes += this.#costOf(message);
  }

  shift(): Message | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) this.#bytes -= this.#costOf(message);
    return message;
  }

  /** Forgets all commands and closes their fds. */
  clear(): void {
    for (const { fds } of this.#messages.drain()) closeFds(fds);
    this.#bytes = 0;
  }

  #costOf({ start, end, fds }: Message): number {
    return OVERHEAD + end - start + fds.length * this.#fdCost;
  }
}

function owned(message: Message): Message {
  const bytes = Buffer.from(message.bytes.subarray(message.start, message.end));
  return { ...message, bytes, start: 0, end: bytes.byteLength };
}
