/**
 * What the codecs share: bounds, 64-bit fields, and the words in which they complain.
 *
 * `message` in these functions is what the complaint is about, such as `DEVICE_GET_INFO reply`. Nothing here is
 * exported from the package.
 */
import { ProtocolError } from '../errors.js';
import { bigInteger, integer, notInteger, outOfRange, UINT16_MAX, UINT32_MAX, wrongType } from '../fields.js';

/** The weight of a 64-bit field's upper half. */
export const TWO_TO_32 = 0x1_0000_0000;
/** 2^64, the end of what a DMA address can name. */
export const ADDRESS_SPACE_END = 0x1_0000_0000_0000_0000n;

/*
 * Fields, byte by byte: V8 makes a few instructions of these, and a call with its checks of types of
 * `Buffer.readUInt32LE` and its like, which take five to ten times as long. And those cut fractions and NaN to an
 * integer without a word: every encoder writes by these functions, which refuse what a field cannot hold. `field` is
 * what the error calls it, such as `DMA_MAP: offset`.
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

/** Writes a 16-bit field. @throws TypeError, RangeError for what it cannot hold, or where `into` ends before it. */
export function writeUInt16(into: Uint8Array, at: number, value: number, field: string): void {
  if (typeof value !== 'number' || value !== (value & 0xffff)) throw notInteger(field, value, 0, UINT16_MAX);
  if (into[at + 1] === undefined) throw outOfBounds(into, at, 2);
  into[at] = value;
  into[at + 1] = value >>> 8;
}

/** Writes a 32-bit field. @throws TypeError, RangeError for what it cannot hold, or where `into` ends before it. */
export function writeUInt32(into: Uint8Array, at: number, value: number, field: string): void {
  if (typeof value !== 'number' || value !== value >>> 0) throw notInteger(field, value, 0, UINT32_MAX);
  put32(into, at, value);
}

/** Writes a 32-bit field of which the protocol allows `least` to `most` only. @throws TypeError, RangeError. */
export function writeUInt32Within(
  into: Uint8Array,
  at: number,
  value: number,
  field: string,
  least: number,
  most: number,
): void {
  put32(into, at, integer(field, value, least, most));
}

/**
 * Writes a 64-bit field from a number, which counts exactly up to 2^53-1.
 *
 * @throws TypeError, RangeError for what it cannot hold, or where `into` ends before it.
 */
export function writeSize(into: Uint8Array, at: number, value: number, field: string): void {
  if (!Number.isSafeInteger(value) || value < 0) throw notInteger(field, value, 0, Number.MAX_SAFE_INTEGER);
  put32(into, at, value >>> 0);
  put32(into, at + 4, Math.floor(value / TWO_TO_32));
}

/** Writes a 64-bit field. @throws TypeError, RangeError for what it cannot hold, or where `into` ends before it. */
export function writeUInt64(into: Buffer, at: number, value: bigint, field: string): void {
  // eslint-disable-next-line no-restricted-syntax -- this is where it is checked
  into.writeBigUInt64LE(bigInteger(field, value), at);
}

function put32(into: Uint8Array, at: number, value: number): void {
  if (into[at + 3] === undefined) throw outOfBounds(into, at, 4);
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

function outOfBounds(bytes: Uint8Array, at: number, size: number): RangeError {
  return outOfRange(`[${at}, ${at + size}) is out of bounds (${bytes.length} bytes)`);
}

/** Throws unless the payload is at least `size` bytes, the size of `what`. */
export function atLeast(
  message: string,
  what: string,
  bytes: Buffer,
  start: number,
  end: number,
  size: number,
): void {
  checkRange(bytes, start, end);
  if (end - start >= size) return;
  throw new ProtocolError(`${message}: the payload is ${end - start} bytes, ${what} takes ${size}`);
}

/** Throws unless the payload is exactly `size` bytes, the size of `what`. */
export function exactly(
  message: string,
  what: string,
  bytes: Buffer,
  start: number,
  end: number,
  size: number,
): void {
  checkRange(bytes, start, end);
  if (end - start === size) return;
  throw new ProtocolError(`${message}: the payload is ${end - start} bytes, ${what} is exactly ${size}`);
}

/** Where a caller says that a payload lies. @throws TypeError, RangeError unless that is in `bytes`. */
export function checkRange(bytes: Buffer, start: number, end: number): void {
  checkBuffer('bytes', bytes);
  integer('start', start, 0, bytes.length);
  integer('end', end, start, bytes.length);
}

/** @throws TypeError for what is no Buffer: other byte arrays lack its methods. */
export function checkBuffer(name: string, value: Buffer): void {
  if (!Buffer.isBuffer(value)) throw wrongType(name, 'a Buffer', value);
}

/** @throws TypeError for what has no fields. */
export function checkObject(name: string, value: object): void {
  if (typeof value !== 'object' || value === null) throw wrongType(name, 'an object', value);
}

/** @throws TypeError for what is no array, or one with something in it that has no fields. */
export function checkObjects(name: string, value: readonly object[]): void {
  if (!Array.isArray(value)) throw wrongType(name, 'an array', value);
  value.forEach((one: object, i) => checkObject(`${name}[${i}]`, one));
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

/** Writes an address and a length, two 64-bit fields, of memory that must lie in the 64-bit address space. */
export function writeRange(
  into: Buffer,
  at: number,
  address: bigint,
  length: bigint,
  addressField: string,
  lengthField: string,
): void {
  writeUInt64(into, at, address, addressField);
  writeUInt64(into, at + 8, length, lengthField);
  if (address + length <= ADDRESS_SPACE_END) return;
  const range = `[0x${address.toString(16)}, 0x${(address + length).toString(16)})`;
  throw outOfRange(`${addressField}: ${range} is out of bounds (64-bit address space)`);
}

/** Whether exactly one bit is set. */
export function isPowerOfTwo(value: bigint): boolean {
  return value > 0n && (value & (value - 1n)) === 0n;
}
