/** Makes new inputs of known ones: single bytes, words at the edges of what they can say, pieces moved and mixed. */
import type { Random } from './random.js';

export const MAX_INPUT_BYTES = 4096;
const MOST_CHANGES = 5;

/** Values at which sizes, counts and offsets go wrong. */
const EDGES = [0n, 1n, 7n, 8n, 15n, 16n, 31n, 32n, 0x7fn, 0x80n, 0xffn, 0x1000n, 0x7fffn, 0x8000n, 0xffffn]
  .concat([0x10_0000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 1n << 32n, (1n << 53n) - 1n, 1n << 53n])
  .concat([1n << 63n, (1n << 64n) - 4096n, (1n << 64n) - 1n]);

type Change = (bytes: Buffer, random: Random, other: Uint8Array) => Buffer;

const flipBit: Change = (bytes, random) => {
  if (bytes.length > 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
  return bytes;
};

const setByte: Change = (bytes, random) => {
  if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
  return bytes;
};

const addToByte: Change = (bytes, random) => {
  if (bytes.length > 0) bytes[random.below(bytes.length)]! += random.below(33) - 16;
  return bytes;
};

/** A little-endian word; fields stand at multiples of their width. */
const setWord: Change = (bytes, random) => {
  const width = random.pick([1, 2, 4, 4, 8, 8]);
  if (bytes.length < width) return bytes;
  const at = random.below(bytes.length - width + 1);
  const aligned = random.below(4) === 0 ? at : at - (at % Math.min(width, 4));
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(random.pick(EDGES));
  word.copy(bytes, aligned, 0, width);
  return bytes;
};

const remove: Change = (bytes, random) => {
  const [start, end] = range(bytes.length, random);
  return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
};

const repeat: Change = (bytes, random) => {
  const [start, end] = range(bytes.length, random);
  const piece = bytes.subarray(start, end);
  const times = random.below(8) === 0 ? 16 : 1;
  return Buffer.concat([
    bytes.subarray(0, end),
    ...Array.from({ length: times }, () => piece),
    bytes.subarray(end),
  ]);
};

const insert: Change = (bytes, random) => {
  const at = random.below(bytes.length + 1);
  const piece = Buffer.alloc(1 + random.below(16), random.below(2) === 0 ? 0 : random.below(256));
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
};

const truncate: Change = (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1));

const splice: Change = (bytes, random, other) => {
  const [start, end] = range(other.length, random);
  const at = random.below(bytes.length + 1);
  const rest = bytes.subarray(random.below(2) === 0 ? at : Math.min(bytes.length, at + end - start));
  return Buffer.concat([bytes.subarray(0, at), other.subarray(start, end), rest]);
};

const CHANGES = [flipBit, flipBit, setByte, addToByte, setWord, setWord, setWord].concat([
  remove,
  repeat,
  insert,
  truncate,
  splice,
  splice,
]);

/** A new input made of `input`, with pieces of `other`. */
export function mutate(input: Uint8Array, other: Uint8Array, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(input);
  const changes = 1 + random.below(MOST_CHANGES);
  for (let i = 0; i < changes; i++) bytes = random.pick(CHANGES)(bytes, random, other);
  return Buffer.from(bytes.subarray(0, MAX_INPUT_BYTES));
}

function range(length: number, random: Random): [start: number, end: number] {
  const start = random.below(length + 1);
  const most = random.below(4) === 0 ? length - start : Math.min(length - start, 32);
  return [start, start + random.below(most + 1)];
}
