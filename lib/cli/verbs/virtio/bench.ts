/** `vfio-user virtio bench`: how fast virtio disks are through this library. */
import type { Command } from 'commander';
import type { Device } from '../../../index.js';
import { blkStatusName, VirtioBlk } from '../../../virtio/index.js';
import { UsageError } from '../../errors.js';
import { withDevice, type GlobalOptions } from '../../global-options.js';
import type { BenchDisk, OpenDisk } from '../block/bench-disk.js';
import { addBenchOptions, bench, checkSockets, type BenchOptions } from '../block/bench-options.js';
import type { RunOptions } from '../block/bench-run.js';
import { addRingOption } from './with-disk.js';

type Ring = 'split' | 'packed';
type VirtioBenchOptions = BenchOptions & { ring: Ring };

const LEAST_ENTRIES = 256;
const MOST_ENTRIES = 32_768;
const LEAST_TRANSFER = 256 << 10;
const MOST_TRANSFER = 4 << 20;
const MOST_QUEUES = 1024;

const HELP = `
Transfers go over the whole disk. With --rw randwrite, write, randrw or rw, and with --verify, its data is overwritten;
--verify stamps the first 64 MiB and checks all that is read there. Options and JSON are those of nvme bench.

Examples:
  $ vfio-user virtio bench /run/blk.sock --rw randread --qd 32 --seconds 3
  $ vfio-user virtio bench /run/blk.sock --ring packed --sweep qd=1,32,128 --json
  $ vfio-user virtio bench /run/blk.sock --rw randrw --rwmixread 70 --api promise --verify --output-format fio`;

export function registerVirtioBench(virtio: Command): void {
  const command = virtio
    .command('bench')
    .description('measure transfers')
    .argument('<SOCKET...>', 'where the servers listen');
  addRingOption(addBenchOptions(command)).addHelpText('after', HELP).action(virtioBench);
}

async function virtioBench(sockets: string[], options: VirtioBenchOptions, command: Command): Promise<void> {
  checkSockets(sockets, 'a disk');
  const { timeout } = command.optsWithGlobals<GlobalOptions>();
  await withDevices(command, sockets, (devices) => {
    const open = devices.map(
      (device): OpenDisk =>
        (run) =>
          openDisk(device, options.ring, timeout, run),
    );
    return bench(sockets, open, options, command);
  });
}

/** All of them open at once. */
async function withDevices(
  command: Command,
  [socket, ...rest]: readonly string[],
  work: (devices: readonly Device[]) => Promise<void>,
  opened: readonly Device[] = [],
): Promise<void> {
  if (socket === undefined) await work(opened);
  else await withDevice(command, socket, (device) => withDevices(command, rest, work, [...opened, device]));
}

/** @throws UsageError for what a disk cannot do. */
async function openDisk(
  device: Device,
  ring: Ring,
  timeoutMs: number,
  options: RunOptions,
): Promise<BenchDisk> {
  const { qd, size, api, completion, queues } = options;
  if (size > MOST_TRANSFER) throw new UsageError(`--size is at most ${MOST_TRANSFER}`);
  if (qd > MOST_ENTRIES) throw new UsageError(`--qd is at most ${MOST_ENTRIES}`);
  if (queues > MOST_QUEUES) throw new UsageError(`--queues is at most ${MOST_QUEUES}`);
  const opening = VirtioBlk.open(device, {
    ...{ timeoutMs, ring, queues, completion },
    entries: Math.max(LEAST_ENTRIES, 2 ** Math.ceil(Math.log2(qd))),
    maxTransferBytes: Math.max(LEAST_TRANSFER, size),
    ...(api === 'poll' ? { buffers: { count: qd, bytes: size } } : {}),
  });
  const disk = await opening.catch((error: unknown) => {
    // A buffer is no longer than one request may be; all else has been checked.
    throw error instanceof RangeError ? new UsageError(`--size: ${error.message}`) : error;
  });
  try {
    checkDisk(disk, ring, options);
  } catch (error) {
    await disk.close().catch(() => undefined);
    throw error;
  }
  const { blocks, blockSize, maxTransferBytes } = disk;
  return {
    ...{ device, blocks, blockSize, maxTransferBytes, queues: disk.queues, details: { ring } },
    doorbell: disk.queues[0]!.notification,
    statusName: blkStatusName,
    close: () => disk.close(),
  };
}

/** @throws UsageError. */
function checkDisk(disk: VirtioBlk, ring: Ring, { qd, size, queues, rw }: RunOptions): void {
  const { blockSize, maxTransferBytes, sizeBytes } = disk;
  if (ring === 'packed' && !disk.featureNames.includes('RING_PACKED'))
    throw new UsageError('--ring packed: the disk has no packed virtqueues');
  if (size % blockSize !== 0 || size > maxTransferBytes || size > sizeBytes)
    throw new UsageError(
      `--size is whole blocks of ${blockSize} bytes, at most ${maxTransferBytes}, within the disk`,
    );
  if (queues > disk.queues.length)
    throw new UsageError(`--queues is at most ${disk.queues.length}: the disk has no more`);
  const { depth } = disk.queues[0]!;
  if (qd > depth) throw new UsageError(`--qd is at most ${depth}: the disk has no deeper queues`);
  if (disk.isReadOnly && !['read', 'randread'].includes(rw))
    throw new UsageError(`--rw ${rw}: the disk is read-only`);
}
