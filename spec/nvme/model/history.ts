/**
 * What blocks may hold. Every write that was meant for them is kept, and each block that is written says by which write,
 * so that each that is found can be held against what it may be.
 *
 * A write may show from when it is called until it has ended, in whichever blocks; it has undone each one that had ended
 * before it was called, when it is acknowledged.
 */

/** A write, of data or of zeroes, that was meant for a disk. Times are on the clock of whoever keeps it. */
export interface BlockWrite {
  /** What its blocks are filled from; 0 for zeroes. */
  readonly stamp: number;
  readonly lba: number;
  readonly blocks: number;
  readonly begin: number;
  /** When the device was done with it; Infinity as long as that is not known. */
  end: number;
  isAcknowledged: boolean;
  /** The namespace was replaced while it was under way: it may be on either disk, or in parts on both. */
  isDivided: boolean;
}

/** What a write is by default. */
export const NO_WRITE: BlockWrite = {
  stamp: 0,
  lba: 0,
  blocks: 0,
  begin: 0,
  end: Infinity,
  isAcknowledged: false,
  isDivided: false,
};

/** The device is done with it. */
export function endWrite(write: BlockWrite, isAcknowledged: boolean, now: number): void {
  write.end = now;
  write.isAcknowledged = isAcknowledged && !write.isDivided;
}

export class History {
  readonly blockSize: number;
  readonly writes: BlockWrite[] = [];

  constructor(blockSize: number) {
    this.blockSize = blockSize;
  }

  /** A write is called. */
  begin(stamp: number, lba: number, blocks: number, now: number): BlockWrite {
    const write = { ...NO_WRITE, stamp, lba, blocks, begin: now };
    this.writes.push(write);
    return write;
  }

  /** A write that was meant for another disk may be here, too. */
  share(write: BlockWrite): void {
    write.isDivided = true;
    if (!this.writes.includes(write)) this.writes.push(write);
  }

  /** A write was not sent. */
  forget(write: BlockWrite): void {
    const at = this.writes.indexOf(write);
    if (at >= 0) this.writes.splice(at, 1);
  }

  /** What is wrong with these blocks, which were seen at some time from `from` to `to`; undefined where nothing is. */
  whatIsWrong(lba: number, bytes: Buffer, from: number, to: number): string | undefined {
    const { blockSize } = this;
    const count = bytes.length / blockSize;
    const near = this.writes.filter((write) => overlaps(write, lba, count));
    for (let i = 0; i < count; i++) {
      const block = bytes.subarray(i * blockSize, (i + 1) * blockSize);
      const stamp = stampOf(block, lba + i);
      if (stamp === undefined) return `block ${lba + i} is no write's: ${block.toString('hex', 0, 16)}…`;
      const problem = this.#whyNot(
        lba + i,
        stamp,
        near.filter((write) => overlaps(write, lba + i, 1)),
        from,
        to,
      );
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  #whyNot(lba: number, stamp: number, writes: BlockWrite[], from: number, to: number): string | undefined {
    const candidates = writes.filter((write) => write.stamp === stamp);
    if (stamp === 0) candidates.push(FIRST);
    if (candidates.length === 0) return `block ${lba} has write ${stamp}, which was not meant for it`;
    let undone: BlockWrite | undefined;
    for (const candidate of candidates) {
      if (candidate.begin > to) continue;
      undone = writes.find(
        ({ isAcknowledged, begin, end }) => isAcknowledged && begin > candidate.end && end < from,
      );
      if (undone === undefined) return undefined;
    }
    return `block ${lba} has ${stamp === 0 ? 'zeroes' : `write ${stamp}`} where ${undone === undefined ? 'that was not begun' : `write ${undone.stamp} was acknowledged`}`;
  }

  isUntouched(lba: number, blocks: number): boolean {
    return !this.writes.some((write) => overlaps(write, lba, blocks));
  }
}

/** Zeroes, as it had them from the first. */
const FIRST: BlockWrite = { ...NO_WRITE, blocks: Infinity, begin: -2, end: -2, isAcknowledged: true };

function overlaps(write: BlockWrite, lba: number, blocks: number): boolean {
  return write.lba < lba + blocks && lba < write.lba + write.blocks;
}

/** The bytes of `count` blocks from `lba` on, as the write `stamp` has them. */
export function blocksOf(stamp: number, lba: number, count: number, blockSize: number): Buffer {
  const bytes = Buffer.alloc(count * blockSize);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  const each = blockSize >>> 2;
  for (let i = 0; i < count; i++) fill(words.subarray(i * each, (i + 1) * each), stamp, lba + i);
  return bytes;
}

function fill(words: Uint32Array, stamp: number, lba: number): void {
  words[0] = stamp;
  words[1] = lba;
  words[2] = lba / 2 ** 32;
  let state = (Math.imul(stamp, 0x9e3779b1) ^ Math.imul(lba, 0x85ebca6b)) >>> 0;
  for (let i = 3; i < words.length; i++)
    words[i] = state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
}

/** Which write the block is of, 0 for zeroes; undefined where it is of none, or not whole. */
function stampOf(block: Buffer, lba: number): number | undefined {
  const stamp = block.readUInt32LE(0);
  if (stamp === 0) return isZero(block) ? 0 : undefined;
  return block.equals(blocksOf(stamp, lba, 1, block.length)) ? stamp : undefined;
}

const ZEROES = Buffer.alloc(1 << 20);

export function isZero(bytes: Buffer): boolean {
  return bytes.equals(ZEROES.subarray(0, bytes.length));
}
