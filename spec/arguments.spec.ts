/**
 * Every public function with options checks them by name and kind before it does anything, and every function that gives a
 * promise rejects: the table has them all, as the sources say which there are.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { connect, migrate, type Device, type DmaBuffer, type DmaMapping, type Vector } from '../lib/index.js';
import {
  EduDevice,
  FileStore,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  SharedMemory,
  serveFd,
  VirtioScsiDevice,
} from '../lib/emulator/index.js';
import type { EmulatorServer } from '../lib/emulator/index.js';
import { native } from '../lib/native.js';
import { PciIrq } from '../lib/protocol/index.js';
import { parseFault, proxy } from '../lib/proxy/index.js';
import {
  bindRegisters,
  checkRegisters,
  generateAccessors,
  REGISTER_MAP_FORMAT,
  RegisterMap,
  RegisterPlacement,
} from '../lib/registers/index.js';
import { CaptureReader, describe as describeMessage, LineFormatter, openTap } from '../lib/trace/index.js';
import { describeVirtio, VirtioScsi, type ScsiUnit } from '../lib/virtio/index.js';
import { publicFunctions } from './support/public-entries.js';

let server: EmulatorServer;
let device: Device;
let vector: Vector;
let buffer: DmaBuffer;
let mapping: DmaMapping;
let scsi: Device;
let unit: ScsiUnit;

beforeAll(async () => {
  const [ours, theirs] = native().socketPair() as [number, number];
  server = serveFd(new RamDevice({ migration: 'stop-copy' }), theirs);
  device = await connect({ fd: ours });
  [vector] = (await device.irqs.byIndex(PciIrq.MSIX).enable(1)) as [Vector];
  buffer = await device.dma.alloc(4096);
  const handler = { read: (_: bigint, length: number) => Buffer.alloc(length), write: () => undefined };
  mapping = await device.dma.map({ handler, size: 4096 });
  scsi = await connect({ model: new VirtioScsiDevice({ units: [{ store: new MemoryStore(1 << 20) }] }) });
  unit = (await VirtioScsi.open(scsi)).unit(0);
});

afterAll(async () => {
  await scsi.close();
  await device.close();
  await server.close();
});

type Call = (options: never) => unknown;
/** `timeoutMs` and `signal`, `timeoutMs` alone, or neither is among the options. */
type Takes = 'call' | 'sync' | 'none';

const bar = () => device.bar(2);
const four = Buffer.alloc(4);

const map = RegisterMap.from({
  format: REGISTER_MAP_FORMAT,
  name: 'ram',
  blocks: [{ name: 'B', children: [{ name: 'R', offset: 0, fields: [{ name: 'F', lsb: 0 }] }] }],
});
const register = () => bindRegisters(map.block('B'), bar()).register('R');

