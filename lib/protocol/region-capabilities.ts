/**
 * The capability chain behind the region info structure ("VFIO region capabilities").
 *
 * ```
 *  header, 8 bytes      | id u16 | version u16 | next u32 |      next counts from the region info structure's start
 *  SPARSE_MMAP (1)      | nr_areas u32 | reserved u32 | areas: offset u64, size u64 |
 *  TYPE (2)             | type u32 | subtype u32 |
 *  SPARSE_MMAP_FDS      | nr_areas u32 | reserved u32 | areas: offset u64, fd_offset u64, size u64, fd_index u32, pad u32 |
 * ```
 *
 * SPARSE_MMAP_FDS is a draft ("vfio-user: support multiple FDs for sparse mmap regions", qemu-devel, 2026): its id is
 * 0x8001 in version 5 of the patches and was 16 in the first code, with the layout above.
 */
import { ProtocolError } from '../errors.js';
import { outOfRange } from '../fields.js';
import {
  checkObject,
  checkObjects,
  readSize,
  writeSize,
  writeUInt16,
  writeUInt32,
  writeUInt32Within,
} from './bytes.js';
import {
  REGION_CAP_SPARSE_MMAP,
  REGION_CAP_SPARSE_MMAP_FDS,
  REGION_CAP_SPARSE_MMAP_FDS_EARLY,
  REGION_CAP_TYPE,
} from './constants.js';

/** Bytes of the structure that the chain's offsets count from and that it must not overlap. */
export const REGION_INFO_SIZE = 32;

const HEADER_BYTES = 8;
/** A header's widest field is `next`: an offset that is not a multiple of its size is no place for one. */
const ALIGNMENT = 4;
const MAX_CAPABILITIES = 64;
/** Fds in one message are at most 253 on Linux; the protocol's implementations end at 1024. */
const MAX_FD_INDEX = 1023;
const SPARSE_HEAD = HEADER_BYTES + 8;
const AREA_BYTES = 16;
const FD_AREA_BYTES = 32;
const TYPE_BYTES = 16;
/** Whose fields are encoded here. */
const MESSAGE = 'DEVICE_GET_REGION_INFO reply';

/** A part of a region that can be mapped, in bytes from the region's start. */
export interface MmapArea {
  /** Bytes from the start of the region. */
  offset: number;
  /** Bytes. */
  size: number;
  /** Which of the reply's fds; without it the first, and the area is at the region's offset plus its own there. */
  fdIndex?: number | undefined;
  /** Where the area begins in that fd. Comes with `fdIndex`. */
  fdOffset?: number | undefined;
}

/** An area with an fd of its own. */
export interface MmapFdArea extends MmapArea {
  /** Which of the fds of the reply it lies in. */
  fdIndex: number;
  /** Where it begins in that file, bytes. */
  fdOffset: number;
}

/** A region's capabilities. */
export interface RegionCapabilities {
  /** Parts that can be mapped through the region's only fd. */
  sparseMmap?: { areas: MmapArea[] } | undefined;
  /** What a device-specific region is. */
  type?: { type: number; subtype: number } | undefined;
  /** Parts that can be mapped, each through its own fd. */
  sparseMmapFds?: { areas: MmapFdArea[] } | undefined;
  /** Capabilities that this library does not know, in the chain's order. */
  unknown: { id: number; version: number }[];
}

/** The capabilities that can be encoded. */
export type KnownRegionCapabilities = Omit<RegionCapabilities, 'unknown'>;

/** The region that areas must lie in. */
interface Bounds {
  size: number;
  offset: number;
}

/** Where the capability being read lies. */
interface Place {
  bytes: Buffer;
  /** Of the capability's header. */
  at: number;
  /** Where the reply's known bytes end. */
  end: number;
  message: string;
}

/**
 * Walks the chain. `start` is where the region info structure begins, `end` where its reply ends, `first` the
 * structure's `cap_offset`; 0 is an empty chain.
 *
 * @throws ProtocolError for offsets out of range or not aligned, for a chain that comes back to itself or has more
 * than 64 entries, for a known capability that is there twice, does not fit or has another version than 1, and for
 * areas outside the region.
 */
export function decodeCapabilities(
  message: string,
  bytes: Buffer,
  start: number,
  end: number,
  first: number,
  region: Bounds,
): RegionCapabilities {
  const capabilities: RegionCapabilities = { unknown: [] };
  const seen = new Set<number>();
  for (let offset = first; offset !== 0; offset = bytes.readUInt32LE(start + offset + 4)) {
    checkOffset(message, offset, end - start);
    if (seen.has(offset)) {
      throw new ProtocolError(`${message}: the capability chain comes back to offset ${offset}`);
    }
    if (seen.size === MAX_CAPABILITIES) {
      throw new ProtocolError(`${message}: the capability chain has more than ${MAX_CAPABILITIES} entries`);
    }
    seen.add(offset);
    decodeCapability({ bytes, at: start + offset, end, message }, region, capabilities);
  }
  return capabilities;
}

