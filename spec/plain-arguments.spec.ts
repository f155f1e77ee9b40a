/**
 * Public functions check their plain arguments as they do their options: each takes what is right, and what is not is an
 * error that names the argument and says what it was; where a promise is given, it rejects.
 */
import { tmpdir } from 'node:os';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { connect, type Device, type DmaBuffer, type MappedArea, type Vector } from '../lib/index.js';
import {
  FileStore,
  MemoryStore,
  PciConfigSpace,
  RamDevice,
  SharedMemory,
  msiCapability,
  onNthCommand,
  serveFd,
  type EmulatorServer,
} from '../lib/emulator/index.js';
import { native } from '../lib/native.js';
import { PciIrq, dirtyBitmapSize } from '../lib/protocol/index.js';
import { msixEntryOffset } from '../lib/pci/index.js';
import { publicFunctions } from './support/public-entries.js';

let server: EmulatorServer;
let device: Device;
let vector: Vector;
let area: MappedArea;
let buffer: DmaBuffer;
let file: FileStore;
let directory: string;
const store = new MemoryStore(1 << 16);
const config = new PciConfigSpace({ vendorId: 1, deviceId: 2, bars: [{ index: 0, size: 4096 }] });

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'arguments-'));
  file = await FileStore.open(join(directory, 'disk'), 1 << 16);
  const [ours, theirs] = native().socketPair() as [number, number];
  server = serveFd(new RamDevice({ migration: 'stop-copy' }), theirs);
  device = await connect({ fd: ours });
  [vector] = (await device.irqs.byIndex(PciIrq.MSIX).enable(1)) as [Vector];
  area = device.bar(1).map(4096, 4096);
  buffer = await device.dma.alloc(4096);
});

afterAll(async () => {
  await buffer.close();
  await device.close();
  await server.close();
  await file.close();
  rmSync(directory, { recursive: true });
});

/** A whole number, a bigint, either of them, a whole number that may be left out. */
type Kind = 'number' | 'bigint' | 'either' | 'optional';

const WRONG: Readonly<Record<Kind, readonly unknown[]>> = {
  number: [NaN, -1, 1.5, Infinity, 2 ** 53, '1', 1n, null, undefined, {}],
  optional: [NaN, -1, 1.5, Infinity, 2 ** 53, '1', 1n, null, {}],
  bigint: [5, -1n, 1n << 64n, '1', null, undefined, {}],
  either: [NaN, -1, 1.5, Infinity, 2 ** 53, -1n, 1n << 64n, '1', null, undefined, {}],
};

type Call = (...values: never[]) => unknown;
/** The name of a parameter, or a pattern of what errors call it. */
type Row = [call: Call, ...parameters: [name: string, kind: Kind, right: unknown][]];

const bar = () => device.bar(2);
const four = Buffer.alloc(4);
const offset: [string, Kind, unknown] = ['offset', 'number', 0];
const value = (kind: Kind = 'number'): [string, Kind, unknown] => ['value', kind, kind === 'bigint' ? 1n : 1];

