/** The buffers of the submit/poll face: DMA memory by number, its PRPs built once. */
import type { Device, DmaBuffer } from '../index.js';
import { PrpLists } from './prp-lists.js';
import { roundUp } from './queue-memory.js';

/** Dwords for each buffer in `pointers`: its first page, its second, its list. */
export const POINTER_SHIFT = 3;

export interface BufferSizes {
  count: number;
  /** The length of each. */
  bytes: number;
  /** Where each begins within a page: a multiple of 4. */
  pageOffset: number;
}

export class IoBuffers {
  readonly count: number;
  readonly bytes: number;
  /** What of each lies on its first page, at most. */
  readonly firstBytes: number;
  /** Eight dwords a buffer: PRP1, PRP2 for two pages, PRP2 for more; low dword first. */
  readonly pointers: Uint32Array;
  readonly buffer: DmaBuffer;
  /** Where the first begins. */
  readonly #begin: number;
  readonly #stride: number;

  static async allocate(device: Device, sizes: BufferSizes & { pageSize: number }): Promise<IoBuffers> {
    const { count, bytes, pageOffset, pageSize } = sizes;
    const prpStride = PrpLists.stride(bytes, pageSize);
    const listBytes = roundUp(count * prpStride, pageSize);
    const size = roundUp(listBytes + pageOffset + count * roundUp(bytes, pageSize), pageSize);
    const buffer = await device.dma.alloc(size, { alignment: pageSize });
    return new IoBuffers(buffer, sizes, prpStride);
  }

  private constructor(
    buffer: DmaBuffer,
    { count, bytes, pageOffset, pageSize }: BufferSizes & { pageSize: number },
    prpStride: number,
  ) {
    this.buffer = buffer;
    this.count = count;
    this.bytes = bytes;
    this.firstBytes = pageSize - pageOffset;
    this.#stride = roundUp(bytes, pageSize);
    this.pointers = new Uint32Array(count << POINTER_SHIFT);
    const listBytes = roundUp(count * prpStride, pageSize);
    const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, listBytes >>> 2);
    const lists = new PrpLists(words, buffer.iova, prpStride, pageSize);
    this.#begin = listBytes + pageOffset;
    const first = buffer.iova + BigInt(this.#begin);
    for (let i = 0; i < count; i++) {
      const address = first + BigInt(i * this.#stride);
      const second = address + BigInt(this.firstBytes);
      lists.contiguous(i, low(address), high(address), bytes);
      const at = i << POINTER_SHIFT;
      this.pointers.set([low(address), high(address), low(second), high(second)], at);
      this.pointers.set(lists.entries.subarray(2), at + 4);
    }
  }

  /** The memory of buffer `index`. */
  bytesOf(index: number): Buffer {
    const at = this.#begin + index * this.#stride;
    return this.buffer.bytes.subarray(at, at + this.bytes);
  }
}

function low(address: bigint): number {
  return Number(BigInt.asUintN(32, address));
}

function high(address: bigint): number {
  return Number(address >> 32n);
}
