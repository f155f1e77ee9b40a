/**
 * The memory of one queue pair, in one DMA buffer: a controller may want each ring in one mapping.
 *
 * ```
 *   submission ring │ completion ring │ PRP lists, one a slot      (each from the beginning of a page)
 * ```
 */
import { roundUp } from '../commands/driver-memory.js';
import type { Device, DmaBuffer } from '../index.js';
import { PrpLists } from './data-pointers.js';

export const SQE_BYTES = 64;
export const CQE_BYTES = 16;

export interface QueueMemoryOptions {
  entries: number;
  slots: number;
  pageSize: number;
  /** The longest transfer of one command. */
  maxTransferBytes: number;
}

export class QueueMemory {
  readonly buffer: DmaBuffer;
  readonly sq: Uint32Array;
  readonly cq: Uint32Array;
  readonly sqAddress: bigint;
  readonly cqAddress: bigint;
  readonly prps: PrpLists;

  /** @throws what `device.dma.alloc` throws. */
  static async allocate(device: Device, options: QueueMemoryOptions): Promise<QueueMemory> {
    const { size } = layout(options);
    return new QueueMemory(await device.dma.alloc(size, { alignment: options.pageSize }), options);
  }

  private constructor(buffer: DmaBuffer, options: QueueMemoryOptions) {
    const { cqAt, prpsAt, prpStride } = layout(options);
    const { entries, slots, pageSize } = options;
    const { iova } = buffer;
    const words = (at: number, bytes: number) =>
      new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset + at, bytes >>> 2);
    this.buffer = buffer;
    this.sq = words(0, entries * SQE_BYTES);
    this.cq = words(cqAt, entries * CQE_BYTES);
    this.sqAddress = iova;
    this.cqAddress = iova + BigInt(cqAt);
    this.prps = new PrpLists(words(prpsAt, slots * prpStride), iova + BigInt(prpsAt), prpStride, pageSize);
  }
}

function layout({ entries, slots, pageSize, maxTransferBytes }: QueueMemoryOptions) {
  const prpStride = PrpLists.stride(maxTransferBytes, pageSize);
  const cqAt = roundUp(entries * SQE_BYTES, pageSize);
  const prpsAt = cqAt + roundUp(entries * CQE_BYTES, pageSize);
  return { cqAt, prpsAt, prpStride, size: prpsAt + roundUp(slots * prpStride, pageSize) };
}
