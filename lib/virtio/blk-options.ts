/** What can be said about a block device and its requests. */
import type { CallOptions, DmaBuffer } from '../index.js';
import * as option from '../options.js';
import { VIRTIO_CHECKS, type VirtioOptions } from './driver-options.js';

/** The options of `VirtioBlk.open`. */
export interface VirtioBlkOptions extends VirtioOptions {
  /** How many request queues to use, 1 to 1,024; the device may have fewer. Default 1. */
  queues?: number | undefined;
  /**
   * The longest transfer of one request, 4,096 bytes to 4 MiB; longer ones are split. Default 256 KiB. The device's own limits
   * (`size_max`, `seg_max`) hold in any case.
   */
  maxTransferBytes?: number | undefined;
  /** Buffers for the submit/poll API, of each queue. Without them it can submit no request that transfers data. */
  buffers?: VirtioBufferOptions | undefined;
}

/** The buffers of a queue's submit/poll API: DMA memory of one length each. */
export interface VirtioBufferOptions {
  /** How many, 1 to 65,535. Default: as many as requests can be in flight. */
  count?: number | undefined;
  /** The length of each in bytes, 1 to `maxTransferBytes`. Default 4,096. */
  bytes?: number | undefined;
}

/** Blocks `[lba, lba + blocks)` of a disk. */
export interface BlkRange {
  /** The first block, from 0. */
  lba: number;
  /** How many blocks. */
  blocks: number;
}

/** Where the data of a transfer is: memory of this process, which goes through the queue's own, or DMA memory. */
export type BlkData = Uint8Array | DmaBuffer;

/** The options of `readInto` and `write`. */
export interface BlkTransferOptions extends CallOptions {
  /** Where the data begins in the buffer or array, bytes. Default 0. */
  offset?: number | undefined;
  /** How many blocks. Default: as many as there is data, or room, for. */
  blocks?: number | undefined;
}

/** The options of `writeZeroes`. */
export interface BlkWriteZeroesOptions extends CallOptions {
  /** The device may unmap the blocks. Default false. */
  unmap?: boolean | undefined;
}

const MOST_TRANSFER = 4 << 20;
const LEAST_TRANSFER = 4096;
const BUFFER_OPTIONS = new option.OptionTable<VirtioBufferOptions>({
  count: option.wholeNumber(1, 0xffff),
  bytes: option.wholeNumber(1, MOST_TRANSFER),
});
export const BLK_OPTIONS = new option.OptionTable<VirtioBlkOptions>({
  ...VIRTIO_CHECKS,
  queues: option.wholeNumber(1, 1024),
  maxTransferBytes: option.wholeNumber(LEAST_TRANSFER, MOST_TRANSFER),
  buffers: option.options(BUFFER_OPTIONS),
});
export const TRANSFER_OPTIONS = new option.OptionTable<BlkTransferOptions>({
  ...option.CALL_CHECKS,
  offset: option.wholeNumber(),
  blocks: option.wholeNumber(1),
});
export const WRITE_ZEROES_OPTIONS = new option.OptionTable<BlkWriteZeroesOptions>({
  ...option.CALL_CHECKS,
  unmap: option.boolean,
});
export const DEFAULT_MAX_TRANSFER = 256 << 10;
export const DEFAULT_BUFFER_BYTES = 4096;
