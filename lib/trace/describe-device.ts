/** VERSION and what a device says of itself: GET_INFO, regions, their IO fds, interrupts. */
import {
  deviceFlagNames,
  flagNames,
  irqFlagNames,
  irqSetFlagNames,
  IO_FD_TYPE_IOEVENTFD,
  IO_FD_TYPE_IOEVENTFD_SHADOW,
  IO_FD_TYPE_IOREGIONFD,
  REGION_CAP_MSIX_MAPPABLE,
  regionFlagNames,
  type FlagTable,
} from '../protocol/constants.js';
import { decodeDeviceInfo, decodeGetInfo } from '../protocol/device-info.js';
import { decodeGetIrqInfo, decodeIrqInfo } from '../protocol/irq-info.js';
import { parseJson } from '../protocol/json.js';
import { decodeGetRegionInfo, decodeRegionInfo, type RegionCapabilities } from '../protocol/region-info.js';
import { decodeGetRegionIoFds, decodeRegionIoFds, type SubRegion } from '../protocol/region-io-fds.js';
import { decodeSetIrqs } from '../protocol/set-irqs.js';
import { decodeVersion } from '../protocol/version.js';
import { argszAt, dataAt, type FieldValue, type Fields, type Payload } from './payload-fields.js';

const VERSION_SIZE = 4;

/** The version data as it was sent: which capabilities have been left to their defaults is worth seeing. */
export function version(bytes: Buffer, start: number, end: number): Payload {
  const { major, minor } = decodeVersion(bytes, start, end);
  const text = start + VERSION_SIZE;
  const textEnd = end > text && bytes[end - 1] === 0 ? end - 1 : end;
  if (textEnd === text) return { fields: { major, minor } };
  return { fields: { major, minor, version_data: parseJson('VERSION', bytes, text, textEnd) as FieldValue } };
}

export function getInfo(bytes: Buffer, start: number, end: number): Payload {
  return { fields: { argsz: decodeGetInfo(bytes, start, end).argsz } };
}

export function deviceInfo(bytes: Buffer, start: number, end: number): Payload {
  const { flags, numRegions, numIrqs } = decodeDeviceInfo(bytes, start, end);
  return {
    fields: {
      argsz: argszAt(bytes, start),
      flags: deviceFlagNames(flags),
      num_regions: numRegions,
      num_irqs: numIrqs,
    },
  };
}

const CAP_OFFSET_AT = 12;

export function getRegionInfo(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, index } = decodeGetRegionInfo(bytes, start, end);
  return { fields: { argsz, index } };
}

export function regionInfo(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, flags, index, size, offset, truncated, capabilities } = decodeRegionInfo(bytes, start, end);
  const caps = capabilityFields(capabilities);
  return {
    fields: {
      argsz,
      flags: regionFlagNames(flags),
      index,
      cap_offset: bytes.readUInt32LE(start + CAP_OFFSET_AT),
      size,
      offset,
      ...(truncated && { truncated }),
      ...(Object.keys(caps).length > 0 && { capabilities: caps }),
    },
  };
}

function capabilityFields(capabilities: RegionCapabilities): Fields {
  const { sparseMmap, type, sparseMmapFds, unknown } = capabilities;
  const others = unknown.map(({ id, version: capVersion }) =>
    id === REGION_CAP_MSIX_MAPPABLE
      ? { name: 'MSIX_MAPPABLE', version: capVersion }
      : { id, version: capVersion },
  );
  return {
    ...(sparseMmap && { sparse_mmap: sparseMmap.areas.map(({ offset, size }) => ({ offset, size })) }),
    ...(type && { type: { ...type } }),
    ...(sparseMmapFds && {
      sparse_mmap_fds: sparseMmapFds.areas.map(({ offset, fdOffset, size, fdIndex }) => ({
        offset,
        fd_offset: fdOffset,
        size,
        fd_index: fdIndex,
      })),
    }),
    ...(others.length > 0 && { others }),
  };
}

/** `KVM_IOEVENTFD_FLAG_…` of `<linux/kvm.h>`. */
const IOEVENTFD_FLAGS: FlagTable = [
  [0x1, 'DATAMATCH'],
  [0x2, 'PIO'],
  [0x4, 'DEASSIGN'],
  [0x8, 'VIRTIO_CCW_NOTIFY'],
];
/** `KVM_IOREGION_…` of the patches that the specification refers to. */
const IOREGION_FLAGS: FlagTable = [
  [0x1, 'PIO'],
  [0x2, 'POSTED_WRITES'],
];

export function getRegionIoFds(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, index } = decodeGetRegionIoFds(bytes, start, end);
  return { fields: { argsz, index } };
}

export function regionIoFds(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, index, count, truncated, subRegions } = decodeRegionIoFds(bytes, start, end);
  return {
    fields: {
      argsz,
      index,
      count,
      ...(truncated && { truncated }),
      ...(subRegions.length > 0 && { sub_regions: subRegions.map(subRegionFields) }),
    },
  };
}

function subRegionFields(subRegion: SubRegion): Fields {
  const { offset, size, fdIndex, flags } = subRegion;
  const base = { offset, size, fd_index: fdIndex };
  switch (subRegion.type) {
    case IO_FD_TYPE_IOEVENTFD:
      return {
        ...base,
        type: 'IOEVENTFD',
        flags: flagNames(flags, IOEVENTFD_FLAGS),
        datamatch: subRegion.datamatch,
      };
    case IO_FD_TYPE_IOREGIONFD:
      return {
        ...base,
        type: 'IOREGIONFD',
        flags: flagNames(flags, IOREGION_FLAGS),
        user_data: subRegion.userData,
      };
    case IO_FD_TYPE_IOEVENTFD_SHADOW:
      return {
        ...base,
        type: 'IOEVENTFD_SHADOW',
        flags: flagNames(flags, IOEVENTFD_FLAGS),
        shadow_mem_fd_index: subRegion.shadowFdIndex,
        shadow_offset: subRegion.shadowOffset,
        datamatch: subRegion.datamatch,
      };
  }
}

export function getIrqInfo(bytes: Buffer, start: number, end: number): Payload {
  const { argsz, index } = decodeGetIrqInfo(bytes, start, end);
  return { fields: { argsz, index } };
}

export function irqInfo(bytes: Buffer, start: number, end: number): Payload {
  const { flags, index, count } = decodeIrqInfo(bytes, start, end);
  return { fields: { argsz: argszAt(bytes, start), flags: irqFlagNames(flags), index, count } };
}

const SET_IRQS_SIZE = 20;

export function setIrqs(bytes: Buffer, start: number, end: number): Payload {
  const request = decodeSetIrqs(bytes, start, end);
  return {
    fields: {
      argsz: argszAt(bytes, start),
      flags: irqSetFlagNames(request.flags),
      index: request.index,
      start: request.start,
      count: request.count,
    },
    ...dataAt(start + SET_IRQS_SIZE, end),
  };
}
