/** The DMA commands: mappings, the server's accesses, and the old bitmaps. */
import {
  dmaMapFlagNames,
  dmaUnmapFlagNames,
  flagNames,
  DIRTY_PAGES_FLAG_GET_BITMAP,
  DIRTY_PAGES_FLAG_START,
  DIRTY_PAGES_FLAG_STOP,
  type FlagTable,
} from '../protocol/constants.js';
import { decodeDirtyPages, decodeDirtyPagesReply, type BitmapRange } from '../protocol/dirty-pages.js';
import {
  DMA_ACCESS_SIZE,
  checkDmaReadReply,
  checkDmaWriteReply,
  decodeDmaAccess,
  decodeDmaRead,
  decodeDmaWrite,
  type DmaAccess,
} from '../protocol/dma-access.js';
import { decodeDmaMap, decodeDmaUnmap, decodeDmaUnmapReply } from '../protocol/dma-map.js';
import { argszAt, dataAt, type Fields, type Payload } from './payload-fields.js';

export function dmaMap(bytes: Buffer, start: number, end: number): Payload {
  const { flags, offset, address, size } = decodeDmaMap(bytes, start, end);
  return { fields: { argsz: argszAt(bytes, start), flags: dmaMapFlagNames(flags), offset, address, size } };
}

const DMA_UNMAP_WITH_BITMAP = 40;

export function dmaUnmap(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, flags, address, size, bitmap } = decodeDmaUnmap(bytes, start, end);
  const fields = { argsz, flags: dmaUnmapFlagNames(flags), address, size };
  return { fields: bitmap === undefined ? fields : { ...fields, bitmap } };
}

export function dmaUnmapReply(bytes: Buffer, start: number, end: number): Payload {
  const reply = decodeDmaUnmapReply(bytes, start, end);
  if (reply === undefined) return { fields: {} };
  const { flags, address, size, bitmap } = reply;
  const fields = { argsz: argszAt(bytes, start), flags: dmaUnmapFlagNames(flags), address, size };
  if (bitmap === undefined) return { fields };
  return {
    fields: { ...fields, bitmap: { pgsize: bitmap.pgsize, size: bitmap.data.length } },
    ...dataAt(start + DMA_UNMAP_WITH_BITMAP, end),
  };
}

export function dmaRead(bytes: Buffer, start: number, end: number): Payload {
  return { fields: dmaAccessFields(decodeDmaRead(bytes, start, end)) };
}

export function dmaReadReply(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeDmaAccess(bytes, start, end, 'DMA_READ reply');
  checkDmaReadReply(bytes, start, end, access.address, access.count);
  return { fields: dmaAccessFields(access), ...dataAt(start + DMA_ACCESS_SIZE, end) };
}

export function dmaWrite(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeDmaWrite(bytes, start, end);
  return { fields: dmaAccessFields(access), ...dataAt(start + DMA_ACCESS_SIZE, end) };
}

export function dmaWriteReply(bytes: Buffer, start: number, end: number): Payload {
  const access = decodeDmaAccess(bytes, start, end, 'DMA_WRITE reply');
  checkDmaWriteReply(bytes, start, end, access.address, access.count);
  return { fields: dmaAccessFields(access) };
}

function dmaAccessFields({ address, count }: DmaAccess): Fields {
  return { address, count };
}

const DIRTY_PAGES_FLAGS: FlagTable = [
  [DIRTY_PAGES_FLAG_START, 'START'],
  [DIRTY_PAGES_FLAG_STOP, 'STOP'],
  [DIRTY_PAGES_FLAG_GET_BITMAP, 'GET_BITMAP'],
];
const DIRTY_BITMAP_AT = 40;

export function dirtyPages(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, flags, range } = decodeDirtyPages(bytes, start, end);
  return { fields: { argsz, flags: flagNames(flags, DIRTY_PAGES_FLAGS), ...(range && rangeFields(range)) } };
}

/** START and STOP are answered with nothing; which of the three it was stands in the request alone. */
export function dirtyPagesReply(bytes: Buffer, start: number, end: number): Payload {
  if (start === end) return { fields: {} };
  const { argsz, truncated, range } = decodeDirtyPagesReply(bytes, start, end);
  const flags = flagNames(DIRTY_PAGES_FLAG_GET_BITMAP, DIRTY_PAGES_FLAGS);
  if (range === undefined) return { fields: { argsz, flags, truncated } };
  return { fields: { argsz, flags, ...rangeFields(range) }, ...dataAt(start + DIRTY_BITMAP_AT, end) };
}

function rangeFields({ iova, size, bitmap }: BitmapRange): Fields {
  return { iova, size, bitmap: { ...bitmap } };
}
