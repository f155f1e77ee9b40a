/**
 * VFIO_IOMMU_GET_INFO of a type 1 IOMMU.
 *
 * ```
 *  0           4           8                  16             20
 *  | argsz u32 | flags u32 | iova_pgsizes u64 | cap_offset u32 | pad | capabilities: id u16, version u16, next u32, …
 * ```
 */
import type { AddressRange } from '../emulator/address-range.js';
import { ProtocolError } from '../errors.js';

const INFO_SIZE = 24;
const INFO_PGSIZES = 1;
const INFO_CAPS = 2;
const CAPABILITY_IOVA_RANGE = 1;
const CAPABILITY_DMA_AVAIL = 3;
const CAPABILITY_HEADER = 8;
const RANGES_AT = 16;
const RANGE_SIZE = 16;
/** More than there are kinds: a chain that is longer goes in a circle. */
const MOST_CAPABILITIES = 16;
const PAGE = 4096n;

/** What an IOMMU can do. */
export interface IommuInfo {
  /** Or'ed together, bytes. */
  readonly pageSizes: bigint;
  /** The addresses that devices can be given; undefined where the kernel does not say. */
  readonly ranges: readonly AddressRange[] | undefined;
  /** How many more mappings there may be; undefined where the kernel does not say. */
  readonly mappingsLeft: number | undefined;
}

/** @throws ProtocolError where a capability lies outside of what the kernel wrote. */
export function decodeIommuInfo(bytes: Buffer): IommuInfo {
  const flags = bytes.readUInt32LE(4);
  const pageSizes = (flags & INFO_PGSIZES) === 0 ? PAGE : bytes.readBigUInt64LE(8);
  let ranges: AddressRange[] | undefined;
  let mappingsLeft: number | undefined;
  let at = (flags & INFO_CAPS) === 0 ? 0 : bytes.readUInt32LE(16);
  for (let i = 0; at !== 0; i++) {
    if (i === MOST_CAPABILITIES || at < INFO_SIZE || at + CAPABILITY_HEADER > bytes.length) throw broken(at);
    const id = bytes.readUInt16LE(at);
    if (id === CAPABILITY_IOVA_RANGE) ranges = rangesAt(bytes, at);
    if (id === CAPABILITY_DMA_AVAIL && at + CAPABILITY_HEADER + 4 <= bytes.length) {
      mappingsLeft = bytes.readUInt32LE(at + CAPABILITY_HEADER);
    }
    at = bytes.readUInt32LE(at + 4);
  }
  return { pageSizes, ranges, mappingsLeft };
}

function rangesAt(bytes: Buffer, at: number): AddressRange[] {
  if (at + RANGES_AT > bytes.length) throw broken(at);
  const count = bytes.readUInt32LE(at + CAPABILITY_HEADER);
  if (at + RANGES_AT + count * RANGE_SIZE > bytes.length) throw broken(at);
  return Array.from({ length: count }, (_, i) => {
    const range = at + RANGES_AT + i * RANGE_SIZE;
    return { first: bytes.readBigUInt64LE(range), last: bytes.readBigUInt64LE(range + 8) };
  });
}

function broken(at: number): ProtocolError {
  return new ProtocolError(`VFIO_IOMMU_GET_INFO: the capability at ${at} is not within the answer`);
}
