/** One run of the bench: queues are made, transfers kept under way and timed, and what was found is put together. */
import type { NvmeController, NvmeQueue } from '../../../nvme/index.js';
import { distributionText, type Distribution } from '../../bench-report/distributions.js';
import type { FioRun } from '../../bench-report/fio-json.js';
import type { Live } from '../../bench-report/live-line.js';
import { UsageError } from '../../errors.js';
import { Meters, type Metered } from './bench-meters.js';
import type { DirectionReport } from './bench-report.js';
import { Pacer, PollRunner, PromiseRunner, type Lane, type Runner } from './bench-runners.js';
import { checkAll, makeLoad, prepare, spanOf, type Rw } from './bench-workload.js';
import { activeNamespace } from './with-controller.js';

export interface RunOptions {
  nsid?: number;
  rw: Rw;
  rwmixread: number;
  randomDistribution: Distribution;
  size: number;
  pageOffset?: number;
  qd: number;
  queues: number;
  seconds: number;
  ramp?: number;
  total?: number;
  rateIops?: number;
  rate?: number;
  api: 'poll' | 'promise';
  completion: 'poll' | 'interrupt';
  verify: boolean;
}

/** Not timed where nothing is said: what runs for the first time is compiled. */
const WARM_UP_MS = 300;
/** The time is cut into so many parts, to see how much they differ. */
const INTERVALS = 20;
const LEAST_INTERVAL_MS = 50;
const LEAST_ENTRIES = 256;

export async function runBench(
  controllers: readonly NvmeController[],
  options: RunOptions,
  live: Live,
): Promise<FioRun> {
  const { api, verify, qd, size } = options;
  const queues = await openQueues(controllers, options);
  const lanes = queues.map(({ queue, device }, index): Lane => {
    const { blocks, blockSize } = queue.namespace;
    const span = spanOf(blocks, blockSize, verify);
    const { rw, rwmixread: mixRead, randomDistribution: distribution } = options;
    return {
      queue,
      device,
      load: makeLoad({ rw, mixRead, distribution, blocks: size / blockSize, span, index }),
    };
  });
  const stamped = verify ? await onEach(controllers, lanes, prepare) : 0;
  const meters = new Meters(lanes.length * qd);
  const setup = { lanes, depth: qd, meters, pacer: pacerOf(options), isChecked: verify };
  const runner = api === 'poll' ? new PollRunner(setup) : await PromiseRunner.make(setup);
  const found = await measure(runner, meters, options, live);
  const checked = verify && lanes[0]!.load.writes ? await onEach(controllers, lanes, checkAll) : 0;
  if (runner instanceof PromiseRunner) await runner.close();
  for (const { queue } of lanes) await queue.close();
  const [totalReads, totalWrites] = [checked + found.reads.total, stamped + found.writes.total];
  const { completion, pageOffset = 0, rw, rwmixread, randomDistribution } = options;
  const { seconds, count, latencyUs, intervals, userSeconds, systemSeconds } = found;
  const iops = count / seconds;
  const report = {
    ...{ iops, bytesPerSecond: iops * size, seconds, count },
    ...{ totalIos: totalReads + totalWrites, totalReads, totalWrites, latencyUs },
    reads: directionOf(found.reads, seconds, size),
    writes: directionOf(found.writes, seconds, size),
    ...{ intervals, userSeconds, systemSeconds, rw, rwmixread: readsOf(rw, rwmixread) },
    ...{ distribution: distributionText(randomDistribution), size, pageOffset, qd, queues: options.queues },
    ...{ devices: controllers.length, api, completion, nsid: lanes[0]!.queue.namespace.id },
    ...{ doorbell: lanes[0]!.queue.doorbell, verified: verify },
  };
  return { report, sorted: { reads: found.reads.sorted, writes: found.writes.sorted } };
}

function readsOf(rw: Rw, mix: number): number {
  if (rw === 'rw' || rw === 'randrw') return mix;
  return rw === 'read' || rw === 'randread' ? 100 : 0;
}

function directionOf({ count, latencyUs }: Metered, seconds: number, size: number): DirectionReport {
  const iops = count / seconds;
  return { iops, bytesPerSecond: iops * size, count, latencyUs };
}

/** On the first queue of each controller: all of them have the same namespace. */
async function onEach(
  controllers: readonly NvmeController[],
  lanes: readonly Lane[],
  work: (queue: NvmeQueue, span: number, most: number) => Promise<number>,
): Promise<number> {
  let commands = 0;
  for (const { device, maxTransferBytes } of controllers) {
    const { queue } = lanes.find((lane) => lane.device === device)!;
    const { blocks, blockSize } = queue.namespace;
    commands += await work(queue, spanOf(blocks, blockSize, true), maxTransferBytes);
  }
  return commands;
}

