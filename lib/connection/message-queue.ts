/** Messages that wait for room in flight, first in, first out. Those given up stay until their turn and are skipped. */
import type { QueuedMessage } from './slot.js';

/** Once this much of the array's front is used up it is cut off. */
const CUT_AT = 256;

export class MessageQueue {
  #messages: QueuedMessage[] = [];
  #first = 0;

  /** The message whose turn it is. */
  peek(): QueuedMessage | undefined {
    while (this.#first < this.#messages.length) {
      const message = this.#messages[this.#first]!;
      if (message.posted || message.slot !== undefined) return message;
      this.shift();
    }
    return undefined;
  }

  /** The messages that wait, without those given up. */
  *waiting(): Generator<QueuedMessage> {
    for (let i = this.#first; i < this.#messages.length; i++) {
      const message = this.#messages[i]!;
      if (message.posted || message.slot !== undefined) yield message;
    }
  }

  push(message: QueuedMessage): void {
    this.#messages.push(message);
  }

  shift(): void {
    this.#first++;
    if (this.#first === this.#messages.length) {
      this.#messages = [];
      this.#first = 0;
    } else if (this.#first === CUT_AT) {
      this.#messages.splice(0, CUT_AT);
      this.#first = 0;
    }
  }

  clear(): void {
    this.#messages = [];
    this.#first = 0;
  }
}
