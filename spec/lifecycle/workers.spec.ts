/** Worker threads that drive devices of their own at full speed, and are terminated in the middle of it. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Worker } from 'node:worker_threads';
import { startRamServer, type RamServer } from '../support/ram-server.js';
import { openFds } from '../support/fds.js';
import { built } from './child.js';

const WORKERS = 4;
const ROUNDS = 150;
/** How often a worker is terminated, in each of the ways. */
const TERMINATIONS = 12;

/** A worker with `open()`: a device, whose server is in a thread of its own so that synchronous calls have an answer. */
const PROLOGUE = `
  const { parentPort, workerData, Worker } = require('node:worker_threads');
  const server = (fd) => new Worker(\`
    const { workerData } = require('node:worker_threads');
    import('${built('emulator/index.js')}').then(async ({ RamDevice, serveFd }) => {
      const model = new RamDevice();
      await serveFd(model, workerData).closed;
      model.close();
    });
  \`, { eval: true, workerData: fd });
  const load = Promise.all([import('${built('index.js')}'), import('${built('native.js')}')]);
  const open = async () => {
    const [{ connect }, { native }] = await load;
    const [ours, theirs] = native().socketPair();
    native().releaseFd(theirs);
    const thread = server(theirs);
    const ended = new Promise((resolve) => thread.once('exit', resolve));
    return { device: await connect({ fd: ours }, { timeoutMs: 30_000 }), ended };
  };
  const openPath = async () => {
    const [{ connect }] = await load;
    return connect(workerData, { timeoutMs: 30_000 });
  };
  const copy = async (device, buffer) => {
    const registers = device.bar(0);
    await registers.writeUInt64(0x10, buffer.iova);
    await registers.writeUInt64(0x18, buffer.iova + 2048n);
    await registers.writeUInt32(0x20, 2048);
  };
`;

function start(script: string): { worker: Worker; exit: Promise<unknown>; failed: Promise<never> } {
  const worker = new Worker(`${PROLOGUE} (async () => { ${script} })();`, {
    eval: true,
    workerData: join(scratch, 's'),
  });
  const exit = new Promise((resolve) => worker.once('exit', resolve));
  const failed = new Promise<never>((_, reject) => worker.once('error', reject));
  failed.catch(() => undefined);
  return { worker, exit, failed };
}

let scratch: string;
let ramServer: RamServer;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  ramServer = await startRamServer(join(scratch, 's'), { clients: 'many' });
}, 60_000);

afterAll(async () => {
  await ramServer.kill();
  rmSync(scratch, { recursive: true });
});

async function settledFds(expected: number): Promise<number> {
  for (let i = 0; i < 200 && openFds() !== expected; i++) await new Promise((r) => setTimeout(r, 10));
  return openFds();
}

test(`${WORKERS} workers drive their own devices: calls, synchronous calls, interrupts, DMA`, async () => {
  const script = `
    const { device, ended } = await open();
    const registers = device.bar(0);
    const [vector] = await device.irqs.msix.enable(1);
    const buffer = await device.dma.alloc(4096);
    const area = device.bar(1).map();
    await copy(device, buffer);
    let interrupts = 0;
    for (let i = 0; i < ${ROUNDS}; i++) {
      buffer.bytes.fill(i & 0xff, 0, 2048);
      // Copies by DMA and triggers the vector: the answer comes when both are done.
      registers.writeUInt32Sync(0x24, 1 | 4);
      if (buffer.bytes[4095] !== (i & 0xff)) throw new Error('DMA went wrong');
      interrupts += await vector.wait({ timeoutMs: 30_000 });
      const [one, two] = await Promise.all([registers.readUInt32(0), device.bar(2).read(0, 20_000)]);
      if (one !== registers.readUInt32Sync(0) || two.length !== 20_000) throw new Error('a read went wrong');
      area.storeUInt32(0, i);
      if (area.loadUInt32(0) !== i) throw new Error('memory went wrong');
      if (i % 25 === 0) { const more = await device.dma.alloc(3 << 20); await more.free(); }
    }
    await device.close();
    await ended;
    parentPort.postMessage(interrupts);
  `;
  await Promise.all(
    Array.from({ length: WORKERS }, async () => {
      const { worker, exit, failed } = start(script);
      const [interrupts] = (await Promise.race([once(worker, 'message'), failed])) as [number];
      expect(interrupts).toBe(ROUNDS);
      expect(await exit).toBe(0);
    }),
  );
}, 300_000);

describe('a worker is terminated in the middle of', () => {
  test.each([
    ['synchronous calls', `for (;;) device.bar(0).readUInt32Sync(0);`],
    [
      'synchronous calls that make the server use DMA',
      `for (;;) try { device.bar(0).writeUInt32Sync(0x24, 1 | 4); } catch {}`,
    ],
    ['calls', `for (;;) await Promise.all(Array.from({ length: 200 }, () => device.bar(0).readUInt32(0)));`],
    ['DMA', `for (;;) await device.bar(0).writeUInt32(0x24, 1 | 4);`],
    ['opening and closing devices', `for (;;) { const other = await openPath(); await other.close(); }`],
    [
      'mapping memory',
      `for (;;) { const more = await device.dma.alloc(3 << 20); device.bar(1).map().bytes.fill(1); await more.free(); }`,
    ],
  ])(
    '%s',
    async (_what, work) => {
      const script = `
      const { device } = await open();
      const buffer = await device.dma.alloc(4096);
      await copy(device, buffer);
      const [vector] = await device.irqs.msix.enable(1);
      vector.onInterrupt(() => {});
      parentPort.postMessage('ready');
      ${work}
    `;
      // What workers share is opened by the first.
      const first = start('const { device, ended } = await open(); await device.close(); await ended;');
      await first.exit;
      const before = await settledFds(openFds());
      for (let i = 0; i < TERMINATIONS; i += 2) {
        const both = [start(script), start(script)];
        await Promise.all(both.map(({ worker, failed }) => Promise.race([once(worker, 'message'), failed])));
        await new Promise((resolve) => setTimeout(resolve, i));
        await Promise.all(both.map(({ worker }) => worker.terminate()));
      }
      expect(await settledFds(before)).toBe(before);
    },
    300_000,
  );
});
