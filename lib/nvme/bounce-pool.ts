/**
 * Pages between the device and memory that it cannot reach. PRP lists let any pages serve, so there is one stack of
 * free ones, and no fragmentation.
 *
 * Pages stay with their command until the controller has completed it or was reset: nothing else makes sure that it does
 * not write to them any more.
 */
import type { DmaBuffer } from '../index.js';

export class BouncePool {
  readonly #bytes: Buffer;
  readonly #pageSize: number;
  readonly #free: number[];
  /** The address of page 0. */
  readonly low: number;
  readonly high: number;

  constructor(buffer: DmaBuffer, pageSize: number) {
    this.#bytes = buffer.bytes;
    this.#pageSize = pageSize;
    this.low = Number(BigInt.asUintN(32, buffer.iova));
    this.high = Number(buffer.iova >> 32n);
    const count = Math.floor(buffer.size / pageSize);
    // The last is taken first: pages are given out in ascending order at first.
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  /** How many pages `bytes` take. */
  pagesFor(bytes: number): number {
    return Math.ceil(bytes / this.#pageSize);
  }

  /** `count` pages by number, or undefined where there are not as many. */
  take(count: number): number[] | undefined {
    if (this.#free.length < count) return undefined;
    const pages: number[] = [];
    for (let i = 0; i < count; i++) pages.push(this.#free.pop()!);
    return pages;
  }

  give(pages: readonly number[]): void {
    for (let i = pages.length - 1; i >= 0; i--) this.#free.push(pages[i]!);
  }

  copyIn(pages: readonly number[], source: Uint8Array): void {
    const page = this.#pageSize;
    for (let i = 0; i < pages.length; i++) {
      const part = pages.length === 1 ? source : source.subarray(i * page, (i + 1) * page);
      this.#bytes.set(part, pages[i]! * page);
    }
  }

  copyOut(pages: readonly number[], target: Uint8Array): void {
    const page = this.#pageSize;
    for (let i = 0; i < pages.length; i++) {
      const at = i * page;
      const length = Math.min(page, target.length - at);
      const from = pages[i]! * page;
      target.set(this.#bytes.subarray(from, from + length), at);
    }
  }
}