/** Functions with options; what their errors begin with is their name. */
const TABLE: Readonly<Record<string, [takes: Takes, call: Call]>> = {
  connect: ['call', (o) => connect({ model: new EduDevice() }, o)],
  migrate: ['call', (o) => migrate(device, device, o)],
  describeVirtio: ['sync', (o) => describeVirtio(device, o)],
  'Device.enable': ['call', (o) => device.enable(o)],
  'Device.writeMulti': ['call', (o) => device.writeMulti([{ region: 2, offset: 0, data: four }], o)],
  'Device.fence': ['call', (o) => device.fence(o)],
  'Device.reset': ['call', (o) => device.reset(o)],
  'ConfigSpace.read': ['call', (o) => device.config.read(0, 4, o)],
  'ConfigSpace.status': ['call', (o) => device.config.status(o)],
  'ConfigSpace.writeUInt8': ['call', (o) => device.config.writeUInt8(0x0c, 0, o)],
  'ConfigSpace.writeUInt16': ['call', (o) => device.config.writeUInt16(0x0c, 0, o)],
  'ConfigSpace.writeUInt32': ['call', (o) => device.config.writeUInt32(0x0c, 0, o)],
  'ConfigSpace.write': ['call', (o) => device.config.write(0x0c, 1, 0, o)],
  'ConfigSpace.update': ['call', (o) => device.config.update(0x0c, 1, 0, 0, o)],
  'ConfigSpace.refresh': ['call', (o) => device.config.refresh(o)],
  'Features.probe': ['call', (o) => device.features.probe(1, {}, o)],
  'Features.get': ['call', (o) => device.features.get(1, 8, undefined, o)],
  'Features.set': ['call', (o) => device.features.set(1, four, o)],
  'Migration.support': ['call', (o) => device.migration.support(o)],
  'Migration.state': ['call', (o) => device.migration.state(o)],
  'Migration.transition': ['call', (o) => device.migration.transition(2, o)],
  'Migration.save': ['call', (o) => device.migration.save(o)],
  'Migration.restore': ['call', (o) => device.migration.restore(o)],
  'Region.read': ['call', (o) => bar().read(0, 4, o)],
  'Region.readInto': ['call', (o) => bar().readInto(0, Buffer.alloc(4), o)],
  'Region.write': ['call', (o) => bar().write(0, four, o)],
  'Region.readUInt8': ['call', (o) => bar().readUInt8(0, o)],
  'Region.readUInt16': ['call', (o) => bar().readUInt16(0, o)],
  'Region.readUInt32': ['call', (o) => bar().readUInt32(0, o)],
  'Region.readUInt64': ['call', (o) => bar().readUInt64(0, o)],
  'Region.writeUInt8': ['call', (o) => bar().writeUInt8(0, 1, o)],
  'Region.writeUInt16': ['call', (o) => bar().writeUInt16(0, 1, o)],
  'Region.writeUInt32': ['call', (o) => bar().writeUInt32(0, 1, o)],
  'Region.writeUInt64': ['call', (o) => bar().writeUInt64(0, 1n, o)],
  'Region.readSync': ['sync', (o) => bar().readSync(0, 4, o)],
  'Region.readIntoSync': ['sync', (o) => bar().readIntoSync(0, Buffer.alloc(4), o)],
  'Region.writeSync': ['sync', (o) => bar().writeSync(0, four, o)],
  'Region.readUInt8Sync': ['sync', (o) => bar().readUInt8Sync(0, o)],
  'Region.readUInt16Sync': ['sync', (o) => bar().readUInt16Sync(0, o)],
  'Region.readUInt32Sync': ['sync', (o) => bar().readUInt32Sync(0, o)],
  'Region.readUInt64Sync': ['sync', (o) => bar().readUInt64Sync(0, o)],
  'Region.writeUInt8Sync': ['sync', (o) => bar().writeUInt8Sync(0, 1, o)],
  'Region.writeUInt16Sync': ['sync', (o) => bar().writeUInt16Sync(0, 1, o)],
  'Region.writeUInt32Sync': ['sync', (o) => bar().writeUInt32Sync(0, 1, o)],
  'Region.writeUInt64Sync': ['sync', (o) => bar().writeUInt64Sync(0, 1n, o)],
  'Region.waitFor': ['call', (o) => bar().waitFor(0, 0, 0, o)],
  'Region.ioFds': ['call', (o) => bar().ioFds(o)],
  'Dma.alloc': ['call', (o) => device.dma.alloc(4096, o)],
  'Dma.map': ['call', (o) => device.dma.map(o)],
  'Dma.transaction': ['call', (o) => device.dma.transaction(() => undefined, o)],
  'Dma.unmap': ['call', (o) => device.dma.unmap(0n, 4096, o)],
  'Dma.unmapAll': ['call', (o) => device.dma.unmapAll(o)],
  'DirtyPages.start': ['call', (o) => device.dma.dirty.start(o)],
  'DirtyPages.report': ['call', (o) => device.dma.dirty.report(o)],
  'DirtyPages.stop': ['call', (o) => device.dma.dirty.stop(o)],
  'IrqIndex.enable': ['call', (o) => msix().enable(1, o)],
  'IrqIndex.disable': ['call', (o) => msix().disable(o)],
  'IrqIndex.mask': ['call', (o) => msix().mask(0, 1, o)],
  'IrqIndex.unmask': ['call', (o) => msix().unmask(0, 1, o)],
  'IrqIndex.trigger': ['call', (o) => msix().trigger(0, 1, o)],
  'IrqIndex.maskEvents': ['call', (o) => msix().maskEvents(1, o)],
  'IrqIndex.unmaskEvents': ['call', (o) => msix().unmaskEvents(1, o)],
  'Irqs.restore': ['call', (o) => device.irqs.restore(o)],
  'DmaBuffer.close': ['call', (o) => buffer.close(o)],
  'DmaBuffer.free': ['call', (o) => buffer.free(o)],
  'DmaMapping.close': ['call', (o) => mapping.close(o)],
  'DmaMapping.unmap': ['call', (o) => mapping.unmap(o)],
  'Vector.wait': ['call', (o) => vector.wait(o)],
  'new EduDevice': ['none', (o) => new EduDevice(o)],
  'new RamDevice': ['none', (o) => new RamDevice(o)],
  'new NvmeDevice': ['none', (o) => new NvmeDevice(o)],
  proxy: ['none', (o) => proxy(o)],
  describe: ['none', (o) => describeMessage(four, o)],
  'new LineFormatter': ['none', (o) => new LineFormatter(o)],
  openTap: ['none', (o) => openTap(o)],
  'Register.read': ['call', (o) => register().read(o)],
  'Register.readSync': ['sync', (o) => register().readSync(o)],
  'Register.readFields': ['call', (o) => register().readFields(o)],
  'Register.readFieldsSync': ['sync', (o) => register().readFieldsSync(o)],
  'Register.write': ['call', (o) => register().write(1, o)],
  'Register.writeSync': ['sync', (o) => register().writeSync(1, o)],
  'Register.modify': ['call', (o) => register().modify({ f: 1 }, o)],
  'Register.modifySync': ['sync', (o) => register().modifySync({ f: 1 }, o)],
  'Register.waitFor': ['call', (o) => register().waitFor({ f: 1 }, o)],
  'Register.waitForSync': ['sync', (o) => register().waitForSync({ f: 1 }, o)],
  'ScsiUnit.inquiry': ['call', (o) => unit.inquiry(o)],
  'ScsiUnit.pages': ['call', (o) => unit.pages(o)],
  'ScsiUnit.serialNumber': ['call', (o) => unit.serialNumber(o)],
  'ScsiUnit.designators': ['call', (o) => unit.designators(o)],
  'ScsiUnit.testReady': ['call', (o) => unit.testReady(o)],
  'ScsiUnit.capacity': ['call', (o) => unit.capacity(o)],
  'ScsiUnit.read': ['call', (o) => unit.read(0, 1, o)],
  'ScsiUnit.readInto': ['call', (o) => unit.readInto(0, Buffer.alloc(512), o)],
  'ScsiUnit.write': ['call', (o) => unit.write(0, Buffer.alloc(512), o)],
  'ScsiUnit.synchronizeCache': ['call', (o) => unit.synchronizeCache(o)],
  bindRegisters: ['none', (o) => bindRegisters(map.block('B'), bar(), o)],
  checkRegisters: ['call', (o) => checkRegisters([register()], o)],
  generateAccessors: ['none', (o) => generateAccessors(map, o)],
  'new RegisterPlacement': ['none', (o) => new RegisterPlacement(map, o)],
};

