/**
 * DEVICE_GET_REGION_IO_FDS: fds that stand for parts of a region, so that the kernel can signal the server without
 * the client ("VFIO_USER_DEVICE_GET_REGION_IO_FDS"). Request and reply begin with the same structure.
 *
 * ```
 *  0            4            8            12           16
 *  |  argsz u32 |  flags u32 |  index u32 |  count u32 |  count sub-regions
 *
 *  a sub-region:
 *  0             8           16              20          24           28            32              40
 *  |  offset u64 |  size u64 |  fd_index u32 |  type u32 |  flags u32 |  (1)  u32   |  (2)  u64     |  (3)  u64
 *
 *                   (1)                   (2)             (3)
 *  IOEVENTFD        zero                  datamatch, or zero where an entry has (3): datamatch
 *  IOREGIONFD       zero                  user_data
 *  SHADOW           shadow_mem_fd_index   shadow_offset   datamatch
 * ```
 *
 * An entry takes `(argsz - 16) / count` bytes: 40 in the specification's text, 48 from libvfio-user, whose entries
 * all have the size of the largest kind. (The text says `argsz - 32`, which counts the message's header.)
 */
import { ProtocolError } from '../errors.js';
import { integer, notInteger, UINT32_MAX } from '../fields.js';
import {
  atLeast,
  checkObjects,
  readArgsz,
  readSize,
  writeSize,
  writeUInt32,
  writeUInt32Within,
  writeUInt64,
} from './bytes.js';
import { IO_FD_TYPE_IOEVENTFD, IO_FD_TYPE_IOEVENTFD_SHADOW, IO_FD_TYPE_IOREGIONFD } from './constants.js';

/** Bytes before the sub-regions. */
export const REGION_IO_FDS_SIZE = 16;
/** Bytes of one sub-region as this library and libvfio-user write it. */
export const SUB_REGION_SIZE = 48;

const SHORT_SUB_REGION_SIZE = 40;
/** libvfio-user's bound on the argsz of a request, and so on a reply. */
const MAX_ARGSZ = 1048576;

/** What all sub-regions have. */
export interface SubRegionBase {
  /** Bytes from the region's start. */
  offset: number;
  /** Bytes; 0 where the size of an access does not matter. */
  size: number;
  /** Which of the reply's fds. Several sub-regions may share one. */
  fdIndex: number;
  /** `KVM_IOEVENTFD_FLAG_…` or `KVM_IOREGION_…` bits. */
  flags: number;
}

/** A write is signalled on an eventfd, and its value lost. */
export interface IoEventFdSubRegion extends SubRegionBase {
  /** What kind of fd it is: `IO_FD_TYPE_…`. */
  type: typeof IO_FD_TYPE_IOEVENTFD;
  /** Only a write of this value signals, where `flags` say so. */
  datamatch: bigint;
}

/** Accesses become messages on the fd. */
export interface IoRegionFdSubRegion extends SubRegionBase {
  /** What kind of fd it is: `IO_FD_TYPE_…`. */
  type: typeof IO_FD_TYPE_IOREGIONFD;
  /** Given back to the server in each message. */
  userData: bigint;
}

/** A write is signalled on an eventfd, and its value put into shared memory. */
export interface ShadowIoEventFdSubRegion extends SubRegionBase {
  /** What kind of fd it is: `IO_FD_TYPE_…`. */
  type: typeof IO_FD_TYPE_IOEVENTFD_SHADOW;
  /** Which of the reply's fds is the shared memory. */
  shadowFdIndex: number;
  /** Bytes from that memory's start. */
  shadowOffset: number;
  /** Only a write of this value signals, where `flags` say so. */
  datamatch: bigint;
}

/** A part of a region whose accesses go by an fd. */
export type SubRegion = IoEventFdSubRegion | IoRegionFdSubRegion | ShadowIoEventFdSubRegion;

/** What VFIO_USER_DEVICE_GET_REGION_IO_FDS is answered with. */
export interface RegionIoFds {
  /** The region's index. */
  index: number;
  /** Sub-regions that the region has. */
  count: number;
  /** Bytes that the full reply takes. */
  argsz: number;
  /** The reply was cut: ask again with `argsz`. */
  truncated: boolean;
  /** `count` of them, none where the reply was cut. */
  subRegions: SubRegion[];
}

