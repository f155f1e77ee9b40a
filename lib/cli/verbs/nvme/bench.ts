/** `vfio-user nvme bench`: how fast namespaces are through this library. */
import type { Command } from 'commander';
import {
  decodeStatus,
  type NvmeController,
  type NvmeNamespace,
  type NvmeQueue,
} from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { size as offset } from '../../numbers.js';
import type { BenchDisk, OpenDisk } from '../block/bench-disk.js';
import { addBenchOptions, bench, checkSockets, type BenchOptions } from '../block/bench-options.js';
import type { RunOptions } from '../block/bench-run.js';
import { activeNamespace, namespaceId, withController } from './with-controller.js';

type NvmeBenchOptions = BenchOptions & { nsid?: number };

const LEAST_ENTRIES = 256;

const HELP = `
Transfers go over the whole namespace. With --rw randwrite, write, randrw or rw, and with --verify, its data is overwritten;
--verify stamps the first 64 MiB and checks all that is read there. --size is that of a transfer (fio's bs), --total what is
transferred in all (fio's size); without --seconds a --total has no limit of time. Every one of --queues has --qd transfers
under way, in each of the devices. A controller has one host and all is done by one thread.

--output-format fio is the shape of fio's JSON 3, for what reads that; latencies are of samples, and N is how many. fio-plot takes
the jobs of a file for one run: give it a file for each depth.

Examples:
  $ vfio-user nvme bench /run/nvme.sock --rw randread --qd 32 --seconds 3
  $ vfio-user nvme bench /run/nvme.sock --rw randrw --rwmixread 70 --random-distribution zipf:1.2 --output-format fio
  $ vfio-user nvme bench /run/nvme.sock --sweep qd=1,2,4,8,16,32,64,128 --html report.html
  $ vfio-user nvme bench /run/nvme.sock --rw randwrite --size 128K --qd 4 --api promise --verify --json`;

export function registerNvmeBench(nvme: Command): void {
  const command = nvme
    .command('bench')
    .description('measure transfers')
    .argument('<SOCKET...>', 'where the servers listen')
    .option('--nsid <n>', 'the namespace; the first active one where nothing is said', namespaceId);
  addBenchOptions(command)
    .option('--page-offset <bytes>', 'where buffers begin in a page of memory, with --api poll', offset)
    .addHelpText('after', HELP)
    .action(nvmeBench);
}

async function nvmeBench(sockets: string[], options: NvmeBenchOptions, command: Command): Promise<void> {
  checkSockets(sockets, 'a controller');
  await withControllers(command, sockets, (controllers) => {
    const open = controllers.map(
      (controller): OpenDisk =>
        (run) =>
          openDisk(controller, options.nsid, run),
    );
    return bench(sockets, open, options, command);
  });
}

/** All of them open at once. */
async function withControllers(
  command: Command,
  [socket, ...rest]: readonly string[],
  work: (controllers: readonly NvmeController[]) => Promise<void>,
  opened: readonly NvmeController[] = [],
): Promise<void> {
  if (socket === undefined) await work(opened);
  else
    await withController(command, socket, (controller) =>
      withControllers(command, rest, work, [...opened, controller]),
    );
}

/** @throws UsageError for what a controller cannot do. */
async function openDisk(
  controller: NvmeController,
  nsid: number | undefined,
  options: RunOptions,
): Promise<BenchDisk> {
  if (options.queues > controller.maxQueues)
    throw new UsageError(`--queues is at most ${controller.maxQueues}: the controller has no more`);
  const namespace = await activeNamespace(controller, nsid);
  const queues: NvmeQueue[] = [];
  for (let i = 0; i < options.queues; i++) queues.push(await openQueue(controller, namespace, options));
  const { device, maxTransferBytes } = controller;
  return {
    ...{ device, maxTransferBytes, queues, doorbell: queues[0]!.doorbell },
    ...{ blocks: namespace.blocks, blockSize: namespace.blockSize, details: { nsid: namespace.id } },
    statusName: (status) => decodeStatus(status).name,
    close: async () => {
      for (const queue of queues) await queue.close();
    },
  };
}

async function openQueue(
  controller: NvmeController,
  namespace: NvmeNamespace,
  options: RunOptions,
): Promise<NvmeQueue> {
  const { qd, size, api, completion, pageOffset } = options;
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
