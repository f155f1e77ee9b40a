/** The bytes of REGION_READ and REGION_WRITE, the hot path: encoded in place, without an object for each. */
import { HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { TWO_TO_32 } from '../protocol/bytes.js';
import { writeHeader } from '../protocol/header.js';
import { REGION_ACCESS_SIZE, writeRegionAccess } from '../protocol/region-access.js';
import { QUICK_REPLY_AT, type QuickMemory } from '../transport/index.js';
import { FLAGS_COMMAND } from './flags.js';

/** The header and the access structure. */
export const ACCESS_HEAD_SIZE = HEADER_SIZE + REGION_ACCESS_SIZE;
/** What is written quickly stands before the answer. */
const QUICK_BODY_MAX = QUICK_REPLY_AT - ACCESS_HEAD_SIZE;
/** What is read quickly has room behind it. */
const QUICK_COUNT_MAX = 4096;

/** Encodes all but the data, and with id 0. */
export function encodeAccess(
  into: Buffer,
  command: number,
  region: number,
  offset: number,
  count: number,
  body: Uint8Array | null,
  flags: number,
): void {
  const size = ACCESS_HEAD_SIZE + (body === null ? 0 : body.length);
  writeHeader(into, 0, 0, command, size, flags, 0);
  writeRegionAccess(into, HEADER_SIZE, offset, region, count);
}

/** The widest register, in bytes. */
const REGISTER_MAX = 8;
const REPLY_WORD = QUICK_REPLY_AT >>> 2;
/** From bytes to the upper half of a 64-bit field: a product is there sooner than a quotient. */
const FROM_2_32 = 2 ** -32;

/** Whether the access fits `Transport.quick`. */
export function isQuick(count: number, body: Uint8Array | null): boolean {
  return body === null ? count <= QUICK_COUNT_MAX : body.length <= QUICK_BODY_MAX;
}

/**
 * Encodes the whole message, a word at a time. Returns its size.
 * @throws TypeError where the memory of `body` is gone; TypeError, RangeError for what a field cannot hold.
 */
export function encodeQuickly(
  { bytes, words }: QuickMemory,
  id: number,
  command: number,
  region: number,
  offset: number,
  count: number,
  body: Uint8Array | null,
): number {
  const size = ACCESS_HEAD_SIZE + (body === null ? 0 : body.length);
  words[0] = (command << 16) | id;
  words[1] = size;
  words[2] = FLAGS_COMMAND;
  words[3] = 0;
  // A store takes the value modulo 2^32.
  words[4] = offset;
  words[5] = offset * FROM_2_32;
  words[6] = region;
  words[7] = count;
  // What stands there is what was meant, or the slower way says what is wrong with it.
  if (words[5] * TWO_TO_32 + words[4] !== offset || words[6] !== region || words[7] !== count) {
    writeRegionAccess(bytes, HEADER_SIZE, offset, region, count);
  }
  if (body !== null) setBody(bytes, body);
  return size;
}

/** A register's few bytes are there before `set` has been found. */
function setBody(bytes: Buffer, body: Uint8Array): void {
  const { length } = body;
  if (length === 0 || length > REGISTER_MAX) bytes.set(body, ACCESS_HEAD_SIZE);
  else for (let i = 0; i < length; i++) bytes[ACCESS_HEAD_SIZE + i] = body[i]!;
}

/**
 * Whether the `received` bytes of an answer are one whole message, the plain reply to what `encodeQuickly` wrote: id,
 * command, offset, region and count echoed, and `dataBytes` of data. Anything else is for slower eyes, which name it.
 */
export function isPlainReply({ words }: QuickMemory, received: number, dataBytes: number): boolean {
  return (
    received === ACCESS_HEAD_SIZE + dataBytes &&
    words[REPLY_WORD] === words[0] &&
    words[REPLY_WORD + 1] === received &&
    words[REPLY_WORD + 2] === HEADER_FLAG_REPLY &&
    words[REPLY_WORD + 4] === words[4] &&
    words[REPLY_WORD + 5] === words[5] &&
    words[REPLY_WORD + 6] === words[6] &&
    words[REPLY_WORD + 7] === words[7]
  );
}
