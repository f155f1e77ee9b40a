/**
 * Messages built byte by byte from the protocol's text, by a hand that does not know lib/: what the codec is compared
 * with, and what a scripted peer can send.
 *
 * Every builder returns a whole message, header included. Fields that the text derives (argsz, counts, the header's
 * size) are right unless they are given, so that a malformed twin is the same call with one field more.
 */

/** Writes little-endian fields one after another. */
export class Wire {
  readonly #parts: Buffer[] = [];

  u8(value: number): this {
    return this.#number(value, 1);
  }

  u16(value: number): this {
    return this.#number(value, 2);
  }

  u32(value: number): this {
    return this.#number(value, 4);
  }

  u64(value: number | bigint): this {
    return this.#number(value, 8);
  }

  bytes(value: Uint8Array | readonly number[]): this {
    this.#parts.push(Buffer.from(value));
    return this;
  }

  zeros(count: number): this {
    return this.bytes(new Uint8Array(count));
  }

  /** UTF-8, without a NUL. */
  string(value: string): this {
    return this.bytes(Buffer.from(value, 'utf8'));
  }

  build(): Buffer {
    return Buffer.concat(this.#parts);
  }

  #number(value: number | bigint, width: number): this {
    let rest = BigInt(value);
    if (rest < 0n || rest >= 1n << BigInt(8 * width))
      throw new RangeError(`${value} does not fit ${width} bytes`);
    const digits: number[] = [];
    for (let i = 0; i < width; i++, rest >>= 8n) digits.push(Number(rest & 0xffn));
    return this.bytes(digits);
  }
}

export const wire = (): Wire => new Wire();

const HEADER_BYTES = 16;
const REPLY = 0x1;
const ERROR = 0x20;

/** The header's fields; the size and the type follow from the message unless they are given. */
export interface Envelope {
  id?: number;
  size?: number;
  flags?: number;
  errno?: number;
}

export function message(command: number, type: number, payload: Uint8Array, envelope: Envelope = {}): Buffer {
  return wire()
    .u16(envelope.id ?? 1)
    .u16(command)
    .u32(envelope.size ?? HEADER_BYTES + payload.length)
    .u32(envelope.flags ?? type)
    .u32(envelope.errno ?? 0)
    .bytes(payload)
    .build();
}

export function request(command: number, payload: Uint8Array | Wire, envelope?: Envelope): Buffer {
  return message(command, 0, payload instanceof Wire ? payload.build() : payload, envelope);
}

export function reply(command: number, payload: Uint8Array | Wire, envelope?: Envelope): Buffer {
  return message(command, REPLY, payload instanceof Wire ? payload.build() : payload, envelope);
}

/** "If an error occurs, the reply message must only include the reply header." */
export function errorReply(command: number, errno: number, envelope: Envelope = {}): Buffer {
  return message(command, REPLY | ERROR, Buffer.alloc(0), { errno, ...envelope });
}

/** What follows the header. */
export function payloadOf(bytes: Buffer): Buffer {
  return bytes.subarray(HEADER_BYTES);
}

const NOTHING = Buffer.alloc(0);

// --- 1 VERSION: major 2, minor 2, version data with its NUL -----------------------------------------------------

export interface VersionFields {
  major?: number;
  minor?: number;
  /** An object becomes JSON with a NUL; a string or bytes go out as they are. */
  data?: object | string | Uint8Array;
}

const version = ({ major = 0, minor = 2, data = { capabilities: {} } }: VersionFields): Wire => {
  const head = wire().u16(major).u16(minor);
  if (data instanceof Uint8Array) return head.bytes(data);
  return typeof data === 'string' ? head.string(data) : head.string(JSON.stringify(data)).u8(0);
};
export const versionRequest = (f: VersionFields = {}, e?: Envelope): Buffer => request(1, version(f), e);
export const versionReply = (f: VersionFields = {}, e?: Envelope): Buffer => reply(1, version(f), e);

// --- 2 DMA_MAP: argsz 4, flags 4, offset 8, address 8, size 8 ---------------------------------------------------

