/**
 * Devices that are opened, used and closed: `open-close.js PATH COUNT`. Prints one line of JSON, with what resident memory
 * grew by and how many more fds are open after a warm-up of a quarter as many, or as many as the heap's growing takes.
 */
import { connect } from 'vfio-user';
import { openFds, settledRss } from './memory.js';

const [path, countText] = process.argv.slice(2);
const count = Number(countText);
const AT_ONCE = 4;
const LEAST_WARM_UP = 1_500;

async function cycle(): Promise<void> {
  const device = await connect(path!);
  const [vector] = await device.irqs.msix.enable(1);
  await device.bar(0).writeUInt32(0, 1);
  await vector.wait();
  const buffer = await device.dma.alloc(4096);
  await buffer.free();
  await device.close();
}

async function cycles(total: number): Promise<void> {
  for (let done = 0; done < total; done += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, cycle));
  }
}

await cycles(Math.max(count / 4, LEAST_WARM_UP));
const rss = await settledRss();
const fds = openFds();
const begin = performance.now();
await cycles(count);
const seconds = (performance.now() - begin) / 1e3;
const grownMib = ((await settledRss()) - rss) / 2 ** 20;
console.log(JSON.stringify({ count, seconds, grownMib, fds: openFds() - fds }));
