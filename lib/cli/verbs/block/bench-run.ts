/** One run of the bench: queues are made, transfers kept under way and timed, and what was found is put together. */
import { distributionText, type Distribution } from '../../bench-report/distributions.js';
import type { FioRun } from '../../bench-report/fio-json.js';
import { Intervals } from '../../bench-report/intervals.js';
import type { Live } from '../../bench-report/live-line.js';
import { UsageError } from '../../errors.js';
import type { BenchDisk, OpenDisk } from './bench-disk.js';
import { Meters, type Metered } from './bench-meters.js';
import type { BenchReport, DirectionReport } from './bench-report.js';
import { Pacer, PollRunner, PromiseRunner, type Lane, type Runner } from './bench-runners.js';
import { checkAll, makeLoad, prepare, spanOf, type Rw } from './bench-workload.js';

export interface RunOptions {
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

/** Opens the disks, and closes them whatever comes of it. @throws UsageError for what makes no sense, or a disk cannot do. */
export async function runBench(open: readonly OpenDisk[], options: RunOptions, live: Live): Promise<FioRun> {
  checkOptions(options);
  const disks: BenchDisk[] = [];
  try {
    for (const openDisk of open) disks.push(await openDisk(options));
    const run = await runOn(disks, options, live);
    for (const disk of disks.splice(0)) await disk.close();
    return run;
  } finally {
    // The first error is the one to report.
    for (const disk of disks) await disk.close().catch(() => undefined);
  }
}

async function runOn(disks: readonly BenchDisk[], options: RunOptions, live: Live): Promise<FioRun> {
  const { api, verify, qd } = options;
  const lanes = lanesOf(disks, options);
  const stamped = verify ? await onEach(disks, prepare) : 0;
  const meters = new Meters(lanes.length * qd);
  const setup = { lanes, depth: qd, meters, pacer: pacerOf(options), isChecked: verify };
  const runner = api === 'poll' ? new PollRunner(setup) : await PromiseRunner.make(setup);
  const found = await measure(runner, meters, options, live);
  const checked = verify && lanes[0]!.load.writes ? await onEach(disks, checkAll) : 0;
  if (runner instanceof PromiseRunner) await runner.close();
  const totals = { totalReads: checked + found.reads.total, totalWrites: stamped + found.writes.total };
  const report = reportOf(disks, options, found, totals);
  return { report, sorted: { reads: found.reads.sorted, writes: found.writes.sorted } };
}

/** One for each queue. */
function lanesOf(disks: readonly BenchDisk[], options: RunOptions): Lane[] {
  const { rw, rwmixread: mixRead, randomDistribution: distribution, size, verify } = options;
  const queues = disks.flatMap((disk) => disk.queues.map((queue) => ({ disk, queue })));
  return queues.map(({ disk, queue }, index) => {
    const blocks = size / disk.blockSize;
    const span = spanOf(disk.blocks, disk.blockSize, verify);
    return { queue, disk, load: makeLoad({ rw, mixRead, distribution, blocks, span, index }) };
  });
}

function reportOf(
  disks: readonly BenchDisk[],
  options: RunOptions,
  found: Found,
  { totalReads, totalWrites }: { totalReads: number; totalWrites: number },
): BenchReport {
  const { size, qd, queues, api, completion, pageOffset = 0, rw, rwmixread, randomDistribution } = options;
  const { seconds, count, latencyUs, intervals, userSeconds, systemSeconds } = found;
  const iops = count / seconds;
  const { doorbell, details } = disks[0]!;
  return {
    ...{ iops, bytesPerSecond: iops * size, seconds, count },
    ...{ totalIos: totalReads + totalWrites, totalReads, totalWrites, latencyUs },
    reads: directionOf(found.reads, seconds, size),
    writes: directionOf(found.writes, seconds, size),
    ...{ intervals, userSeconds, systemSeconds, rw, rwmixread: readsOf(rw, rwmixread) },
    ...{ distribution: distributionText(randomDistribution), size, pageOffset, qd, queues },
    ...{ devices: disks.length, api, completion, ...details, doorbell, verified: options.verify },
  };
}

function readsOf(rw: Rw, mix: number): number {
  if (rw === 'rw' || rw === 'randrw') return mix;
  return rw === 'read' || rw === 'randread' ? 100 : 0;
}

function directionOf({ count, latencyUs }: Metered, seconds: number, size: number): DirectionReport {
  const iops = count / seconds;
  return { iops, bytesPerSecond: iops * size, count, latencyUs };
}

/** On the first queue of each disk: all of its queues have the same blocks. */
async function onEach(
  disks: readonly BenchDisk[],
  work: (disk: BenchDisk, span: number) => Promise<number>,
): Promise<number> {
  let commands = 0;
  for (const disk of disks) commands += await work(disk, spanOf(disk.blocks, disk.blockSize, true));
  return commands;
}

function pacerOf({ rateIops, rate, size }: RunOptions): Pacer | undefined {
  if (rateIops === undefined && rate === undefined) return undefined;
  return new Pacer(Math.min(rateIops ?? Infinity, rate === undefined ? Infinity : rate / size));
}

function checkOptions({ api, completion, pageOffset }: RunOptions): void {
  if (api === 'poll' && completion === 'interrupt')
    throw new UsageError('--completion interrupt is for --api promise');
  if (api === 'promise' && pageOffset !== undefined) throw new UsageError('--page-offset is for --api poll');
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
  const intervals = new Intervals(part);
  let count = 0;
  for (let now = performance.now(); now < end && count < most;) {
    const done = await runner.run(Math.min(part, end - now), most - count);
    const elapsed = performance.now() - now;
    now += elapsed;
    count += done;
    const iops = (done / elapsed) * 1000;
    intervals.add(done, elapsed);
    live.show(`${rw}, depth ${qd}`, iops, iops * size, () => meters.latencyUs.p50);
  }
  return { count, intervals: intervals.rates };
}
