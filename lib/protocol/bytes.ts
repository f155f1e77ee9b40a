/**
 * What the codecs share: bounds, 64-bit fields, and the words in which they complain.
 *
 * `message` in these functions is what the complaint is about, such as `DEVICE_GET_INFO reply`. Nothing here is
 * exported from the package.
 */
import { ProtocolError } from '../errors.js';

/** The weight of a 64-bit field's upper half. */
export const TWO_TO_32 = 0x1_0000_0000;
/** 2^64, the end of what a DMA address can name. */
export const ADDRESS_SPACE_END = 0x1_0000_0000_0000_0000n;
/** The most that a 32-bit field holds. */
export const UINT32_MAX = 0xffffffff;

/** Throws unless the payload is at least `size` bytes, the size of `what`. */
export function atLeast(message: string, what: string, start: number, end: number, size: number): void {
  if (end - start >= size) return;
  throw new ProtocolError(`${message}: the payload is ${end - start} bytes, ${what} takes ${size}`);
}

/** Throws unless the payload is exactly `size` bytes, the size of `what`. */
export function exactly(message: string, what: string, start: number, end: number, size: number): void {
  if (end - start === size) return;
  throw new ProtocolError(`${message}: the payload is ${end - start} bytes, ${what} is exactly ${size}`);
}

/** A 64-bit field as a number; more than `Number.MAX_SAFE_INTEGER` is refused. */
export function readSize(message: string, field: string, bytes: Buffer, at: number): number {
  const high = bytes.readUInt32LE(at + 4);
  if (high > 0x1fffff) {
    const value = bytes.readBigUInt64LE(at);
    throw new ProtocolError(`${message}: ${field} is 0x${value.toString(16)}, more than 2^53-1`);
  }
  return bytes.readUInt32LE(at) + high * TWO_TO_32;
}

/** The other way: `value` is a non-negative safe integer, checked by `size()` where it came from a caller. */
export function writeSize(into: Buffer, at: number, value: number): void {
  into.writeUInt32LE(value >>> 0, at);
  into.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4);
}

/** An `argsz` in a message; smaller than the structure that it is part of is refused. */
export function readArgsz(message: string, bytes: Buffer, at: number, least: number): number {
  const argsz = bytes.readUInt32LE(at);
  if (argsz >= least) return argsz;
  throw new ProtocolError(`${message}: argsz is ${argsz}, the structure that it measures takes ${least}`);
}

/** A copy of `bytes[start..end)` that does not keep the receive buffer alive. */
export function copy(bytes: Buffer, start: number, end: number): Buffer {
  return Buffer.from(bytes.subarray(start, end));
}

/** Misuse by the caller: a RangeError unless `value` is a whole number from `least` to `most`. */
export function whole(name: string, value: number, least = 0, most = UINT32_MAX): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
}

/** Misuse by the caller: a RangeError unless `value` fits a 64-bit field and is a safe integer. */
export function size(name: string, value: number): number {
  return whole(name, value, 0, Number.MAX_SAFE_INTEGER);
}

/** Misuse by the caller: a RangeError unless `[address, address + length)` lies in the 64-bit address space. */
export function addressRange(address: bigint, length: bigint): void {
  const fits = address >= 0n && length >= 0n && length < ADDRESS_SPACE_END;
  if (fits && address + length <= ADDRESS_SPACE_END) return;
  throw new RangeError(`${length} bytes at 0x${address.toString(16)} do not lie in the 64-bit address space`);
}

/** Whether exactly one bit is set. */
export function isPowerOfTwo(value: bigint): boolean {
  return value > 0n && (value & (value - 1n)) === 0n;
}
