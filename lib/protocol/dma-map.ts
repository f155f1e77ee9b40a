/**
 * DMA_MAP and DMA_UNMAP: which of the client's memory the server may reach ("VFIO_USER_DMA_MAP",
 * "VFIO_USER_DMA_UNMAP"). DMA_MAP's reply has no payload; DMA_UNMAP's is the request again.
 *
 * ```
 *  DMA_MAP      0            4            8             16             24          32
 *               |  argsz u32 |  flags u32 |  offset u64 |  address u64 |  size u64 |     an fd may go with it
 *
 *  DMA_UNMAP    0            4            8              16          24            32          40
 *               |  argsz u32 |  flags u32 |  address u64 |  size u64 |  pgsize u64 |  size u64 |  bitmap
 *                                                         '- both and the bitmap with GET_DIRTY_BITMAP only,
 *                                                            the bitmap in the reply only
 * ```
 *
 * The flags of DMA_UNMAP left the specification's text, but newest servers still know them; MMAP and FILE_IO of
 * DMA_MAP came with libvfio-user in 2026.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer, UINT32_MAX } from '../fields.js';
import {
  ADDRESS_SPACE_END,
  atLeast,
  checkObject,
  checkRange,
  copy,
  exactly,
  readArgsz,
  readSize,
  writeRange,
  writeSize,
  writeUInt32,
} from './bytes.js';
import {
  DMA_MAP_FLAG_FILE_IO,
  DMA_MAP_FLAG_MMAP,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  DMA_UNMAP_FLAG_ALL,
  DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
} from './constants.js';
import { isPageSize, requirePageSize } from './dirty-bitmap.js';

const DMA_MAP_SIZE = 32;
const DMA_UNMAP_SIZE = 24;
const BITMAP_HEAD = 16;
const ALL_MAP_FLAGS = DMA_MAP_FLAG_READ | DMA_MAP_FLAG_WRITE | DMA_MAP_FLAG_MMAP | DMA_MAP_FLAG_FILE_IO;
const MAP_ACCESS_FLAGS = DMA_MAP_FLAG_MMAP | DMA_MAP_FLAG_FILE_IO;

/** VFIO_USER_DMA_MAP. */
export interface DmaMap {
  /** `DMA_MAP_FLAG_…` bits. */
  flags: number;
  /** Where the memory begins in the fd that goes with the message; 0 without one. */
  offset: number;
  /** The DMA address of the first byte. */
  address: bigint;
  /** Bytes. */
  size: bigint;
}

/** VFIO_USER_DMA_UNMAP. */
export interface DmaUnmap {
  /** `DMA_UNMAP_FLAG_…` bits. */
  flags: number;
  /** Exactly those of a mapping; 0 and 0 with ALL. */
  address: bigint;
  /** Bytes. */
  size: bigint;
  /** With GET_DIRTY_BITMAP only: the page size that a bit stands for, and the bitmap's size, both in bytes. */
  bitmap?: { pgsize: number; size: number } | undefined;
}

/** What a server echoes, and the bitmap where one was asked for. */
export interface DmaUnmapReply {
  /** The flags of the request. */
  flags: number;
  /** The address of the request. */
  address: bigint;
  /** Bytes. */
  size: bigint;
  /** The pages that were written, where it was asked for. */
  bitmap?: { pgsize: number; data: Buffer } | undefined;
}

/**
 * The payload of DMA_MAP.
 *
 * @throws TypeError, RangeError for what a field cannot hold; RangeError where the memory does not lie in the 64-bit
 * address space, TypeError for unknown flags and for MMAP together with FILE_IO.
 */
export function encodeDmaMap(map: DmaMap): Buffer {
  checkObject('map', map);
  const broken = brokenMapRule(integer('DMA_MAP: flags', map.flags));
  if (broken !== undefined) throw new TypeError(`DMA_MAP: ${broken}`);
  const payload = Buffer.alloc(DMA_MAP_SIZE);
  writeUInt32(payload, 0, DMA_MAP_SIZE, 'DMA_MAP: argsz');
  writeUInt32(payload, 4, map.flags, 'DMA_MAP: flags');
  writeSize(payload, 8, map.offset, 'DMA_MAP: offset');
  writeRange(payload, 16, map.address, map.size, 'DMA_MAP: address', 'DMA_MAP: size');
  return payload;
}

/**
 * Reads DMA_MAP. Whether an fd goes with it, and whether it overlaps another mapping, is for the caller to check.
 *
 * @throws ProtocolError unless the payload is exactly 32 bytes with an argsz of at least that, known flags, an offset
 * of at most 2^53-1, and memory that lies in the 64-bit address space.
 */
