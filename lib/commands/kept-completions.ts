/** Completions of tagged slots that came while nobody polled, in their order, until somebody does. */
import type { CommandSlots } from './command-slots.js';

export class KeptCompletions {
  readonly #slots: CommandSlots;
  readonly #kept: Uint16Array;
  readonly #status: Uint16Array;
  #count = 0;

  constructor(slots: CommandSlots) {
    this.#slots = slots;
    this.#kept = new Uint16Array(slots.count);
    this.#status = new Uint16Array(slots.count);
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** The slot, which is out, stays taken until the completion was reported. */
  keep(slot: number, status: number): void {
    this.#slots.keep(slot);
    this.#kept[this.#count] = slot;
    this.#status[this.#count++] = status;
  }

  /** Writes at most `max` tags and their status, and frees the slots. Returns how many. */
  report(max: number, tags: Uint32Array, status: Uint16Array): number {
    const count = Math.min(max, this.#count);
    for (let i = 0; i < count; i++) {
      const slot = this.#kept[i]!;
      tags[i] = this.#slots.tags[slot]!;
      status[i] = this.#status[i]!;
      this.#slots.release(slot);
    }
    this.#kept.copyWithin(0, count, this.#count);
    this.#status.copyWithin(0, count, this.#count);
    this.#count -= count;
    return count;
  }
}