function checkOffset(message: string, offset: number, length: number): void {
  if (offset < REGION_INFO_SIZE || offset + HEADER_BYTES > length) {
    throw new ProtocolError(
      `${message}: capability offset ${offset}, a header must lie between ${REGION_INFO_SIZE} and the end at ${length}`,
    );
  }
  if (offset % ALIGNMENT !== 0) {
    throw new ProtocolError(`${message}: capability offset ${offset} is not a multiple of ${ALIGNMENT}`);
  }
}

function decodeCapability(place: Place, region: Bounds, into: RegionCapabilities): void {
  const id = place.bytes.readUInt16LE(place.at);
  const version = place.bytes.readUInt16LE(place.at + 2);
  switch (id) {
    case REGION_CAP_SPARSE_MMAP:
      checkKnown(place, 'SPARSE_MMAP', version, into.sparseMmap);
      into.sparseMmap = { areas: decodeAreas(place, region) };
      break;
    case REGION_CAP_TYPE:
      checkKnown(place, 'TYPE', version, into.type);
      into.type = decodeType(place);
      break;
    case REGION_CAP_SPARSE_MMAP_FDS:
    case REGION_CAP_SPARSE_MMAP_FDS_EARLY:
      checkKnown(place, 'SPARSE_MMAP_FDS', version, into.sparseMmapFds);
      into.sparseMmapFds = { areas: decodeFdAreas(place, region) };
      break;
    default:
      into.unknown.push({ id, version });
  }
}

function checkKnown(place: Place, name: string, version: number, already: object | undefined): void {
  if (version !== 1) {
    throw new ProtocolError(`${place.message}: capability ${name} has version ${version}, only 1 is defined`);
  }
  if (already !== undefined) throw new ProtocolError(`${place.message}: capability ${name} is there twice`);
}

function decodeType({ bytes, at, end, message }: Place): { type: number; subtype: number } {
  if (at + TYPE_BYTES > end) {
    throw new ProtocolError(`${message}: capability TYPE takes ${TYPE_BYTES} bytes, ${end - at} are left`);
  }
  return { type: bytes.readUInt32LE(at + 8), subtype: bytes.readUInt32LE(at + 12) };
}

function decodeAreas(place: Place, region: Bounds): MmapArea[] {
  const { bytes, at, message } = place;
  const count = areaCount(place, 'SPARSE_MMAP', AREA_BYTES);
  const areas: MmapArea[] = [];
  for (let entry = at + SPARSE_HEAD; areas.length < count; entry += AREA_BYTES) {
    const area: MmapArea = {
      offset: readSize(message, 'area offset', bytes, entry),
      size: readSize(message, 'area size', bytes, entry + 8),
    };
    checkArea(message, area, region);
    areas.push(area);
  }
  return areas;
}

function decodeFdAreas(place: Place, region: Bounds): MmapFdArea[] {
  const { bytes, at, message } = place;
  const count = areaCount(place, 'SPARSE_MMAP_FDS', FD_AREA_BYTES);
  const areas: MmapFdArea[] = [];
  for (let entry = at + SPARSE_HEAD; areas.length < count; entry += FD_AREA_BYTES) {
    const area: MmapFdArea = {
      offset: readSize(message, 'area offset', bytes, entry),
      size: readSize(message, 'area size', bytes, entry + 16),
      fdIndex: bytes.readUInt32LE(entry + 24),
      fdOffset: readSize(message, 'area fd_offset', bytes, entry + 8),
    };
    checkArea(message, area, region);
    checkFdArea(message, area);
    areas.push(area);
  }
  return areas;
}

/** `nr_areas`, once it is known that as many fit: the loops above may then read without looking. */
function areaCount({ bytes, at, end, message }: Place, name: string, areaBytes: number): number {
  if (at + SPARSE_HEAD > end) {
    throw new ProtocolError(
      `${message}: capability ${name} takes ${SPARSE_HEAD} bytes, ${end - at} are left`,
    );
  }
  const count = bytes.readUInt32LE(at + HEADER_BYTES);
  const room = Math.floor((end - at - SPARSE_HEAD) / areaBytes);
  if (count <= room) return count;
  throw new ProtocolError(
    `${message}: capability ${name} has nr_areas ${count}, the payload has room for ${room}`,
  );
}