const TABLE: Readonly<Record<string, Row>> = {
  'Device.region': [(v) => device.region(v), ['which|regions', 'number', 0]],
  'Device.bar': [(v) => device.bar(v), ['index|BARs', 'number', 0]],
  'ConfigSpace.getUInt8': [(o) => device.config.getUInt8(o), offset],
  'ConfigSpace.getUInt16': [(o) => device.config.getUInt16(o), offset],
  'ConfigSpace.getUInt32': [(o) => device.config.getUInt32(o), offset],
  'ConfigSpace.readUInt8': [(o) => device.config.readUInt8(o), offset],
  'ConfigSpace.readUInt16': [(o) => device.config.readUInt16(o), offset],
  'ConfigSpace.readUInt32': [(o) => device.config.readUInt32(o), offset],
  'ConfigSpace.read': [(o, v) => device.config.read(o, v), offset, ['width', 'number', 4]],
  'ConfigSpace.isVolatile': [(o, v) => device.config.isVolatile(o, v), offset, ['width', 'number', 4]],
  'ConfigSpace.writeUInt8': [(o, v) => device.config.writeUInt8(o, v), offset, value()],
  'ConfigSpace.writeUInt16': [(o, v) => device.config.writeUInt16(o, v), offset, value()],
  'ConfigSpace.writeUInt32': [(o, v) => device.config.writeUInt32(o, v), offset, value()],
  'ConfigSpace.write': [(o, l, v) => device.config.write(o, l, v), offset, ['width', 'number', 1], value()],
  'ConfigSpace.update': [
    (o, l, m, v) => device.config.update(o, l, m, v),
    offset,
    ['width', 'number', 1],
    ['mask', 'number', 1],
    value(),
  ],
  'Features.probe': [(f) => device.features.probe(f), ['feature', 'number', 1]],
  'Features.get': [(f, s) => device.features.get(f, s), ['feature', 'number', 1], ['size', 'number', 8]],
  'Features.set': [
    (f) => device.features.set(f, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])),
    ['feature', 'number', 2],
  ],
  'MappedArea.window': [(o, l) => area.window(o, l), offset, ['length', 'number', 4]],
  'MappedArea.loadUInt32': [(o) => area.loadUInt32(o), offset],
  'MappedArea.storeUInt32': [(o, v) => area.storeUInt32(o, v), offset, value()],
  'MappedArea.loadUInt64': [(o) => area.loadUInt64(o), offset],
  'MappedArea.storeUInt64': [(o, v) => area.storeUInt64(o, v), offset, value('bigint')],
  'MappedArea.copyOut': [(o) => area.copyOut(o, Buffer.alloc(4)), offset],
  'MappedArea.copyIn': [(o) => area.copyIn(o, four), offset],
  'Region.read': [(o, l) => bar().read(o, l), offset, ['length', 'number', 4]],
  'Region.readInto': [(o) => bar().readInto(o, Buffer.alloc(4)), offset],
  'Region.write': [(o) => bar().write(o, four), offset],
  'Region.readUInt8': [(o) => bar().readUInt8(o), offset],
  'Region.readUInt16': [(o) => bar().readUInt16(o), offset],
  'Region.readUInt32': [(o) => bar().readUInt32(o), offset],
  'Region.readUInt64': [(o) => bar().readUInt64(o), offset],
  'Region.writeUInt8': [(o, v) => bar().writeUInt8(o, v), offset, value()],
  'Region.writeUInt16': [(o, v) => bar().writeUInt16(o, v), offset, value()],
  'Region.writeUInt32': [(o, v) => bar().writeUInt32(o, v), offset, value()],
  'Region.writeUInt64': [(o, v) => bar().writeUInt64(o, v), offset, value('bigint')],
  'Region.readSync': [(o, l) => bar().readSync(o, l), offset, ['length', 'number', 4]],
  'Region.readIntoSync': [(o) => bar().readIntoSync(o, Buffer.alloc(4)), offset],
  'Region.writeSync': [(o) => bar().writeSync(o, four), offset],
  'Region.readUInt8Sync': [(o) => bar().readUInt8Sync(o), offset],
  'Region.readUInt16Sync': [(o) => bar().readUInt16Sync(o), offset],
  'Region.readUInt32Sync': [(o) => bar().readUInt32Sync(o), offset],
  'Region.readUInt64Sync': [(o) => bar().readUInt64Sync(o), offset],
  'Region.writeUInt8Sync': [(o, v) => bar().writeUInt8Sync(o, v), offset, value()],
  'Region.writeUInt16Sync': [(o, v) => bar().writeUInt16Sync(o, v), offset, value()],
  'Region.writeUInt32Sync': [(o, v) => bar().writeUInt32Sync(o, v), offset, value()],
  'Region.writeUInt64Sync': [(o, v) => bar().writeUInt64Sync(o, v), offset, value('bigint')],
  'Region.post': [(o) => bar().post(o, four), offset],
  'Region.postUInt32': [(o, v) => bar().postUInt32(o, v), offset, value()],
  'Region.waitFor': [
    (o, m, v) => bar().waitFor(o, m, v),
    offset,
    ['mask', 'either', 0],
    ['value', 'either', 0],
  ],
  'Region.map': [
    (o, l) => device.bar(1).map(o, l),
    ['offset', 'optional', 4096],
    ['length', 'optional', 4096],
  ],
  'Dma.alloc': [(s) => device.dma.alloc(s), ['size', 'number', 4096]],
  'Dma.unmap': [
    (i, s) => device.dma.unmap(i, s),
    ['iova', 'bigint', undefined],
    ['size', 'number', undefined],
  ],
  'Irqs.byIndex': [(i) => device.irqs.byIndex(i), ['index|IRQ indexes', 'number', 0]],
  'Vector.signal': [(c) => vector.signal(c), ['count', 'optional', 1]],
  'Migration.transition': [(t) => device.migration.transition(t), ['target', 'number', 2]],
  'new MemoryStore': [(s) => new MemoryStore(s), ['size', 'number', 4096]],
  'MemoryStore.read': [(o, l) => store.read(o, l), offset, ['length', 'number', 4]],
  'MemoryStore.write': [(o) => store.write(o, four), offset],
  'MemoryStore.clear': [(o, l) => store.clear(o, l), offset, ['length', 'number', 4]],
  'FileStore.read': [(o, l) => file.read(o, l), offset, ['length', 'number', 4]],
  'FileStore.write': [(o) => file.write(o, four), offset],
  'FileStore.clear': [(o, l) => file.clear(o, l), offset, ['length', 'number', 4]],
  'PciConfigSpace.barSize': [(i) => config.barSize(i), ['index', 'number', 0]],
  'PciConfigSpace.barKind': [(i) => config.barKind(i), ['index', 'number', 0]],
  'PciConfigSpace.barAddress': [(i) => config.barAddress(i), ['index', 'number', 0]],
  'PciConfigSpace.isBarEnabled': [(i) => config.isBarEnabled(i), ['index', 'number', 0]],
  'PciConfigSpace.read': [(o, c) => config.read(o, c), offset, ['count', 'number', 4]],
  'PciConfigSpace.write': [(o) => config.write(o, four), offset],
  'new SharedMemory': [(s) => new SharedMemory(s).close(), ['size', 'number', 4096]],
  msiCapability: [(v) => msiCapability(v), ['vectors', 'number', 4]],
  onNthCommand: [(n) => onNthCommand(n, 'pass'), ['n', 'number', 1]],
  dirtyBitmapSize: [
    (l, p) => dirtyBitmapSize(l, p),
    ['length', 'bigint', 4096n],
    ['pageSize', 'number', 4096],
  ],
  msixEntryOffset: [(t, v) => msixEntryOffset(t, v), ['tableOffset', 'number', 0], ['vector', 'number', 0]],
};

