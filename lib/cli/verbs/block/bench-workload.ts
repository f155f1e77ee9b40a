/** What a bench does to a disk: which blocks, and what is in them when answers are checked. */
import { picker, xorshift, type Distribution } from '../../bench-report/distributions.js';
import type { BenchDisk } from './bench-disk.js';

export type Rw = 'randread' | 'randwrite' | 'randrw' | 'read' | 'write' | 'rw';

const TWO_32 = 2 ** 32;
const PERCENT = 100;
/** Blocks that are checked begin with this, and their own number. */
const STAMP = 0x6f69_6676;
/** The most of a disk that is prepared for checking. */
const MOST_CHECKED_BYTES = 64 << 20;
/** Prepared, or checked, at once. */
const CHUNK_BYTES = 1 << 20;
const SEED = 0x2545_f491;

export interface Load {
  /** Of one transfer. */
  readonly blocks: number;
  /** Whether it writes at all. */
  readonly writes: boolean;
  /** The first block of the next transfer. */
  next(): number;
  /** Whether that transfer reads. */
  nextReads(): boolean;
}

export interface LoadOptions {
  rw: Rw;
  /** Percent of reads, where `rw` has both. */
  mixRead: number;
  distribution: Distribution;
  /** Of one transfer. */
  blocks: number;
  /** Of the disk, blocks that are used. */
  span: number;
  /** Queues that go over the same blocks begin elsewhere. */
  index: number;
}

/** Transfers of `blocks` blocks within the first `span` blocks. */
export function makeLoad({ rw, mixRead, distribution, blocks, span, index }: LoadOptions): Load {
  const units = Math.floor(span / blocks);
  const random = xorshift(SEED + 7919 * index);
  const unit = rw.startsWith('rand') ? picker(distribution, units, random) : sequential(units, index);
  const coin = xorshift(SEED ^ (104_729 * (index + 1)));
  const bound = (mixRead / PERCENT) * TWO_32;
  const isMixed = rw === 'rw' || rw === 'randrw';
  const reads = rw === 'read' || rw === 'randread';
  return {
    blocks,
    writes: !reads,
    next: () => unit() * blocks,
    nextReads: isMixed ? () => coin() < bound : () => reads,
  };
}

function sequential(units: number, index: number): () => number {
  let unit = (Math.floor((units * index) / 16) % units) - 1;
  return () => {
    if (++unit === units) unit = 0;
    return unit;
  };
}

/** How much of a disk a bench uses, blocks. */
export function spanOf(blocks: number, blockSize: number, isChecked: boolean): number {
  return isChecked ? Math.min(blocks, MOST_CHECKED_BYTES / blockSize) : blocks;
}

/** Puts the stamp and the number of each block into `bytes`, which begins with block `lba`. */
export function stamp(bytes: Buffer, lba: number, blockSize: number): void {
  for (let at = 0, block = lba; at < bytes.length; at += blockSize, block++) {
    bytes.writeUInt32LE(STAMP, at);
    bytes.writeUInt32LE(block >>> 0, at + 4);
  }
}

/** Whether each block of `bytes`, which begins with block `lba`, has its stamp. */
export function isStamped(bytes: Buffer, lba: number, blockSize: number): boolean {
  for (let at = 0, block = lba; at < bytes.length; at += blockSize, block++) {
    if (bytes.readUInt32LE(at) !== STAMP || bytes.readUInt32LE(at + 4) !== block >>> 0) return false;
  }
  return true;
}

/** Stamps the first `span` blocks of the disk, so that every read can be checked. The number of commands. */
export function prepare(disk: BenchDisk, span: number): Promise<number> {
  return inChunks(disk, span, async (lba, blocks) => {
    const bytes = Buffer.alloc(blocks * disk.blockSize);
    stamp(bytes, lba, disk.blockSize);
    await disk.queues[0]!.write(lba, bytes);
  });
}

/**
 * Reads the first `span` blocks back. The number of commands.
 * @throws Error where one is not as it was written.
 */
export function checkAll(disk: BenchDisk, span: number): Promise<number> {
  return inChunks(disk, span, async (lba, blocks) => {
    const bytes = await disk.queues[0]!.read(lba, blocks);
    if (!isStamped(bytes, lba, disk.blockSize)) throw wrongAnswer(lba);
  });
}

async function inChunks(
  { blockSize, maxTransferBytes }: BenchDisk,
  span: number,
  work: (lba: number, blocks: number) => Promise<void>,
): Promise<number> {
  const chunk = CHUNK_BYTES / blockSize;
  // A chunk goes out in as many commands as the device's limit makes it.
  const most = Math.floor(maxTransferBytes / blockSize);
  let commands = 0;
  for (let lba = 0; lba < span; lba += chunk) {
    const blocks = Math.min(chunk, span - lba);
    await work(lba, blocks);
    commands += Math.ceil(blocks / most);
  }
  return commands;
}

export function wrongAnswer(lba: number): Error {
  return new Error(`verification failed: what was read from block ${lba} on is not what was written there`);
}
