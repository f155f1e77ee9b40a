/** `vfio-user bench`: how fast region accesses are on this server, from this machine. */
import { Option, type Command } from 'commander';
import type { Device, Region } from '../../index.js';
import { VfioUserError } from '../../errors.js';
import { compareRuns, readRuns, type Comparison } from '../bench-report/compare.js';
import { printable, UsageError } from '../errors.js';
import { columns, counted } from '../format-text.js';
import { colorsOf, withDevice, type Colors } from '../global-options.js';
import { toJson } from '../json.js';
import { LatencySampler, type LatencyReport } from '../latency.js';
import { length as positive, size as parseSize } from '../numbers.js';
import { print } from '../output.js';
import { regionIndex } from '../region-names.js';

interface RegionOptions {
  region: number;
  offset: number;
  size: number;
  depth: number;
  mode: 'sync' | 'async';
  op: 'read' | 'write';
  count: number;
  spin?: number;
  enable: boolean;
  json: boolean;
}

interface Result {
  opsPerSecond: number;
  bytesPerSecond: number;
  seconds: number;
  count: number;
  /** Microseconds. */
  latencyUs: LatencyReport;
  /** Processor time of this process, in seconds. */
  userSeconds: number;
  systemSeconds: number;
}

/**
 * Not timed, and no more accesses than are: the spin adapts, and what runs often is compiled, by a thread that may
 * need the server's processor.
 */
const WARM_UP_MS = 300;
/** Between two looks at the clock meanwhile. */
const WARM_UP_STEP = 200;

const HELP = `
Reads (or writes, which changes the device) the same place over and over, by message. Reads are compared with what the
place held before; a device that changes it by itself is told apart by --op write, or by another --offset.

Examples:
  $ vfio-user bench region /run/dev.sock --region bar0 --size 4 --mode sync --count 100000
  $ vfio-user bench region /run/dev.sock --region 1 --size 4 --mode async --depth 32 --json`;

const COMPARE_HELP = `
Runs are compared that did the same (rw, size, depth, queues, devices, API). Throughput differs where the means of its intervals
are more than three standard errors of their difference apart, and at least 2 %; a latency (median, 99 %) where the ranges in
which it is almost surely (three standard deviations of its rank) do not overlap, and by at least 5 %.

Exit status: 0 where nothing is worse beyond noise, 1 where something is (and for files that cannot be read), 2 for wrong
usage, and for what is no report.

Examples:
  $ vfio-user bench compare before.json after.json
  $ vfio-user bench compare before.json after.json --json | jq '.differences[] | select(.verdict != "same")'`;

export function registerBench(program: Command): void {
  const bench = program.command('bench').description('measure this library on a server');
  bench
    .command('region')
    .description('region accesses by message')
    .argument('<SOCKET>', 'where the server listens')
    .option('--region <region>', 'an index, or bar0 to bar5, rom, config, vga', regionIndex, 0)
    .option('--offset <offset>', 'where in the region', parseSize, 0)
    .option('--size <bytes>', 'bytes of each access', positive, 4)
    .option('--depth <n>', 'accesses under way at once (async)', positive, 1)
    .addOption(new Option('--mode <mode>', 'the API to use').choices(['sync', 'async']).default('sync'))
    .addOption(new Option('--op <op>', 'what to do').choices(['read', 'write']).default('read'))
    .option('--count <n>', 'how many accesses', positive, 100_000)
    .option('--spin <us>', 'the most that a wait may spin, in microseconds (50); 0 never', parseSize)
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(benchRegion);
  bench
    .command('compare')
    .description('say what differs between two reports of nvme bench --json beyond noise')
    .argument('<FILE_A>', 'what was before')
    .argument('<FILE_B>', 'what is now')
    .option('--json', 'print JSON', false)
    .addHelpText('after', COMPARE_HELP)
    .action(benchCompare);
}

async function benchCompare(
  fileA: string,
  fileB: string,
  options: { json: boolean },
  command: Command,
): Promise<void> {
  const comparison = compareRuns(await readRuns(fileA), await readRuns(fileB));
  const { differences, unmatched } = comparison;
  if (differences.length === 0)
    throw new UsageError(`${fileA} and ${fileB} have no run in common (${unmatched.join('; ')})`);
  await print(options.json ? `${toJson(comparison)}\n` : renderComparison(comparison, colorsOf(command)));
  const worse = differences.filter(({ verdict }) => verdict === 'worse');
  if (worse.length > 0)
    throw new VfioUserError(
      'ERR_VFIO_USER_WORSE',
      `${counted(worse.length, 'figure')} worse than before, beyond noise`,
    );
}

function renderComparison({ differences, unmatched }: Comparison, { bold }: Colors): string {
  const rows = differences.map(({ what, a, b, change, verdict, run }) => {
    const number = (value: number) => (what === 'iops' ? Math.round(value).toString() : `${value} µs`);
    const sign = change >= 0 ? '+' : '';
    const text = verdict === 'same' ? 'same' : bold(verdict);
    return [what, number(a), number(b), `${sign}${(change * 100).toFixed(1)} %`, text, printable(run)];
  });
  return `${columns(rows)}\n${unmatched.map((line) => `${printable(line)}\n`).join('')}`;
}

