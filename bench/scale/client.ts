/**
 * Opens so many devices in this process and measures them: `client.js PATH COUNT READS`. Prints one line of JSON.
 * Memory is what the process has more of with the devices open, after a collection of garbage.
 */
import { connect, type Device } from 'vfio-user';
import { settledRss } from './memory.js';

/** Connections that are opened at once. */
const AT_ONCE = 32;
/** A machine that is busy with other things takes its time. */
const OPEN_MS = 30_000;
const WARM_UP_READS = 20_000;

const [path, countText, readsText] = process.argv.slice(2);
const count = Number(countText);
const reads = Number(readsText);

interface Open {
  device: Device;
  interrupts: number;
}

async function open(): Promise<Open> {
  const device = await connect(path!, { timeoutMs: OPEN_MS });
  const opened: Open = { device, interrupts: 0 };
  const [vector] = await device.irqs.msix.enable(1);
  vector.onInterrupt((times) => (opened.interrupts += times));
  return opened;
}

async function openAll(total: number): Promise<Open[]> {
  const opened: Open[] = [];
  let begun = 0;
  const opener = async () => {
    while (begun < total) {
      begun++;
      opened.push(await open());
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, total) }, opener));
  return opened;
}

/** Microseconds of one read after the other. */
async function roundTrips({ device }: Open, times: number): Promise<Float64Array> {
  const latencies = new Float64Array(times);
  const bar = device.bar(0);
  for (let i = 0; i < times; i++) {
    const begin = performance.now();
    await bar.readUInt32(4);
    latencies[i] = (performance.now() - begin) * 1e3;
  }
  return latencies;
}

function blockingRoundTrips({ device }: Open, times: number): Float64Array {
  const latencies = new Float64Array(times);
  const bar = device.bar(0);
  for (let i = 0; i < times; i++) {
    const begin = performance.now();
    bar.readUInt32Sync(4);
    latencies[i] = (performance.now() - begin) * 1e3;
  }
  return latencies;
}

function median(values: Float64Array): number {
  return values.toSorted()[values.length >> 1]!;
}

// What the first device brings in (code, pools) is not the others' cost.
const [first] = await openAll(1);
await roundTrips(first!, WARM_UP_READS);
blockingRoundTrips(first!, WARM_UP_READS);
const rssBefore = await settledRss();

const begin = performance.now();
const opened = count > 1 ? await openAll(count) : [first!];
const openSeconds = (performance.now() - begin) / 1e3;
// Each is read and interrupted once before memory is measured: what a call needs is then there.
await Promise.all(opened.map(({ device }, i) => device.bar(0).writeUInt32(4, i)));
const values = await Promise.all(opened.map(({ device }) => device.bar(0).readUInt32(4)));
if (values.some((value, i) => value !== i)) throw new Error('a device answered for another');
for (const each of opened) each.interrupts = 0;
const interruptsBegin = performance.now();
await Promise.all(opened.map(({ device }) => device.bar(0).writeUInt32(0, 1)));
while (opened.some(({ interrupts }) => interrupts === 0))
  await new Promise((resolve) => setImmediate(resolve));
const interruptSeconds = (performance.now() - interruptsBegin) / 1e3;
if (opened.some(({ interrupts }) => interrupts !== 1))
  throw new Error('a device was interrupted for another');
const rssAfter = await settledRss();

// One of them, while the others are idle.
const one = opened[opened.length >> 1]!;
await roundTrips(one, WARM_UP_READS);
const asyncUs = median(await roundTrips(one, reads));
blockingRoundTrips(one, WARM_UP_READS);
const syncUs = median(blockingRoundTrips(one, reads));
const figures = {
  devices: opened.length,
  openSeconds,
  kibEach: count > 1 ? (rssAfter - rssBefore) / 1024 / count : 0,
  interruptSeconds,
  asyncUs,
  syncUs,
};
console.log(JSON.stringify(figures));
for (const { device } of opened) await device.close();
await first!.device.close();
