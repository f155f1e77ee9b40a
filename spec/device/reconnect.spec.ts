/** A device whose server goes and comes back: servers in processes of their own, killed. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { RAM_IDENTIFICATION, RamDma, RamRegister } from '../../lib/emulator/index.js';
import {
  ClosedError,
  connect,
  type ConnectOptions,
  type Device,
  type DmaBuffer,
  type Vector,
} from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';
import { RamServer, startRamServer, type RamServerOptions } from '../support/ram-server.js';

jest.setTimeout(180_000);

const DMA_BYTES = 4096;
const BAR1_MAPPABLE = 0x1000;

let scratch: Scratch;
let path: string;
const running: AsyncDisposable[] = [];

beforeEach(() => {
  scratch = new Scratch();
  path = scratch.path('socket');
});

afterEach(async () => {
  for (const one of running.splice(0).reverse()) await one[Symbol.asyncDispose]();
  scratch.remove();
});

async function start(options?: RamServerOptions): Promise<RamServer> {
  const server = await startRamServer(path, options);
  running.push(server);
  return server;
}

async function open(options: ConnectOptions = { reconnect: { timeoutMs: 20_000 } }): Promise<Device> {
  const device = await connect(path, options);
  running.push(device);
  return device;
}

/** What this process has open of the kinds that a device opens, by kind. */
function leftovers(): Record<string, number> {
  const counts: Record<string, number> = {};
  const add = (kind: string) => (counts[kind] = (counts[kind] ?? 0) + 1);
  add('fds');
  counts['fds'] = readdirSync('/proc/self/fd').length;
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const name = /(\/memfd:\S+)/.exec(line)?.[1];
    if (name !== undefined) add(name);
  }
  return counts;
}

interface Parts {
  source: DmaBuffer;
  destination: DmaBuffer;
  vector: Vector;
}

async function setUp(device: Device): Promise<Parts> {
  await device.enable();
  const source = await device.dma.alloc(DMA_BYTES);
  const destination = await device.dma.alloc(DMA_BYTES);
  const [vector] = await device.irqs.msix.enable(1);
  return { source, destination, vector: vector };
}

/** Registers, interrupt and DMA all work, and the buffers are what they were. */
async function expectAlive(device: Device, { source, destination, vector }: Parts, mark: number) {
  const bar = device.bar(0);
  expect(await bar.readUInt32(RamRegister.IDENTIFICATION)).toBe(RAM_IDENTIFICATION);
  expect(device.config.deviceId).toBe(0x5241);
  source.bytes.fill(mark & 0xff);
  destination.bytes.fill(0);
  await bar.writeUInt64(RamRegister.DMA_SOURCE, source.iova);
  await bar.writeUInt64(RamRegister.DMA_DESTINATION, destination.iova);
  await bar.writeUInt32(RamRegister.DMA_LENGTH, DMA_BYTES);
  vector.take();
  await bar.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY | RamDma.INTERRUPT);
  expect(await vector.wait({ timeoutMs: 10_000 })).toBe(1);
  expect(destination.bytes.equals(source.bytes)).toBe(true);
}

/** Reads and writes without end; what comes of them is counted by name. */
class Load {
  readonly outcomes = new Map<string, number>();
  #stopped = false;
  readonly #workers: Promise<void>[];

  constructor(device: Device, workers: number) {
    this.#workers = Array.from({ length: workers }, (_, worker) => this.#work(device, worker));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
  }

  async #work(device: Device, worker: number): Promise<void> {
    const ram = device.bar(2);
    const offset = worker * 64;
    for (let round = 0; !this.#stopped; round++) {
      const value = (worker << 16) | (round & 0xffff);
      let outcome = 'done';
      try {
        await ram.writeUInt32(offset, value);
        if ((await ram.readUInt32(offset)) !== value) outcome = 'wrong';
        if (round % 8 === 0) await ram.read(0, 4096);
      } catch (error) {
        outcome = (error as Error).name;
        await sleep(1);
      }
      this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    }
  }
}

