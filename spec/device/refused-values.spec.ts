/** What a register, a message or a mapping cannot hold is refused by name, sync and async, and nothing is sent. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { RamDevice, RamRegister, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { connect, type Device, type IoFds, type MappedArea } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';

const scratch = new Scratch();
let model: RamDevice;
let server: EmulatorServer;
let device: Device;
let area: MappedArea;
let doorbells: IoFds;

beforeAll(async () => {
  model = new RamDevice({ sharedSize: 65536, doorbells: true });
  server = await serve(model, { path: scratch.path('socket') });
  device = await connect(scratch.path('socket'));
  area = device.regions.find((region) => region.mappable)!.map();
  doorbells = await device.bar(0).ioFds();
});

afterAll(async () => {
  await device.close();
  await server.close();
  model.close();
  scratch.remove();
});

const SCRATCH = 0x40;
const ODD = [NaN, Infinity, -Infinity, -1, 0.5, 1.5, -0.5, 2 ** 53, 2 ** 64];

/** Numbers that are no unsigned integers of so many bits. */
const beyond = (bits: number): fc.Arbitrary<number> =>
  fc
    .oneof(fc.constantFrom(...ODD, 2 ** bits), fc.double(), fc.maxSafeInteger())
    .filter((value) => !(Number.isSafeInteger(value) && value >= 0 && value < 2 ** bits));

const beyond64 = (): fc.Arbitrary<bigint> =>
  fc
    .oneof(fc.constantFrom(-1n, 1n << 64n, -(1n << 64n), 1n << 200n), fc.bigInt())
    .filter((value) => BigInt.asUintN(64, value) !== value);

/** Every face that takes a value of so many bits. */
const numbers: readonly [name: string, bits: number, write: (value: number) => unknown][] = [
  ['writeUInt8', 8, (value) => device.bar(0).writeUInt8(SCRATCH, value)],
  ['writeUInt16', 16, (value) => device.bar(0).writeUInt16(SCRATCH, value)],
  ['writeUInt32', 32, (value) => device.bar(0).writeUInt32(SCRATCH, value)],
  ['writeUInt8Sync', 8, (value) => device.bar(0).writeUInt8Sync(SCRATCH, value)],
  ['writeUInt16Sync', 16, (value) => device.bar(0).writeUInt16Sync(SCRATCH, value)],
  ['writeUInt32Sync', 32, (value) => device.bar(0).writeUInt32Sync(SCRATCH, value)],
  ['postUInt32', 32, (value) => device.bar(0).postUInt32(SCRATCH, value)],
  ['config.writeUInt8', 8, (value) => device.config.writeUInt8(0x3c, value)],
  ['config.writeUInt16', 16, (value) => device.config.writeUInt16(0x04, value)],
  ['config.writeUInt32', 32, (value) => device.config.writeUInt32(0x10, value)],
  ['config.update, the value', 16, (value) => device.config.update(0x04, 2, 0xffff, value)],
  ['config.update, the mask', 16, (value) => device.config.update(0x04, 2, value, 0)],
  ['config.update of 32 bits, the value', 32, (value) => device.config.update(0x10, 4, 0xffff_ffff, value)],
  ['config.update of 32 bits, the mask', 32, (value) => device.config.update(0x10, 4, value, 0)],
  ['MappedArea.storeUInt32', 32, (value) => area.storeUInt32(0, value)],
  [
    'IoFd.write to a register of 32 bits',
    32,
    (value) => doorbells.at(RamRegister.SHADOW_DOORBELL)!.write(value),
  ],
];

const bigints: readonly [name: string, write: (value: bigint) => unknown][] = [
  ['writeUInt64', (value) => device.bar(0).writeUInt64(SCRATCH, value)],
  ['writeUInt64Sync', (value) => device.bar(0).writeUInt64Sync(SCRATCH, value)],
  ['MappedArea.storeUInt64', (value) => area.storeUInt64(0, value)],
  ['IoFd.write', (value) => doorbells.at(RamRegister.SHADOW_DOORBELL)!.write(value)],
];

/** What the call ends in, thrown or rejected. */
async function ending(run: () => unknown): Promise<unknown> {
  try {
    await run();
  } catch (error) {
    return error;
  }
  return undefined;
}