export interface DmaMapFields {
  argsz?: number;
  flags?: number;
  offset?: number | bigint;
  address?: number | bigint;
  size?: number | bigint;
}

export const dmaMapRequest = (f: DmaMapFields = {}, e?: Envelope): Buffer =>
  request(
    2,
    wire()
      .u32(f.argsz ?? 32)
      .u32(f.flags ?? 3)
      .u64(f.offset ?? 0)
      .u64(f.address ?? 0)
      .u64(f.size ?? 4096),
    e,
  );
export const dmaMapReply = (e?: Envelope): Buffer => reply(2, NOTHING, e);

// --- 3 DMA_UNMAP: argsz 4, flags 4, address 8, size 8; with a bitmap: pgsize 8, size 8, and in the reply its bytes --

export interface DmaUnmapFields {
  argsz?: number;
  flags?: number;
  address?: number | bigint;
  size?: number | bigint;
  bitmap?: { pgsize: number | bigint; size: number | bigint; data?: Uint8Array } | undefined;
}

const dmaUnmap = (f: DmaUnmapFields, argsz: number): Wire => {
  const fixed = wire()
    .u32(f.argsz ?? argsz)
    .u32(f.flags ?? (f.bitmap ? 1 : 0))
    .u64(f.address ?? 0)
    .u64(f.size ?? 4096);
  if (!f.bitmap) return fixed;
  return fixed
    .u64(f.bitmap.pgsize)
    .u64(f.bitmap.size)
    .bytes(f.bitmap.data ?? []);
};
const unmapArgsz = (f: DmaUnmapFields): number => (f.bitmap ? 40 + Number(f.bitmap.size) : 24);
export const dmaUnmapRequest = (f: DmaUnmapFields = {}, e?: Envelope): Buffer =>
  request(3, dmaUnmap(f, unmapArgsz(f)), e);
export const dmaUnmapReply = (f: DmaUnmapFields = {}, e?: Envelope): Buffer =>
  reply(3, dmaUnmap(f, unmapArgsz(f)), e);

// --- 4 DEVICE_GET_INFO: argsz 4, flags 4, num_regions 4, num_irqs 4 ---------------------------------------------

export interface DeviceInfoFields {
  argsz?: number;
  flags?: number;
  numRegions?: number;
  numIrqs?: number;
}

const deviceInfo = (f: DeviceInfoFields): Wire =>
  wire()
    .u32(f.argsz ?? 16)
    .u32(f.flags ?? 0)
    .u32(f.numRegions ?? 0)
    .u32(f.numIrqs ?? 0);
export const deviceGetInfoRequest = (f: DeviceInfoFields = {}, e?: Envelope): Buffer =>
  request(4, deviceInfo(f), e);
export const deviceGetInfoReply = (f: DeviceInfoFields = {}, e?: Envelope): Buffer =>
  reply(4, deviceInfo(f), e);

// --- 5 DEVICE_GET_REGION_INFO: argsz 4, flags 4, index 4, cap_offset 4, size 8, offset 8, then capabilities ---------

export interface RegionInfoFields {
  argsz?: number;
  flags?: number;
  index?: number;
  capOffset?: number;
  size?: number | bigint;
  offset?: number | bigint;
  /** What follows the 32 bytes. */
  capabilities?: Uint8Array | Wire;
}

const regionInfo = (f: RegionInfoFields): Wire => {
  const tail = f.capabilities instanceof Wire ? f.capabilities.build() : (f.capabilities ?? NOTHING);
  return wire()
    .u32(f.argsz ?? 32 + tail.length)
    .u32(f.flags ?? (tail.length > 0 ? 0xf : 0))
    .u32(f.index ?? 0)
    .u32(f.capOffset ?? (tail.length > 0 ? 32 : 0))
    .u64(f.size ?? 0)
    .u64(f.offset ?? 0)
    .bytes(tail);
};
export const regionInfoRequest = (f: RegionInfoFields = {}, e?: Envelope): Buffer =>
  request(5, regionInfo(f), e);
export const regionInfoReply = (f: RegionInfoFields = {}, e?: Envelope): Buffer => reply(5, regionInfo(f), e);

