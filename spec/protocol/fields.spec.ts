/**
 * No encoder cuts a value: each field of each is given what it cannot hold, of every kind that a number can be wrong in,
 * and refuses it by its name. The encoders of the public entry are all here, which the last test holds.
 */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as protocol from '../../lib/protocol/index.js';
import { encodeBarAddress, encodeMsixEntry, msixEntryOffset, msixPendingBit } from '../../lib/pci/index.js';

/** What a field takes. */
type Kind =
  | { of: 'number'; least: number; most: number }
  | { of: 'bigint'; least: bigint; most: bigint }
  | { of: 'boolean' }
  | { of: 'bytes' }
  | { of: 'page size' };

const u16: Kind = { of: 'number', least: 0, most: 0xffff };
const u32: Kind = { of: 'number', least: 0, most: 0xffff_ffff };
const size: Kind = { of: 'number', least: 0, most: Number.MAX_SAFE_INTEGER };
const u64: Kind = { of: 'bigint', least: 0n, most: (1n << 64n) - 1n };
const boolean: Kind = { of: 'boolean' };
const bytes: Kind = { of: 'bytes' };
const pageSize: Kind = { of: 'page size' };
const within = (least: number, most: number): Kind => ({ of: 'number', least, most });

/** The encoder with one field that is `value`; all others are sound. */
type Encode = (value: never) => unknown;

interface Field {
  encoder: string;
  /** What the error calls it. */
  name: string;
  kind: Kind;
  encode: Encode;
}

const fields: Field[] = [];

function encoder<T extends object>(
  name: string,
  encode: (fields: T) => unknown,
  sound: T,
  kinds: { [path: string]: Kind },
): void {
  for (const [path, kind] of Object.entries(kinds)) {
    fields.push({
      encoder: name,
      name: path.slice(path.lastIndexOf('.') + 1),
      kind,
      encode: (value) => encode(withField(sound, path.split('.'), value)),
    });
  }
  // What is sound is taken.
  encode(sound);
}

/** A copy of which the member at `path` is `value`. */
function withField<T>(of: T, [first, ...rest]: string[], value: unknown): T {
  const copy = (Array.isArray(of) ? [...(of as unknown[])] : { ...of }) as Record<string, unknown>;
  copy[first!] = rest.length === 0 ? value : withField(copy[first!], rest, value);
  return copy as T;
}

const {
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_SET,
  DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  DIRTY_PAGES_FLAG_GET_BITMAP,
  IO_FD_TYPE_IOEVENTFD,
  IO_FD_TYPE_IOREGIONFD,
  IO_FD_TYPE_IOEVENTFD_SHADOW,
} = protocol;

