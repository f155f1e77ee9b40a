/**
 * REGION_READ and REGION_WRITE: the 16 bytes in front of the data, the same in requests and replies.
 *
 * ```
 *  0                       8              12             16
 *  |      offset u64       |  region u32  |  count u32   |  data: count bytes
 * ```
 *
 * A read's data comes in the reply, a write's goes in the request. The functions that the hot path calls allocate
 * nothing unless they throw.
 */
import { ProtocolError } from '../errors.js';
import { atLeast, exactly, readSize, readUInt32, writeUInt32, TWO_TO_32, writeSize } from './bytes.js';

/** Bytes before the data. */
export const REGION_ACCESS_SIZE = 16;

/** VFIO_USER_REGION_READ and VFIO_USER_REGION_WRITE. */
export interface RegionAccess {
  /** Bytes from the region's start. */
  offset: number;
  /** The region's index. */
  region: number;
  /** Bytes of data. */
  count: number;
}

/**
 * Writes the 16 bytes to `into[at..)`. Hot.
 *
 * @throws TypeError, RangeError for what a field cannot hold; `offset` ends at 2^53-1.
 */
export function writeRegionAccess(
  into: Buffer,
  at: number,
  offset: number,
  region: number,
  count: number,
): void {
  writeSize(into, at, offset, 'region access: offset');
  writeUInt32(into, at + 8, region, 'region access: region');
  writeUInt32(into, at + 12, count, 'region access: count');
}

/**
 * Checks that a REGION_READ reply is the one that was asked for. Hot. The data is then the `count` bytes from
 * `start + REGION_ACCESS_SIZE`.
 *
 * @throws ProtocolError where offset, region, count or the amount of data differ.
 */
export function checkRegionReadReply(
  bytes: Buffer,
  start: number,
  end: number,
  offset: number,
  region: number,
  count: number,
): void {
  if (end - start === REGION_ACCESS_SIZE + count && echoes(bytes, start, offset, region, count)) return;
  throw notWhatWasAsked('REGION_READ reply', bytes, start, end, offset, region, count, count);
}

/**
 * Checks that a REGION_WRITE reply is the one that was asked for: the 16 bytes alone. Hot.
 *
 * @throws ProtocolError where offset, region, count or the size differ.
 */
export function checkRegionWriteReply(
  bytes: Buffer,
  start: number,
  end: number,
  offset: number,
  region: number,
  count: number,
): void {
  if (end - start === REGION_ACCESS_SIZE && echoes(bytes, start, offset, region, count)) return;
  throw notWhatWasAsked('REGION_WRITE reply', bytes, start, end, offset, region, count, 0);
}

function echoes(bytes: Buffer, start: number, offset: number, region: number, count: number): boolean {
  return (
    readUInt32(bytes, start) === offset >>> 0 &&
    readUInt32(bytes, start + 4) === Math.floor(offset / TWO_TO_32) &&
    readUInt32(bytes, start + 8) === region &&
    readUInt32(bytes, start + 12) === count
  );
}

/** Says which field of a reply is wrong: the cold half of the two checks above. */
function notWhatWasAsked(
  message: string,
  bytes: Buffer,
  start: number,
  end: number,
  offset: number,
  region: number,
  count: number,
  data: number,
): ProtocolError {
  const length = end - start;
  if (length < REGION_ACCESS_SIZE) {
    return new ProtocolError(
      `${message}: the payload is ${length} bytes, at least ${REGION_ACCESS_SIZE} are due`,
    );
  }
  const got = `0x${bytes.readBigUInt64LE(start).toString(16)}`;
  const asked = `0x${offset.toString(16)}`;
  if (got !== asked) return new ProtocolError(`${message}: offset is ${got}, ${asked} was asked for`);
  const gotRegion = readUInt32(bytes, start + 8);
  if (gotRegion !== region) {
    return new ProtocolError(`${message}: region is ${gotRegion}, ${region} was asked for`);
  }
  const gotCount = readUInt32(bytes, start + 12);
  if (gotCount !== count)
    return new ProtocolError(`${message}: count is ${gotCount}, ${count} was asked for`);
  return new ProtocolError(
    `${message}: ${length - REGION_ACCESS_SIZE} bytes of data, ${data} are due for a count of ${count}`,
  );
}

/**
 * Reads the 16 bytes of any REGION_READ or REGION_WRITE; what follows them is not looked at.
 *
 * @throws ProtocolError where there are fewer, or the offset is above `Number.MAX_SAFE_INTEGER`.
 */
export function decodeRegionAccess(
  bytes: Buffer,
  start: number,
  end: number,
  message = 'region access',
): RegionAccess {
  atLeast(message, 'the region access structure', bytes, start, end, REGION_ACCESS_SIZE);
  return {
    offset: readSize(message, 'offset', bytes, start),
    region: readUInt32(bytes, start + 8),
    count: readUInt32(bytes, start + 12),
  };
}

/**
 * A REGION_READ request.
 *
 * @throws ProtocolError unless it is exactly the 16 bytes.
 */
export function decodeRegionRead(bytes: Buffer, start: number, end: number): RegionAccess {
  exactly('REGION_READ', 'the region access structure', bytes, start, end, REGION_ACCESS_SIZE);
  return decodeRegionAccess(bytes, start, end, 'REGION_READ');
}

/**
 * A REGION_WRITE request. The data is the `count` bytes from `start + REGION_ACCESS_SIZE`.
 *
 * @throws ProtocolError unless exactly `count` bytes follow the 16.
 */
export function decodeRegionWrite(bytes: Buffer, start: number, end: number): RegionAccess {
  const access = decodeRegionAccess(bytes, start, end, 'REGION_WRITE');
  exactly(
    'REGION_WRITE',
    `a write of ${access.count} bytes`,
    bytes,
    start,
    end,
    REGION_ACCESS_SIZE + access.count,
  );
  return access;
}
