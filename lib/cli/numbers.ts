/** Numbers, regions and widths as people type them. What cannot be understood is commander's InvalidArgumentError. */
import { InvalidArgumentError } from 'commander';

const NUMBER = /^(?:\d+|0x[\da-f]+)$/i;
const SUFFIXES = 'KMGT';
const WITH_SUFFIX = /^(?<digits>\d+)(?<suffix>[KMGT])(?:iB)?$/i;
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;
/** The most that a timer takes. */
const MAX_MILLISECONDS = 0x7fff_ffff;

/** The widths of an access, in bytes. */
export type AccessWidth = 1 | 2 | 4 | 8;

/** A non-negative number of at most 64 bits, decimal or 0x hexadecimal. */
export function uint64(text: string): bigint {
  if (!NUMBER.test(text)) throw new InvalidArgumentError('A number is decimal, or hexadecimal after 0x.');
  const value = BigInt(text);
  if (value > UINT64_MAX) throw new InvalidArgumentError('It has more than 64 bits.');
  return value;
}

/** An offset or a length. */
export function size(text: string): number {
  const value = uint64(text);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new InvalidArgumentError('It has more than 53 bits.');
  return Number(value);
}

/** A length of something. */
export function length(text: string): number {
  const value = size(text);
  if (value === 0) throw new InvalidArgumentError('It is at least 1.');
  return value;
}

/** A number of bytes: digits, 0x hexadecimal, or `4K`, `512M`, `1G`, `2T`, which are powers of 1,024. */
export function byteSize(text: string): number {
  const { digits, suffix } = WITH_SUFFIX.exec(text)?.groups ?? {};
  if (suffix === undefined) return length(text);
  const value = Number(digits) * 1024 ** (SUFFIXES.indexOf(suffix.toUpperCase()) + 1);
  if (value === 0 || !Number.isSafeInteger(value)) throw new InvalidArgumentError('It is out of range.');
  return value;
}

export function byteValue(text: string): number {
  const value = size(text);
  if (value > 0xff) throw new InvalidArgumentError('A byte is at most 255.');
  return value;
}

export function milliseconds(text: string): number {
  const value = length(text);
  if (value > MAX_MILLISECONDS) throw new InvalidArgumentError(`It is at most ${MAX_MILLISECONDS}.`);
  return value;
}

export function accessWidth(text: string): AccessWidth {
  if (text === '1' || text === '2' || text === '4' || text === '8') return Number(text) as AccessWidth;
  throw new InvalidArgumentError('A width is 1, 2, 4 or 8 bytes.');
}

/** A number of at most so many bits, 32 at most. */
export function bits(count: number): (text: string) => number {
  const most = 2 ** count - 1;
  return (text) => {
    const value = size(text);
    if (value > most) throw new InvalidArgumentError(`It is at most ${most}.`);
    return value;
  };
}

/** A number of at most 64 bits, or one with a suffix that is a power of 1,024. */
export function uint64WithSuffix(text: string): bigint {
  return WITH_SUFFIX.test(text) ? BigInt(byteSize(text)) : uint64(text);
}