encoder(
  'writeHeader',
  (f) => protocol.writeHeader(Buffer.alloc(16), 0, f.id, f.command, f.size, f.flags, f.errno),
  { id: 1, command: 9, size: 32, flags: 0, errno: 0 },
  { id: u16, command: u16, size: u32, flags: u32, errno: u32 },
);
encoder('writeHeaderId', (f) => protocol.writeHeaderId(Buffer.alloc(16), 0, f.id), { id: 1 }, { id: u16 });
encoder(
  'writeRegionAccess',
  (f) => protocol.writeRegionAccess(Buffer.alloc(16), 0, f.offset, f.region, f.count),
  { offset: 0, region: 7, count: 4 },
  { offset: size, region: u32, count: u32 },
);
encoder(
  'writeDmaAccess',
  (f) => protocol.writeDmaAccess(Buffer.alloc(16), 0, f.address, f.count),
  { address: 0n, count: 1 },
  { address: u64 },
);
encoder(
  'writeDmaAccess',
  (f) => protocol.writeDmaAccess(Buffer.alloc(16), 0, 0n, f.count),
  { count: 1 },
  // Both are taken: a number up to 2^53-1, a bigint up to 2^64-1.
  { count: { ...size, of: 'number' } },
);
encoder(
  'writeMigData',
  (f) => protocol.writeMigData(Buffer.alloc(8), 0, f.argsz, f.size),
  { argsz: 8, size: 0 },
  { argsz: u32, size: u32 },
);
encoder(
  'encodeVersion',
  protocol.encodeVersion,
  {
    major: 0,
    minor: 2,
    capabilities: {
      maxMsgFds: 8,
      maxDataXferSize: 4096,
      maxDmaMaps: 16,
      pgsizes: 4096n,
      twinSocket: { supported: true, fdIndex: 0 },
      writeMultiple: true,
      sparseMmapFds: true,
      migration: { pgsize: 4096, maxBitmapSize: 8 },
      other: {},
    },
  },
  {
    major: u16,
    minor: u16,
    'capabilities.maxMsgFds': within(0, 1024),
    'capabilities.maxDataXferSize': within(1, 0xffff_ffff),
    'capabilities.maxDmaMaps': u32,
    'capabilities.pgsizes': { of: 'bigint', least: 1n, most: (1n << 64n) - 1n },
    'capabilities.twinSocket.supported': boolean,
    'capabilities.twinSocket.fdIndex': within(0, 1023),
    'capabilities.writeMultiple': boolean,
    'capabilities.sparseMmapFds': boolean,
    'capabilities.migration.pgsize': pageSize,
    'capabilities.migration.maxBitmapSize': size,
  },
);
encoder(
  'encodeDmaMap',
  protocol.encodeDmaMap,
  { flags: 3, offset: 0, address: 0n, size: 4096n },
  { flags: u32, offset: size, address: u64, size: u64 },
);
encoder(
  'encodeDmaUnmap',
  protocol.encodeDmaUnmap,
  {
    flags: DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    address: 0n,
    size: 4096n,
    bitmap: { pgsize: 4096, size: 8 },
  },
  {
    flags: u32,
    address: u64,
    size: u64,
    'bitmap.pgsize': pageSize,
    'bitmap.size': within(0, 0xffff_ffff - 40),
  },
);
encoder(
  'encodeDmaUnmapReply',
  protocol.encodeDmaUnmapReply,
  { flags: 1, address: 0n, size: 4096n, bitmap: { pgsize: 4096, data: Buffer.alloc(8) } },
  { flags: u32, address: u64, size: u64, 'bitmap.pgsize': pageSize, 'bitmap.data': bytes },
);
encoder(
  'encodeDirtyPages',
  protocol.encodeDirtyPages,
  {
    flags: DIRTY_PAGES_FLAG_GET_BITMAP,
    range: { iova: 0n, size: 4096n, bitmap: { pgsize: 4096, size: 8 } },
  },
  {
    flags: u32,
    'range.iova': u64,
    'range.size': u64,
    'range.bitmap.pgsize': pageSize,
    'range.bitmap.size': within(0, 0xffff_ffff - 40),
  },
);
encoder(
  'encodeDirtyPagesReply',
  (f) => protocol.encodeDirtyPagesReply(f.range, f.bitmap, f.argsz),
  {
    range: { iova: 0n, size: 4096n, bitmap: { pgsize: 4096, size: 8 } },
    bitmap: Buffer.alloc(8),
    argsz: 100,
  },
  {
    'range.iova': u64,
    'range.size': u64,
    'range.bitmap.pgsize': pageSize,
    'range.bitmap.size': within(8, 8),
    bitmap: bytes,
    argsz: within(8, 0xffff_ffff),
  },
);
encoder(
  'encodeDmaLoggingStart',
  protocol.encodeDmaLoggingStart,
  { pageSize: 4096, ranges: [{ iova: 0n, length: 4096n }] },
  { pageSize, 'ranges.0.iova': u64, 'ranges.0.length': u64 },
);
encoder(
  'encodeDmaLoggingStartReply',
  protocol.encodeDmaLoggingStartReply,
  { pageSize: 4096, ranges: [{ iova: 0n, length: 4096n }] },
  { pageSize, 'ranges.0.iova': u64, 'ranges.0.length': u64 },
);
encoder(
  'encodeDmaLoggingStop',
  (f) => protocol.encodeDmaLoggingStop(f.pageSize),
  { pageSize: 1 },
  { pageSize },
);
encoder(
  'encodeDmaLoggingReport',
  protocol.encodeDmaLoggingReport,
  { iova: 0n, length: 4096n, pageSize: 4096 },
  { iova: u64, length: u64, pageSize },
);
encoder(
  'encodeDmaLoggingReportReply',
  (f) => protocol.encodeDmaLoggingReportReply(f.report, f.bitmap),
  { report: { iova: 0n, length: 4096n, pageSize: 4096 }, bitmap: Buffer.alloc(8) },
  { 'report.iova': u64, 'report.length': u64, 'report.pageSize': pageSize, bitmap: bytes },
);
encoder('encodeGetInfo', () => protocol.encodeGetInfo(), {}, {});
encoder(
  'encodeDeviceInfo',
  protocol.encodeDeviceInfo,
  { flags: 2, numRegions: 9, numIrqs: 5 },
  { flags: u32, numRegions: within(0, 1024), numIrqs: within(0, 1024) },
);
encoder(
  'encodeGetRegionInfo',
  (f) => protocol.encodeGetRegionInfo(f.index, f.argsz),
  { index: 0, argsz: 32 },
  { index: u32, argsz: within(32, 0xffff_ffff) },
);
encoder(
  'encodeRegionInfo',
  (f) => protocol.encodeRegionInfo(f.info, f.argsz),
  {
    argsz: 4096,
    info: {
      index: 0,
      flags: 7,
      size: 65536,
      offset: 0,
      capabilities: {
        sparseMmap: { areas: [{ offset: 0, size: 4096 }] },
        type: { type: 1, subtype: 2 },
        sparseMmapFds: { areas: [{ offset: 0, size: 4096, fdIndex: 0, fdOffset: 0 }] },
      },
    },
  },
  {
    argsz: u32,
    'info.index': u32,
    'info.flags': u32,
    'info.size': size,
    'info.offset': size,
    'info.capabilities.type.type': u32,
    'info.capabilities.type.subtype': u32,
    'info.capabilities.sparseMmap.areas.0.offset': size,
    'info.capabilities.sparseMmap.areas.0.size': size,
    'info.capabilities.sparseMmapFds.areas.0.offset': size,
    'info.capabilities.sparseMmapFds.areas.0.size': size,
    'info.capabilities.sparseMmapFds.areas.0.fdIndex': within(0, 1023),
    'info.capabilities.sparseMmapFds.areas.0.fdOffset': size,
  },
);
encoder(
  'encodeGetRegionIoFds',
  (f) => protocol.encodeGetRegionIoFds(f.index, f.argsz),
  { index: 0, argsz: 16 },
  { index: u32, argsz: within(16, 1048576) },
);
const part = { offset: 0, size: 4, fdIndex: 0, flags: 0 };
encoder(
  'encodeRegionIoFds',
  (f) => protocol.encodeRegionIoFds(f.index, f.subRegions, f.argsz),
  {
    index: 0,
    argsz: 4096,
    subRegions: [
      { ...part, type: IO_FD_TYPE_IOEVENTFD, datamatch: 1n },
      { ...part, type: IO_FD_TYPE_IOREGIONFD, userData: 1n },
      { ...part, type: IO_FD_TYPE_IOEVENTFD_SHADOW, shadowFdIndex: 0, shadowOffset: 0, datamatch: 1n },
    ] as protocol.SubRegion[],
  },
  {
    index: u32,
    argsz: u32,
    'subRegions.0.offset': size,
    'subRegions.0.size': size,
    'subRegions.0.fdIndex': u32,
    'subRegions.0.flags': u32,
    'subRegions.0.type': within(0, 2),
    'subRegions.0.datamatch': u64,
    'subRegions.1.userData': u64,
    'subRegions.2.shadowFdIndex': u32,
    'subRegions.2.shadowOffset': size,
    'subRegions.2.datamatch': u64,
  },
);
encoder('encodeGetIrqInfo', (f) => protocol.encodeGetIrqInfo(f.index), { index: 0 }, { index: u32 });
encoder(
  'encodeIrqInfo',
  protocol.encodeIrqInfo,
  { index: 0, flags: 0, count: 1 },
  { index: u32, flags: u32, count: within(0, 65536) },
);
encoder(
  'encodeSetIrqs',
  protocol.encodeSetIrqs,
  { index: 0, start: 0, count: 1, flags: 0x22, data: Buffer.alloc(1) },
  { index: u32, start: u32, count: u32, flags: u32, data: bytes },
);
encoder(
  'encodeRegionWriteMulti',
  protocol.encodeRegionWriteMulti,
  [{ offset: 0, region: 0, data: Buffer.alloc(4) }],
  { '0.offset': size, '0.region': u32, '0.data': bytes },
);
encoder(
  'encodeRegionWriteMultiReply',
  protocol.encodeRegionWriteMultiReply,
  { count: 1 },
  { count: within(0, 200) },
);
encoder(
  'encodeDeviceFeature',
  protocol.encodeDeviceFeature,
  { feature: 2, flags: DEVICE_FEATURE_SET, data: Buffer.alloc(8), argsz: 16 },
  { feature: u16, flags: u32, data: bytes, argsz: within(16, 0xffff_ffff) },
);
encoder(
  'encodeDeviceFeatureReply',
  protocol.encodeDeviceFeatureReply,
  { feature: 2, flags: DEVICE_FEATURE_GET, data: Buffer.alloc(8) },
  { feature: u16, flags: u32, data: bytes },
);
encoder(
  'encodeProbe',
  (f) => protocol.encodeProbe(f.feature, DEVICE_FEATURE_GET),
  { feature: 2 },
  { feature: u16 },
);
encoder('encodeGetMigration', () => protocol.encodeGetMigration(), {}, {});
encoder('encodeMigrationReply', (f) => protocol.encodeMigrationReply(f.flags), { flags: 1 }, { flags: size });
encoder('encodeGetMigState', () => protocol.encodeGetMigState(), {}, {});
encoder(
  'encodeSetMigState',
  (f) => protocol.encodeSetMigState(f.state as 1),
  { state: 1 },
  { state: within(0, 7) },
);
encoder(
  'encodeMigStateReply',
  (f) => protocol.encodeMigStateReply(f.flags, f.state as 1),
  { flags: DEVICE_FEATURE_SET, state: 1 },
  { flags: u32, state: within(0, 7) },
);
encoder(
  'encodeMigDataRead',
  (f) => protocol.encodeMigDataRead(f.size),
  { size: 4096 },
  { size: within(0, 0xffff_ffff - 8) },
);
encoder(
  'encodeMigDataReadReply',
  (f) => protocol.encodeMigDataReadReply(f.data),
  { data: Buffer.alloc(8) },
  { data: bytes },
);
encoder(
  'encodeMigDataWrite',
  (f) => protocol.encodeMigDataWrite(f.data),
  { data: Buffer.alloc(8) },
  { data: bytes },
);
encoder(
  'encodeMsixEntry',
  encodeMsixEntry,
  { address: 0xfee0_0000n, data: 0, masked: false },
  { address: u64, data: u32, masked: boolean },
);
encoder(
  'msixEntryOffset',
  (f) => msixEntryOffset(f.tableOffset, f.vector),
  { tableOffset: 0, vector: 0 },
  { tableOffset: u32, vector: within(0, 2047) },
);
encoder(
  'msixPendingBit',
  (f) => msixPendingBit(f.pbaOffset, f.vector),
  { pbaOffset: 0, vector: 0 },
  { pbaOffset: u32, vector: within(0, 2047) },
);
encoder(
  'encodeBarAddress',
  (f) => encodeBarAddress(f.kind as 'io', f.address),
  { kind: 'memory64', address: 0n },
  { address: u64 },
);
encoder(
  'encodeBarAddress of 32 bits',
  (f) => encodeBarAddress(f.kind as 'io', f.address),
  { kind: 'memory32', address: 0n },
  { address: { of: 'bigint', least: 0n, most: 0xffff_ffffn } },
);