/** A capability: id 2, version 2, next 4, then its own. */
export const capability = (id: number, next: number, rest: Uint8Array | Wire, capVersion = 1): Buffer =>
  wire()
    .u16(id)
    .u16(capVersion)
    .u32(next)
    .bytes(rest instanceof Wire ? rest.build() : rest)
    .build();

type Area = readonly [offset: number | bigint, size: number | bigint];

/** SPARSE_MMAP, id 1: nr_areas 4, reserved 4, then offset 8 and size 8 for each. */
export const sparseMmap = (areas: readonly Area[], next = 0, nrAreas = areas.length): Buffer => {
  const rest = wire().u32(nrAreas).zeros(4);
  for (const [offset, size] of areas) rest.u64(offset).u64(size);
  return capability(1, next, rest);
};

/** TYPE, id 2: type 4, subtype 4. */
export const regionType = (type: number, subtype: number, next = 0): Buffer =>
  capability(2, next, wire().u32(type).u32(subtype));

type FdArea = readonly [
  offset: number | bigint,
  fdOffset: number | bigint,
  size: number | bigint,
  fdIndex: number,
];

/** SPARSE_MMAP_FDS: nr_areas 4, reserved 4, then offset 8, fd_offset 8, size 8, fd_index 4, pad 4 for each. */
export const sparseMmapFds = (
  areas: readonly FdArea[],
  next = 0,
  id = 0x8001,
  nrAreas = areas.length,
): Buffer => {
  const rest = wire().u32(nrAreas).zeros(4);
  for (const [offset, fdOffset, size, fdIndex] of areas)
    rest.u64(offset).u64(fdOffset).u64(size).u32(fdIndex).zeros(4);
  return capability(id, next, rest);
};

// --- 6 DEVICE_GET_REGION_IO_FDS: argsz 4, flags 4, index 4, count 4, then sub-regions ---------------------------

export interface RegionIoFdsFields {
  argsz?: number;
  flags?: number;
  index?: number;
  count?: number;
  subRegions?: readonly Uint8Array[];
}

const regionIoFds = (f: RegionIoFdsFields): Wire => {
  const tail = Buffer.concat(f.subRegions ?? []);
  return wire()
    .u32(f.argsz ?? 16 + tail.length)
    .u32(f.flags ?? 0)
    .u32(f.index ?? 0)
    .u32(f.count ?? f.subRegions?.length ?? 0)
    .bytes(tail);
};
export const regionIoFdsRequest = (f: RegionIoFdsFields = {}, e?: Envelope): Buffer =>
  request(6, regionIoFds(f), e);
export const regionIoFdsReply = (f: RegionIoFdsFields = {}, e?: Envelope): Buffer =>
  reply(6, regionIoFds(f), e);

/** A sub-region: offset 8, size 8, fd_index 4, type 4, flags 4, 4 more, then 8 (the text) or 16 (libvfio-user). */
export const subRegion = (
  f: { offset: number | bigint; size: number | bigint; fdIndex: number; type: number; flags?: number },
  more: number,
  ...words: readonly (number | bigint)[]
): Buffer => {
  const entry = wire()
    .u64(f.offset)
    .u64(f.size)
    .u32(f.fdIndex)
    .u32(f.type)
    .u32(f.flags ?? 0)
    .u32(more);
  for (const word of words) entry.u64(word);
  return entry.build();
};

// --- 7 DEVICE_GET_IRQ_INFO: argsz 4, flags 4, index 4, count 4 --------------------------------------------------

export interface IrqInfoFields {
  argsz?: number;
  flags?: number;
  index?: number;
  count?: number;
}

const irqInfo = (f: IrqInfoFields): Wire =>
  wire()
    .u32(f.argsz ?? 16)
    .u32(f.flags ?? 0)
    .u32(f.index ?? 0)
    .u32(f.count ?? 0);
export const irqInfoRequest = (f: IrqInfoFields = {}, e?: Envelope): Buffer => request(7, irqInfo(f), e);
export const irqInfoReply = (f: IrqInfoFields = {}, e?: Envelope): Buffer => reply(7, irqInfo(f), e);