async function benchRegion(socket: string, options: RegionOptions, command: Command): Promise<void> {
  if (options.mode === 'sync' && options.depth !== 1) throw new UsageError('--mode sync has a --depth of 1');
  await withDevice(
    command,
    socket,
    async (device) => {
      if (options.enable) await device.enable();
      const region = device.region(options.region);
      const expected = await region.read(options.offset, options.size);
      const latency = new LatencySampler(options.depth);
      const access =
        options.mode === 'sync'
          ? syncAccess(region, options, expected, latency)
          : asyncAccess(device, options, expected, latency);
      const result = await measure(options, access, latency);
      if (options.json) {
        await print(`${toJson(result)}\n`);
        return;
      }
      const { bold } = colorsOf(command);
      const { mean, p50, p99, p999, sampled } = result.latencyUs;
      const each = ((result.seconds / result.count) * 1e6).toFixed(2);
      await print(
        `${bold(Math.round(result.opsPerSecond).toString())} ${options.op}s a second, ${each} µs each, ` +
          `${(result.bytesPerSecond / 1e6).toFixed(1)} MB/s\n` +
          `latency in µs: mean ${mean}, median ${p50}, 99 % ${p99}, 99.9 % ${p999} ` +
          `(${sampled.count} samples, one of ${sampled.every})\n` +
          `processor: user ${result.userSeconds.toFixed(2)} s, system ${result.systemSeconds.toFixed(2)} s\n`,
      );
    },
    { spinUs: options.spin },
  );
}

async function measure(options: RegionOptions, access: Work, latency: LatencySampler): Promise<Result> {
  latency.restart(0);
  latency.restart(await warmUp(options.count, access));
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await access(options.count);
  const seconds = (performance.now() - begin) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  const opsPerSecond = options.count / seconds;
  return {
    opsPerSecond,
    bytesPerSecond: opsPerSecond * options.size,
    seconds,
    count: options.count,
    latencyUs: latency.report(),
    userSeconds: user / 1e6,
    systemSeconds: system / 1e6,
  };
}

type Work = (count: number) => Promise<void>;

/** Returns how many accesses it made a second. */
async function warmUp(most: number, access: Work): Promise<number> {
  const begin = performance.now();
  let made = 0;
  let ms = 0;
  while (made < most && ms < WARM_UP_MS) {
    const step = Math.min(WARM_UP_STEP, most - made);
    await access(step);
    made += step;
    ms = performance.now() - begin;
  }
  return (made / ms) * 1000;
}

/** A register's width goes by value, anything else by buffer. */
function syncAccess(
  region: Region,
  { op, offset, size }: RegionOptions,
  bytes: Buffer,
  latency: LatencySampler,
): Work {
  const once =
    op === 'write' ? syncWrite(region, offset, size, bytes) : syncRead(region, offset, size, bytes);
  return (count) => {
    latency.repeat(count, once);
    return Promise.resolve();
  };
}

function syncRead(region: Region, offset: number, size: number, expected: Buffer): () => void {
  if (size === 4) {
    const value = expected.readUInt32LE();
    return () => same(region.readUInt32Sync(offset) === value);
  }
  if (size === 8) {
    const value = expected.readBigUInt64LE();
    return () => same(region.readUInt64Sync(offset) === value);
  }
  const target = Buffer.alloc(size);
  let compared = false;
  return () => {
    region.readIntoSync(offset, target);
    // Comparing a long buffer takes longer than some reads: once is enough to know that the answers are right.
    if (!compared) same(target.equals(expected));
    compared = true;
  };
}

function syncWrite(region: Region, offset: number, size: number, bytes: Buffer): () => void {
  if (size !== 4) return () => region.writeSync(offset, bytes);
  const value = bytes.readUInt32LE();
  return () => region.writeUInt32Sync(offset, value);
}

function asyncAccess(device: Device, options: RegionOptions, bytes: Buffer, latency: LatencySampler): Work {
  const region = device.region(options.region);
  let left = 0;
  const more = (tag: number) => {
    if (left-- <= 0) return false;
    latency.begin(tag);
    return true;
  };
  const access = { region, options, bytes, more, done: (tag: number) => latency.end(tag) };
  const worker = options.op === 'write' ? asyncWrites : options.size === 4 ? asyncRegisters : asyncReads;
  return async (count) => {
    left = count;
    const workers: Promise<void>[] = [];
    for (let tag = 0; tag < options.depth; tag++) workers.push(worker(access, tag));
    await Promise.all(workers);
    if (device.counters.unknown > 0)
      throw new Error('the server sent replies to requests that were not sent');
  };
}

/** What the workers of one run share. Each has one access under way at a time. */
interface AsyncAccess {
  region: Region;
  options: RegionOptions;
  bytes: Buffer;
  /** Whether there is another access to make; it has begun then. */
  more: (tag: number) => boolean;
  done: (tag: number) => void;
}

async function asyncWrites({ region, options, bytes, more, done }: AsyncAccess, tag: number): Promise<void> {
  const { offset, size } = options;
  const value = size === 4 ? bytes.readUInt32LE() : 0;
  while (more(tag)) {
    if (size === 4) await region.writeUInt32(offset, value);
    else await region.write(offset, bytes);
    done(tag);
  }
}

async function asyncRegisters(
  { region, options, bytes, more, done }: AsyncAccess,
  tag: number,
): Promise<void> {
  const value = bytes.readUInt32LE();
  while (more(tag)) {
    same((await region.readUInt32(options.offset)) === value);
    done(tag);
  }
}

async function asyncReads({ region, options, bytes, more, done }: AsyncAccess, tag: number): Promise<void> {
  const target = Buffer.alloc(options.size);
  let count = 0;
  for (; more(tag); count++) {
    await region.readInto(options.offset, target);
    done(tag);
  }
  if (count > 0) same(target.equals(bytes));
}

function same(equal: boolean): void {
  if (!equal)
    throw new Error('a read gave other bytes than the first one: the device changes them by itself');
}
