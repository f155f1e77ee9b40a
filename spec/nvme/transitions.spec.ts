/** Every pair of transitions of a controller, in both orders, on the emulator (transitions/table.ts). */
import { jest, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { MemoryStore, NvmeDevice, serve } from '../../lib/emulator/index.js';
import { Scratch } from '../cli/cli.js';
import { openFds } from '../support/fds.js';
import { runPair } from './transitions/pair.js';
import { until, type Ground } from './transitions/rig.js';
import { MOMENTS, PAIRS } from './transitions/table.js';

jest.setTimeout(120_000);

const CC = 0x14;
const NAMESPACE_BYTES = 1 << 20;
const ASYNC_EVENT_REQUEST = 0x0c;
/** Commands take a while, so that what they belong to is under way. */
const DELAY_MS = 1;

let stamp = 0;

/** An emulated controller of its own. */
async function emulated() {
  const scratch = new Scratch();
  const device = new NvmeDevice({
    namespaces: [{ store: new MemoryStore(NAMESPACE_BYTES) }],
    queues: 8,
    intercept: ({ queue, opcode }) =>
      queue === 0 && opcode === ASYNC_EVENT_REQUEST ? 'pass' : { delayMs: DELAY_MS },
  });
  const path = scratch.path('server');
  const server = await serve(device, { path });
  const { handler } = device.regions.find(({ index }) => index === 0)!;
  const ground: Ground = {
    server: path,
    configuration: async () => Buffer.from(await handler!.read(CC, 4, undefined as never)).readUInt32LE(),
  };
  const close = async () => {
    await server.close();
    await device.close();
    scratch.remove();
  };
  return { ground, close };
}

/** What this process has of DMA memory. */
function dmaMappings(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('memfd:vfio-user-dma').length - 1;
}

test.each(PAIRS)('%s, and %s', async (first, second) => {
  const fds = openFds();
  await Promise.all(
    MOMENTS.map(async (moment) => {
      const { ground, close } = await emulated();
      try {
        await runPair(ground, { first, second, moment }, stamp++);
      } finally {
        await close();
      }
    }),
  );
  await until(() => openFds() <= fds && dmaMappings() === 0, 'all fds and all memory are given back');
});
