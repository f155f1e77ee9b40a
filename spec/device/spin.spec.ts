/** The option `spinUs`: how long waits spin changes when things happen, never what happens. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { connect, type Device } from '../../lib/index.js';
import { startRamServer, type RamServer } from '../support/ram-server.js';

const READS = 300;
const NONE = { blocking: 0, awaiting: 0 };
/** More waits than it takes for an interval to reach 0, and fewer than it then rests. */
const MANY = 40;

let scratch: string;
let server: RamServer;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  server = await startRamServer(join(scratch, 's'), { clients: 'many' });
}, 60_000);

afterAll(async () => {
  await server.kill();
  rmSync(scratch, { recursive: true });
});

test.each([
  [0, true],
  [0, false],
  [1, true],
  [20, false],
  [1_000, true],
])('%d us, twin socket %s: calls, blocking calls, DMA by message, interrupts', async (spinUs, twinSocket) => {
  await using device = await connect(join(scratch, 's'), { spinUs, twinSocket, secureDma: true });
  const registers = device.bar(0);
  const [vector] = await device.irqs.msix.enable(1);
  const buffer = await device.dma.alloc(4096);
  await registers.writeUInt64(0x10, buffer.iova);
  await registers.writeUInt64(0x18, buffer.iova + 2048n);
  await registers.writeUInt32(0x20, 2048);
  const id = await registers.readUInt32(0);
  for (let i = 0; i < READS; i++) {
    // One at a time, then as many as are looked for, then more.
    const answers = await Promise.all(Array.from({ length: 1 + (i % 4) }, () => registers.readUInt32(0)));
    expect(answers.every((answer) => answer === id)).toBe(true);
    expect(registers.readUInt32Sync(0)).toBe(id);
  }
  for (const blocks of [true, false]) {
    for (let i = 0; i < 10; i++) {
      buffer.bytes.fill(i + 1, 0, 2048);
      if (blocks) registers.writeUInt32Sync(0x24, 1 | 4);
      else await registers.writeUInt32(0x24, 1 | 4);
      expect(buffer.bytes[4095]).toBe(i + 1);
      expect(await vector.wait({ timeoutMs: 30_000 })).toBe(1);
    }
  }
  expect(device.counters.served).toBeGreaterThan(0);
});

describe('device.counters.spin: up to spinUs, and not where that gains nothing', () => {
  const open = (options: object = {}): Promise<Device> => connect(join(scratch, 's'), options);

  test('is spinUs at first, and no more than 20 us while the loop waits', async () => {
    for (const [spinUs, awaiting] of [
      [50, 20],
      [7, 7],
      [1_000, 20],
    ] as const) {
      await using device = await open({ spinUs });
      expect(device.spinUs).toBe(spinUs);
      const { spin } = device.counters;
      expect(spin.blocking).toBeLessThanOrEqual(spinUs);
      expect(spin.awaiting).toBeLessThanOrEqual(awaiting);
    }
  });

  test('is 0 for good where spinUs is 0', async () => {
    await using device = await open({ spinUs: 0 });
    for (let i = 0; i < MANY; i++) {
      device.bar(0).readUInt32Sync(0);
      await device.bar(0).readUInt32(0);
      expect(device.counters.spin).toEqual(NONE);
    }
  });

  test('ends where no answer comes within the ceiling', async () => {
    await using _slow = await startRamServer(join(scratch, 'slow'), { delayMs: 2 });
    await using device = await connect(join(scratch, 'slow'));
    for (let i = 0; i < MANY; i++) {
      device.bar(0).readUInt32Sync(0);
      await device.bar(0).readUInt32(0);
    }
    expect(device.counters.spin).toEqual(NONE);
  });

  test('counters are a snapshot, which stops nothing', async () => {
    await using device = await open();
    const before = device.counters;
    await device.bar(0).readUInt32(0);
    expect(device.counters.sent).toBe(before.sent + 1);
    Object.assign(before, { inFlight: 1_000_000, queued: 1_000_000 });
    expect(await device.bar(0).readUInt32(0)).toBe(device.bar(0).readUInt32Sync(0));
  });
});