describe('a server that is killed and started again', () => {
  test('many times under load: calls end, and everything is as it was', async () => {
    // `npm run soak` has hundreds.
    const ROUNDS = 25;
    let server = await start({ fill: 1 });
    const device = await open();
    const parts = await setUp(device);
    const area = device.bar(1).map(BAR1_MAPPABLE, 0x1000);
    const { u32, bytes } = area;
    expect(u32[0]).toBe(1);
    let lost = 0;
    device.on('lost', () => lost++);
    let before: Record<string, number> = {};
    const outcomes = new Map<string, number>();

    for (let round = 1; round <= ROUNDS; round++) {
      const successor = new RamServer(path, { fill: round + 1 });
      running.push(successor);
      const load = new Load(device, 8);
      const waiting = parts.vector.wait({ timeoutMs: 30_000 }).catch((error: Error) => error.name);
      await sleep(Math.random() * 15);
      const back = once(device, 'reconnected');
      await server.kill();
      running.splice(running.indexOf(server), 1);
      await successor.listen();
      await back;
      await load.stop();
      for (const [name, count] of load.outcomes) outcomes.set(name, (outcomes.get(name) ?? 0) + count);
      expect(await waiting).toBe('ClosedError');
      await expectAlive(device, parts, round);
      // The same views, over the new server's file.
      expect(u32[0]).toBe(round + 1);
      expect(bytes.readUInt32LE(0xffc)).toBe(round + 1);
      expect(area.loadUInt32(8)).toBe(round + 1);
      server = successor;
      if (round === 5) before = leftovers();
    }

    expect(lost).toBe(ROUNDS);
    expect([...outcomes.keys()].sort()).toEqual(['ClosedError', 'done']);
    expect(device.counters).toMatchObject({ inFlight: 0, queued: 0, tombstones: 0, unknown: 0 });
    const { fds, ...maps } = leftovers();
    const { fds: fdsBefore, ...mapsBefore } = before;
    expect(maps).toEqual(mapsBefore);
    // Each round's processes have channels to us, which end when they do.
    expect(fds).toBeLessThanOrEqual(fdsBefore! + 4);
  });

  test('closing the device gives everything back', async () => {
    const fds = leftovers();
    let server = await start({ fill: 1 });
    const device = await open();
    await setUp(device);
    device.bar(1).map(BAR1_MAPPABLE, 0x1000);
    const back = once(device, 'reconnected');
    await server.kill();
    server = await start({ fill: 2 });
    await back;
    await device.close();
    await server.kill();
    await sleep(50);
    expect(leftovers()).toEqual(fds);
  });

  test('a buffer that is not shared is served by message after it, too', async () => {
    const server = await start();
    const device = await open();
    await device.enable();
    const source = await device.dma.alloc(DMA_BYTES, { share: false });
    const destination = await device.dma.alloc(DMA_BYTES, { share: false });
    const [vector] = await device.irqs.msix.enable(1);
    const back = once(device, 'reconnected');
    await server.kill();
    await start();
    await back;
    await expectAlive(device, { source, destination, vector: vector }, 0x5a);
    expect(device.counters.served).toBe(2);
  });

  test('posted writes and fence count from the new connection', async () => {
    const server = await start();
    const device = await open();
    device.bar(2).postUInt32(0, 1);
    expect(await device.fence()).toBe(0);
    const back = once(device, 'reconnected');
    await server.kill();
    await start();
    await back;
    device.bar(2).postUInt32(0, 2);
    expect(await device.fence()).toBe(0);
    expect(await device.bar(2).readUInt32(0)).toBe(2);
  });

  test("'lost' is told with the reason, then 'reconnected'", async () => {
    const server = await start();
    const device = await open();
    const events: string[] = [];
    device.on('lost', (reason) => events.push(`lost: ${reason.name}`));
    device.on('reconnected', () => events.push('reconnected'));
    const back = once(device, 'reconnected');
    await server.kill();
    await start();
    await back;
    expect(events).toEqual(['lost: ClosedError', 'reconnected']);
    expect(await device.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
  });

  test('calls while it is away are rejected, never thrown, and say why', async () => {
    const server = await start();
    const device = await open();
    await setUp(device);
    const lost = once(device, 'lost');
    await server.kill();
    await lost;
    const calls: (() => Promise<unknown>)[] = [
      () => device.bar(0).readUInt32(0),
      () => device.bar(2).write(0, Buffer.alloc(1 << 16)),
      () => device.bar(2).read(0, 8),
      () => device.bar(2).readInto(0, Buffer.alloc(8)),
      () => device.bar(0).waitFor(0, 1, 1),
      () => device.bar(0).ioFds(),
      () => device.dma.alloc(8 << 20),
      () => device.irqs.msix.enable({ start: 1, count: 1 }),
      () => device.irqs.msix.mask(0),
      () => device.config.status(),
      () => device.features.get(99, 8),
      () => device.migration.state(),
      () => device.enable(),
      () => device.reset(),
      () => device.fence(),
    ];
    for (const call of calls) {
      const promise = call();
      await expect(promise).rejects.toBeInstanceOf(ClosedError);
    }
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(ClosedError);
    expect(() => device.bar(0).postUInt32(0, 0)).toThrow(ClosedError);
  });
});

describe('a device that does not come back', () => {
  test.each<[string, RamServerOptions, RegExp]>([
    ['a region has another size', { ram: { ramSize: 1 << 16 } }, /size of region 2 was 1048576 and is 65536/],
    ['another count of interrupts', { ram: { vectors: 8 } }, /count of interrupts 2 was 4 and is 8/],
    ['the ids are another device', { device: 'other' }, /it was 1234:5241.* and is 1234:5242/],
    [
      'the subsystem is another one',
      { device: 'subsystem' },
      /subsystem \w+:\w+.* and is .*subsystem \w+:5242/,
    ],
    ['another protocol version', { serve: { minor: 1 } }, /version was 0.2 and is 0.1/],
  ])('%s', async (_title, options, message) => {
    const server = await start();
    const device = await open();
    const { vector } = await setUp(device);
    const area = device.bar(1).map(BAR1_MAPPABLE, 0x1000);
    await server.kill();
    await start(options);
    const reason = await device.closed;
    expect(reason).toBeInstanceOf(ClosedError);
    expect(reason.message).toMatch(/another device has come back/);
    expect(reason.message).toMatch(message);
    expect(reason.cause).toMatchObject({ name: 'UnsupportedError' });
    await expect(device.bar(0).readUInt32(0)).rejects.toThrow(message);
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
    expect(area.isClosed).toBe(false);
    await device.close();
    expect(area.isClosed).toBe(true);
  });

  test('a server that never comes back ends it within the time', async () => {
    const server = await start();
    const device = await open({ reconnect: { timeoutMs: 400 } });
    const lost = once(device, 'lost');
    await server.kill();
    await lost;
    const begun = performance.now();
    const reason = await device.closed;
    expect(performance.now() - begun).toBeLessThan(5_000);
    expect(reason).toBeInstanceOf(ClosedError);
    expect(reason.message).toMatch(/did not come back: connect: ECONNREFUSED/);
    await expect(device.bar(0).readUInt32(0)).rejects.toThrow(/did not come back/);
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(ClosedError);
  });

  test('a server that accepts and says nothing ends it within the time', async () => {
    const server = await start();
    const device = await open({ reconnect: { timeoutMs: 600 } });
    await server.kill();
    await start({ greet: false });
    const reason = await device.closed;
    expect(reason).toBeInstanceOf(ClosedError);
    expect(reason.message).toMatch(/did not come back/);
  });

  test.each([
    ['while nobody listens', undefined],
    ['while a server says nothing', { greet: false }],
  ])('close() %s', async (_title, successor: RamServerOptions | undefined) => {
    const before = leftovers();
    const server = await start();
    const device = await open();
    await setUp(device);
    const lost = once(device, 'lost');
    await server.kill();
    const second = successor === undefined ? undefined : await start(successor);
    await lost;
    await sleep(20);
    await device.close();
    expect(await device.closed).toMatchObject({
      name: 'ClosedError',
      message: 'the device was closed by its owner',
    });
    await expect(device.bar(0).readUInt32(0)).rejects.toBeInstanceOf(ClosedError);
    await second?.kill();
    await sleep(50);
    expect(leftovers()).toEqual(before);
  });

  test('without the option a lost device stays lost', async () => {
    const server = await start();
    const device = await open({});
    const { vector } = await setUp(device);
    await server.kill();
    expect(await device.closed).toMatchObject({ code: expect.any(String) });
    await start();
    await sleep(100);
    await expect(device.bar(0).readUInt32(0)).rejects.toBeInstanceOf(ClosedError);
    await expect(vector.wait()).rejects.toBeInstanceOf(ClosedError);
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(ClosedError);
  });

  test('an endpoint that cannot be opened again is refused at once', async () => {
    await expect(connect({ fd: 3 }, { reconnect: true })).rejects.toThrow(TypeError);
    await expect(connect(path, { reconnect: { timeoutMs: 0 } })).rejects.toThrow(RangeError);
  });
});
