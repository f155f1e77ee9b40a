/**
 * Requests on one connection: `endless.js PATH MODE COUNT`. Prints one line of JSON, with what resident memory grew by
 * and how many more fds are open after a warm-up of a quarter as many.
 */
import { connect, type Device } from 'vfio-user';
import { openFds, settledRss } from './memory.js';

const [path, mode, countText] = process.argv.slice(2);
const count = Number(countText);
const DEPTH = 32;
/** A dword that nothing happens at, and one that the server answers after it has read memory of ours. */
const SCRATCH = 4;
const DMA_DOORBELL = 8;
const DMA_BYTES = 4096;

async function one(device: Device, total: number): Promise<void> {
  const bar = device.bar(0);
  switch (mode) {
    case 'sync':
      for (let i = 0; i < total; i++) bar.readUInt32Sync(SCRATCH);
      break;
    case 'async':
      for (let i = 0; i < total; i++) await bar.readUInt32(SCRATCH);
      break;
    case 'pipelined':
      for (let i = 0; i < total; i += DEPTH)
        await Promise.all(Array.from({ length: DEPTH }, () => bar.readUInt32(SCRATCH)));
      break;
    case 'write':
      for (let i = 0; i < total; i++) await bar.writeUInt32(SCRATCH, i >>> 0);
      break;
    case 'posted':
      for (let i = 0; i < total; i++) {
        bar.postUInt32(SCRATCH, i >>> 0);
        if (i % DEPTH === 0) await device.fence();
      }
      await device.fence();
      break;
    case 'dma':
      for (let i = 0; i < total; i++) await bar.writeUInt32(DMA_DOORBELL, DMA_BYTES);
      break;
    default:
      throw new TypeError(`no mode ${mode}`);
  }
}

const device = await connect(path!, { secureDma: true });
const buffer = await device.dma.alloc(DMA_BYTES);
await device.bar(0).writeUInt64(0x10, buffer.iova);
await one(device, count / 4);
const before = await settledRss();
const fdsBefore = openFds();
const begin = performance.now();
await one(device, count);
const seconds = (performance.now() - begin) / 1e3;
const grownMib = ((await settledRss()) - before) / 2 ** 20;
const fds = openFds() - fdsBefore;
const { served } = device.counters;
if (mode === 'dma' && served < count) throw new Error(`only ${served} DMA requests came by message`);
console.log(JSON.stringify({ mode, count, seconds, grownMib, fds, served }));
await device.close();
