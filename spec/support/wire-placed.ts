/** How the codec's specs hand payloads to decoders: inside a larger buffer, whole, cut and random. */
import { expect } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../lib/errors.js';

/** A decoder whose payload is `bytes[start..end)`. */
export type Decoder<T> = (bytes: Buffer, start: number, end: number) => T;

const BEFORE = 21;
const AFTER = 40;

/**
 * Decodes a payload that lies unaligned in the middle of a receive buffer full of other bytes, which are overwritten
 * before the result is handed out: a decoder that reads past its end or keeps a view shows it.
 */
export function decode<T>(decoder: Decoder<T>, payload: Uint8Array, around = 0xee): T {
  const bytes = Buffer.alloc(BEFORE + payload.length + AFTER, around);
  bytes.set(payload, BEFORE);
  const result = decoder(bytes, BEFORE, BEFORE + payload.length);
  bytes.fill(0xdd);
  return result;
}

/** The payload is refused, by a ProtocolError with these words. */
export function expectRefused(decoder: Decoder<unknown>, payload: Uint8Array, words: RegExp): void {
  expect(caught(() => decode(decoder, payload))).toBeInstanceOf(ProtocolError);
  expect(() => decode(decoder, payload)).toThrow(words);
}

/** Every shorter beginning of the payload is refused, whatever bytes lie behind it. Lengths in `but` are left out. */
export function expectEveryCutRefused(
  decoder: Decoder<unknown>,
  payload: Uint8Array,
  but: readonly number[] = [],
): void {
  const accepted: number[] = [];
  for (let length = 0; length < payload.length; length++) {
    if (but.includes(length)) continue;
    for (const around of [0x00, 0xff]) {
      const error = caught(() => decode(decoder, payload.subarray(0, length), around));
      if (!(error instanceof ProtocolError)) accepted.push(length);
    }
  }
  expect(accepted).toEqual([]);
}

/**
 * Random payloads, and the given sound ones with bytes changed, cut off or appended, are decoded or refused with a
 * ProtocolError; nothing else is ever thrown.
 */
export function expectOnlyProtocolErrors(decoder: Decoder<unknown>, ...sound: readonly Buffer[]): void {
  const seeds = sound.length === 0 ? [Buffer.alloc(0)] : sound;
  const damage = fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 4, 0x7f, 0x80, 0xff)), { maxLength: 6 });
  const damaged = fc
    .tuple(fc.constantFrom(...seeds), damage, fc.option(fc.nat()), fc.uint8Array({ maxLength: 9 }))
    .map(([seed, changes, cut, tail]) => {
      const bytes = Buffer.concat([
        seed.subarray(0, cut === null ? undefined : cut % (seed.length + 1)),
        tail,
      ]);
      for (const [at, value] of changes) if (bytes.length > 0) bytes[at % bytes.length] = value;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), damaged), (payload) => {
      const error = caught(() => decode(decoder, payload));
      if (error !== undefined && !(error instanceof ProtocolError)) throw error;
    }),
    { numRuns: 500 },
  );
}

function caught(run: () => unknown): unknown {
  try {
    run();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Numbers of a field of so many bits, its edges included. */
export const bits = (width: 16 | 32): fc.Arbitrary<number> => {
  const most = 2 ** width - 1;
  return fc.oneof(fc.integer({ min: 0, max: most }), fc.constantFrom(0, 1, most));
};

/** Sizes and offsets: 64-bit fields that are safe integers. */
export const sizes = (): fc.Arbitrary<number> =>
  fc.oneof(fc.maxSafeNat(), fc.nat(), fc.constantFrom(0, 0xffffffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER));

/** Addresses: any 64 bits. */
export const addresses = (): fc.Arbitrary<bigint> => fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

/** An address and a length that lie in the 64-bit address space. */
export const addressRanges = (): fc.Arbitrary<{ address: bigint; size: bigint }> =>
  fc.tuple(addresses(), addresses()).map(([a, b]) => {
    const [low, high] = a < b ? [a, b] : [b, a];
    return { address: low, size: high - low };
  });

/** Page sizes: powers of two. */
export const pageSizes = (): fc.Arbitrary<number> =>
  fc.integer({ min: 0, max: 40 }).map((exponent) => 2 ** exponent);

/** Some bytes of data. */
export const someData = (maxLength = 64): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((b) => Buffer.from(b));
