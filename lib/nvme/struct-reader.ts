/** Reads fields of the structures that a controller returns. */
import { ProtocolError } from '../index.js';

/** Text in ASCII, without the padding. Bytes that are none stay as they are: whoever prints it knows how. */
export function text(bytes: Buffer, offset: number, length: number): string {
  const raw = bytes.toString('latin1', offset, offset + length);
  const end = raw.indexOf('\0');
  return (end === -1 ? raw : raw.slice(0, end)).trim();
}

export function uint128(bytes: Buffer, offset: number): bigint {
  return bytes.readBigUInt64LE(offset) | (bytes.readBigUInt64LE(offset + 8) << 64n);
}

/** @throws ProtocolError for a structure that is shorter than the specification has it. */
export function requireBytes(bytes: Buffer, size: number, what: string): void {
  if (bytes.byteLength >= size) return;
  throw new ProtocolError(`${what} must have ${size} bytes, got ${bytes.byteLength}`);
}
