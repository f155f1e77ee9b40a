/** The buffers of the submit/poll face: DMA memory by number, its PRPs built once. */
import type { Device, DmaBuffer } from '../index.js';
import { PrpLists } from './prp-lists.js';
import { roundUp } from './queue-memory.js';

/** Dwords for each buffer in `pointers`: its first page, its second, its list. */
export const POINTER_SHIFT = 3;

export class IoBuffers {
  readonly count: number;
  /** The length of each. */
  readonly bytes: number;
  /** Eight dwords a buffer: PRP1, PRP2 for two pages, PRP2 for more; low dword first. */
  readonly pointers: Uint32Array;
  readonly buffer: DmaBuffer;
  readonly #stride: number;

  static async allocate(
    device: Device,
    { count, bytes, pageSize }: { count: number; bytes: number; pageSize: number },
  ): Promise<IoBuffers> {
    const prpStride = PrpLists.stride(bytes, pageSize);
    const listBytes = roundUp(count * prpStride, pageSize);
    const size = listBytes + count * roundUp(bytes, pageSize);
    const buffer = await device.dma.alloc(size, { alignment: pageSize });
    return new IoBuffers(buffer, count, bytes, pageSize, prpStride);
  }

  private constructor(buffer: DmaBuffer, count: number, bytes: number, pageSize: number, prpStride: number) {
    this.buffer = buffer;
    this.count = count;
    this.bytes = bytes;
    this.#stride = roundUp(bytes, pageSize);
    this.pointers = new Uint32Array(count << POINTER_SHIFT);
    const listBytes = roundUp(count * prpStride, pageSize);
    const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, listBytes >>> 2);
    const lists = new PrpLists(words, buffer.iova, prpStride, pageSize);
    const first = buffer.iova + BigInt(listBytes);
    for (let i = 0; i < count; i++) {
      const address = first + BigInt(i * this.#stride);
      const second = address + BigInt(pageSize);
      lists.contiguous(i, low(address), high(address), bytes);
      const at = i << POINTER_SHIFT;
      this.pointers.set([low(address), high(address), low(second), high(second)], at);
      this.pointers.set(lists.entries.subarray(2), at + 4);
    }
  }

  /** The memory of buffer `index`. */
  bytesOf(index: number): Buffer {
    const at = this.buffer.size - (this.count - index) * this.#stride;
    return this.buffer.bytes.subarray(at, at + this.bytes);
  }
}

function low(address: bigint): number {
  return Number(BigInt.asUintN(32, address));
}

function high(address: bigint): number {
  return Number(address >> 32n);
}
