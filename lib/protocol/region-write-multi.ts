/**
 * REGION_WRITE_MULTI: several small writes in one message ("VFIO_USER_REGION_WRITE_MULTI"). Only for servers whose
 * `write_multiple` capability is true.
 *
 * ```
 *  0              8
 *  |  wr_cnt u64  |  wr_cnt times:  | offset u64 | region u32 | count u32 | data: 8 bytes, count of them used |
 * ```
 *
 * The reply is `wr_cnt` alone: how many were done.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer } from '../fields.js';
import {
  atLeast,
  checkObject,
  checkObjects,
  copy,
  exactly,
  readSize,
  writeSize,
  writeUInt32,
  writeUInt32Within,
} from './bytes.js';

const HEAD_BYTES = 8;
const WRITE_BYTES = 24;
const MAX_DATA = 8;
/** QEMU, the one implementation, sends no more in one message. */
export const MAX_MULTI_WRITES = 200;

/** One write of at most 8 bytes. */
export interface RegionWrite {
  /** Bytes from the region's start. */
  offset: number;
  /** The region's index. */
  region: number;
  /** 1 to 8 bytes. */
  data: Uint8Array;
}

/**
 * The payload of the request.
 *
 * @throws RangeError for no write or more than 200, and for data of other than 1 to 8 bytes; TypeError, RangeError for
 * what a field cannot hold.
 */
export function encodeRegionWriteMulti(writes: readonly RegionWrite[]): Buffer {
  checkObjects('writes', writes);
  integer('REGION_WRITE_MULTI: writes.length', writes.length, 1, MAX_MULTI_WRITES);
  const payload = Buffer.alloc(HEAD_BYTES + writes.length * WRITE_BYTES);
  writeSize(payload, 0, writes.length, 'REGION_WRITE_MULTI: wr_cnt');
  writes.forEach(({ offset, region, data }, i) => {
    const at = HEAD_BYTES + i * WRITE_BYTES;
    const name = `REGION_WRITE_MULTI: writes[${i}]`;
    const { length } = byteArray(`${name}.data`, data);
    writeSize(payload, at, offset, `${name}.offset`);
    writeUInt32(payload, at + 8, region, `${name}.region`);
    writeUInt32Within(payload, at + 12, length, `${name}.data.length`, 1, MAX_DATA);
    payload.set(data, at + 16);
  });
  return payload;
}

/**
 * Reads the request.
 *
 * @throws ProtocolError where `wr_cnt` is above 200 or the payload is not exactly as many writes, a count is not 1 to
 * 8, or an offset is above 2^53-1.
 */
export function decodeRegionWriteMulti(bytes: Buffer, start: number, end: number): RegionWrite[] {
  const message = 'REGION_WRITE_MULTI';
  atLeast(message, 'wr_cnt', bytes, start, end, HEAD_BYTES);
  const count = writeCount(message, bytes, start);
  exactly(message, `a message of ${count} writes`, bytes, start, end, HEAD_BYTES + count * WRITE_BYTES);
  const writes: RegionWrite[] = [];
  for (let at = start + HEAD_BYTES; at < end; at += WRITE_BYTES) {
    const length = bytes.readUInt32LE(at + 12);
    if (length < 1 || length > MAX_DATA) {
      throw new ProtocolError(`${message}: count is ${length}, a single write has 1 to ${MAX_DATA} bytes`);
    }
    writes.push({
      offset: readSize(message, 'offset', bytes, at),
      region: bytes.readUInt32LE(at + 8),
      data: copy(bytes, at + 16, at + 16 + length),
    });
  }
  return writes;
}

/** The payload of the reply. @throws TypeError, RangeError for a count that is not 0 to 200. */
export function encodeRegionWriteMultiReply(reply: { count: number }): Buffer {
  checkObject('reply', reply);
  const payload = Buffer.alloc(HEAD_BYTES);
  integer('REGION_WRITE_MULTI reply: count', reply.count, 0, MAX_MULTI_WRITES);
  writeSize(payload, 0, reply.count, 'REGION_WRITE_MULTI reply: count');
  return payload;
}

/**
 * Reads the reply: how many writes were done.
 *
 * @throws ProtocolError unless it is exactly 8 bytes and at most 200.
 */
export function decodeRegionWriteMultiReply(bytes: Buffer, start: number, end: number): { count: number } {
  exactly('REGION_WRITE_MULTI reply', 'wr_cnt', bytes, start, end, HEAD_BYTES);
  return { count: writeCount('REGION_WRITE_MULTI reply', bytes, start) };
}

function writeCount(message: string, bytes: Buffer, at: number): number {
  const count = readSize(message, 'wr_cnt', bytes, at);
  if (count <= MAX_MULTI_WRITES) return count;
  throw new ProtocolError(
    `${message}: wr_cnt is ${count}, more than the ${MAX_MULTI_WRITES} that are accepted`,
  );
}
