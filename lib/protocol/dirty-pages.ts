/**
 * DIRTY_PAGES, command 14: dirty page logging before there was DMA_LOGGING. It left the specification in 2022; servers
 * with a libvfio-user of that time have it, QEMU's among them.
 *
 * ```
 *  0            4            8           16          24            32                 40
 *  |  argsz u32 |  flags u32 |  iova u64 |  size u64 |  pgsize u64 |  bitmap size u64 |  bitmap
 *                            '- with GET_BITMAP, in request and reply                 '- in the reply only
 * ```
 *
 * START and STOP are the first 8 bytes alone and have a reply without payload. Where a bitmap does not fit the
 * request's argsz, the reply is cut and its argsz says what is needed; of what else it has only the flags mean
 * anything. (The old text gives the structure behind the flags 40 bytes; it always had 32.)
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer, UINT32_MAX } from '../fields.js';
import {
  atLeast,
  checkObject,
  copy,
  exactly,
  readArgsz,
  readSize,
  writeRange,
  writeSize,
  writeUInt32,
  writeUInt32Within,
} from './bytes.js';
import { DIRTY_PAGES_FLAG_GET_BITMAP, DIRTY_PAGES_FLAG_START, DIRTY_PAGES_FLAG_STOP } from './constants.js';
import { isPageSize, requirePageSize } from './dirty-bitmap.js';

const DIRTY_PAGES_SIZE = 8;
const RANGE_SIZE = 32;
/** Bytes before the bitmap of GET_BITMAP's reply. */
export const DIRTY_PAGES_REPLY_SIZE = DIRTY_PAGES_SIZE + RANGE_SIZE;

/** The memory whose bitmap is wanted. */
export interface BitmapRange {
  /** An address of the device. */
  iova: bigint;
  /** Bytes of memory. */
  size: bigint;
  /** The page size that a bit stands for, and the bitmap's size, both in bytes. */
  bitmap: { pgsize: number; size: number };
}

/** VFIO_USER_DIRTY_PAGES, of servers before 2022. */
export interface DirtyPages {
  /** One of `DIRTY_PAGES_FLAG_…`. */
  flags: number;
  /** With GET_BITMAP only. */
  range?: BitmapRange | undefined;
}

/** The answer to it. */
export interface DirtyPagesReply {
  /** Bytes that the full reply takes. */
  argsz: number;
  /** The reply was cut: ask again with `argsz`. */
  truncated: boolean;
  /** The range that the bitmap is of. */
  range?: BitmapRange | undefined;
  /** A bit for each page, the lowest first. */
  bitmap?: Buffer | undefined;
}

/**
 * The payload of the request.
 *
 * @throws TypeError where flags and range do not go together; TypeError, RangeError for what a field cannot hold.
 */
export function encodeDirtyPages(request: DirtyPages): Buffer {
  checkObject('request', request);
  const { flags, range } = request;
  const payload = Buffer.alloc(DIRTY_PAGES_SIZE + (range ? RANGE_SIZE : 0));
  if (range) {
    checkBitmapRange('request.range', range);
    writeBitmapRange('DIRTY_PAGES', payload, range);
    // The reply has it, and its size is argsz.
    integer('DIRTY_PAGES: bitmap.size', range.bitmap.size, 0, UINT32_MAX - payload.length);
  }
  const broken = brokenRule(integer('DIRTY_PAGES: flags', flags), range);
  if (broken !== undefined) throw new TypeError(`DIRTY_PAGES: ${broken}`);
  writeUInt32(payload, 0, payload.length + (range?.bitmap.size ?? 0), 'DIRTY_PAGES: argsz');
  writeUInt32(payload, 4, flags, 'DIRTY_PAGES: flags');
  return payload;
}

function checkBitmapRange(name: string, range: BitmapRange): void {
  checkObject(name, range);
  checkObject(`${name}.bitmap`, range.bitmap);
}

function writeBitmapRange(message: string, payload: Buffer, { iova, size, bitmap }: BitmapRange): void {
  writeRange(payload, 8, iova, size, `${message}: iova`, `${message}: size`);
  requirePageSize(`${message}: bitmap.pgsize`, bitmap.pgsize);
  writeSize(payload, 24, bitmap.pgsize, `${message}: bitmap.pgsize`);
  writeSize(payload, 32, bitmap.size, `${message}: bitmap.size`);
}

/**
 * Reads the request.
 *
 * @throws ProtocolError where the payload is not exactly what the flags ask for, argsz is less than the first 8
 * bytes, not exactly one flag is set, or pgsize is not a power of two.
 */