/** What a field of the kind cannot hold, of the right type. */
function unfit(kind: Kind): fc.Arbitrary<unknown> | undefined {
  const odd = [NaN, Infinity, -Infinity, -1, 0.5, 1.5, -0.5, 2 ** 53, 2 ** 64, Number.MIN_VALUE];
  switch (kind.of) {
    case 'number':
      return fc
        .oneof(fc.constantFrom(...odd, kind.least - 1, kind.most + 1), fc.double(), fc.maxSafeInteger())
        .filter((value) => !(Number.isSafeInteger(value) && value >= kind.least && value <= kind.most));
    case 'bigint':
      return fc
        .oneof(fc.constantFrom(kind.least - 1n, kind.most + 1n, -1n, 1n << 64n, 1n << 200n), fc.bigInt())
        .filter((value) => value < kind.least || value > kind.most);
    case 'page size':
      return fc
        .oneof(fc.constantFrom(...odd.filter((value) => value !== 0.5), 0, 3, 4095), fc.double())
        .filter((value) => !(Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value))));
    default:
      return undefined;
  }
}

/** What is of another type. */
function wrongTypes(kind: Kind): unknown[] {
  const all = [1, 1n, '1', '', null, true, {}, [], [1], () => 1, Symbol.iterator, new Uint16Array(2)];
  const fits: Record<Kind['of'], string> = {
    ...{ number: 'number', bigint: 'bigint', boolean: 'boolean', bytes: '', 'page size': 'number' },
  };
  return all.filter((value) => typeof value !== fits[kind.of] || kind.of === 'bytes');
}