const functions = publicFunctions();

test('every name in the table is public', () => {
  expect(Object.keys(TABLE).filter((name) => !functions.has(name))).toEqual([]);
});

/** What the call ends with. One that gives a promise does not throw. */
async function outcome(name: string, call: () => unknown): Promise<Error | 'taken'> {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    if (functions.get(name)!.returnsPromise) throw new Error(`${name} threw`, { cause: error });
    return error as Error;
  }
  return Promise.resolve(result).then(
    () => 'taken' as const,
    (error: unknown) => error as Error,
  );
}

/** As errors show it. */
function shown(bad: unknown): string {
  if (typeof bad === 'string') return JSON.stringify(bad);
  if (typeof bad === 'bigint') return `${bad}n`;
  return typeof bad === 'object' && bad !== null ? 'an instance of Object' : String(bad);
}

describe.each(Object.entries(TABLE))('%s', (name, [call, ...parameters]) => {
  test.each(parameters.map(([parameter], at) => [parameter, at] as const))('%s', async (parameter, at) => {
    const right = parameters.map(([, , fine]) => fine);
    const mistakes: string[] = [];
    for (const bad of WRONG[parameters[at]![1]]) {
      const values = right.with(at, bad);
      if (name === 'Dma.unmap') values[1 - at] = at === 0 ? buffer.bytes.length : buffer.iova;
      const end = await outcome(name, () => call(...(values as never[])));
      const isNamed =
        end !== 'taken' &&
        (end instanceof TypeError || end instanceof RangeError) &&
        new RegExp(parameter).test(end.message) &&
        [`got ${shown(bad)}`, `got ${String(bad)}`, `not ${String(bad)}`].some((text) =>
          end.message.endsWith(text),
        );
      if (!isNamed) mistakes.push(`${shown(bad)}: ${end === 'taken' ? end : end.message}`);
    }
    expect(mistakes).toEqual([]);
  });
});
