/** `vfio-user nvme bench`: how fast a namespace is through this library. */
import { Option, type Command } from 'commander';
import type { DoorbellKind, NvmeController, NvmeQueue } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { colorsOf } from '../../global-options.js';
import { toJson } from '../../json.js';
import { byteSize, length, size as offset } from '../../numbers.js';
import { LatencySampler, type LatencyReport } from '../../latency.js';
import { print } from '../../output.js';
import { renderBench } from '../../render-nvme.js';
import { checkAll, makeLoad, prepare, spanOf, type Rw } from './bench-workload.js';
import { PollRunner, PromiseRunner, type Runner } from './bench-runners.js';
import { activeNamespace, namespaceId, withController } from './with-controller.js';

interface BenchOptions {
  nsid?: number;
  rw: Rw;
  size: number;
  pageOffset?: number;
  qd: number;
  seconds: number;
  api: 'poll' | 'promise';
  completion: 'poll' | 'interrupt';
  verify: boolean;
  json: boolean;
}

export interface BenchReport {
  /** Transfers a second. */
  iops: number;
  bytesPerSecond: number;
  seconds: number;
  /** Transfers in that time. */
  count: number;
  /** What the controller counts too: every read and write of blocks, those before and after that time among them. */
  totalIos: number;
  totalReads: number;
  totalWrites: number;
  /** Microseconds. */
  latencyUs: LatencyReport;
  /** Processor time of this process in that time. */
  userSeconds: number;
  systemSeconds: number;
  rw: Rw;
  size: number;
  /** Where the submit/poll API's buffers begin in a page of memory. */
  pageOffset: number;
  qd: number;
  api: 'poll' | 'promise';
  completion: 'poll' | 'interrupt';
  nsid: number;
  doorbell: DoorbellKind;
  verified: boolean;
}

const RWS: readonly Rw[] = ['randread', 'randwrite', 'read', 'write'];
/** Not timed: what runs for the first time is compiled. */
const WARM_UP_MS = 300;
const MOST_SECONDS = 86_400;

const HELP = `
Transfers go over the whole namespace. With --rw randwrite or write, and with --verify, its data is overwritten;
--verify stamps the first 64 MiB and checks all that is read there.

Examples:
  $ vfio-user nvme bench /run/nvme.sock --rw randread --qd 32 --seconds 3
  $ vfio-user nvme bench /run/nvme.sock --rw randwrite --size 128K --qd 4 --api promise --verify --json`;

export function registerNvmeBench(nvme: Command): void {
  nvme
    .command('bench')
    .description('measure transfers')
    .argument('<SOCKET>', 'where the server listens')
    .option('--nsid <n>', 'the namespace; the first active one where nothing is said', namespaceId)
    .addOption(new Option('--rw <rw>', 'what to do').choices(RWS).default('randread'))
    .option('--size <bytes>', 'of each transfer, whole blocks', byteSize, 4096)
    .option('--page-offset <bytes>', 'where buffers begin in a page of memory, with --api poll', offset)
    .option('--qd <n>', 'transfers under way at once', length, 32)
    .option('--seconds <s>', 'for how long', seconds, 3)
    .addOption(new Option('--api <api>', 'the API to use').choices(['poll', 'promise']).default('poll'))
    .addOption(
      new Option('--completion <how>', 'how promises learn of completions')
        .choices(['poll', 'interrupt'])
        .default('poll'),
    )
    .option('--verify', 'check the answers', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(async (socket: string, options: BenchOptions, command: Command) => {
      await withController(command, socket, async (controller) => {
        const report = await bench(controller, options);
        await print(options.json ? `${toJson(report)}\n` : renderBench(report, colorsOf(command).bold));
      });
    });
}

async function bench(controller: NvmeController, options: BenchOptions): Promise<BenchReport> {
  const { rw, qd, size, api, verify } = options;
  const queue = await openQueue(controller, options);
  const { blocks, blockSize, id } = queue.namespace;
  const span = spanOf(blocks, blockSize, verify);
  const load = makeLoad(rw, size / blockSize, span);
  const { maxTransferBytes } = controller;
  const stamped = verify ? await prepare(queue, span, maxTransferBytes) : 0;
  const latency = new LatencySampler(qd);
  const setup = { queue, load, depth: qd, latency, isChecked: verify };
  const runner = api === 'poll' ? new PollRunner(setup) : await PromiseRunner.make(controller.device, setup);
  const { transfers, ...timed } = await measure(runner, latency, options.seconds * 1000);
  const checked = verify && !load.isRead ? await checkAll(queue, span, maxTransferBytes) : 0;
  const totalReads = checked + (load.isRead ? transfers : 0);
  const totalWrites = stamped + (load.isRead ? 0 : transfers);
  const { completion, pageOffset = 0 } = options;
  return {
    ...timed,
    ...{ totalIos: totalReads + totalWrites, totalReads, totalWrites },
    bytesPerSecond: timed.iops * size,
    ...{ rw, size, pageOffset, qd, api, completion, nsid: id, doorbell: queue.doorbell, verified: verify },
  };
}

async function openQueue(controller: NvmeController, options: BenchOptions): Promise<NvmeQueue> {
  const { nsid, qd, size, api, completion, pageOffset } = options;
  if (api === 'poll' && completion === 'interrupt')
    throw new UsageError('--completion interrupt is for --api promise');
  if (api === 'promise' && pageOffset !== undefined) throw new UsageError('--page-offset is for --api poll');
  const namespace = await activeNamespace(controller, nsid);
  const { blockSize } = namespace;
  if (size % blockSize !== 0 || size > controller.maxTransferBytes || size > namespace.sizeBytes) {
    throw new UsageError(
      `--size is whole blocks of ${blockSize} bytes, at most ${controller.maxTransferBytes}, within the namespace`,
    );
  }
  // One entry of a ring always stays free.
  const entries = Math.min(Math.max(256, qd + 1), controller.maxQueueEntries);
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

type Timed = Pick<
  BenchReport,
  'iops' | 'seconds' | 'count' | 'latencyUs' | 'userSeconds' | 'systemSeconds'
> & {
  /** With those that were not timed. */
  transfers: number;
};

async function measure(runner: Runner, latency: LatencySampler, ms: number): Promise<Timed> {
  const warmUp = Math.min(WARM_UP_MS, ms);
  latency.restart(0);
  let transfers = await runner.run(warmUp);
  latency.restart((transfers / warmUp) * 1000);
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const count = await runner.run(ms);
  const elapsed = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const latencyUs = latency.report();
  transfers += count + (await runner.drain());
  return {
    iops: count / elapsed,
    seconds: elapsed,
    count,
    transfers,
    latencyUs,
    userSeconds: user / 1e6,
    systemSeconds: system / 1e6,
  };
}

function seconds(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0 && value <= MOST_SECONDS) return value;
  throw new UsageError(`--seconds is a number up to ${MOST_SECONDS}`);
}
