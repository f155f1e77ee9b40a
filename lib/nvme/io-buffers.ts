/** The buffers of the submit/poll API: DMA memory by number, its PRPs built once. */
import type { Device, DmaBuffer } from '../index.js';
import { PrpLists } from './data-pointers.js';
import { roundUp } from '../commands/driver-memory.js';

/** Dwords for each buffer in `pointers`, as a power of two. */
export const POINTER_SHIFT = 3;
/** Where among them what a command has as PRP2 is: the second page, the list, the list that begins an entry later. */
const SECOND_PAGE = 2;
const LIST = 4;
const LATER_LIST = 6;

export interface BufferSizes {
  count: number;
  /** The length of each. */
  bytes: number;
  /** Where each begins within a page: a multiple of 4. */
  pageOffset: number;
}

interface Memory {
  pageSize: number;
  /** Each buffer is named by its address and a length. */
  usesSgls: boolean;
}

interface Layout extends BufferSizes, Memory {
  /** From one buffer to the next. */
  stride: number;
  /** From one list to the next. */
  listStride: number;
  /** None where there are SGLs; two where the lists are chained: what is shorter may need the other. */
  listsEach: 0 | 1 | 2;
  /** All lists, which stand before the buffers. */
  listBytes: number;
}

export class IoBuffers {
  readonly count: number;
  /** The length of each. */
  readonly bytes: number;
  /** What of each lies on its first page, at most. */
  readonly firstBytes: number;
  /** Eight dwords a buffer, low dword first: PRP1, then PRP2 for two pages, for more, and for more with the later list. */
  readonly pointers: Uint32Array;
  readonly buffer: DmaBuffer;
  readonly usesSgls: boolean;
  readonly #pageSize: number;
  readonly #isChained: boolean;
  /** Where the first begins. */
  readonly #begin: number;
  readonly #stride: number;

  static async allocate(device: Device, sizes: BufferSizes & Memory): Promise<IoBuffers> {
    const { count, bytes, pageOffset, pageSize, usesSgls } = sizes;
    const stride = roundUp(bytes, pageSize);
    const listStride = PrpLists.stride(bytes, pageSize);
    const listsEach = usesSgls ? 0 : PrpLists.isChained(bytes, pageSize) ? 2 : 1;
    const listBytes = roundUp(count * listsEach * listStride, pageSize);
    const size = roundUp(listBytes + pageOffset + count * stride, pageSize);
    const buffer = await device.dma.alloc(size, { alignment: pageSize });
    return new IoBuffers(buffer, { ...sizes, stride, listStride, listsEach, listBytes });
  }

  private constructor(buffer: DmaBuffer, layout: Layout) {
    const { count, bytes, pageOffset, pageSize, stride, listStride, listsEach, listBytes } = layout;
    this.buffer = buffer;
    this.usesSgls = layout.usesSgls;
    this.count = count;
    this.bytes = bytes;
    this.firstBytes = pageSize - pageOffset;
    this.pointers = new Uint32Array(count << POINTER_SHIFT);
    this.#pageSize = pageSize;
    this.#isChained = listsEach === 2;
    this.#begin = listBytes + pageOffset;
    this.#stride = stride;
    const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, listBytes >>> 2);
    const lists = new PrpLists(words, buffer.iova, listStride, pageSize);
    const first = buffer.iova + BigInt(this.#begin);
    for (let i = 0; i < count; i++) {
      const address = first + BigInt(i * stride);
      const second = address + BigInt(this.firstBytes);
      const at = i << POINTER_SHIFT;
      this.pointers.set([low(address), high(address), low(second), high(second)], at);
      for (let list = 0; list < listsEach; list++) {
        lists.contiguous(i * listsEach + list, low(address), high(address), bytes, list);
        this.pointers.set(lists.entries.subarray(2), at + (list === 0 ? LIST : LATER_LIST));
      }
    }
  }

  /** Where among a buffer's `pointers` PRP2 is, for its first `bytes`, which are more than `firstBytes`. */
  secondPointer(bytes: number): number {
    const rest = bytes - this.firstBytes;
    if (rest <= this.#pageSize) return SECOND_PAGE;
    if (!this.#isChained) return LIST;
    const entries = Math.ceil(rest / this.#pageSize);
    return PrpLists.endsAtPointer(entries, this.#pageSize) ? LATER_LIST : LIST;
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
