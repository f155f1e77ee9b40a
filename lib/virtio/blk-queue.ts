/** A request queue of a block device as its user has it. */
import type { CallOptions } from '../index.js';
import { NOT_WRITTEN, STATUS_ABORTED } from './virtqueue.js';
import type { BlkDisk } from './blk-disk.js';
import {
  DEFAULT_BUFFER_BYTES,
  type BlkData,
  type BlkRange,
  type BlkTransferOptions,
  type BlkWriteZeroesOptions,
  type VirtioBufferOptions,
} from './blk-options.js';
import { BlkRequests, BlkType } from './blk-requests.js';
import { BlkBuffers, BlkSubmitPoll } from './blk-submit.js';
import type { DriverQueue, DriverSetup } from './driver-setup.js';
import { VirtioStatusError } from './errors.js';
import { BlkFeature } from './features.js';
import { integer } from '../fields.js';
import type { Notifier, NotifierKind } from './notify.js';
import type { RequestMemory } from './request-memory.js';
import { RequestQueue } from './request-queue.js';
import { UNWRITTEN } from './requests-in-flight.js';

const STATUS_NAMES: Readonly<Record<number, string>> = { 0: 'OK', 1: 'IOERR', 2: 'UNSUPP' };

/** The name of a status of a block device: `OK`, `IOERR`, `UNSUPP`; `ABORTED` where a reset has ended the request. */
export function blkStatusName(status: number): string {
  if (status === STATUS_ABORTED) return 'ABORTED';
  return STATUS_NAMES[status] ?? `STATUS_${status}`;
}

/**
 * A request queue of a block device (Virtual I/O Device 1.2, section 5.2.6): by promises, and by submit and poll, which
 * allocates nothing. Both may be used at the same time.
 * @example
 * ```ts
 * const disk = await VirtioBlk.open(device, { buffers: { bytes: 4096 } });
 * const [queue] = disk.queues;
 * queue.submitRead(0, 8, 0, 1);
 * queue.ring();
 * while (queue.poll() === 0);
 * console.log(queue.completedStatus[0], queue.buffer(0));
 * ```
 */
export class VirtioBlkQueue {
  readonly #queue: RequestQueue;
  readonly #requests: BlkRequests;
  readonly #submitPoll: BlkSubmitPoll;
  readonly #buffers: BlkBuffers | undefined;
  readonly #disk: BlkDisk;
  /** Tags of the requests that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status: 0 is success, `blkStatusName` has the rest. */
  readonly completedStatus: Uint16Array;

  /** @internal */
  constructor(queue: RequestQueue, disk: BlkDisk, retries: number, buffers: BlkBuffers | undefined) {
    this.#queue = queue;
    this.#disk = disk;
    this.#buffers = buffers;
    this.#requests = new BlkRequests(queue, disk, retries);
    this.#submitPoll = new BlkSubmitPoll(queue, disk, buffers);
    this.completedTags = queue.virtqueue.completedTags;
    this.completedStatus = queue.virtqueue.completedStatus;
  }

  /** The number of the virtqueue. */
  get index(): number {
    return this.#queue.index;
  }

  /** How many requests may be in flight. */
  get depth(): number {
    return this.#queue.virtqueue.slots.count;
  }

  /** Requests that are not completed, or not reported yet, of both APIs. */
  get inFlight(): number {
    return this.#queue.virtqueue.inFlight;
  }

  /** How the device is told of requests: `mapped` by a store, `message` by a REGION_WRITE. */
  get notification(): NotifierKind {
    return this.#queue.notifierKind ?? 'message';
  }

  /** The buffers of the submit/poll API. */
  get bufferCount(): number {
    return this.#buffers?.count ?? 0;
  }

  /** The length of each, bytes. */
  get bufferBytes(): number {
    return this.#buffers?.bytes ?? 0;
  }

  /** See `VirtioBlk.read`. */
  read(lba: number, blocks: number, options?: CallOptions): Promise<Buffer> {
    return this.#requests.read(lba, blocks, options);
  }

  /** See `VirtioBlk.readInto`. */
  readInto(lba: number, data: BlkData, options?: BlkTransferOptions): Promise<void> {
    return this.#requests.move('readInto', lba, data, options);
  }

  /** See `VirtioBlk.write`. */
  write(lba: number, data: BlkData, options?: BlkTransferOptions): Promise<void> {
    return this.#requests.move('write', lba, data, options);
  }

  /** See `VirtioBlk.flush`. */
  flush(options?: CallOptions): Promise<void> {
    return this.#requests.flush(options);
  }

  /** See `VirtioBlk.discard`. */
  discard(ranges: readonly BlkRange[], options?: CallOptions): Promise<void> {
    return this.#requests.discard(ranges, options);
  }

  /** See `VirtioBlk.writeZeroes`. */
  writeZeroes(lba: number, blocks: number, options?: BlkWriteZeroesOptions): Promise<void> {
    return this.#requests.writeZeroes(lba, blocks, options);
  }

  /** See `VirtioBlk.id`. */
  id(options?: CallOptions): Promise<string> {
    return this.#requests.id(options);
  }