function pacerOf({ rateIops, rate, size }: RunOptions): Pacer | undefined {
  if (rateIops === undefined && rate === undefined) return undefined;
  return new Pacer(Math.min(rateIops ?? Infinity, rate === undefined ? Infinity : rate / size));
}

type Opened = Omit<Lane, 'load'>;

/** @throws UsageError for what a controller cannot do. */
async function openQueues(controllers: readonly NvmeController[], options: RunOptions): Promise<Opened[]> {
  const { api, completion, pageOffset } = options;
  if (api === 'poll' && completion === 'interrupt')
    throw new UsageError('--completion interrupt is for --api promise');
  if (api === 'promise' && pageOffset !== undefined) throw new UsageError('--page-offset is for --api poll');
  const opened: Opened[] = [];
  for (const controller of controllers) {
    if (options.queues > controller.maxQueues)
      throw new UsageError(`--queues is at most ${controller.maxQueues}: the controller has no more`);
    for (let i = 0; i < options.queues; i++)
      opened.push({ queue: await openQueue(controller, options), device: controller.device });
  }
  return opened;
}

async function openQueue(controller: NvmeController, options: RunOptions): Promise<NvmeQueue> {
  const { nsid, qd, size, api, completion, pageOffset } = options;
  const namespace = await activeNamespace(controller, nsid);
  const { blockSize } = namespace;
  if (size % blockSize !== 0 || size > controller.maxTransferBytes || size > namespace.sizeBytes) {
    throw new UsageError(
      `--size is whole blocks of ${blockSize} bytes, at most ${controller.maxTransferBytes}, within the namespace`,
    );
  }
  // One entry of a ring always stays free.
  const entries = Math.min(Math.max(LEAST_ENTRIES, qd + 1), controller.maxQueueEntries);
  if (qd >= entries)
    throw new UsageError(`--qd is at most ${entries - 1}: the controller has no deeper queues`);
  const buffers = api === 'poll' ? { buffers: { count: qd, bytes: size, pageOffset } } : {};
  const created = controller.createQueue({ namespace, entries, completion, ...buffers });
  const queue = await created.catch((error: unknown) => {
    // All else has been checked.
    throw error instanceof RangeError ? new UsageError(`--page-offset: ${error.message}`) : error;
  });
  if (qd > queue.depth) throw new UsageError(`--qd is at most ${queue.depth}: the controller says so`);
  return queue;
}

/** With those that were not timed. */
type Directed = Metered & { total: number };

interface Found {
  seconds: number;
  count: number;
  latencyUs: Meters['latencyUs'];
  reads: Directed;
  writes: Directed;
  intervals: number[];
  userSeconds: number;
  systemSeconds: number;
}

async function measure(runner: Runner, meters: Meters, options: RunOptions, live: Live): Promise<Found> {
  const ms = options.seconds * 1000;
  const rampMs = options.ramp === undefined ? Math.min(WARM_UP_MS, ms) : options.ramp * 1000;
  meters.restart(0);
  const ramped = rampMs === 0 ? 0 : await runner.run(rampMs, Infinity);
  const [rampReads, rampWrites] = [meters.readCount, meters.writeCount];
  meters.restart(rampMs === 0 ? 0 : (ramped / rampMs) * 1000);
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const { count, intervals } = await timed(runner, meters, options, live);
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const latencyUs = meters.latencyUs;
  const [reads, writes] = [meters.of(true), meters.of(false)];
  await runner.drain();
  return {
    ...{ seconds, count, latencyUs, intervals, userSeconds: user / 1e6, systemSeconds: system / 1e6 },
    reads: { ...reads, total: rampReads + meters.readCount },
    writes: { ...writes, total: rampWrites + meters.writeCount },
  };
}

/** In parts, of each of which the rate is noted. */
async function timed(
  runner: Runner,
  meters: Meters,
  { seconds, total, size, rw, qd }: RunOptions,
  live: Live,
): Promise<{ count: number; intervals: number[] }> {
  const most = total === undefined ? Infinity : Math.ceil(total / size);
  const end = performance.now() + seconds * 1000;
  const part =
    total === undefined ? Math.max(LEAST_INTERVAL_MS, (seconds * 1000) / INTERVALS) : LEAST_INTERVAL_MS;
  const intervals: number[] = [];
  let count = 0;
  for (let now = performance.now(); now < end && count < most;) {
    const done = await runner.run(Math.min(part, end - now), most - count);
    const elapsed = performance.now() - now;
    now += elapsed;
    count += done;
    const iops = (done / elapsed) * 1000;
    // What is left at the end says little.
    if (elapsed >= part / 2 || intervals.length === 0) intervals.push(iops);
    live.show(`${rw}, depth ${qd}`, iops, iops * size, () => meters.latencyUs.p50);
  }
  return { count, intervals };
}
