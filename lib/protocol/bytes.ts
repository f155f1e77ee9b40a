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

/*
 * Fields of the hot path, byte by byte: V8 makes a few instructions of these, and a call with its checks of types of
 * `Buffer.readUInt32LE` and its like, which take five to ten times as long. Theirs are the bounds all the same.
 */

/** A 16-bit field. @throws RangeError where `bytes` ends before it. */
export function readUInt16(bytes: Uint8Array, at: number): number {
  const last = bytes[at + 1];
  if (last === undefined) throw outOfBounds(bytes, at, 2);
  return bytes[at]! | (last << 8);
}

/** A 32-bit field. @throws RangeError where `bytes` ends before it. */
export function readUInt32(bytes: Uint8Array, at: number): number {
  const last = bytes[at + 3];
  if (last === undefined) throw outOfBounds(bytes, at, 4);
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (last << 24)) >>> 0;
}

/** Writes a 16-bit field. @throws RangeError where `value` does not fit it, or `into` ends before it. */
export function writeUInt16(into: Uint8Array, at: number, value: number): void {
  if (value !== (value & 0xffff)) throw doesNotFit(value, 16);
  if (into[at + 1] === undefined) throw outOfBounds(into, at, 2);
  into[at] = value;
  into[at + 1] = value >>> 8;
}

/** Writes a 32-bit field. @throws RangeError where `value` does not fit it, or `into` ends before it. */
export function writeUInt32(into: Uint8Array, at: number, value: number): void {
  if (value !== value >>> 0) throw doesNotFit(value, 32);
  if (into[at + 3] === undefined) throw outOfBounds(into, at, 4);
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

function outOfBounds(bytes: Uint8Array, at: number, size: number): RangeError {
  return outOfRange(`${size} bytes at ${at} do not lie in ${bytes.length}`);
}

function doesNotFit(value: number, bits: number): RangeError {
  return outOfRange(`${value} does not fit a field of ${bits} bits`);
}

/** With the code that Node's own functions give it. */
function outOfRange(message: string): RangeError {
  return Object.assign(new RangeError(message), { code: 'ERR_OUT_OF_RANGE' });
}

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
  const high = readUInt32(bytes, at + 4);
  if (high > 0x1fffff) {
    const value = bytes.readBigUInt64LE(at);
    throw new ProtocolError(`${message}: ${field} is 0x${value.toString(16)}, more than 2^53-1`);
  }
  const low = readUInt32(bytes, at);
  // V8 keeps what floating-point arithmetic gives in memory of its own; what is compared at each access is better close by.
  return high === 0 ? low : low + high * TWO_TO_32;
}

/** The other way: `value` is a non-negative safe integer, checked by `size()` where it came from a caller. */
export function writeSize(into: Buffer, at: number, value: number): void {
  writeUInt32(into, at, value >>> 0);
  writeUInt32(into, at + 4, Math.floor(value / TWO_TO_32));
}

/** An `argsz` in a message; smaller than the structure that it is part of is refused. */
export function readArgsz(message: string, bytes: Buffer, at: number, least: number): number {
  const argsz = readUInt32(bytes, at);
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