async function expectRefused(values: fc.Arbitrary<unknown>, write: (value: never) => unknown): Promise<void> {
  const { sent } = device.counters;
  await fc.assert(
    fc.asyncProperty(values, async (value) => {
      const error = await ending(() => write(value as never));
      expect(error).toBeInstanceOf(RangeError);
      expect((error as Error).message).toContain(String(value));
    }),
    { numRuns: 100 },
  );
  expect(device.counters.sent).toBe(sent);
}

async function expectTypeErrors(values: readonly unknown[], write: (value: never) => unknown): Promise<void> {
  const { sent } = device.counters;
  for (const value of values) expect(await ending(() => write(value as never))).toBeInstanceOf(TypeError);
  expect(device.counters.sent).toBe(sent);
}

test.each(numbers)('%s: %i bits', async (_name, bits, write) => {
  await expectRefused(beyond(bits), write);
});

test.each(numbers.filter(([name]) => !name.startsWith('IoFd')))(
  '%s: another type',
  async (_name, _bits, write) => {
    await expectTypeErrors([1n, '1', true, null, undefined, {}, [1]], write);
  },
);

test.each(bigints)('%s', async (_name, write) => {
  await expectRefused(beyond64(), write);
});

test.each(bigints.filter(([name]) => !name.startsWith('IoFd')))('%s: another type', async (_name, write) => {
  await expectTypeErrors([1, '1', true, null, undefined, {}], write);
});

test('what a mapped area refuses is not in it', () => {
  area.storeUInt32(0, 0xffff_ffff);
  expect(() => area.storeUInt32(0, 0x1_0000_0001)).toThrow(
    'value must be an unsigned 32-bit integer, got 4294967297',
  );
  expect(area.loadUInt32(0)).toBe(0xffff_ffff);
});

test('data is bytes', async () => {
  const bar = device.bar(0);
  const wide = new Uint16Array([0x1234]) as unknown as Uint8Array;
  await expectTypeErrors([wide, [1, 2], 'ab', 5, null], (data) => bar.write(SCRATCH, data));
  await expectTypeErrors([wide, [1, 2], 'ab', 5, null], (data) => bar.writeSync(SCRATCH, data));
  await expectTypeErrors([wide, [1, 2], 'ab', 5, null], (data) => bar.post(SCRATCH, data));
  await expectTypeErrors([wide, [1, 2], 'ab', 5, null], (data) => area.copyIn(0, data));
  await expectTypeErrors([wide, [1, 2], 'ab', 5, null], (data) => device.features.set(2, data));
});

test('a feature is a number of 16 bits, and its data of a length', async () => {
  await expectRefused(beyond(16), (feature) => device.features.set(feature, Buffer.alloc(0)));
  await expectRefused(beyond(16), (feature) => device.features.get(feature, 8));
  await expectRefused(beyond(32), (size) => device.features.get(2, size));
});

test('interrupts are named by booleans', async () => {
  const { msix } = device.irqs;
  await expectTypeErrors([[1], ['yes'], [true, 0], [undefined]], (which) => msix.trigger(which));
});

test('DMA addresses and sizes', async () => {
  const { dma } = device;
  const { sent } = device.counters;
  const fd = 0;
  const addresses = fc.oneof(beyond64(), fc.constantFrom(1n, 4095n, 4097n));
  await expectRefused(
    addresses.map((iova) => iova),
    // The message has the address in hexadecimal where it is merely unaligned.
    async (iova: bigint) => {
      const error = await ending(() => dma.map({ fd, size: 4096, iova }));
      expect(error).toBeInstanceOf(RangeError);
      throw new RangeError(`${(error as Error).message} ${iova}`);
    },
  );
  await expectTypeErrors([0x1000, '4096', null, {}], (iova) => dma.map({ fd, size: 4096, iova }));
  const sizes = beyond(53).filter((value) => value !== 2 ** 53);
  await expectRefused(sizes, (size) => dma.map({ fd, size }));
  await expectRefused(sizes, (size) => dma.unmap(0n, size));
  await expectRefused(sizes, (size) => dma.alloc(size));
  await expectRefused(sizes, (offset) => dma.map({ fd, size: 4096, offset }));
  await expectTypeErrors([4096n, '4096', null, {}], (size) => dma.map({ fd, size }));
  await expectTypeErrors([4096n, '4096', null, {}], (size) => dma.unmap(0n, size));
  await expectTypeErrors([4096n, '4096', {}], (size) => dma.alloc(size));
  expect(device.counters.sent).toBe(sent);
});
