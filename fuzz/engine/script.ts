/** An input as a script: steps, and what they take. Where it has ended all is 0. */

/** Values at which sizes, counts, offsets and addresses go wrong; a byte picks one. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 12, 16, 20, 24, 32, 40, 64, 0x60, 0x70, 0x80, 0xff, 0x100]
  .concat([0x800, 0xfff, 0x1000, 0x1001, 0x2000, 0x3000, 0x4000, 0x8000, 0xffff, 0x1_0000])
  .concat([0xf_ffff, 0x10_0000, 0x10_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_f000, 0xffff_ffff]);
const WIDE = [1n << 32n, 1n << 40n, (1n << 53n) - 1n, 1n << 53n, 1n << 63n, (1n << 64n) - 4096n]
  .concat([(1n << 64n) - 1n])
  .concat(EDGES.map(BigInt));

export class Script {
  readonly #input: Buffer;
  #at = 0;

  constructor(input: Buffer) {
    this.#input = input;
  }

  get isOver(): boolean {
    return this.#at >= this.#input.length;
  }

  byte(): number {
    return this.#input[this.#at++] ?? 0;
  }

  /** A number below `below`, which is 256 at the most. */
  below(below: number): number {
    return this.byte() % below;
  }

  /** Small numbers as they are, and the edges. */
  number(): number {
    const byte = this.byte();
    return byte < 192 ? EDGES[byte % EDGES.length]! : byte - 192;
  }

  wide(): bigint {
    const byte = this.byte();
    return byte < 224 ? WIDE[byte % WIDE.length]! : BigInt(byte - 224) * 4096n;
  }

  /** A length in one byte, and as many bytes as that, `most` at the most. */
  bytes(most: number): Buffer {
    const length = Math.min(this.byte(), most);
    const bytes = Buffer.from(this.#input.subarray(this.#at, this.#at + length));
    this.#at += length;
    return bytes;
  }
}
