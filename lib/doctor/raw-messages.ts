/** Messages as bytes, sound or not: the encoders of `lib/protocol` refuse to make what probes have to send. */
import { HEADER_SIZE } from '../protocol/constants.js';

/** Little-endian words: a number is 32 bits, a bigint 64. */
export function words(...values: readonly (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(
    values.reduce<number>((sum, value) => sum + (typeof value === 'number' ? 4 : 8), 0),
  );
  let at = 0;
  for (const value of values) {
    if (typeof value === 'number') at = bytes.writeUInt32LE(value, at);
    else at = bytes.writeBigUInt64LE(value, at);
  }
  return bytes;
}

export interface MessageFields {
  id: number;
  command: number;
  /** Default a command that wants a reply. */
  flags?: number;
  errno?: number;
  /** What the header says of the size; default the truth. */
  size?: number;
}

export function message(fields: MessageFields, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + payload.byteLength);
  bytes.writeUInt16LE(fields.id, 0);
  bytes.writeUInt16LE(fields.command, 2);
  bytes.writeUInt32LE(fields.size ?? bytes.byteLength, 4);
  bytes.writeUInt32LE(fields.flags ?? 0, 8);
  bytes.writeUInt32LE(fields.errno ?? 0, 12);
  bytes.set(payload, HEADER_SIZE);
  return bytes;
}

/** VERSION's payload with any text behind the numbers, which is sent as it is. */
export function versionPayload(major: number, minor: number, text: string): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(major, 0);
  head.writeUInt16LE(minor, 2);
  return Buffer.concat([head, Buffer.from(text, 'utf8')]);
}

/** A REGION_READ or the 16 bytes before the data of a REGION_WRITE. */
export function regionAccess(region: number, offset: number | bigint, count: number): Buffer {
  return words(BigInt(offset), region, count);
}

/** GET_INFO as it should be. */
export const GET_INFO: Buffer = words(16, 0, 0, 0);
