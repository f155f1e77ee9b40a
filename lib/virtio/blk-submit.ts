/**
 * The submit/poll API of a request queue: data in the queue's own buffers, chains composed by number. Nothing is allocated for
 * a request, nothing is awaited, and one notification serves many.
 */
import { notInteger, outOfRange, UINT32_MAX } from '../fields.js';
import type { DmaBuffer } from '../index.js';
import type { BlkDisk } from './blk-disk.js';
import { high, low } from './dma-layout.js';
import type { RequestQueue } from './request-queue.js';
import { UNWRITTEN } from './requests-in-flight.js';
import { SLOT_TAGGED } from './virtqueue.js';

const TWO_32 = 2 ** 32;

/** The memory of the buffers, and where the device finds each. */
export class BlkBuffers {
  readonly count: number;
  readonly bytes: number;
  readonly buffer: DmaBuffer;
  readonly lows: Uint32Array;
  readonly highs: Uint32Array;
  readonly #stride: number;

  constructor(buffer: DmaBuffer, count: number, bytes: number) {
    const stride = BlkBuffers.stride(bytes);
    this.buffer = buffer;
    this.count = count;
    this.bytes = bytes;
    this.#stride = stride;
    this.lows = new Uint32Array(count);
    this.highs = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const address = buffer.iova + BigInt(i * stride);
      this.lows[i] = low(address);
      this.highs[i] = high(address);
    }
  }

  /** From one buffer to the next. */
  static stride(bytes: number): number {
    return Math.ceil(bytes / 4096) * 4096;
  }

  bytesOf(index: number): Buffer {
    return this.buffer.bytes.subarray(index * this.#stride, index * this.#stride + this.bytes);
  }
}

export class BlkSubmitPoll {
  readonly #queue: RequestQueue;
  readonly #disk: BlkDisk;
  readonly #buffers: BlkBuffers | undefined;
  readonly #bufferCount: number;
  readonly #bufferBytes: number;
  readonly #blockSize: number;
  readonly #sectorsPerBlock: number;

  constructor(queue: RequestQueue, disk: BlkDisk, buffers: BlkBuffers | undefined) {
    this.#queue = queue;
    this.#disk = disk;
    this.#buffers = buffers;
    this.#bufferCount = buffers?.count ?? 0;
    this.#bufferBytes = buffers?.bytes ?? 0;
    this.#blockSize = disk.blockSize;
    this.#sectorsPerBlock = disk.sectorsPerBlock;
  }

  /** @throws RangeError. */
  buffer(index: number): Buffer {
    if (this.#buffers === undefined || !this.#isBuffer(index)) throw this.#bufferError(index);
    return this.#buffers.bytesOf(index);
  }

  /** A request with data. False where there is no room. @throws RangeError; what ended the queue. */
  transfer(
    type: number,
    isToDevice: boolean,
    lba: number,
    blocks: number,
    buffer: number,
    tag: number,
  ): boolean {
    const bytes = blocks * this.#blockSize;
    const buffers = this.#buffers;
    if (
      buffers === undefined ||
      !this.#isBuffer(buffer) ||
      !this.#areBlocks(lba, blocks) ||
      bytes > this.#bufferBytes
    ) {
      throw this.#refusal(lba, blocks, buffer);
    }
    if (isToDevice) this.#disk.requireWritable();
    const slot = this.#claim(tag);
    if (slot < 0) return false;
    const queue = this.#queue;
    const { memory, virtqueue } = queue;
    this.#head(slot, type, lba * this.#sectorsPerBlock);
    const count = memory.compose(
      virtqueue.rings,
      slot,
      buffers.lows[buffer]!,
      buffers.highs[buffer]!,
      bytes,
      isToDevice,
    );
    queue.expected[slot] = isToDevice ? 0 : bytes;
    virtqueue.add(slot, count, isToDevice ? 1 : bytes + 1);
    return true;
  }

  /** A request without data. See `transfer`. */
  whole(type: number, tag: number): boolean {
    const slot = this.#claim(tag);
    if (slot < 0) return false;
    const { memory, virtqueue, expected } = this.#queue;
    this.#head(slot, type, 0);
    expected[slot] = 0;
    virtqueue.add(slot, memory.compose(virtqueue.rings, slot, 0, 0, 0, true), 1);
    return true;
  }

  ring(): void {
    this.#queue.virtqueue.ring();
  }

  /** Takes completions. @throws TypeError, RangeError; when nothing is left and the queue has ended, what ended it. */
  poll(max: number): number {
    if (typeof max !== 'number' || max >>> 0 !== max)
      throw notInteger('VirtioBlkQueue.poll: max', max, 0, UINT32_MAX);
    const { virtqueue, commands } = this.#queue;
    const count = virtqueue.poll(max);
    if (count === 0 && !virtqueue.isOpen) commands.throwIfEnded();
    return count;
  }

  /** A slot; less than 0 where there is none. @throws RangeError; what ended the queue. */
  #claim(tag: number): number {
    if (typeof tag !== 'number' || tag >>> 0 !== tag)
      throw outOfRange(`tag must be an integer from 0 to ${UINT32_MAX}, got ${String(tag)}`);
    const slot = this.#queue.virtqueue.slots.claim(SLOT_TAGGED, tag);
    if (slot < 0) this.#queue.commands.throwIfEnded();
    return slot;
  }

  #head(slot: number, type: number, sector: number): void {
    const { memory } = this.#queue;
    const words = memory.headWords;
    const at = memory.headerAt(slot) >>> 2;
    words[at] = type;
    words[at + 1] = 0;
    words[at + 2] = sector >>> 0;
    words[at + 3] = sector < TWO_32 ? 0 : Math.floor(sector / TWO_32);
    memory.heads[memory.tailAt(slot)] = UNWRITTEN;
  }

  #isBuffer(index: number): boolean {
    return typeof index === 'number' && index >>> 0 === index && index < this.#bufferCount;
  }

  #areBlocks(lba: number, blocks: number): boolean {
    return (
      Number.isInteger(lba) &&
      lba >= 0 &&
      Number.isInteger(blocks) &&
      blocks > 0 &&
      lba + blocks <= this.#disk.blocks
    );
  }

  /** The error for what cannot be transferred. */
  #refusal(lba: number, blocks: number, buffer: number): Error {
    if (!this.#areBlocks(lba, blocks)) return this.#disk.rangeError(lba, blocks);
    if (this.#buffers === undefined || !this.#isBuffer(buffer)) return this.#bufferError(buffer);
    return outOfRange(
      `blocks: ${blocks} blocks of ${this.#blockSize} bytes do not fit in a buffer of ${this.#bufferBytes} bytes`,
    );
  }

  #bufferError(index: unknown): Error {
    if (this.#bufferCount === 0)
      return outOfRange('the queue has no buffers: see the option buffers of VirtioBlk.open');
    return outOfRange(`buffer must be an integer from 0 to ${this.#bufferCount - 1}, got ${String(index)}`);
  }
}
