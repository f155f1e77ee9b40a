/** Accesses of a region that takes certain widths only (the `accessWidths` quirk). */
import type { Width } from './region-access.js';

/** A part of an access: where it begins, from the access's first byte, and how many bytes it has. */
export interface Chunk {
  at: number;
  count: number;
}

/** Parts of `chunk` bytes, the last one shorter. */
export function* chunks(length: number, chunk: number): Generator<Chunk, void, undefined> {
  for (let at = 0; at < length; at += chunk) yield { at, count: Math.min(chunk, length - at) };
}

export class AccessSplitter {
  /** The widest first. */
  readonly #widths: readonly Width[];
  /** All are powers of two: what is a multiple of the least can be cut. */
  readonly least: Width;

  /** @param widths the widest first, at least one. */
  constructor(widths: readonly Width[]) {
    this.#widths = widths;
    // `checkQuirks` takes no empty list.
    this.least = widths.at(-1)!;
  }

  /** Whether it is one access that may be sent as it is. */
  isOne(offset: number, length: number): boolean {
    return this.#widths.includes(length as Width) && offset % length === 0;
  }

  /** Why the bytes cannot be accessed; undefined where they can. */
  problem(region: number, offset: number, length: number): RangeError | undefined {
    if (offset % this.least === 0 && length % this.least === 0) return undefined;
    const widths = [...this.#widths].reverse().join(', ');
    return new RangeError(
      `region ${region} is accessed in ${widths} bytes (quirk accessWidths); ${length} from offset ${offset} cannot be cut so`,
    );
  }

  /** The accesses, in rising order, each as wide as can be. */
  *split(offset: number, length: number): Generator<Chunk, void, undefined> {
    for (let at = 0; at < length;) {
      // `problem` has checked that the least width fits.
      const fitting = this.#widths.find((width) => (offset + at) % width === 0 && at + width <= length);
      const count = fitting ?? this.least;
      yield { at, count };
      at += count;
    }
  }
}
