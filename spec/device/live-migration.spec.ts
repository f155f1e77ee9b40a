/** `migrate`: a device and the memory that it writes, from one server to another, and what a failure leaves. */
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  RamDevice,
  RamDma,
  RamRegister,
  serve,
  type EmulatorServer,
  type ServeOptions,
} from '../../lib/emulator/index.js';
import {
  MigrationState,
  connect,
  migrate,
  type Device,
  type DmaBuffer,
  type MigrateProgress,
} from '../../lib/index.js';
import { Command } from '../../lib/protocol/constants.js';
import { Scratch } from '../cli/cli.js';

jest.setTimeout(60_000);

const { RUNNING, STOP } = MigrationState;
const SIZE = 1 << 20;
const RECORD = 64;
const EIO = 5;

let scratch: Scratch;
const servers: EmulatorServer[] = [];
const devices: Device[] = [];

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
  for (const server of servers.splice(0)) await server.close();
  scratch.remove();
});

async function open(name: string, options: Partial<ServeOptions> = {}): Promise<Device> {
  const path = scratch.path(name);
  servers.push(
    await serve(new RamDevice({ migration: 'pre-copy' }), { path, dirtyPages: 'logging', ...options }),
  );
  const device = await connect(path);
  devices.push(device);
  await device.enable();
  return device;
}

/** Records that the device writes into the memory, one after the other, each as soon as the one before it is acknowledged. */
class DmaLoad {
  readonly #device: Device;
  readonly #source: DmaBuffer;
  readonly #target: DmaBuffer;
  /** How many were acknowledged. */
  acknowledged = 0;
  /** Why it ended. */
  readonly over: Promise<unknown>;
  #isStopped = false;