// --- 8 DEVICE_SET_IRQS: argsz 4, flags 4, index 4, start 4, count 4, then a byte for each with DATA_BOOL ------------

export interface SetIrqsFields {
  argsz?: number;
  flags?: number;
  index?: number;
  start?: number;
  count?: number;
  data?: Uint8Array | readonly number[] | undefined;
}

export const setIrqsRequest = (f: SetIrqsFields = {}, e?: Envelope): Buffer => {
  const data = Buffer.from(f.data ?? []);
  const fixed = wire()
    .u32(f.argsz ?? 20 + data.length)
    .u32(f.flags ?? 0x21)
    .u32(f.index ?? 0)
    .u32(f.start ?? 0)
    .u32(f.count ?? 0);
  return request(8, fixed.bytes(data), e);
};
export const setIrqsReply = (e?: Envelope): Buffer => reply(8, NOTHING, e);

// --- 9 REGION_READ, 10 REGION_WRITE: offset 8, region 4, count 4, then data in the read's reply, the write's request --

export interface RegionAccessFields {
  offset?: number | bigint;
  region?: number;
  count?: number;
  data?: Uint8Array | readonly number[] | undefined;
}

const regionAccess = (f: RegionAccessFields): Wire =>
  wire()
    .u64(f.offset ?? 0)
    .u32(f.region ?? 0)
    .u32(f.count ?? f.data?.length ?? 0)
    .bytes(f.data ?? []);
export const regionReadRequest = (f: RegionAccessFields = {}, e?: Envelope): Buffer =>
  request(9, regionAccess(f), e);
export const regionReadReply = (f: RegionAccessFields = {}, e?: Envelope): Buffer =>
  reply(9, regionAccess(f), e);
export const regionWriteRequest = (f: RegionAccessFields = {}, e?: Envelope): Buffer =>
  request(10, regionAccess(f), e);
export const regionWriteReply = (f: RegionAccessFields = {}, e?: Envelope): Buffer =>
  reply(10, regionAccess(f), e);

// --- 11 DMA_READ, 12 DMA_WRITE: address 8, count 8, then data in the read's reply, the write's request ----------------

export interface DmaAccessFields {
  address?: number | bigint;
  count?: number | bigint;
  data?: Uint8Array | readonly number[] | undefined;
}

const dmaAccess = (f: DmaAccessFields): Wire =>
  wire()
    .u64(f.address ?? 0)
    .u64(f.count ?? f.data?.length ?? 0)
    .bytes(f.data ?? []);
export const dmaReadRequest = (f: DmaAccessFields = {}, e?: Envelope): Buffer => request(11, dmaAccess(f), e);
export const dmaReadReply = (f: DmaAccessFields = {}, e?: Envelope): Buffer => reply(11, dmaAccess(f), e);
export const dmaWriteRequest = (f: DmaAccessFields = {}, e?: Envelope): Buffer =>
  request(12, dmaAccess(f), e);
export const dmaWriteReply = (f: DmaAccessFields = {}, e?: Envelope): Buffer => reply(12, dmaAccess(f), e);

// --- 13 DEVICE_RESET: nothing either way ------------------------------------------------------------------------

export const deviceResetRequest = (e?: Envelope): Buffer => request(13, NOTHING, e);
export const deviceResetReply = (e?: Envelope): Buffer => reply(13, NOTHING, e);

// --- 14 DIRTY_PAGES (old text): argsz 4, flags 4; with GET_BITMAP: iova 8, size 8, pgsize 8, bitmap size 8, bitmap -----

export interface DirtyPagesFields {
  argsz?: number;
  flags?: number;
  range?: {
    iova: number | bigint;
    size: number | bigint;
    pgsize: number | bigint;
    bitmapSize: number | bigint;
  };
  bitmap?: Uint8Array | readonly number[];
}

const dirtyPages = (f: DirtyPagesFields): Wire => {
  const { range } = f;
  const fixed = wire()
    .u32(f.argsz ?? (range ? 40 + Number(range.bitmapSize) : 8))
    .u32(f.flags ?? (range ? 4 : 1));
  if (range) fixed.u64(range.iova).u64(range.size).u64(range.pgsize).u64(range.bitmapSize);
  return fixed.bytes(f.bitmap ?? []);
};
export const dirtyPagesRequest = (f: DirtyPagesFields = {}, e?: Envelope): Buffer =>
  request(14, dirtyPages(f), e);