/**
 * The payload of the request. `argsz` is the most bytes of payload that the reply may have, at least 16.
 *
 * @throws TypeError, RangeError for what a field cannot hold; `argsz` ends at 1 MiB.
 */
export function encodeGetRegionIoFds(index: number, argsz: number = REGION_IO_FDS_SIZE): Buffer {
  const message = 'DEVICE_GET_REGION_IO_FDS';
  const payload = Buffer.alloc(REGION_IO_FDS_SIZE);
  writeUInt32Within(payload, 0, argsz, `${message}: argsz`, REGION_IO_FDS_SIZE, MAX_ARGSZ);
  writeUInt32(payload, 8, index, `${message}: index`);
  return payload;
}

/**
 * Reads the request.
 *
 * @throws ProtocolError where the payload or its argsz is less than the structure, argsz is above 1 MiB, or flags or
 * count are not zero.
 */
export function decodeGetRegionIoFds(
  bytes: Buffer,
  start: number,
  end: number,
): { argsz: number; index: number } {
  const message = 'DEVICE_GET_REGION_IO_FDS';
  atLeast(message, 'the region IO FD structure', bytes, start, end, REGION_IO_FDS_SIZE);
  const argsz = boundedArgsz(message, bytes, start);
  mustBeZero(message, 'flags', bytes.readUInt32LE(start + 4));
  mustBeZero(message, 'count', bytes.readUInt32LE(start + 12));
  return { argsz, index: bytes.readUInt32LE(start + 8) };
}

/**
 * The payload of the reply; 48 bytes for each sub-region. Where they do not fit `argsz`, the request's, they are left
 * out and the reply's argsz says what is needed.
 *
 * @throws TypeError, RangeError for what a field cannot hold, and for an unknown type.
 */
export function encodeRegionIoFds(
  index: number,
  subRegions: readonly SubRegion[],
  argsz: number = UINT32_MAX,
): Buffer {
  checkObjects('subRegions', subRegions);
  const message = 'DEVICE_GET_REGION_IO_FDS reply';
  const needed = REGION_IO_FDS_SIZE + subRegions.length * SUB_REGION_SIZE;
  const fits = needed <= integer(`${message}: argsz`, argsz);
  const payload = Buffer.alloc(fits ? needed : REGION_IO_FDS_SIZE);
  writeUInt32Within(payload, 0, needed, `${message}: argsz`, REGION_IO_FDS_SIZE, MAX_ARGSZ);
  writeUInt32(payload, 8, index, `${message}: index`);
  writeUInt32(payload, 12, subRegions.length, `${message}: count`);
  if (fits) {
    subRegions.forEach((subRegion, i) => {
      const name = `${message}: subRegions[${i}]`;
      writeSubRegion(name, payload, REGION_IO_FDS_SIZE + i * SUB_REGION_SIZE, subRegion);
    });
  }
  return payload;
}

function writeSubRegion(name: string, payload: Buffer, at: number, subRegion: SubRegion): void {
  const { type } = subRegion;
  writeSize(payload, at, subRegion.offset, `${name}.offset`);
  writeSize(payload, at + 8, subRegion.size, `${name}.size`);
  writeUInt32(payload, at + 16, subRegion.fdIndex, `${name}.fdIndex`);
  writeUInt32(payload, at + 20, type, `${name}.type`);
  writeUInt32(payload, at + 24, subRegion.flags, `${name}.flags`);
  switch (type) {
    case IO_FD_TYPE_IOEVENTFD:
      writeUInt64(payload, at + 40, subRegion.datamatch, `${name}.datamatch`);
      break;
    case IO_FD_TYPE_IOREGIONFD:
      writeUInt64(payload, at + 32, subRegion.userData, `${name}.userData`);
      break;
    case IO_FD_TYPE_IOEVENTFD_SHADOW:
      writeUInt32(payload, at + 28, subRegion.shadowFdIndex, `${name}.shadowFdIndex`);
      writeSize(payload, at + 32, subRegion.shadowOffset, `${name}.shadowOffset`);
      writeUInt64(payload, at + 40, subRegion.datamatch, `${name}.datamatch`);
      break;
    default:
      throw notInteger(`${name}.type`, type, IO_FD_TYPE_IOEVENTFD, IO_FD_TYPE_IOEVENTFD_SHADOW);
  }
}

