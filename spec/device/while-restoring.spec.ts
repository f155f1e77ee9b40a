/**
 * What users ask for while a device is being set up again: its server has come back, and has not been told of any memory
 * yet. Memory that is unmapped stays so; all else is refused, and nothing of it reaches the server.
 */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { RamDevice, RamDma, RamRegister, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { ClosedError, connect, RemoteError, type Device, type DmaBuffer } from '../../lib/index.js';
import { PciRegion } from '../../lib/protocol/constants.js';
import { Scratch } from '../cli/cli.js';
import { until } from '../nvme/fixture.js';

/** More than small buffers share: it has a mapping of its own. */
const LARGE = 8 << 20;
const MIB = 1 << 20;
const EINVAL_OR_SO = /EFAULT|EINVAL|ENOENT/;

let scratch: Scratch;
let server: EmulatorServer;
let device: Device;
/** Reads of config space wait for it, which is how setting up begins. */
let held: Promise<void> | undefined;
let letGo: () => void;
let heldReads: number;

beforeEach(async () => {
  scratch = new Scratch();
  held = undefined;
  heldReads = 0;
  await start();
  device = await connect(scratch.path('s'), { reconnect: { timeoutMs: 20_000 }, timeoutMs: 20_000 });
});

afterEach(async () => {
  letGo?.();
  await device.close();
  await server.close();
  scratch.remove();
});

async function start(): Promise<void> {
  const ram = new RamDevice({});
  const { handler } = ram.regions.find(({ index }) => index === PciRegion.CONFIG)!;
  const { read } = handler!;
  handler!.read = async (...of) => {
    if (held !== undefined) {
      heldReads++;
      await held;
    }
    return read.apply(handler, of);
  };
  server = await serve(ram, { path: scratch.path('s') });
}

/** The server goes and comes back, and the device is being set up again: until `letGo`. */
async function setUpHeld(): Promise<void> {
  const lost = once(device, 'lost');
  held = new Promise((resolve) => (letGo = resolve));
  await server.close();
  await lost;
  await start();
  await until(() => heldReads > 0);
}

async function whole(): Promise<void> {
  const back = once(device, 'reconnected');
  held = undefined;
  letGo();
  await back;
}

/** By the device's own DMA, between addresses. */
async function copy(from: bigint, to: bigint): Promise<void> {
  const bar = device.bar(0);
  await bar.writeUInt64(RamRegister.DMA_SOURCE, from);
  await bar.writeUInt64(RamRegister.DMA_DESTINATION, to);
  await bar.writeUInt32(RamRegister.DMA_LENGTH, 4096);
  await bar.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
}

async function expectReachable(from: DmaBuffer, to: DmaBuffer): Promise<void> {
  from.bytes.fill(0x5a);
  to.bytes.fill(0);
  await copy(from.iova, to.iova);
  expect(to.bytes.subarray(0, 4096).every((byte) => byte === 0x5a)).toBe(true);
}

async function expectUnreachable(iova: bigint): Promise<void> {
  const scratchBuffer = await device.dma.alloc(4096);
  // Where the new memory begins is what was free.
  const error: unknown = await copy(iova + BigInt(LARGE - 4096), scratchBuffer.iova).catch(
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RemoteError);
  expect(String(error)).toMatch(EINVAL_OR_SO);
  await scratchBuffer.free();
}

describe('unmapping', () => {
  test.each([false, true])(
    'unmapAll(); the server knows of nothing afterwards (one mapping: %p)',
    async (isAlone) => {
      const large = await device.dma.alloc(LARGE);
      if (!isAlone) await device.dma.alloc(LARGE);
      await setUpHeld();
      await device.dma.unmapAll();
      expect(large.isClosed).toBe(true);
      await whole();
      await expectUnreachable(large.iova);
      await expectReachable(await device.dma.alloc(LARGE), await device.dma.alloc(LARGE));
    },
  );

  test('free() of one of several: the others are told of', async () => {
    const [first, second, third] = [
      await device.dma.alloc(LARGE),
      await device.dma.alloc(LARGE),
      await device.dma.alloc(LARGE),
    ];
    await setUpHeld();
    await second.free();
    await whole();
    await expectUnreachable(second.iova);
    await expectReachable(first, third);
  });

  test('while the server is being told: it hears of both in their order', async () => {
    const buffers = [];
    for (let i = 0; i < 6; i++) buffers.push(await device.dma.alloc(LARGE));
    await setUpHeld();
    const back = once(device, 'reconnected');
    held = undefined;
    letGo();
    const before = device.counters.sent;
    await until(() => device.counters.sent !== before);
    await device.dma.unmapAll();
    await back;
    const again = await device.dma.alloc(LARGE);
    expect(again.iova).toBe(buffers[0]!.iova);
    await expectReachable(again, await device.dma.alloc(LARGE));
  });

  test('a transaction that fails then leaves what it unmapped as it was', async () => {
    const [first, second] = [await device.dma.alloc(LARGE), await device.dma.alloc(LARGE)];
    await setUpHeld();
    const failed = device.dma.transaction(() => {
      throw new Error('no');
    });
    await expect(failed).rejects.toThrow('no');
    await whole();
    await expectReachable(first, second);
  });
});

test('memory that is asked for then is refused, and none is given to a server that was not looked at', async () => {
  const first = await device.dma.alloc(LARGE);
  await setUpHeld();
  await expect(device.dma.alloc(LARGE)).rejects.toThrow(ClosedError);
  await expect(device.dma.alloc(MIB)).rejects.toThrow('being set up again');
  await whole();
  await expectReachable(first, await device.dma.alloc(LARGE));
});

test.each<[string, (device: Device) => Promise<unknown>]>([
  ['config.read', ({ config }) => config.read(0, 4)],
  ['config.status', ({ config }) => config.status()],
  ['config.write', ({ config }) => config.write(0x0c, 1, 0x10)],
  ['config.writeUInt16', ({ config }) => config.writeUInt16(4, 0)],
  ['config.update', ({ config }) => config.update(4, 2, 1, 0)],
  ['config.refresh', ({ config }) => config.refresh()],
  ['irqs.msix.enable', ({ irqs }) => irqs.msix.enable(2)],
  ['irqs.msix.disable', ({ irqs }) => irqs.msix.disable()],
  ['irqs.msix.mask', ({ irqs }) => irqs.msix.mask(0, 1)],
  ['irqs.msix.trigger', ({ irqs }) => irqs.msix.trigger(0, 1)],
  ['irqs.msix.maskEvents', ({ irqs }) => irqs.msix.maskEvents(1)],
  ['irqs.restore', ({ irqs }) => irqs.restore()],
  ['enable', (device) => device.enable()],
  ['reset', (device) => device.reset()],
  ['region.read', (device) => device.bar(0).read(0, 4)],
  ['region 7', (device) => device.region('config').read(0, 4)],
  ['features.probe', ({ features }) => features.probe(1, { get: true })],
  ['migration.state', ({ migration }) => migration.state()],
  ['dma.dirty.start', ({ dma }) => dma.dirty.start()],
])('%s is refused at once', async (_title, call) => {
  const [vector] = await device.irqs.msix.enable(1);
  await device.enable();
  await setUpHeld();
  const { sent } = device.counters;
  const after = new Promise((resolve) => setTimeout(resolve, 2_000, 'it waits').unref());
  const refused = call(device).then(
    () => 'done',
    (error: unknown) => error,
  );
  expect(await Promise.race([refused, after])).toMatchObject({
    name: 'ClosedError',
    message: 'the server has come back, and the device is still being set up again',
  });
  expect(device.counters.sent).toBe(sent);
  await whole();
  expect(vector.isClosed).toBe(false);
  const heard = vector.wait({ timeoutMs: 10_000 });
  await device.irqs.msix.trigger(0, 1);
  expect(await heard).toBe(1);
  expect(device.config.command & 7).toBe(7);
});

test('an update that waited for its turn before the loss is not sent to a device that is being set up', async () => {
  await device.enable();
  held = new Promise((resolve) => (letGo = resolve));
  const outcomes = [1, 2].map((bit) =>
    device.config.update(4, 2, bit, 0).then(
      () => 'done',
      (error: unknown) => error,
    ),
  );
  await until(() => heldReads > 0);
  await setUpHeld();
  for (const outcome of outcomes) expect(await outcome).toBeInstanceOf(ClosedError);
  await whole();
  expect(device.config.command & 3).toBe(3);
});