export function decodeDmaMap(bytes: Buffer, start: number, end: number): DmaMap {
  exactly('DMA_MAP', 'the DMA map structure', bytes, start, end, DMA_MAP_SIZE);
  readArgsz('DMA_MAP', bytes, start, DMA_MAP_SIZE);
  const map: DmaMap = {
    flags: bytes.readUInt32LE(start + 4),
    offset: readSize('DMA_MAP', 'offset', bytes, start + 8),
    address: bytes.readBigUInt64LE(start + 16),
    size: bytes.readBigUInt64LE(start + 24),
  };
  const broken = brokenMapRule(map.flags) ?? brokenRange(map);
  if (broken !== undefined) throw new ProtocolError(`DMA_MAP: ${broken}`);
  return map;
}

function brokenMapRule(flags: number): string | undefined {
  const shown = `0x${flags.toString(16)}`;
  if ((flags & ~ALL_MAP_FLAGS) !== 0) return `flags ${shown} have unknown bits`;
  if ((flags & MAP_ACCESS_FLAGS) === MAP_ACCESS_FLAGS) return `flags ${shown} have both MMAP and FILE_IO`;
  return undefined;
}

function brokenRange(range: { address: bigint; size: bigint }): string | undefined {
  if (range.address + range.size <= ADDRESS_SPACE_END) return undefined;
  return `${range.size} bytes at 0x${range.address.toString(16)} run past the 64-bit address space`;
}

/**
 * The payload of DMA_UNMAP. Its argsz says how much the reply may take, bitmap included.
 *
 * @throws TypeError, RangeError for what a field cannot hold; TypeError where flags, address, size and bitmap do not go
 * together.
 */
