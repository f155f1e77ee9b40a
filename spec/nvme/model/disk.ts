/** A disk of the model: its blocks, and what they may hold. */
import { MemoryStore, type BlockStore } from '../../../lib/emulator/index.js';
import { blocksOf, History, isZero } from './history.js';

export interface DiskOptions {
  serialNumber: string;
  eui64: string;
  blockSize: number;
  blocks: number;
}

/** Keeps what is on it when its controller is closed, and can be slow. */
export class SlowStore extends MemoryStore {
  /** How long each of the next accesses takes, in milliseconds. */
  readonly delays: number[] = [];

  override read(offset: number, length: number): Buffer {
    return this.#later(() => Buffer.from(super.read(offset, length))) as Buffer;
  }

  override write(offset: number, data: Uint8Array): void {
    return this.#later(() => super.write(offset, data)) as void;
  }

  override clear(offset: number, length: number): void {
    return this.#later(() => super.clear(offset, length)) as void;
  }

  override close(): void {}

  /** What is there now. */
  look(offset: number, length: number): Buffer {
    return super.read(offset, length);
  }

  put(offset: number, data: Uint8Array): void {
    super.write(offset, data);
  }

  #later<T>(access: () => T): T | Promise<T> {
    const delayMs = this.delays.shift();
    if (delayMs === undefined) return access();
    return new Promise<T>((resolve) => setTimeout(() => resolve(access()), delayMs));
  }
}

/** What a controller shows of a disk: it may grow later. */
export class Shown implements BlockStore {
  readonly size: number;
  readonly #store: BlockStore;

  constructor({ store, blocks, blockSize }: Disk) {
    this.size = blocks * blockSize;
    this.#store = store;
  }

  read(offset: number, length: number) {
    return this.#store.read(offset, length);
  }

  write(offset: number, data: Uint8Array) {
    return this.#store.write(offset, data);
  }

  clear(offset: number, length: number) {
    return this.#store.clear(offset, length);
  }

  flush(): void {}

  close(): void {}
}

export class Disk {
  readonly serialNumber: string;
  readonly eui64: string;
  readonly blockSize: number;
  readonly store: SlowStore;
  /** How many blocks it has shown; more than one number where it has grown. */
  readonly sizes: number[];
  readonly history: History;

  /** `reserve`: it may grow to so many blocks. */
  constructor({ serialNumber, eui64, blockSize, blocks }: DiskOptions, reserve = blocks) {
    this.serialNumber = serialNumber;
    this.eui64 = eui64;
    this.blockSize = blockSize;
    this.sizes = [blocks];
    this.history = new History(blockSize);
    this.store = new SlowStore(Math.max(blocks, reserve) * blockSize);
  }

  get blocks(): number {
    return this.sizes.at(-1)!;
  }

  /** Blocks that were there before anything was written. */
  prefill(lba: number, stamp: number): void {
    this.store.put(lba * this.blockSize, blocksOf(stamp, lba, 1, this.blockSize));
    this.history.writes.push({ stamp, lba, blocks: 1, begin: -1, end: -1, isAcknowledged: true });
  }

  /** All of it, now that nothing is under way. */
  check(now: number): string | undefined {
    const { blockSize, store } = this;
    const step = Math.floor((1 << 20) / blockSize);
    const total = store.size / blockSize;
    for (let lba = 0; lba < total; lba += step) {
      const count = Math.min(step, total - lba);
      const bytes = store.look(lba * blockSize, count * blockSize);
      const problem = this.history.isUntouched(lba, count)
        ? isZero(bytes)
          ? undefined
          : `blocks ${lba} to ${lba + count - 1} were written by nobody`
        : this.history.whatIsWrong(lba, bytes, now, now);
      if (problem !== undefined) return `disk ${this.serialNumber}/${this.eui64}/${blockSize}: ${problem}`;
    }
    return undefined;
  }
}
