/** Numbers that look random and come again with the same seed (SplitMix32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 1, 1 not included. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 0x1_0000_0000;
  }

  /** A whole number from 0 on, less than `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
}

/** Turns so many random bits among those that there are, each once. More than there are would turn some back. */
export function turnBits(bytes: Uint8Array, from: number, count: number, random: Random): void {
  const bits = (bytes.length - from) * 8;
  const turned = new Set<number>();
  while (turned.size < Math.min(count, bits)) {
    const bit = random.below(bits);
    if (turned.has(bit)) continue;
    turned.add(bit);
    const at = from + (bit >> 3);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
  }
}
