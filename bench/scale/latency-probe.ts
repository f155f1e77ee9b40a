/**
 * What a device has left while another one's server floods: `latency-probe.js PATH FLOODER KIND SECONDS`. Prints a line of
 * JSON: the median round trip alone and beside the flood, and how far memory grew.
 */
import { connect, type Device } from 'vfio-user';

const [path, flooder, kind, secondsText] = process.argv.slice(2);
const seconds = Number(secondsText);
const DMA_BYTES = 64 << 10;
const WARM_UP_SECONDS = 0.3;

interface Figures {
  medianUs: number;
  p99Us: number;
  reads: number;
}

async function roundTrips(device: Device, forSeconds: number): Promise<Figures> {
  const latencies: number[] = [];
  const end = performance.now() + forSeconds * 1e3;
  while (performance.now() < end) {
    const begin = performance.now();
    await device.bar(0).readUInt32(4);
    latencies.push((performance.now() - begin) * 1e3);
  }
  latencies.sort((a, b) => a - b);
  return {
    medianUs: latencies[latencies.length >> 1] ?? NaN,
    p99Us: latencies[Math.floor(latencies.length * 0.99)] ?? NaN,
    reads: latencies.length,
  };
}

const device = await connect(path!);
await roundTrips(device, WARM_UP_SECONDS);
const alone = await roundTrips(device, seconds);
// Not shared: the server has to ask for every byte.
const flooding = await connect(flooder!, { secureDma: true, twinSocket: false });
let ended: string | undefined;
void flooding.closed.then((reason) => (ended ??= reason.message));
await flooding.dma.alloc(DMA_BYTES);
await roundTrips(device, WARM_UP_SECONDS);
const rssBefore = process.memoryUsage.rss();
const beside = await roundTrips(device, seconds);
const grownMib = (process.memoryUsage.rss() - rssBefore) / 2 ** 20;
const { received, unknown, refused, served } = flooding.counters;
const handled = received;
const figures = {
  isOpen: ended === undefined,
  others: beside.reads,
  kind,
  alone,
  beside,
  ratio: beside.medianUs / alone.medianUs,
  handled,
  unknown,
  refused,
  served,
  grownMib,
  ended,
};
console.log(JSON.stringify(figures));
await device.close();
await flooding.close();