export function decodeDirtyPages(bytes: Buffer, start: number, end: number): DirtyPages & { argsz: number } {
  const message = 'DIRTY_PAGES';
  atLeast(message, 'the dirty pages structure', bytes, start, end, DIRTY_PAGES_SIZE);
  const argsz = readArgsz(message, bytes, start, DIRTY_PAGES_SIZE);
  const flags = bytes.readUInt32LE(start + 4);
  const withRange = flags === DIRTY_PAGES_FLAG_GET_BITMAP;
  const length = DIRTY_PAGES_SIZE + (withRange ? RANGE_SIZE : 0);
  exactly(message, `the structure with flags 0x${flags.toString(16)}`, bytes, start, end, length);
  const range = withRange ? readRange(message, bytes, start) : undefined;
  const broken = brokenRule(flags, range);
  if (broken !== undefined) throw new ProtocolError(`${message}: ${broken}`);
  return { argsz, flags, ...(range && { range }) };
}

function readRange(message: string, bytes: Buffer, start: number): BitmapRange {
  return {
    iova: bytes.readBigUInt64LE(start + 8),
    size: bytes.readBigUInt64LE(start + 16),
    bitmap: {
      pgsize: readSize(message, 'bitmap pgsize', bytes, start + 24),
      size: readSize(message, 'bitmap size', bytes, start + 32),
    },
  };
}

function brokenRule(flags: number, range: BitmapRange | undefined): string | undefined {
  const known = [DIRTY_PAGES_FLAG_START, DIRTY_PAGES_FLAG_STOP, DIRTY_PAGES_FLAG_GET_BITMAP];
  if (!known.includes(flags))
    return `flags 0x${flags.toString(16)} are not exactly one of START, STOP, GET_BITMAP`;
  if ((range !== undefined) !== (flags === DIRTY_PAGES_FLAG_GET_BITMAP))
    return 'a range goes with GET_BITMAP only';
  if (range && !isPageSize(range.bitmap.pgsize)) {
    return `bitmap pgsize is ${range.bitmap.pgsize}, it must be a power of two`;
  }
  return undefined;
}

/**
 * The payload of GET_BITMAP's reply. Where it does not fit `argsz`, the request's, only the first 8 bytes.
 *
 * @throws TypeError, RangeError for what a field cannot hold, and where the bitmap is not as long as the range says.
 */
export function encodeDirtyPagesReply(range: BitmapRange, bitmap: Uint8Array, argsz: number): Buffer {
  checkBitmapRange('range', range);
  const message = 'DIRTY_PAGES reply';
  const { length } = byteArray(`${message}: bitmap`, bitmap);
  const needed = DIRTY_PAGES_SIZE + RANGE_SIZE + length;
  const fits = needed <= integer(`${message}: argsz`, argsz, DIRTY_PAGES_SIZE);
  integer(`${message}: bitmap.size`, range.bitmap.size, length, length);
  const payload = Buffer.alloc(fits ? needed : DIRTY_PAGES_SIZE);
  writeUInt32Within(payload, 0, needed, `${message}: argsz`, DIRTY_PAGES_SIZE, UINT32_MAX);
  writeUInt32(payload, 4, DIRTY_PAGES_FLAG_GET_BITMAP, `${message}: flags`);
  if (fits) {
    writeBitmapRange(message, payload, range);
    payload.set(bitmap, DIRTY_PAGES_SIZE + RANGE_SIZE);
  }
  return payload;
}

/**
 * Reads GET_BITMAP's reply.
 *
 * @throws ProtocolError where payload or argsz are less than the first 8 bytes, the flags are not GET_BITMAP, or the
 * payload is neither cut nor exactly as long as its argsz and its bitmap size say.
 */
export function decodeDirtyPagesReply(bytes: Buffer, start: number, end: number): DirtyPagesReply {
  const message = 'DIRTY_PAGES reply';
  atLeast(message, 'the dirty pages structure', bytes, start, end, DIRTY_PAGES_SIZE);
  const argsz = readArgsz(message, bytes, start, DIRTY_PAGES_SIZE);
  const flags = bytes.readUInt32LE(start + 4);
  if (flags !== DIRTY_PAGES_FLAG_GET_BITMAP) {
    throw new ProtocolError(`${message}: flags are 0x${flags.toString(16)}, GET_BITMAP was asked for`);
  }
  if (argsz > end - start) return { argsz, truncated: true };
  const data = start + DIRTY_PAGES_SIZE + RANGE_SIZE;
  atLeast(message, 'the bitmap range', bytes, start, end, data - start);
  const range = readRange(message, bytes, start);
  exactly(message, `a bitmap of ${range.bitmap.size} bytes`, bytes, data, end, range.bitmap.size);
  return { argsz, truncated: false, range, bitmap: copy(bytes, data, end) };
}
