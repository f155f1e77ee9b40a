/** What the verbs for block devices have in common: a disk for the time that it is needed, and how its queues are to be. */
import { Option, type Command } from 'commander';
import { VirtioBlk, type VirtioBlkOptions } from '../../../virtio/index.js';
import { withDevice, type GlobalOptions } from '../../global-options.js';
import type { BlockTarget } from '../block/block-io.js';

/** Adds `--ring`. */
export function addRingOption(command: Command): Command {
  return command.addOption(
    new Option('--ring <kind>', 'the virtqueues to use').choices(['split', 'packed']).default('split'),
  );
}

/** Starts the device, does `work` with it and resets it, whatever comes of it. */
export async function withDisk(
  command: Command,
  socket: string,
  options: VirtioBlkOptions,
  work: (disk: VirtioBlk) => Promise<void>,
): Promise<void> {
  const { timeout } = command.optsWithGlobals<GlobalOptions>();
  await withDevice(command, socket, async (device) => {
    const disk = await VirtioBlk.open(device, { timeoutMs: timeout, ...options });
    try {
      await work(disk);
    } catch (error) {
      // The first error is the one to report.
      await disk.close().catch(() => undefined);
      throw error;
    }
    await disk.close();
  });
}

export function targetOf(disk: VirtioBlk): BlockTarget {
  const { blocks, blockSize } = disk;
  return {
    name: 'the disk',
    blocks,
    blockSize,
    read: (lba, count) => disk.read(lba, count),
    write: (lba, data) => disk.write(lba, data),
    flush: async () => {
      // Without FLUSH the device keeps what it has written.
      if (disk.featureNames.includes('FLUSH')) await disk.flush();
    },
  };
}