function msix() {
  return device.irqs.byIndex(PciIrq.MSIX);
}

/** Functions with options that are not in the table, and why. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  serve: 'spec/emulator: it takes a path of its own',
  serveFd: 'spec/emulator: it takes a socket of its own',
  serveStream: 'spec/emulator: it takes a stream of its own',
  'new EmulatedNamespace': 'NvmeDevice makes it, whose table has its options',
  'new PciConfigSpace': 'spec/emulator/pci-config.spec.ts',
  openRtl: 'spec/emulator/rtl.spec.ts',
  diagnose: 'spec/doctor',
  'CaptureWriter.open': 'spec/trace',
  replay: 'spec/replay',
  openRig: 'spec/testing',
  withRig: 'spec/testing',
  rigTest: 'spec/testing',
};
/**
 * They take ErrorOptions of the language, which ignores what it does not know; NVMe's are in spec/nvme/arguments, virtio's in
 * spec/virtio/blk.spec.ts, a rig's in spec/testing; a field's are its register's.
 */
const OTHERS =
  /^(new \w+Error|NvmeController\.\w+|NvmeQueue\.\w+|(new )?Virtio\w+(\.\w+)?|Field\.\w+|Rig\.\w+)$/;

/** What the call fails with. A function that gives a promise must not throw. */
async function failure(name: string, call: () => unknown): Promise<unknown> {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    if (functions.get(name)?.returnsPromise === true) throw new Error(`${name} threw`, { cause: error });
    return error;
  }
  return Promise.resolve(result).then(
    () => new Error(`${name} took it`),
    (error: unknown) => error,
  );
}

