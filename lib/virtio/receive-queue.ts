/**
 * A queue of buffers that the device fills when it likes: events, frames. Each slot has a buffer of its own, which is the device's
 * until it comes back, and again when what it holds was taken.
 */
import { freeAll } from '../commands/driver-memory.js';
import { SLOT_OWNED } from '../commands/command-slots.js';
import type { DmaBuffer } from '../index.js';
import { DESC_WRITE } from './constants.js';
import { DmaLayout, high, low } from './dma-layout.js';
import type { DriverQueue, DriverSetup } from './driver-setup.js';
import { VirtioDeviceError } from './errors.js';
import type { Notifier } from './notify.js';
import { reserveRing, ringOptions } from './request-queue.js';
import { slotsOf, type Ring, type RingAddresses } from './ring.js';
import { NOT_WRITTEN, Virtqueue } from './virtqueue.js';

/** How often it is looked at where there are no interrupts. */
const LOOK_MS = 20;

export interface ReceiveQueueOptions {
  readonly index: number;
  /** The length of each buffer, and the fewest bytes that may come. */
  readonly bytes: number;
  readonly least: number;
  /** The most buffers. */
  readonly count: number;
  /**
   * What came, valid until it returns. False keeps the buffer from the device, and what came for later: it is offered again by
   * `resume`.
   */
  readonly onReceived: (bytes: Buffer) => boolean;
}

export class ReceiveQueue implements DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly #virtqueue: Virtqueue;
  readonly #options: ReceiveQueueOptions;
  readonly #setup: DriverSetup;
  readonly #buffer: DmaBuffer;
  readonly #at: number;
  readonly #stride: number;
  readonly #stopWatching: () => void;
  /** What came and was not taken yet, in order; its slots are not the device's. */
  readonly #kept: { slot: number; length: number }[] = [];
  /** Whether the slot's buffer is the device's: what it says of another one is a lie. */
  readonly #isLent: Uint8Array;
  #timer: NodeJS.Timeout | undefined;
  #isEnded = false;

  /** @throws VirtioDeviceError for a queue that is not there; what `device.dma.alloc` throws. */
  static async allocate(setup: DriverSetup, options: ReceiveQueueOptions): Promise<ReceiveQueue> {
    const ring = await ringOptions(setup, options.index, 1);
    const layout = new DmaLayout();
    const makeRing = reserveRing(setup, layout, ring);
    const count = Math.min(slotsOf(ring), options.count);
    const stride = Math.ceil(options.bytes / 64) * 64;
    const at = layout.take(count * stride, 4096);
    const buffer = await setup.device.dma.alloc(layout.size, { alignment: 4096 });
    return new ReceiveQueue(setup, options, makeRing(buffer), ring.size, { buffer, at, stride, count });
  }

  private constructor(
    setup: DriverSetup,
    options: ReceiveQueueOptions,
    ring: Ring,
    size: number,
    memory: { buffer: DmaBuffer; at: number; stride: number; count: number },
  ) {
    const { least, index } = options;
    const { settings, host } = setup;
    const isLent = new Uint8Array(memory.count);
    const virtqueue = new Virtqueue(index, ring, memory.count, settings.isPolled, (slot, usedLength) =>
      isLent[slot] === 0 || usedLength < least ? NOT_WRITTEN : 0,
    );
    virtqueue.onViolation = (error) => host.fail(error);
    virtqueue.onCompletion = (slot, _status, length) => this.#onCompletion(slot, length);
    virtqueue.pollAgain = () => this.poll();
    this.index = index;
    this.size = size;
    this.#virtqueue = virtqueue;
    this.#isLent = isLent;
    this.#options = options;
    this.#setup = setup;
    this.#buffer = memory.buffer;
    this.#at = memory.at;
    this.#stride = memory.stride;
    this.#stopWatching = memory.buffer.onRelease((reason) => host.onMemoryLost(reason));
  }

  get addresses(): RingAddresses {
    return this.#virtqueue.rings.addresses;
  }

  clear(): void {
    this.#virtqueue.clear();
  }

  open(notifier: Notifier): void {
    const { slots } = this.#virtqueue;
    this.#virtqueue.open(notifier);
    for (let slot = slots.claim(SLOT_OWNED, 0); slot >= 0; slot = slots.claim(SLOT_OWNED, 0))
      this.#give(slot);
    this.#virtqueue.ring();
    if (!this.#setup.settings.isPolled) {
      // What came before the device could see that it is to interrupt.
      queueMicrotask(() => this.poll());
    } else this.#timer ??= setInterval(() => this.poll(), LOOK_MS).unref();
  }

  suspend(): void {
    this.#virtqueue.close();
  }

  /** What was not taken yet is lost, as what the device had is. */
  recover(): void {
    this.#kept.length = 0;
    this.#isLent.fill(0);
    this.#virtqueue.abandon();
  }

  poll(): void {
    if (this.#isEnded) return;
    try {
      this.#virtqueue.pollOwned();
      this.#virtqueue.ring();
    } catch (error) {
      this.#setup.host.fail(error);
    }
  }

  /** Offers what was kept, and gives buffers back to the device. */
  resume(): void {
    if (this.#isEnded) return;
    for (let next = this.#kept[0]; next !== undefined; next = this.#kept[0]) {
      if (!this.#options.onReceived(this.#bytesOf(next.slot, next.length))) break;
      this.#kept.shift();
      if (this.#virtqueue.isOpen) this.#give(next.slot);
    }
    this.#virtqueue.ring();
  }

  async drain(): Promise<void> {}

  end(): void {
    this.#isEnded = true;
    clearInterval(this.#timer);
    this.#kept.length = 0;
    this.#virtqueue.end();
  }

  giveBack(): void {}

  async free(): Promise<void> {
    this.end();
    this.#stopWatching();
    await freeAll([this.#buffer]);
  }

  #onCompletion(released: number, length: number): void {
    const { slots } = this.#virtqueue;
    this.#isLent[released] = 0;
    // The last one that was released is the first one that is claimed.
    const slot = slots.isOpen ? slots.claim(SLOT_OWNED, 0) : -1;
    if (slot < 0) return;
    if (slot !== released)
      throw new VirtioDeviceError(`queue ${this.index}: slot ${released} was given away`);
    if (this.#kept.length > 0 || !this.#options.onReceived(this.#bytesOf(slot, length)))
      this.#kept.push({ slot, length });
    else this.#give(slot);
  }

  #bytesOf(slot: number, length: number): Buffer {
    const at = this.#at + slot * this.#stride;
    return this.#buffer.bytes.subarray(at, at + Math.min(length, this.#options.bytes));
  }

  /** The slot's buffer is the device's. */
  #give(slot: number): void {
    const { bytes } = this.#options;
    const { chains } = this.#virtqueue.rings;
    const at = this.#virtqueue.rings.chainAt(slot);
    const address = this.#buffer.iova + BigInt(this.#at + slot * this.#stride);
    chains[at] = low(address);
    chains[at + 1] = high(address);
    chains[at + 2] = bytes;
    chains[at + 3] = DESC_WRITE;
    this.#isLent[slot] = 1;
    this.#virtqueue.add(slot, 1, bytes);
  }
}