/**
 * Reads the reply. That its index is the one that was asked for is checked where `asked` is given. Whether sub-regions
 * lie in the region, and whether their fds came, is for the caller to check.
 *
 * @throws ProtocolError where payload or argsz are less than the structure, argsz is above 1 MiB, flags are not zero,
 * the index is another one, argsz and count give no whole entry size of at least 40, or a sub-region is of an unknown
 * type or has a field above 2^53-1.
 */
export function decodeRegionIoFds(bytes: Buffer, start: number, end: number, asked?: number): RegionIoFds {
  const message = 'DEVICE_GET_REGION_IO_FDS reply';
  atLeast(message, 'the region IO FD structure', bytes, start, end, REGION_IO_FDS_SIZE);
  const argsz = boundedArgsz(message, bytes, start);
  mustBeZero(message, 'flags', bytes.readUInt32LE(start + 4));
  const index = bytes.readUInt32LE(start + 8);
  if (asked !== undefined && index !== asked) {
    throw new ProtocolError(`${message}: index is ${index}, ${asked} was asked for`);
  }
  const count = bytes.readUInt32LE(start + 12);
  const stride = strideOf(message, argsz, count);
  const truncated = argsz > end - start;
  const subRegions: SubRegion[] = [];
  for (let at = start + REGION_IO_FDS_SIZE; !truncated && subRegions.length < count; at += stride) {
    subRegions.push(decodeSubRegion(message, bytes, at, stride));
  }
  return { index, count, argsz, truncated, subRegions };
}

function boundedArgsz(message: string, bytes: Buffer, at: number): number {
  const argsz = readArgsz(message, bytes, at, REGION_IO_FDS_SIZE);
  if (argsz <= MAX_ARGSZ) return argsz;
  throw new ProtocolError(`${message}: argsz is ${argsz}, more than the ${MAX_ARGSZ} that are accepted`);
}

function mustBeZero(message: string, field: string, value: number): void {
  if (value !== 0) throw new ProtocolError(`${message}: ${field} is ${value}, it must be zero`);
}

/** Bytes of one entry; bounds `count` by `argsz`. */
function strideOf(message: string, argsz: number, count: number): number {
  if (count === 0) return SHORT_SUB_REGION_SIZE;
  const stride = (argsz - REGION_IO_FDS_SIZE) / count;
  if (Number.isInteger(stride) && stride >= SHORT_SUB_REGION_SIZE) return stride;
  throw new ProtocolError(
    `${message}: argsz ${argsz} and count ${count} give no whole entry of at least ${SHORT_SUB_REGION_SIZE} bytes`,
  );
}

function decodeSubRegion(message: string, bytes: Buffer, at: number, stride: number): SubRegion {
  const base: SubRegionBase = {
    offset: readSize(message, 'sub-region offset', bytes, at),
    size: readSize(message, 'sub-region size', bytes, at + 8),
    fdIndex: bytes.readUInt32LE(at + 16),
    flags: bytes.readUInt32LE(at + 24),
  };
  const type = bytes.readUInt32LE(at + 20);
  switch (type) {
    case IO_FD_TYPE_IOEVENTFD: {
      const datamatch = bytes.readBigUInt64LE(stride < SUB_REGION_SIZE ? at + 32 : at + 40);
      return { type, ...base, datamatch };
    }
    case IO_FD_TYPE_IOREGIONFD:
      return { type, ...base, userData: bytes.readBigUInt64LE(at + 32) };
    case IO_FD_TYPE_IOEVENTFD_SHADOW:
      if (stride < SUB_REGION_SIZE) {
        throw new ProtocolError(
          `${message}: a shadow ioeventfd takes ${SUB_REGION_SIZE} bytes, entries have ${stride}`,
        );
      }
      return {
        type,
        ...base,
        shadowFdIndex: bytes.readUInt32LE(at + 28),
        shadowOffset: readSize(message, 'sub-region shadow_offset', bytes, at + 32),
        datamatch: bytes.readBigUInt64LE(at + 40),
      };
    default:
      throw new ProtocolError(`${message}: sub-region type is ${type}, 0 to 2 are known`);
  }
}