export const dirtyPagesReply = (f: DirtyPagesFields = {}, e?: Envelope): Buffer =>
  reply(14, dirtyPages(f), e);

// --- 15 REGION_WRITE_MULTI: wr_cnt 8, then offset 8, region 4, count 4, data 8 for each; the reply is wr_cnt ----------

export interface MultiWriteFields {
  offset: number | bigint;
  region: number;
  data: Uint8Array | readonly number[];
  count?: number;
}

export const regionWriteMultiRequest = (
  writes: readonly MultiWriteFields[],
  writeCount: number | bigint = writes.length,
  e?: Envelope,
): Buffer => {
  const all = wire().u64(writeCount);
  for (const { offset, region, data, count } of writes) {
    all
      .u64(offset)
      .u32(region)
      .u32(count ?? data.length)
      .bytes(data)
      .zeros(8 - data.length);
  }
  return request(15, all, e);
};
export const regionWriteMultiReply = (writeCount: number | bigint, e?: Envelope): Buffer =>
  reply(15, wire().u64(writeCount), e);

// --- 16 DEVICE_FEATURE: argsz 4, feature in the low 16 bits and operations above 4, then data -------------------

export interface DeviceFeatureFields {
  argsz?: number;
  /** Feature and operations together. */
  flags?: number;
  data?: Uint8Array | readonly number[] | Wire;
}

const deviceFeature = (f: DeviceFeatureFields): Wire => {
  const data = f.data instanceof Wire ? f.data.build() : Buffer.from(f.data ?? []);
  return wire()
    .u32(f.argsz ?? 8 + data.length)
    .u32(f.flags ?? 0x10001)
    .bytes(data);
};
export const deviceFeatureRequest = (f: DeviceFeatureFields = {}, e?: Envelope): Buffer =>
  request(16, deviceFeature(f), e);
export const deviceFeatureReply = (f: DeviceFeatureFields = {}, e?: Envelope): Buffer =>
  reply(16, deviceFeature(f), e);

/** The data of DMA_LOGGING_START and STOP: page_size 8, num_ranges 4, reserved 4, then iova 8 and length 8 for each. */
export const loggingControl = (
  pageSize: number | bigint,
  ranges: readonly (readonly [iova: number | bigint, length: number | bigint])[] = [],
  numRanges: number = ranges.length,
): Wire => {
  const control = wire().u64(pageSize).u32(numRanges).zeros(4);
  for (const [iova, length] of ranges) control.u64(iova).u64(length);
  return control;
};

/** The data of DMA_LOGGING_REPORT: iova 8, length 8, page_size 8, and in the reply the bitmap. */
export const loggingReport = (
  iova: number | bigint,
  length: number | bigint,
  pageSize: number | bigint,
  bitmap: Uint8Array | readonly number[] = [],
): Wire => wire().u64(iova).u64(length).u64(pageSize).bytes(bitmap);

// --- 17 MIG_DATA_READ, 18 MIG_DATA_WRITE: argsz 4, size 4, then data in the read's reply, the write's request ---------

export interface MigDataFields {
  argsz?: number;
  size?: number;
  data?: Uint8Array | readonly number[] | undefined;
}

const migData = (f: MigDataFields): Wire => {
  const size = f.size ?? f.data?.length ?? 0;
  return wire()
    .u32(f.argsz ?? 8 + size)
    .u32(size)
    .bytes(f.data ?? []);
};
export const migDataReadRequest = (f: MigDataFields = {}, e?: Envelope): Buffer => request(17, migData(f), e);
export const migDataReadReply = (f: MigDataFields = {}, e?: Envelope): Buffer => reply(17, migData(f), e);
export const migDataWriteRequest = (f: MigDataFields = {}, e?: Envelope): Buffer =>
  request(18, migData(f), e);
export const migDataWriteReply = (e?: Envelope): Buffer => reply(18, NOTHING, e);
