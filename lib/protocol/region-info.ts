/**
 * DEVICE_GET_REGION_INFO: one region's size, flags and capabilities ("VFIO_USER_DEVICE_GET_REGION_INFO"). Request and
 * reply begin with the same structure; in a request everything but `argsz` and `index` is zero.
 *
 * ```
 *  0            4            8            12                16          24            32
 *  |  argsz u32 |  flags u32 |  index u32 |  cap_offset u32 |  size u64 |  offset u64 |  capabilities
 * ```
 *
 * A reply's `argsz` is what the full reply takes. Where that is more than the request allowed, the capabilities are
 * left out: libvfio-user then clears the CAPS flag, rust-vmm keeps it and `cap_offset` too. Either way the client
 * asks again with the larger argsz.
 */
import { ProtocolError } from '../errors.js';
import { integer, UINT32_MAX } from '../fields.js';
import {
  atLeast,
  checkObject,
  readArgsz,
  readSize,
  writeSize,
  writeUInt32,
  writeUInt32Within,
} from './bytes.js';
import { REGION_FLAG_CAPS } from './constants.js';
import {
  decodeCapabilities,
  encodeCapabilities,
  REGION_INFO_SIZE,
  type KnownRegionCapabilities,
  type RegionCapabilities,
} from './region-capabilities.js';

export type {
  KnownRegionCapabilities,
  MmapArea,
  MmapFdArea,
  RegionCapabilities,
} from './region-capabilities.js';
export { REGION_INFO_SIZE } from './region-capabilities.js';

/** The most that a region info reply may need: room for 4,000 areas, and a bound on what a server makes us ask for. */
export const MAX_REGION_INFO_SIZE = 65536;

/** What VFIO_USER_DEVICE_GET_REGION_INFO is answered with. */
export interface RegionInfo {
  /** `PciRegion` numbers for a PCI device. */
  index: number;
  /** `REGION_FLAG_…` bits. */
  flags: number;
  /** Bytes; 0 where the device has no such region. */
  size: number;
  /** Where the region begins in its fd, for mmap. */
  offset: number;
  /** Bytes that the full reply takes. */
  argsz: number;
  /** The reply was cut: ask again with `argsz`, this one says nothing about capabilities. */
  truncated: boolean;
  /** What follows the structure. */
  capabilities: RegionCapabilities;
}

/**
 * The payload of the request. `argsz` is the most bytes of payload that the reply may have, at least 32.
 *
 * @throws TypeError, RangeError for what a field cannot hold.
 */
export function encodeGetRegionInfo(index: number, argsz: number = REGION_INFO_SIZE): Buffer {
  const message = 'DEVICE_GET_REGION_INFO';
  const payload = Buffer.alloc(REGION_INFO_SIZE);
  writeUInt32Within(payload, 0, argsz, `${message}: argsz`, REGION_INFO_SIZE, UINT32_MAX);
  writeUInt32(payload, 8, index, `${message}: index`);
  return payload;
}

/**
 * Reads the request. Some clients send as many bytes as they want back; what follows the structure is not looked at.
 *
 * @throws ProtocolError where the payload or its argsz is less than the 32 bytes of the structure.
 */
export function decodeGetRegionInfo(
  bytes: Buffer,
  start: number,
  end: number,
): { argsz: number; index: number } {
  atLeast('DEVICE_GET_REGION_INFO', 'the region info structure', bytes, start, end, REGION_INFO_SIZE);
  return {
    argsz: readArgsz('DEVICE_GET_REGION_INFO', bytes, start, REGION_INFO_SIZE),
    index: bytes.readUInt32LE(start + 8),
  };
}

/**
 * The payload of the reply. The CAPS flag follows from the capabilities; where they do not fit `argsz`, the request's,
 * they are left out and the flag with them, and the reply's argsz says what is needed.
 *
 * @throws TypeError, RangeError for what a field cannot hold; RangeError where `offset` and `size` together run past
 * 2^53-1, or an area lies outside the region.
 */
export function encodeRegionInfo(
  info: Pick<RegionInfo, 'index' | 'flags' | 'size' | 'offset'> & { capabilities?: KnownRegionCapabilities },
  argsz: number = UINT32_MAX,
): Buffer {
  checkObject('info', info);
  const message = 'DEVICE_GET_REGION_INFO reply';
  const payload = Buffer.alloc(REGION_INFO_SIZE);
  writeSize(payload, 16, info.size, `${message}: size`);
  writeSize(payload, 24, info.offset, `${message}: offset`);
  integer(`${message}: offset and size together`, info.offset + info.size, 0, Number.MAX_SAFE_INTEGER);
  const chain = encodeCapabilities(info.capabilities ?? {}, info.size);
  const needed = REGION_INFO_SIZE + chain.length;
  const withChain = chain.length > 0 && needed <= integer(`${message}: argsz`, argsz);
  const flags = integer(`${message}: flags`, info.flags) & ~REGION_FLAG_CAPS;
  writeUInt32(payload, 0, needed, `${message}: argsz`);
  writeUInt32(payload, 4, (flags | (withChain ? REGION_FLAG_CAPS : 0)) >>> 0, `${message}: flags`);
  writeUInt32(payload, 8, info.index, `${message}: index`);
  writeUInt32(payload, 12, withChain ? REGION_INFO_SIZE : 0, `${message}: cap_offset`);
  return withChain ? Buffer.concat([payload, chain]) : payload;
}

/**
 * Reads the reply. That its index is the one that was asked for is checked where `asked` is given. Whether areas are
 * page-aligned, and whether the fds that they need came, is for the caller to check.
 *
 * @throws ProtocolError where payload or argsz are less than the structure, argsz is above 64 KiB, the index is
 * another one, size or offset do not fit 53 bits, or the capability chain is broken.
 */
export function decodeRegionInfo(bytes: Buffer, start: number, end: number, asked?: number): RegionInfo {
  const message = 'DEVICE_GET_REGION_INFO reply';
  atLeast(message, 'the region info structure', bytes, start, end, REGION_INFO_SIZE);
  const info = decodeFixed(message, bytes, start, asked);
  if (info.argsz > end - start) return { ...info, truncated: true, capabilities: { unknown: [] } };
  const first = (info.flags & REGION_FLAG_CAPS) === 0 ? 0 : bytes.readUInt32LE(start + 12);
  const capabilities = decodeCapabilities(message, bytes, start, start + info.argsz, first, info);
  return { ...info, truncated: false, capabilities };
}

function decodeFixed(
  message: string,
  bytes: Buffer,
  start: number,
  asked: number | undefined,
): Omit<RegionInfo, 'truncated' | 'capabilities'> {
  const argsz = readArgsz(message, bytes, start, REGION_INFO_SIZE);
  if (argsz > MAX_REGION_INFO_SIZE) {
    throw new ProtocolError(
      `${message}: argsz is ${argsz}, more than the ${MAX_REGION_INFO_SIZE} that are accepted`,
    );
  }
  const index = bytes.readUInt32LE(start + 8);
  if (asked !== undefined && index !== asked) {
    throw new ProtocolError(`${message}: index is ${index}, ${asked} was asked for`);
  }
  const regionSize = readSize(message, 'size', bytes, start + 16);
  const offset = readSize(message, 'offset', bytes, start + 24);
  if (!Number.isSafeInteger(offset + regionSize)) {
    throw new ProtocolError(`${message}: offset ${offset} and size ${regionSize} run past 2^53-1`);
  }
  return { index, flags: bytes.readUInt32LE(start + 4), size: regionSize, offset, argsz };
}
