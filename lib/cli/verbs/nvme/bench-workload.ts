/** What a bench does to a namespace: which blocks, and what is in them when answers are checked. */
import type { NvmeQueue } from '../../../nvme/index.js';

export type Rw = 'randread' | 'randwrite' | 'read' | 'write';

const TWO_32 = 2 ** 32;
/** Blocks that are checked begin with this, and their own number. */
const STAMP = 0x6f69_6676;
/** The most of a namespace that is prepared for checking. */
const MOST_CHECKED_BYTES = 64 << 20;
/** Prepared, or checked, at once. */
const CHUNK_BYTES = 1 << 20;

export interface Load {
  readonly isRead: boolean;
  /** Of one transfer. */
  readonly blocks: number;
  /** The first block of the next transfer. */
  next(): number;
}

/** Transfers of `blocks` blocks within the first `span` blocks. */
export function makeLoad(rw: Rw, blocks: number, span: number): Load {
  const units = Math.floor(span / blocks);
  const isRead = rw === 'randread' || rw === 'read';
  const next = rw.startsWith('rand') ? randomUnits(units, blocks) : sequentialUnits(units, blocks);
  return { isRead, blocks, next };
}

/** Marsaglia's xorshift: a few instructions, and good enough to miss every cache. */
function randomUnits(units: number, blocks: number): () => number {
  const scale = units / TWO_32;
  let state = 0x2545_f491;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor((state >>> 0) * scale) * blocks;
  };
}

function sequentialUnits(units: number, blocks: number): () => number {
  let unit = -1;
  return () => {
    if (++unit === units) unit = 0;
    return unit * blocks;
  };
}

/** How much of a namespace a bench uses, blocks. */
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

/** Stamps the first `span` blocks of the namespace, so that every read can be checked. The number of commands. */
export function prepare(queue: NvmeQueue, span: number, maxTransferBytes: number): Promise<number> {
  return inChunks(queue, span, maxTransferBytes, async (lba, blocks) => {
    const bytes = Buffer.alloc(blocks * queue.namespace.blockSize);
    stamp(bytes, lba, queue.namespace.blockSize);
    await queue.write(lba, bytes);
  });
}

/**
 * Reads the first `span` blocks back. The number of commands.
 * @throws Error where one is not as it was written.
 */
export function checkAll(queue: NvmeQueue, span: number, maxTransferBytes: number): Promise<number> {
  return inChunks(queue, span, maxTransferBytes, async (lba, blocks) => {
    const bytes = await queue.read(lba, blocks);
    if (!isStamped(bytes, lba, queue.namespace.blockSize)) throw wrongAnswer(lba);
  });
}

async function inChunks(
  queue: NvmeQueue,
  span: number,
  maxTransferBytes: number,
  work: (lba: number, blocks: number) => Promise<void>,
): Promise<number> {
  const { blockSize } = queue.namespace;
  const chunk = CHUNK_BYTES / blockSize;
  // A chunk goes out in as many commands as the controller's limit makes it.
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
