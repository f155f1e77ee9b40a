/** The bytes of REGION_READ and REGION_WRITE, the hot path: encoded in place, without an object for each. */
import { HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { headerCommand, headerFlags, headerId, headerSize, writeHeader } from '../protocol/header.js';
import { REGION_ACCESS_SIZE, writeRegionAccess } from '../protocol/region-access.js';
import { QUICK_REPLY_AT } from '../transport/index.js';
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
  const size = ACCESS_HEAD_SIZE + (body === null ? 0 : body.byteLength);
  writeHeader(into, 0, 0, command, size, flags, 0);
  writeRegionAccess(into, HEADER_SIZE, offset, region, count);
}

/** Whether the access fits `Transport.quick`. */
export function isQuick(count: number, body: Uint8Array | null): boolean {
  return body === null ? count <= QUICK_COUNT_MAX : body.byteLength <= QUICK_BODY_MAX;
}

/** Encodes the whole message, with id 0. Returns its size. */
export function encodeQuickly(
  quick: Buffer,
  command: number,
  region: number,
  offset: number,
  count: number,
  body: Uint8Array | null,
): number {
  encodeAccess(quick, command, region, offset, count, body, FLAGS_COMMAND);
  if (body === null) return ACCESS_HEAD_SIZE;
  quick.set(body, ACCESS_HEAD_SIZE);
  return ACCESS_HEAD_SIZE + body.byteLength;
}

/** Whether the `received` bytes of an answer are one whole message, the plain reply to this command. */
export function isReplyTo(quick: Buffer, received: number, id: number, command: number): boolean {
  return (
    received >= HEADER_SIZE &&
    headerSize(quick, QUICK_REPLY_AT) === received &&
    headerId(quick, QUICK_REPLY_AT) === id &&
    headerCommand(quick, QUICK_REPLY_AT) === command &&
    headerFlags(quick, QUICK_REPLY_AT) === HEADER_FLAG_REPLY
  );
}