export function encodeDmaUnmap(unmap: DmaUnmap): Buffer {
  checkObject('unmap', unmap);
  const { bitmap } = unmap;
  const payload = Buffer.alloc(DMA_UNMAP_SIZE + (bitmap ? BITMAP_HEAD : 0));
  writeEcho('DMA_UNMAP', payload, unmap);
  if (bitmap) {
    requirePageSize('DMA_UNMAP: bitmap.pgsize', bitmap.pgsize);
    writeSize(payload, DMA_UNMAP_SIZE, bitmap.pgsize, 'DMA_UNMAP: bitmap.pgsize');
    // The reply has it, and its size is argsz.
    integer('DMA_UNMAP: bitmap.size', bitmap.size, 0, UINT32_MAX - payload.length);
    writeSize(payload, DMA_UNMAP_SIZE + 8, bitmap.size, 'DMA_UNMAP: bitmap.size');
  }
  if ((bitmap !== undefined) !== ((unmap.flags & DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0)) {
    throw new TypeError('DMA_UNMAP: the GET_DIRTY_BITMAP flag and a bitmap go together');
  }
  const broken = brokenUnmapRule(unmap);
  if (broken !== undefined) throw new TypeError(`DMA_UNMAP: ${broken}`);
  writeUInt32(payload, 0, payload.length + (bitmap?.size ?? 0), 'DMA_UNMAP: argsz');
  return payload;
}

function writeEcho(
  message: string,
  payload: Buffer,
  echo: Pick<DmaUnmap, 'flags' | 'address' | 'size'>,
): void {
  writeUInt32(payload, 4, echo.flags, `${message}: flags`);
  writeRange(payload, 8, echo.address, echo.size, `${message}: address`, `${message}: size`);
}

/**
 * Reads DMA_UNMAP.
 *
 * @throws ProtocolError unless the payload is exactly 24 bytes, or 40 with GET_DIRTY_BITMAP, argsz has room for the
 * reply, flags are known and fit address, size and page size.
 */
export function decodeDmaUnmap(bytes: Buffer, start: number, end: number): DmaUnmap & { argsz: number } {
  const message = 'DMA_UNMAP';
  atLeast(message, 'the DMA unmap structure', bytes, start, end, DMA_UNMAP_SIZE);
  const unmap: DmaUnmap = readEcho(bytes, start);
  const withBitmap = (unmap.flags & DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0;
  const length = DMA_UNMAP_SIZE + (withBitmap ? BITMAP_HEAD : 0);
  exactly(
    message,
    `the DMA unmap structure with flags 0x${unmap.flags.toString(16)}`,
    bytes,
    start,
    end,
    length,
  );
  if (withBitmap) unmap.bitmap = readBitmapHead(message, bytes, start + DMA_UNMAP_SIZE);
  const broken = brokenUnmapRule(unmap) ?? brokenRange(unmap);
  if (broken !== undefined) throw new ProtocolError(`${message}: ${broken}`);
  const argsz = readArgsz(message, bytes, start, length + (unmap.bitmap?.size ?? 0));
  return { ...unmap, argsz };
}

function readEcho(bytes: Buffer, start: number): DmaUnmap {
  return {
    flags: bytes.readUInt32LE(start + 4),
    address: bytes.readBigUInt64LE(start + 8),
    size: bytes.readBigUInt64LE(start + 16),
  };
}

function readBitmapHead(message: string, bytes: Buffer, at: number): { pgsize: number; size: number } {
  return {
    pgsize: readSize(message, 'bitmap pgsize', bytes, at),
    size: readSize(message, 'bitmap size', bytes, at + 8),
  };
}

function brokenUnmapRule({ flags, address, size: length, bitmap }: DmaUnmap): string | undefined {
  const shown = `0x${flags.toString(16)}`;
  if ((flags & ~(DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | DMA_UNMAP_FLAG_ALL)) !== 0) {
    return `flags ${shown} have unknown bits`;
  }
  if ((flags & DMA_UNMAP_FLAG_ALL) !== 0) {
    if (flags !== DMA_UNMAP_FLAG_ALL) return `flags ${shown} have both GET_DIRTY_BITMAP and ALL`;
    if (address !== 0n || length !== 0n) return 'with ALL, address and size must be zero';
  }
  if (bitmap && !isPageSize(bitmap.pgsize))
    return `bitmap pgsize is ${bitmap.pgsize}, it must be a power of two`;
  return undefined;
}

/** The payload of DMA_UNMAP's reply. @throws TypeError, RangeError for what a field cannot hold. */
export function encodeDmaUnmapReply(reply: {
  flags: number;
  address: bigint;
  size: bigint;
  bitmap?: { pgsize: number; data: Uint8Array } | undefined;
}): Buffer {
  checkObject('reply', reply);
  const message = 'DMA_UNMAP reply';
  const { bitmap } = reply;
  const bits = bitmap && byteArray(`${message}: bitmap.data`, bitmap.data);
  const payload = Buffer.alloc(DMA_UNMAP_SIZE + (bits ? BITMAP_HEAD + bits.length : 0));
  writeUInt32(payload, 0, payload.length, `${message}: argsz`);
  writeEcho(message, payload, reply);
  if (bitmap) {
    requirePageSize(`${message}: bitmap.pgsize`, bitmap.pgsize);
    writeSize(payload, DMA_UNMAP_SIZE, bitmap.pgsize, `${message}: bitmap.pgsize`);
    writeSize(payload, DMA_UNMAP_SIZE + 8, bitmap.data.length, `${message}: bitmap.data.length`);
    payload.set(bitmap.data, DMA_UNMAP_SIZE + BITMAP_HEAD);
  }
  return payload;
}

/**
 * Reads DMA_UNMAP's reply. Undefined where it has no payload, as from old servers; without `bitmap` where the server
 * sent none, even if one was asked for (rust-vmm echoes the flag and keeps no bitmap). Its argsz, which libvfio-user
 * leaves as it was in the request, is not looked at.
 *
 * @throws ProtocolError where the payload is neither empty nor 24 bytes nor 40 and the bitmap, a bitmap comes without
 * the GET_DIRTY_BITMAP flag, or its pgsize is not a power of two.
 */
export function decodeDmaUnmapReply(bytes: Buffer, start: number, end: number): DmaUnmapReply | undefined {
  const message = 'DMA_UNMAP reply';
  checkRange(bytes, start, end);
  if (start === end) return undefined;
  atLeast(message, 'the DMA unmap structure', bytes, start, end, DMA_UNMAP_SIZE);
  const { flags, address, size: length } = readEcho(bytes, start);
  if (end - start === DMA_UNMAP_SIZE) return { flags, address, size: length };
  if ((flags & DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) === 0) {
    exactly(message, 'the DMA unmap structure without GET_DIRTY_BITMAP', bytes, start, end, DMA_UNMAP_SIZE);
  }
  atLeast(message, 'the DMA unmap structure with a bitmap', bytes, start, end, DMA_UNMAP_SIZE + BITMAP_HEAD);
  const head = readBitmapHead(message, bytes, start + DMA_UNMAP_SIZE);
  if (!isPageSize(head.pgsize)) {
    throw new ProtocolError(`${message}: bitmap pgsize is ${head.pgsize}, it must be a power of two`);
  }
  const data = start + DMA_UNMAP_SIZE + BITMAP_HEAD;
  exactly(message, `a bitmap of ${head.size} bytes`, bytes, data, end, head.size);
  return { flags, address, size: length, bitmap: { pgsize: head.pgsize, data: copy(bytes, data, end) } };
}
