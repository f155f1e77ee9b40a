/** How long waits spin, as `device.counters.spin` tells it: up to `spinUs`, and not where that gains nothing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { connect, type Device } from '../../lib/index.js';
import { startRamServer, type RamServer } from '../support/ram-server.js';

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
