/** The option `spinUs`: how long waits spin changes when things happen, never what happens. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { connect } from '../../lib/index.js';
import { startRamServer, type RamServer } from '../support/ram-server.js';

const READS = 300;

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
      expect(await vector!.wait({ timeoutMs: 30_000 })).toBe(1);
    }
  }
  expect(device.counters.served).toBeGreaterThan(0);
});
