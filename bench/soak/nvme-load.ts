/** Blocks are written and read by the NVMe driver, on an emulated controller whose namespace is a file. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from 'vfio-user';
import { NvmeController, type NvmeQueue } from 'vfio-user/nvme';
import { CALL_MS, type Link } from './link.js';
import { Extents, fill } from './model.js';
import type { Random } from './random.js';
import type { Load, Soak } from './soak.js';

const PIECES = 64;
/** Longer than a command: every fourth is split. */
const PIECE_BYTES = 64 << 10;
const BLOCK_BYTES = 512;
const DEPTH = 8;
const PAUSE_MS = 2;
/** A command that is missed is aborted, then the controller reset; the server may have to come back for that. */
const COMMAND_MS = 20_000;

export const NVME_LOAD_BYTES = PIECES * PIECE_BYTES;

export class NvmeLoad implements Load {
  readonly name: string;
  readonly #soak: Soak;
  readonly #link: Link;
  readonly #random: Random;
  readonly #pieces = new Extents(PIECES, PIECE_BYTES, BLOCK_BYTES);
  #device: Device | undefined;
  #controller: NvmeController | undefined;
  #queue: NvmeQueue | undefined;

  constructor(soak: Soak, link: Link) {
    this.name = link.name;
    this.#soak = soak;
    this.#link = link;
    this.#random = soak.random.fork(link.name);
  }

  async run(): Promise<void> {
    for (let device = await this.#link.ready(); device !== undefined; device = await this.#link.ready()) {
      const open = device;
      await this.#soak.attempt(this.name, async () => {
        const queue = await this.#opened(open);
        await this.#several(queue);
      });
      await sleep(PAUSE_MS);
    }
  }

  async verify(): Promise<void> {
    const device = await this.#link.ready();
    if (device === undefined) throw new Error(`${this.name}: the device is not there`);
    const queue = await this.#opened(device);
    for (let index = 0; index < PIECES; index++) await this.#read(queue, index);
  }

  async close(): Promise<void> {
    await this.#soak.attempt(`${this.name}: close`, () => this.#closeController());
    await this.#link.close();
  }

  /** A queue of the controller, which is set up anew where it has failed, or its device has. */
  async #opened(device: Device): Promise<NvmeQueue> {
    const isGone = this.#controller?.state === 'failed' || this.#controller?.state === 'closed';
    if (this.#queue !== undefined && this.#device === device && !isGone) return this.#queue;
    await this.#closeController();
    this.#device = device;
    const options = { timeoutMs: CALL_MS, retries: 3 };
    this.#controller = await this.#soak.call(`${this.name}: open`, COMMAND_MS, () =>
      NvmeController.open(device, options),
    );
    const completion = this.#random.oneIn(4) ? 'poll' : 'interrupt';
    const controller = this.#controller;
    this.#queue = await this.#soak.call(`${this.name}: queue`, COMMAND_MS, () =>
      controller.createQueue({ completion, entries: 32 }),
    );
    return this.#queue;
  }

  async #closeController(): Promise<void> {
    const controller = this.#controller;
    this.#controller = undefined;
    this.#queue = undefined;
    if (controller !== undefined) {
      await this.#soak.watchdog.watch(`${this.name}: close`, COMMAND_MS, controller.close());
    }
  }

  async #several(queue: NvmeQueue): Promise<void> {
    const first = this.#random.between(0, PIECES - DEPTH);
    const results = await Promise.allSettled(
      Array.from({ length: DEPTH }, (_, i) => this.#access(queue, first + i)),
    );
    for (const result of results)
      if (result.status === 'rejected') this.#soak.onError(this.name, result.reason);
    if (this.#random.oneIn(16)) await this.#soak.call(`${this.name}: flush`, COMMAND_MS, () => queue.flush());
  }

  #access(queue: NvmeQueue, index: number): Promise<void> {
    return this.#random.oneIn(2) ? this.#read(queue, index) : this.#write(queue, index);
  }

  async #read(queue: NvmeQueue, index: number): Promise<void> {
    const { blockSize } = queue.namespace;
    const bytes = await this.#soak.call(`${this.name}: read`, COMMAND_MS, () =>
      queue.read((index * PIECE_BYTES) / blockSize, PIECE_BYTES / blockSize),
    );
    this.#pieces.check(index, bytes);
    this.#soak.recorder.verifiedBytes += bytes.byteLength;
  }

  async #write(queue: NvmeQueue, index: number): Promise<void> {
    const seed = this.#random.next() | 1;
    const bytes = Buffer.allocUnsafe(PIECE_BYTES);
    fill(bytes, seed);
    this.#pieces.begin(index, seed);
    await this.#soak.call(`${this.name}: write`, COMMAND_MS, () =>
      queue.write((index * PIECE_BYTES) / queue.namespace.blockSize, bytes),
    );
    this.#pieces.acknowledge(index, seed);
  }
}