const functions = publicFunctions();
const TAKES_OPTIONS = /^options$|Options\}$/;

test('every public function with options is in the table', () => {
  const withOptions = [...functions.values()]
    .filter(({ parameters }) => parameters.some((parameter) => TAKES_OPTIONS.test(parameter)))
    .map(({ name }) => name);
  expect(withOptions.length).toBeGreaterThan(90);
  const missing = withOptions.filter(
    (name) => !(name in TABLE) && !(name in ELSEWHERE) && !OTHERS.test(name),
  );
  expect(missing).toEqual([]);
  const gone = [...Object.keys(TABLE), ...Object.keys(ELSEWHERE)].filter((name) => !functions.has(name));
  expect(gone).toEqual([]);
});

describe.each(Object.entries(TABLE))('%s', (name, [takes, call]) => {
  const caller = name.replace('new ', '');
  const refuse = async (options: unknown, message: string): Promise<void> => {
    const error = await failure(name, () => call(options as never));
    expect(String((error as Error).message)).toContain(`${caller}: ${message}`);
  };

  test('an unknown option, and what is no object', async () => {
    await refuse({ nonesuchAtAll: true }, 'unknown option nonesuchAtAll (the options are ');
    await refuse(5, 'options must be an object, got 5');
    await refuse(null, 'options must be an object, got null');
  });

  if (takes === 'none') return;
  test('a timeout that is none', async () => {
    await refuse({ timeoutms: 5 }, 'unknown option timeoutms; did you mean timeoutMs?');
    for (const timeoutMs of [NaN, -1, 0, -Infinity]) {
      await refuse({ timeoutMs }, `timeoutMs must be greater than 0, in milliseconds, got ${timeoutMs}`);
    }
    await refuse({ timeoutMs: '5' }, 'timeoutMs must be a number of milliseconds, got "5"');
  });

  if (takes === 'sync') return;
  test('a signal that is none', async () => {
    await refuse({ signal: {} }, 'signal must be an AbortSignal, got an instance of Object');
  });
});

const NO_FILE = join(tmpdir(), 'vfio-user-spec-no-such-file');