  constructor(device: Device, source: DmaBuffer, target: DmaBuffer) {
    this.#device = device;
    this.#source = source;
    this.#target = target;
    this.over = this.#run().catch((error: unknown) => error);
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #run(): Promise<void> {
    const bar = this.#device.bar(0);
    await bar.writeUInt64(RamRegister.DMA_SOURCE, this.#source.iova);
    await bar.writeUInt32(RamRegister.DMA_LENGTH, RECORD);
    for (let n = 0; !this.#isStopped; n++) {
      this.#source.bytes.writeUInt32LE(n + 1, 0);
      const slot = (n * 5 * RECORD) % SIZE;
      await bar.writeUInt64(RamRegister.DMA_DESTINATION, this.#target.iova + BigInt(slot));
      await bar.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
      this.acknowledged = n + 1;
      await nextTurn();
    }
  }
}

async function memoryOf(device: Device): Promise<{ source: DmaBuffer; target: DmaBuffer }> {
  return { target: await device.dma.alloc(SIZE), source: await device.dma.alloc(4096) };
}

describe('migrate', () => {
  test('moves state and memory under DMA: what was acknowledged is there', async () => {
    const a = await open('a');
    const b = await open('b');
    const here = await memoryOf(a);
    const there = await memoryOf(b);
    await a.bar(0).writeUInt32(RamRegister.SCRATCH, 0xcafe);
    const load = new DmaLoad(a, here.source, here.target);
    const phases = new Set<string>();
    const report = await migrate(a, b, {
      memory: [{ source: here.target, destination: there.target }],
      preCopy: true,
      onProgress: ({ phase }: MigrateProgress) => phases.add(phase),
    });
    load.stop();
    await load.over;
    expect(load.acknowledged).toBeGreaterThan(0);
    expect(there.target.bytes.equals(here.target.bytes)).toBe(true);
    const last = load.acknowledged - 1;
    expect(there.target.bytes.readUInt32LE((last * 5 * RECORD) % SIZE)).toBe(last + 1);
    expect(await b.bar(0).readUInt32(RamRegister.SCRATCH)).toBe(0xcafe);
    expect([await a.migration.state(), await b.migration.state()]).toEqual([STOP, RUNNING]);
    expect([...phases]).toEqual(['memory', 'state', 'stopped']);
    expect(report.memoryBytes).toBeGreaterThanOrEqual(SIZE);
    expect(report.stateBytes).toBeGreaterThan(SIZE);
    expect(report.downtimeMs).toBeLessThanOrEqual(report.totalMs);
    expect(a.dma.dirty.method).toBeUndefined();
  });

  test('without memory, and leaving the destination stopped', async () => {
    const a = await open('a');
    const b = await open('b');
    const report = await migrate(a, b, { run: false });
    expect(report).toMatchObject({ memoryBytes: 0, memoryRounds: 0 });
    expect([await a.migration.state(), await b.migration.state()]).toEqual([STOP, STOP]);
  });

  test.each([
    ['while it takes the state', Command.MIG_DATA_WRITE, 0],
    ['when it is to run', Command.DEVICE_FEATURE, -1],
  ])('a destination that fails %s leaves the source running', async (_when, command, skip) => {
    let features = 0;
    const a = await open('a');
    const b = await open('b', {
      intercept: (seen) => {
        if (seen.command !== command) return 'pass';
        if (skip === 0) return { errno: EIO };
        // SET of MIG_DEVICE_STATE to RUNNING, the last of all.
        const isRun = seen.payload.readUInt32LE(4) === 0x20002 && seen.payload.readUInt32LE(8) === RUNNING;
        return isRun && features++ === 0 ? { errno: EIO } : 'pass';
      },
    });
    const here = await memoryOf(a);
    const there = await memoryOf(b);
    const load = new DmaLoad(a, here.source, here.target);
    const moved = migrate(a, b, { memory: [{ source: here.target, destination: there.target }] });
    await expect(moved).rejects.toMatchObject({ code: 'ERR_VFIO_USER_MIGRATION', state: 'RUNNING' });
    expect(await a.migration.state()).toBe(RUNNING);
    expect(await b.migration.state()).not.toBe(RUNNING);
    load.stop();
    await load.over;
    const before = load.acknowledged;
    const again = new DmaLoad(a, here.source, here.target);
    await nextTurn();
    again.stop();
    expect(await again.over).toBeUndefined();
    expect(before).toBeGreaterThan(0);
    expect(a.dma.dirty.method).toBeUndefined();
  });

  test('a destination that dies leaves the source running', async () => {
    const a = await open('a');
    const b = await open('b', {
      intercept: ({ command }) => (command === Command.MIG_DATA_WRITE ? 'close' : 'pass'),
    });
    await expect(migrate(a, b)).rejects.toThrow(/the source is in state RUNNING/);
    expect(await a.migration.state()).toBe(RUNNING);
  });

  test('where the destination may run, the source stays stopped', async () => {
    const a = await open('a');
    const b = await open('b', {
      intercept: ({ command, payload }) => {
        if (command !== Command.DEVICE_FEATURE) return 'pass';
        // Once it was told to run nothing is answered any more.
        deaf ||= payload.readUInt32LE(4) === 0x20002 && payload.readUInt32LE(8) === RUNNING;
        return deaf ? 'drop' : 'pass';
      },
    });
    let deaf = false;
    const moved = migrate(a, b, { timeoutMs: 1_500 });
    await expect(moved).rejects.toThrow(/may run, so that the source was left stopped/);
    expect(await a.migration.state()).toBe(STOP);
  });

  test('an aborted one rejects with the reason, and the source runs on', async () => {
    const a = await open('a');
    const b = await open('b', {
      intercept: ({ command }) => (command === Command.MIG_DATA_WRITE ? 'drop' : 'pass'),
    });
    const controller = new AbortController();
    const moved = migrate(a, b, {
      signal: controller.signal,
      onProgress: ({ phase }: MigrateProgress) => {
        if (phase === 'stopped') controller.abort(new Error('enough'));
      },
    });
    await expect(moved).rejects.toThrow('enough');
    expect(await a.migration.state()).toBe(RUNNING);
  });

  test.each(['memory', 'state', 'stopped'])('an onProgress that throws in %s ends it', async (when) => {
    const [a, b] = [await open('a'), await open('b')];
    const [source, target] = [await a.dma.alloc(SIZE), await b.dma.alloc(SIZE)];
    const moved = migrate(a, b, {
      memory: [{ source, destination: { iova: source.iova, bytes: target.bytes } }],
      onProgress: ({ phase }: MigrateProgress) => {
        if (phase === when) throw new RangeError('of the caller');
      },
    });
    await expect(moved).rejects.toThrow(/of the caller; the source is in state RUNNING/);
    expect(await a.migration.state()).toBe(RUNNING);
  });

  test.each(['source', 'destination'] as const)(
    'memory of the %s that is taken away meanwhile ends it: nothing is left out without a word',
    async (side) => {
      const [a, b] = [await open('a'), await open('b')];
      const [source, target] = [await a.dma.alloc(SIZE), await b.dma.alloc(SIZE)];
      const lent = { source: new Uint8Array(SIZE), destination: new Uint8Array(SIZE) };
      const memory = [
        {
          source: { iova: source.iova, bytes: lent.source },
          destination: { iova: source.iova, bytes: lent.destination },
        },
        { source, destination: { iova: source.iova, bytes: target.bytes } },
      ];
      let isTaken = false;
      const moved = migrate(a, b, {
        memory,
        memoryRounds: 1,
        onProgress: ({ phase }: MigrateProgress) => {
          if (phase !== 'state' || isTaken) return;
          isTaken = true;
          structuredClone(lent[side].buffer, { transfer: [lent[side].buffer] });
          source.bytes.fill(1);
        },
      });
      // The device writes it while it is copied.
      const load = new DmaLoad(a, await a.dma.alloc(4096), source);
      await expect(moved).rejects.toThrow(
        new RegExp(
          `memory\\[0\\]\\.${side} has 0 bytes now, and had ${SIZE}.*the source is in state RUNNING`,
        ),
      );
      load.stop();
      await load.over;
      expect(await a.migration.state()).toBe(RUNNING);
    },
  );

  test('the downtime ends when the destination runs, and not when the source has been tidied up', async () => {
    let stopping = 0;
    const a = await open('a', {
      dirtyPages: 'logging',
      intercept: ({ command, payload }) => {
        if (command !== Command.DEVICE_FEATURE) return 'pass';
        // SET of DMA_LOGGING_STOP.
        const isStop = payload.readUInt32LE(4) === (0x20000 | 7);
        if (isStop) stopping++;
        return isStop ? { delayMs: 700 } : 'pass';
      },
    });
    const b = await open('b');
    const [source, target] = [await a.dma.alloc(SIZE), await b.dma.alloc(SIZE)];
    const before = performance.now();
    const report = await migrate(a, b, {
      memory: [{ source, destination: { iova: source.iova, bytes: target.bytes } }],
    });
    const took = performance.now() - before;
    expect(stopping).toBe(1);
    expect(report.downtimeMs).toBeLessThan(took - 600);
    expect(report.totalMs).toBeGreaterThan(600);
  });

  test('a source that does not run, or devices that cannot migrate, are refused', async () => {
    const a = await open('a');
    const b = await open('b');
    await a.migration.transition(STOP);
    await expect(migrate(a, b)).rejects.toMatchObject({ state: 'STOP' });
    await expect(migrate(a, a)).rejects.toThrow(TypeError);
    const plain = await connect({ model: new RamDevice() });
    devices.push(plain);
    await expect(migrate(b, plain)).rejects.toThrow('the destination does not support migration');
    await expect(migrate(plain, b)).rejects.toThrow('the source does not support migration');
  });

  test('memory that differs is refused before anything is done', async () => {
    const a = await open('a');
    const b = await open('b');
    const bytes = Buffer.alloc(4096);
    const memory = [{ source: { iova: 0n, bytes }, destination: { iova: 4096n, bytes } }];
    await expect(migrate(a, b, { memory })).rejects.toThrow(
      'migrate: memory[0]: both sides must have the same address and size, not 4096 bytes at 0x0 and 4096 at 0x1000',
    );
    await expect(migrate(a, b, { memory: [{ source: memory[0]!.source } as never] })).rejects.toThrow(
      TypeError,
    );
    await expect(migrate(a, b, { memoryRound: 1 } as never)).rejects.toThrow(/did you mean memoryRounds/);
    expect(await a.migration.state()).toBe(RUNNING);
  });
});
