/** Messages that wait for room in flight, first in, first out. Those given up stay until their turn and are skipped. */
import type { QueuedMessage } from './slot.js';

/** Once this much of the array's front is used up it is cut off. */
const CUT_AT = 256;

export class MessageQueue {
  /** Undefined while there are none, as there are mostly. */
  #messages: QueuedMessage[] | undefined;
  #first = 0;

  /** The message whose turn it is. */
  peek(): QueuedMessage | undefined {
    while (this.#messages !== undefined) {
      const message = this.#messages[this.#first]!;
      if (message.posted || message.slot !== undefined) return message;
      this.shift();
    }
    return undefined;
  }

  /** The messages that wait, without those given up. */
  *waiting(): Generator<QueuedMessage> {
    // Who looks stops early: the rest of a long queue is not copied for it.
    for (let i = this.#first; this.#messages !== undefined && i < this.#messages.length; i++) {
      const message = this.#messages[i]!;
      if (message.posted || message.slot !== undefined) yield message;
    }
  }

  push(message: QueuedMessage): void {
    (this.#messages ??= []).push(message);
  }

  /** Takes the first away, of which there is one. */
  shift(): void {
    this.#first++;
    if (this.#first === this.#messages!.length) this.clear();
    else if (this.#first === CUT_AT) {
      this.#messages!.splice(0, CUT_AT);
      this.#first = 0;
    }
  }

  clear(): void {
    this.#messages = undefined;
    this.#first = 0;
  }
}