  /** The memory of buffer `index`, 0 to `bufferCount` - 1; empty once the driver is closed. @throws RangeError. */
  buffer(index: number): Buffer {
    return this.#submitPoll.buffer(index);
  }

  /**
   * Puts a read into the queue; the device sees it after `ring`.
   * @param lba - the first block, from 0
   * @param blocks - how many, of no more than `bufferBytes` together
   * @param buffer - the number of the buffer that the data goes to, from its beginning
   * @param tag - what `completedTags` will say, 32 bits
   * @returns false where there is no room until some requests are reported, or while the device is being reset
   * @throws RangeError for what is past the disk's or the buffer's end; VirtioDeviceError, ClosedError when the queue has
   * ended.
   */
  submitRead(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submitPoll.transfer(BlkType.IN, false, lba, blocks, buffer, tag);
  }

  /** Puts a write into the queue; see `submitRead`. @throws UnsupportedError, too, for a disk that is read-only. */
  submitWrite(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submitPoll.transfer(BlkType.OUT, true, lba, blocks, buffer, tag);
  }

  /** Puts a flush into the queue; see `submitRead`. @throws UnsupportedError, too, without FLUSH. */
  submitFlush(tag: number): boolean {
    this.#disk.require(BlkFeature.FLUSH, 'FLUSH');
    return this.#submitPoll.whole(BlkType.FLUSH, tag);
  }

  /** Shows the device everything that was submitted since the last time, and tells it where it wants to be told. */
  ring(): void {
    this.#submitPoll.ring();
  }

  /**
   * Takes completions, at most `max`: their tags and status are in `completedTags` and `completedStatus` until the next
   * call. Does not wait for any.
   * @param max - the most, from 0; default `depth`
   * @returns their number
   * @throws VirtioDeviceError, ClosedError when nothing is left and the queue has ended.
   */
  poll(max: number = this.depth): number {
    return this.#submitPoll.poll(max);
  }
}

/** A request queue, in the device and for the user. */
export class BlkDriverQueue implements DriverQueue {
  readonly user: VirtioBlkQueue;
  readonly #requests: RequestQueue;
  readonly #buffers: BlkBuffers | undefined;

  static async allocate(
    setup: DriverSetup,
    disk: BlkDisk,
    index: number,
    wanted: VirtioBufferOptions | undefined,
  ): Promise<BlkDriverQueue> {
    const requests = await RequestQueue.allocate(setup, {
      index,
      shape: disk.shape,
      readStatus,
      statusError: () => (request, status) =>
        new VirtioStatusError(request.name, status, blkStatusName(status)),
    });
    try {
      const buffers = await makeBuffers(setup, disk, requests.virtqueue.slots.count, wanted);
      return new BlkDriverQueue(setup, disk, requests, buffers);
    } catch (error) {
      await requests.free().catch(() => undefined);
      throw error;
    }
  }

  private constructor(
    setup: DriverSetup,
    disk: BlkDisk,
    requests: RequestQueue,
    buffers: BlkBuffers | undefined,
  ) {
    this.#requests = requests;
    this.#buffers = buffers;
    this.user = new VirtioBlkQueue(requests, disk, setup.settings.retries, buffers);
  }

  get index() {
    return this.#requests.index;
  }

  get size() {
    return this.#requests.size;
  }

  get addresses() {
    return this.#requests.addresses;
  }

  clear(): void {
    this.#requests.clear();
  }

  open(notifier: Notifier): void {
    this.#requests.open(notifier);
  }

  suspend(): void {
    this.#requests.suspend();
  }

  recover(): void {
    this.#requests.recover();
  }

  poll(): void {
    this.#requests.poll();
  }

  drain(): Promise<void> {
    return this.#requests.drain();
  }

  end(error: () => Error): void {
    this.#requests.end(error);
  }

  giveBack(): void {
    this.#requests.giveBack();
  }

  async free(): Promise<void> {
    await this.#requests.free();
    await this.#buffers?.buffer.free();
  }
}

/** The status byte. A request that is used without one, or without all of its data, is none that was carried out. */
function readStatus(memory: RequestMemory, slot: number, usedLength: number, expected: number): number {
  const status = memory.heads[memory.tailAt(slot)]!;
  if (status === UNWRITTEN || (status === 0 && usedLength < expected)) return NOT_WRITTEN;
  return status;
}

async function makeBuffers(
  setup: DriverSetup,
  disk: BlkDisk,
  slots: number,
  wanted: VirtioBufferOptions | undefined,
): Promise<BlkBuffers | undefined> {
  if (wanted === undefined) return undefined;
  const count = wanted.count ?? slots;
  const bytes = integer(
    'buffers.bytes',
    wanted.bytes ?? DEFAULT_BUFFER_BYTES,
    1,
    disk.shape.maxTransferBytes,
  );
  const buffer = await setup.device.dma.alloc(count * BlkBuffers.stride(bytes), { alignment: 4096 });
  return new BlkBuffers(buffer, count, bytes);
}
