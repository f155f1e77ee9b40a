/** Register reads and writes, alone and many at once, blocking and posted; and long transfers, which are split. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device, Region } from 'vfio-user';
import { CALL_MS, type Link } from './link.js';
import { Extents, Words, fill } from './model.js';
import type { Random } from './random.js';
import type { Load, Soak } from './soak.js';

/** BAR2: words first, then pieces. */
const WORDS = 4_096;
const PIECES = 6;
const PIECE_BYTES = 256 << 10;
const PAGE = 4_096;
const SYNC_MS = 500;
const PAUSE_MS = 2;

export const REGISTER_LOAD_BYTES = 2 << 20;

export class RegisterLoad implements Load {
  readonly name: string;
  readonly #soak: Soak;
  readonly #link: Link;
  readonly #random: Random;
  readonly #words = new Words(WORDS);
  readonly #pieces = new Extents(PIECES, PIECE_BYTES, PAGE);
  readonly #canBlock: boolean;

  constructor(soak: Soak, link: Link, canBlock: boolean) {
    this.name = link.name;
    this.#soak = soak;
    this.#link = link;
    this.#random = soak.random.fork(link.name);
    this.#canBlock = canBlock;
  }

  async run(): Promise<void> {
    for (let device = await this.#link.ready(); device !== undefined; device = await this.#link.ready()) {
      const bar = device.bar(2);
      const dice = this.#random.between(0, 99);
      const open = device;
      await this.#soak.attempt(this.name, async () => {
        if (dice < 55) await this.#several(bar);
        else if (dice < 75) await this.#oneByOne(bar);
        else if (dice < 85 && this.#canBlock) this.#blocking(bar);
        else if (dice < 92) await this.#posted(open, bar);
        else await this.#long(bar);
      });
      await sleep(PAUSE_MS);
    }
  }

  async verify(): Promise<void> {
    const device = await this.#link.ready();
    if (device === undefined) throw new Error(`${this.name}: the device is not there`);
    const bar = device.bar(2);
    for (let index = 0; index < WORDS; index++) {
      this.#words.check(index, await bar.readUInt32(index * 4));
    }
    for (let index = 0; index < PIECES; index++) await this.#readPiece(bar, index);
  }

  close(): Promise<void> {
    return this.#link.close();
  }

  /** Accesses of one kind each to words that have nothing else under way. */
  async #several(bar: Region): Promise<void> {
    const count = this.#random.between(2, 48);
    const first = this.#random.between(0, WORDS - count);
    const results = await Promise.allSettled(
      Array.from({ length: count }, (_, i) => this.#access(bar, first + i)),
    );
    for (const result of results)
      if (result.status === 'rejected') this.#soak.onError(this.name, result.reason);
  }

  async #oneByOne(bar: Region): Promise<void> {
    for (let i = 0; i < 8; i++) await this.#access(bar, this.#random.between(0, WORDS - 1));
  }

  async #access(bar: Region, index: number): Promise<void> {
    if (this.#random.oneIn(2)) {
      const value = await this.#soak.call(`${this.name}: read`, CALL_MS, () => bar.readUInt32(index * 4));
      this.#check(index, value);
    } else {
      const value = this.#random.next();
      this.#words.begin(index, value);
      await this.#soak.call(`${this.name}: write`, CALL_MS, () => bar.writeUInt32(index * 4, value));
      this.#words.acknowledge(index, value);
    }
  }

  #blocking(bar: Region): void {
    const options = { timeoutMs: SYNC_MS };
    for (let i = 0; i < 8; i++) {
      const index = this.#random.between(0, WORDS - 1);
      const value = this.#random.next();
      this.#words.begin(index, value);
      this.#soak.callSync(`${this.name}: write, blocking`, SYNC_MS, () =>
        bar.writeUInt32Sync(index * 4, value, options),
      );
      this.#words.acknowledge(index, value);
      const found = this.#soak.callSync(`${this.name}: read, blocking`, SYNC_MS, () =>
        bar.readUInt32Sync(index * 4, options),
      );
      this.#check(index, found);
    }
  }

  /** Posted writes, which a fence acknowledges where it reports none that failed. */
  async #posted(device: Device, bar: Region): Promise<void> {
    const first = this.#random.between(0, WORDS - 16);
    const values = Array.from({ length: 16 }, () => this.#random.next());
    const { losses } = this.#link;
    for (const [i, value] of values.entries()) {
      this.#words.begin(first + i, value);
      bar.postUInt32((first + i) * 4, value);
    }
    const failed = await this.#soak.call(`${this.name}: posted, fence`, CALL_MS, () => device.fence());
    // One that the server dropped without a word has not happened, and none says which: they are only possible.
    if (failed > 0 || losses !== this.#link.losses) return;
    for (const i of values.keys()) {
      this.#check(first + i, await bar.readUInt32((first + i) * 4));
    }
  }

  async #long(bar: Region): Promise<void> {
    const index = this.#random.between(0, PIECES - 1);
    if (this.#random.oneIn(2)) {
      await this.#readPiece(bar, index);
      return;
    }
    const seed = this.#random.next() | 1;
    const bytes = Buffer.allocUnsafe(PIECE_BYTES);
    fill(bytes, seed);
    this.#pieces.begin(index, seed);
    await this.#soak.call(`${this.name}: long write`, CALL_MS, () => bar.write(pieceAt(index), bytes));
    this.#pieces.acknowledge(index, seed);
  }

  async #readPiece(bar: Region, index: number): Promise<void> {
    const bytes = await this.#soak.call(`${this.name}: long read`, CALL_MS, () =>
      bar.read(pieceAt(index), PIECE_BYTES),
    );
    this.#pieces.check(index, bytes);
    this.#soak.recorder.verifiedBytes += bytes.byteLength;
  }

  #check(index: number, value: number): void {
    this.#words.check(index, value);
    this.#soak.recorder.verifiedBytes += 4;
  }
}

function pieceAt(index: number): number {
  return WORDS * 4 + index * PIECE_BYTES;
}