function caught(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

const named = fields.map((field) => [`${field.encoder}: ${field.name}`, field] as const);

describe('what a field cannot hold is refused, by its name', () => {
  test.each(named)('%s', (_title, { name, kind, encode }) => {
    const values = unfit(kind);
    if (values === undefined) return;
    fc.assert(
      fc.property(values, (value) => {
        const error = caught(() => encode(value as never));
        expect(error).toBeInstanceOf(RangeError);
        expect((error as Error).message).toContain(name);
        expect((error as Error).message).toContain(String(value));
      }),
      { numRuns: 200 },
    );
  });
});

describe('another type is refused, by name', () => {
  test.each(named)('%s', (_title, { encoder, name, kind, encode }) => {
    for (const value of wrongTypes(kind)) {
      // DMA counts are numbers or bigints.
      if (encoder === 'writeDmaAccess' && name === 'count' && value === 1n) continue;
      const error = caught(() => encode(value as never));
      expect([value, error]).toEqual([value, expect.any(Error)]);
      expect([TypeError, RangeError]).toContain((error as Error).constructor);
      expect((error as Error).message).toContain(name);
    }
  });
});

test.each([
  ['NaN within', { other: { answer: { depth: NaN } } }],
  ['Infinity', { other: { answer: Infinity } }],
  ['a function', { other: { answer: () => 42 } }],
  ['a symbol', { other: { answer: Symbol('42') } }],
])('capabilities: %s has no word in JSON', (_title, capabilities) => {
  expect(() => protocol.encodeVersion({ major: 0, minor: 2, capabilities })).toThrow(/answer/);
});

test('version data longer than a peer reads is refused', () => {
  const capabilities = { other: { text: 'x'.repeat(65_536) } };
  expect(() => protocol.encodeVersion({ major: 0, minor: 2, capabilities })).toThrow(
    /must be at most 65536 bytes/,
  );
});

test('operations and the feature number do not run into each other', () => {
  const reply = { feature: 1, flags: DEVICE_FEATURE_GET | 6 };
  expect(() => protocol.encodeDeviceFeatureReply(reply)).toThrow(TypeError);
});

test('a mappable area outside its region is refused', () => {
  const info = { index: 0, flags: 7, size: 8192, offset: 0 };
  const areas = [{ offset: 4096, size: 8192 }];
  expect(() => protocol.encodeRegionInfo({ ...info, capabilities: { sparseMmap: { areas } } })).toThrow(
    /areas\[0\]: \[4096, 12288\) is out of bounds \(region size 8192\)/,
  );
  const withFds = [{ offset: 8192, size: 1, fdIndex: 0, fdOffset: 0 }];
  expect(() =>
    protocol.encodeRegionInfo({ ...info, capabilities: { sparseMmapFds: { areas: withFds } } }),
  ).toThrow(RangeError);
});

test('addresses below their alignment are refused', () => {
  expect(() => encodeMsixEntry({ address: 0xfee0_0002n, data: 0, masked: false })).toThrow(
    /address must be a multiple of 4, got 0xfee00002/,
  );
  expect(() => encodeBarAddress('memory32', 0xfe00_0008n)).toThrow(/multiple of 16/);
  expect(() => encodeBarAddress('io', 0xc002n)).toThrow(/multiple of 4/);
});

test('every encoder of the public entry is tried', () => {
  const tried = new Set(fields.map(({ encoder }) => encoder));
  const without = ['encodeGetInfo', 'encodeGetMigration', 'encodeGetMigState'];
  const names = Object.keys(protocol).filter((name) => /^(?:encode|write)/.test(name));
  expect(names.filter((name) => !tried.has(name)).sort()).toEqual(without.sort());
});
