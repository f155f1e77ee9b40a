/** Tables of indirect descriptors, one a slot (Virtual I/O Device 1.2, sections 2.7.5.3 and 2.8.7). */
import type { DmaBuffer } from '../index.js';
import { DESC_BYTES } from './constants.js';
import { high, low, wordsOf, type DmaLayout } from './dma-layout.js';

export class IndirectTables {
  /** All tables: 4 words a descriptor. */
  words: Uint32Array;
  readonly #addresses: Uint32Array;
  readonly #wordsEach: number;

  static reserve(layout: DmaLayout, slots: number, maxDescriptors: number): number {
    return layout.take(slots * maxDescriptors * DESC_BYTES, 16);
  }

  /** `at` is what `reserve` gave. */
  constructor(buffer: DmaBuffer, at: number, slots: number, maxDescriptors: number) {
    const each = maxDescriptors * DESC_BYTES;
    this.words = wordsOf(buffer, at, slots * each);
    this.#wordsEach = each >>> 2;
    this.#addresses = new Uint32Array(2 * slots);
    for (let slot = 0; slot < slots; slot++) {
      const address = buffer.iova + BigInt(at + slot * each);
      this.#addresses[2 * slot] = low(address);
      this.#addresses[2 * slot + 1] = high(address);
    }
  }

  low(slot: number): number {
    return this.#addresses[2 * slot]!;
  }

  high(slot: number): number {
    return this.#addresses[2 * slot + 1]!;
  }

  /** Where in `words` the slot's table begins. */
  at(slot: number): number {
    return slot * this.#wordsEach;
  }
}