test.each<[name: string, call: () => unknown, message: string]>([
  ['Region.read', () => bar().read('0' as never, 4), 'offset must be a number, got "0"'],
  ['Region.read', () => bar().read(0, NaN), 'length must be an integer from 0 to 1048576, got NaN'],
  ['Region.readUInt32', () => bar().readUInt32(-4), 'offset must be an integer from 0 to 1048576, got -4'],
  ['Region.readUInt32Sync', () => bar().readUInt32Sync(1.5), 'offset must be an integer from 0 to'],
  ['Region.write', () => bar().write(0, 'ab' as never), 'data must be a Uint8Array or Buffer, got "ab"'],
  ['Region.writeUInt8', () => bar().writeUInt8(0, 256), 'value must be an unsigned 8-bit integer, got 256'],
  ['Region.writeUInt8Sync', () => bar().writeUInt8Sync(0, 1n as never), 'value must be a number, got 1n'],
  ['Region.postUInt32', () => bar().postUInt32(0, '1' as never), 'value must be a number, got "1"'],
  [
    'Region.waitFor',
    () => bar().waitFor(0, 1, 1, { intervalMs: NaN }),
    'intervalMs must be 0 or more, in mill',
  ],
  [
    'Region.waitFor',
    () => bar().waitFor(0, 1, 1, { width: 3 as never }),
    'width must be 1, 2, 4 or 8, got 3',
  ],
  ['Region.waitFor', () => bar().waitFor(0, '1' as never, 1), 'mask must be a number, got "1"'],
  ['Region.waitFor', () => bar().waitFor(0, 1, 2), 'value must have no bits beside the mask 0x1, got 0x2'],
  ['Region.map', () => bar().map('0' as never), 'offset must be a number, got "0"'],
  [
    'Device.writeMulti',
    () => device.writeMulti(5 as never),
    'writes must be a list of { region, offset, data }',
  ],
  [
    'Device.writeMulti',
    () => device.writeMulti([{}] as never),
    'writes[0].region must be a number, got undefined',
  ],
  [
    'Migration.transition',
    () => device.migration.transition('STOP' as never),
    'target must be a number, got "STOP"',
  ],
  ['Migration.save', () => device.migration.save({ chunkBytes: NaN }), 'chunkBytes must be an integer >= 1'],
  [
    'Migration.save',
    () => device.migration.save({ preCopy: { maxRound: 1 } as never }),
    'unknown option preCopy.maxRound; did you mean preCopy.maxRounds?',
  ],
  [
    'Migration.restore',
    () => device.migration.restore({ run: 1 as never }),
    'run must be true or false, got 1',
  ],
  [
    'DirtyPages.start',
    () => device.dma.dirty.start({ pageSize: 5000 }),
    'pageSize must be a power of two from 4096',
  ],
  [
    'DirtyPages.start',
    () => device.dma.dirty.start({ ranges: [{ iova: 1 }] as never }),
    'ranges[0].iova must be a bigint, got 1',
  ],
  ['Vector.onInterrupt', () => vector.onInterrupt(5 as never), 'listener must be a function, got 5'],
  ['Vector.signal', () => vector.signal(NaN), 'count must be an integer >= 1'],
  ['EduDevice', () => new EduDevice({ dmaDelayMs: NaN }), 'dmaDelayMs must be an integer'],
  ['RamDevice', () => new RamDevice({ ramSize: -1 }), 'ramSize must be an integer from 1'],
  [
    'NvmeDevice',
    () => new NvmeDevice({ namespaces: [{ store: 5 as never }] }),
    'namespaces[0].store must be a BlockStore, got 5',
  ],
  [
    'NvmeDevice',
    () => new NvmeDevice({ namespaces: [], readyTimeoutMs: NaN }),
    'readyTimeoutMs must be an integer',
  ],
  ['MemoryStore', () => new MemoryStore('1' as never), 'size must be a number, got "1"'],
  ['FileStore.open', () => FileStore.open(NO_FILE, NaN), 'size must be an integer >= 1'],
  ['FileStore.open', () => FileStore.open(5 as never), 'path must be the path of a file, got 5'],
  ['SharedMemory', () => new SharedMemory(5000), 'size must be a multiple of 4096, got 5000'],
  ['CaptureReader', () => new CaptureReader(5 as never), 'source must be the path of a file, or an async'],
  ['parseFault', () => parseFault(5 as never), 'text must be a string, got 5'],
  [
    'proxy',
    () => proxy({ listen: { port: NaN }, connect: '@x' }),
    'listen.port must be an unsigned 16-bit integer',
  ],
  [
    'proxy',
    () => proxy({ listen: '@x', connect: { paht: 'x' } as never }),
    'connect must be an address, or an object',
  ],
  [
    'proxy',
    () => proxy({ listen: '@x', connect: '@y', timeoutMs: NaN }),
    'timeoutMs must be an integer from 1',
  ],
  [
    'proxy',
    () => proxy({ listen: '@x', connect: '@y', twinSokcet: 'pass' } as never),
    'unknown option twinSokcet; did you mean twinSocket?',
  ],
])('%s: %#', async (name, call, message) => {
  const error = await failure(name, call);
  expect(String((error as Error).message)).toContain(`${name}: ${message}`);
});
