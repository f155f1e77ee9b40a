/** An access as the beats of a bus: each as wide as the bus and aligned to it, with a strobe for each byte that is meant. */
export interface BusBeat {
  /** Of the first lane. */
  readonly offset: number;
  /** Bit n: the byte at `offset` + n. */
  readonly strobes: number;
  /** Where the first meant byte is in the access. */
  readonly at: number;
  /** The first lane that is meant. */
  readonly lane: number;
  /** How many bytes are meant. */
  readonly length: number;
}

/** In ascending order. `width` is a power of two. */
export function* beatsOf(offset: number, count: number, width: number): Generator<BusBeat> {
  let at = 0;
  while (at < count) {
    const lane = (offset + at) % width;
    const length = Math.min(width - lane, count - at);
    yield { offset: offset + at - lane, strobes: ((1 << length) - 1) << lane, at, lane, length };
    at += length;
  }
}

/** The lanes of a beat: `length` bytes from `at`, the first in lane `lane`; 0 in others. */
export function toLanes(bytes: Uint8Array, { at, lane, length }: BusBeat): bigint {
  let lanes = 0n;
  for (let i = 0; i < length; i++) lanes |= BigInt(bytes[at + i] ?? 0) << BigInt((lane + i) * 8);
  return lanes;
}

/** Puts the lanes that were meant where they belong; others are not looked at. */
export function fromLanes(lanes: bigint, bytes: Uint8Array, { at, lane, length }: BusBeat): void {
  for (let i = 0; i < length; i++) bytes[at + i] = Number((lanes >> BigInt((lane + i) * 8)) & 0xffn);
}
