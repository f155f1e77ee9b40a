/** A disk of the model: its blocks, and what they may hold. */
import { MemoryStore, type BlockStore, type EmulatedNamespaceOptions } from '../../../lib/emulator/index.js';
import { blocksOf, History, isZero, NO_WRITE } from './history.js';

export interface DiskOptions {
  serialNumber: string;
  modelNumber: string;
  subsystemNqn: string;
  /** 16 and 32 hexadecimal digits; zeroes for none. */
  eui64: string;
  nguid: string;
  blockSize: number;
  blocks: number;
}

const PIECE_BYTES = 1 << 20;

/** Keeps what is on it when its controller is closed, and can be slow. */
export class SlowStore extends MemoryStore {
  /** The pieces of which something was written. */
  readonly touched = new Set<number>();
  /** How long each of the next accesses takes, in milliseconds. */
  readonly delays: number[] = [];

  override read(offset: number, length: number): Buffer {
    return this.#later(() => Buffer.from(super.read(offset, length))) as Buffer;
  }

  override write(offset: number, data: Uint8Array): void {
    return this.#later(() => this.put(offset, data)) as void;
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
    this.#touch(offset, data.length);
    super.write(offset, data);
  }

  #touch(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / PIECE_BYTES);
    for (let piece = Math.floor(offset / PIECE_BYTES); piece <= last; piece++) this.touched.add(piece);
  }

  #later<T>(access: () => T): T | Promise<T> {
    const delayMs = this.delays.shift();
    if (delayMs === undefined) return access();
    return new Promise<T>((resolve) => setTimeout(() => resolve(access()), delayMs));
  }
}

/** What a controller shows of a disk: it may grow later. */
class Shown implements BlockStore {
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
  readonly modelNumber: string;
  readonly subsystemNqn: string;
  readonly eui64: string;
  readonly nguid: string;
  readonly blockSize: number;
  readonly store: SlowStore;
  /** How many blocks it has shown; more than one number where it has grown. */
  readonly sizes: number[];
  readonly history: History;

  /** `reserve`: it may grow to so many blocks. */
  constructor(options: DiskOptions, reserve = options.blocks) {
    const { serialNumber, modelNumber, subsystemNqn, eui64, nguid, blockSize, blocks } = options;
    this.serialNumber = serialNumber;
    this.modelNumber = modelNumber;
    this.subsystemNqn = subsystemNqn;
    this.eui64 = eui64;
    this.nguid = nguid;
    this.blockSize = blockSize;
    this.sizes = [blocks];
    this.history = new History(blockSize);
    this.store = new SlowStore(Math.max(blocks, reserve) * blockSize);
  }

  get blocks(): number {
    return this.sizes.at(-1)!;
  }

  /** Whether it can be known again. */
  get hasIdentifier(): boolean {
    return !/^0*$/.test(this.eui64 + this.nguid);
  }

  /** What a controller shows of it now. */
  get namespace(): EmulatedNamespaceOptions {
    return { store: new Shown(this), blockSize: this.blockSize, eui64: this.eui64, nguid: this.nguid };
  }

  /** Blocks that were there before anything was written. */
  prefill(lba: number, stamp: number): void {
    this.store.put(lba * this.blockSize, blocksOf(stamp, lba, 1, this.blockSize));
    this.history.writes.push({
      ...NO_WRITE,
      stamp,
      lba,
      blocks: 1,
      begin: -1,
      end: -1,
      isAcknowledged: true,
    });
  }

  /** All of it, now that nothing is under way. */
  check(now: number): string | undefined {
    const { blockSize, store } = this;
    const count = PIECE_BYTES / blockSize;
    const pieces = new Set(store.touched);
    for (const { stamp, lba, blocks } of this.history.writes) {
      if (stamp === 0) continue;
      for (let at = lba; at < lba + blocks; at += count) pieces.add(Math.floor(at / count));
      pieces.add(Math.floor((lba + blocks - 1) / count));
    }
    for (const piece of pieces) {
      const lba = piece * count;
      const bytes = store.look(lba * blockSize, Math.min(PIECE_BYTES, store.size - lba * blockSize));
      const problem = this.history.isUntouched(lba, count)
        ? isZero(bytes)
          ? undefined
          : `blocks ${lba} to ${lba + count - 1} were written by nobody`
        : this.history.whatIsWrong(lba, bytes, now, now);
      if (problem !== undefined) return `disk ${this.name}: ${problem}`;
    }
    return undefined;
  }

  get name(): string {
    return `${this.serialNumber}/${this.eui64}/${this.blockSize}`;
  }
}