function checkArea(message: string, area: MmapArea, region: Bounds): void {
  if (area.size > region.size || area.offset > region.size - area.size) {
    throw new ProtocolError(
      `${message}: the mappable area of ${area.size} bytes at ${area.offset} is outside the region's ${region.size}`,
    );
  }
}

function checkFdArea(message: string, area: MmapFdArea): void {
  if (area.fdIndex > MAX_FD_INDEX) {
    throw new ProtocolError(`${message}: area fd_index is ${area.fdIndex}, more than ${MAX_FD_INDEX}`);
  }
  if (!Number.isSafeInteger(area.fdOffset + area.size)) {
    throw new ProtocolError(
      `${message}: area fd_offset ${area.fdOffset} and size ${area.size} run past 2^53-1`,
    );
  }
}

/**
 * The chain's bytes, to follow the info structure of a region of `regionSize` bytes at once. Empty where there are no
 * capabilities.
 *
 * @throws TypeError, RangeError for what a field cannot hold; RangeError for an area outside the region.
 */
export function encodeCapabilities(capabilities: KnownRegionCapabilities, regionSize: number): Buffer {
  checkObject(`${MESSAGE}: capabilities`, capabilities);
  const parts: Buffer[] = [];
  if (capabilities.sparseMmap) parts.push(encodeAreas(capabilities.sparseMmap.areas, regionSize));
  if (capabilities.type) parts.push(encodeType(capabilities.type));
  if (capabilities.sparseMmapFds) parts.push(encodeFdAreas(capabilities.sparseMmapFds.areas, regionSize));
  // Every part is a multiple of 8 bytes, so the chain is aligned without padding.
  let offset = REGION_INFO_SIZE;
  parts.forEach((part, i) => {
    offset += part.length;
    writeUInt32(part, 4, i === parts.length - 1 ? 0 : offset, `${MESSAGE}: next`);
  });
  return Buffer.concat(parts);
}

function capability(id: number, length: number): Buffer {
  const part = Buffer.alloc(length);
  writeUInt16(part, 0, id, `${MESSAGE}: id`);
  writeUInt16(part, 2, 1, `${MESSAGE}: version`);
  return part;
}

function encodeType({ type, subtype }: { type: number; subtype: number }): Buffer {
  const part = capability(REGION_CAP_TYPE, TYPE_BYTES);
  writeUInt32(part, 8, type, `${MESSAGE}: type`);
  writeUInt32(part, 12, subtype, `${MESSAGE}: subtype`);
  return part;
}

function encodeAreas(areas: readonly MmapArea[], regionSize: number): Buffer {
  checkObjects(`${MESSAGE}: areas`, areas);
  const part = capability(REGION_CAP_SPARSE_MMAP, SPARSE_HEAD + areas.length * AREA_BYTES);
  writeUInt32(part, HEADER_BYTES, areas.length, `${MESSAGE}: areas.length`);
  areas.forEach((area, i) => {
    const entry = SPARSE_HEAD + i * AREA_BYTES;
    writeSize(part, entry, area.offset, `${MESSAGE}: areas[${i}].offset`);
    writeSize(part, entry + 8, area.size, `${MESSAGE}: areas[${i}].size`);
    refuseOutside(area, i, regionSize);
  });
  return part;
}

function encodeFdAreas(areas: readonly MmapFdArea[], regionSize: number): Buffer {
  checkObjects(`${MESSAGE}: areas`, areas);
  const part = capability(REGION_CAP_SPARSE_MMAP_FDS, SPARSE_HEAD + areas.length * FD_AREA_BYTES);
  writeUInt32(part, HEADER_BYTES, areas.length, `${MESSAGE}: areas.length`);
  areas.forEach((area, i) => {
    const entry = SPARSE_HEAD + i * FD_AREA_BYTES;
    const name = `${MESSAGE}: areas[${i}]`;
    writeSize(part, entry, area.offset, `${name}.offset`);
    writeSize(part, entry + 8, area.fdOffset, `${name}.fdOffset`);
    writeSize(part, entry + 16, area.size, `${name}.size`);
    writeUInt32Within(part, entry + 24, area.fdIndex, `${name}.fdIndex`, 0, MAX_FD_INDEX);
    refuseOutside(area, i, regionSize);
  });
  return part;
}

function refuseOutside({ offset, size }: MmapArea, index: number, regionSize: number): void {
  if (offset + size <= regionSize) return;
  throw outOfRange(
    `${MESSAGE}: areas[${index}]: [${offset}, ${offset + size}) is out of bounds (region size ${regionSize})`,
  );
}
