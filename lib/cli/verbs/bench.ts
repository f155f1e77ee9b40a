/** `vfio-user bench`: how fast region accesses are on this server, from this machine. */
import { Option, type Command } from 'commander';
import type { Device, Region } from '../../index.js';
import { UsageError } from '../errors.js';
import { colorsOf, withDevice } from '../global-options.js';
import { toJson } from '../json.js';
import { length as positive, size as parseSize } from '../numbers.js';
import { print } from '../output.js';
import { regionIndex } from '../regions.js';

interface RegionOptions {
  region: number;
  offset: number;
  size: number;
  depth: number;
  mode: 'sync' | 'async';
  op: 'read' | 'write';
  count: number;
  enable: boolean;
  json: boolean;
}

interface Result {
  opsPerSecond: number;
  bytesPerSecond: number;
  seconds: number;
  count: number;
  /** Processor time of this process, in seconds. */
  userSeconds: number;
  systemSeconds: number;
}

/** Not timed: what runs for the first time is compiled, and the spin governor learns. */
const WARM_UP = 2_000;

const HELP = `
Reads (or writes, which changes the device) the same place over and over, by message. Reads are compared with what the
place held before; a device that changes it by itself is told apart by --op write, or by another --offset.

Examples:
  $ vfio-user bench region /run/dev.sock --region bar0 --size 4 --mode sync --count 100000
  $ vfio-user bench region /run/dev.sock --region 1 --size 4 --mode async --depth 32 --json`;

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
    .addOption(
      new Option('--mode <mode>', 'the face of the library').choices(['sync', 'async']).default('sync'),
    )
    .addOption(new Option('--op <op>', 'what to do').choices(['read', 'write']).default('read'))
    .option('--count <n>', 'how many accesses', positive, 100_000)
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(benchRegion);
}

async function benchRegion(socket: string, options: RegionOptions, command: Command): Promise<void> {
  if (options.mode === 'sync' && options.depth !== 1) throw new UsageError('--mode sync has a --depth of 1');
  await withDevice(command, socket, async (device) => {
    if (options.enable) await device.enable();
    const region = device.region(options.region);
    const expected = await region.read(options.offset, options.size);
    const access =
      options.mode === 'sync'
        ? syncAccess(region, options, expected)
        : asyncAccess(device, options, expected);
    await access(Math.min(WARM_UP, options.count));
    const result = await measure(options, () => access(options.count));
    if (options.json) {
      await print(`${toJson(result)}\n`);
      return;
    }
    const { bold } = colorsOf(command);
    const each = ((result.seconds / result.count) * 1e6).toFixed(2);
    await print(
      `${bold(Math.round(result.opsPerSecond).toString())} ${options.op}s a second, ${each} µs each, ` +
        `${(result.bytesPerSecond / 1e6).toFixed(1)} MB/s; ` +
        `processor: user ${result.userSeconds.toFixed(2)} s, system ${result.systemSeconds.toFixed(2)} s\n`,
    );
  });
}

async function measure(options: RegionOptions, work: () => Promise<void>): Promise<Result> {
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await work();
  const seconds = (performance.now() - begin) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  const opsPerSecond = options.count / seconds;
  return {
    opsPerSecond,
    bytesPerSecond: opsPerSecond * options.size,
    seconds,
    count: options.count,
    userSeconds: user / 1e6,
    systemSeconds: system / 1e6,
  };
}

type Work = (count: number) => Promise<void>;

/** A register's width goes by value, anything else by buffer. */
function syncAccess(region: Region, { op, offset, size }: RegionOptions, bytes: Buffer): Work {
  const once =
    op === 'write' ? syncWrite(region, offset, size, bytes) : syncRead(region, offset, size, bytes);
  return async (count) => {
    for (let i = 0; i < count; i++) once();
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

function asyncAccess(device: Device, options: RegionOptions, bytes: Buffer): Work {
  let left = 0;
  const worker = asyncWorker(device.region(options.region), options, bytes, () => left-- > 0);
  return async (count) => {
    left = count;
    const done: Promise<void>[] = [];
    for (let i = 0; i < options.depth; i++) done.push(worker());
    await Promise.all(done);
    if (device.counters.unknown > 0) throw new Error('the server sent replies that nobody asked for');
  };
}

function asyncWorker(
  region: Region,
  { op, offset, size }: RegionOptions,
  bytes: Buffer,
  more: () => boolean,
): () => Promise<void> {
  if (op === 'write') {
    return async () => {
      while (more()) await region.write(offset, bytes);
    };
  }
  if (size === 4) {
    const value = bytes.readUInt32LE();
    return async () => {
      while (more()) same((await region.readUInt32(offset)) === value);
    };
  }
  return async () => {
    const target = Buffer.alloc(size);
    while (more()) await region.readInto(offset, target);
    same(target.equals(bytes));
  };
}

function same(equal: boolean): void {
  if (!equal)
    throw new Error('a read gave other bytes than the first one: the device changes them by itself');
}
