/** Doorbell Buffer Config (section 5.8, annex B.5): doorbells in the client's memory. */
import type { ClientMemory } from '../device-model.js';

export class ShadowDoorbells {
  readonly #memory: ClientMemory;
  readonly #shadow: bigint;
  readonly #eventIndexes: bigint;
  readonly #stride: number;

  constructor(memory: ClientMemory, shadow: bigint, eventIndexes: bigint, stride: number) {
    this.#memory = memory;
    this.#shadow = shadow;
    this.#eventIndexes = eventIndexes;
    this.#stride = stride;
  }

  tail(queue: number): Promise<number> {
    return this.#read(2 * queue);
  }

  head(queue: number): Promise<number> {
    return this.#read(2 * queue + 1);
  }

  /** The host rings when it goes past `tail`. */
  waitForTail(queue: number, tail: number): Promise<void> {
    return this.#wait(2 * queue, tail);
  }

  /** The host rings when it goes past `head`. */
  waitForHead(queue: number, head: number): Promise<void> {
    return this.#wait(2 * queue + 1, head);
  }

  async #read(index: number): Promise<number> {
    return (await this.#memory.read(this.#shadow + BigInt(index * this.#stride), 4)).readUInt32LE(0);
  }

  #wait(index: number, value: number): Promise<void> {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return this.#memory.write(this.#eventIndexes + BigInt(index * this.#stride), bytes);
  }
}
