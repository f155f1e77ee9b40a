/** What can be said about a SCSI host and its commands. */
import type { CallOptions } from '../index.js';
import * as option from '../options.js';
import { wrongType } from '../fields.js';
import type { BlkData } from './blk-options.js';
import { VIRTIO_CHECKS, type VirtioOptions } from './driver-options.js';

/** The options of `VirtioScsi.open`. */
export interface VirtioScsiOptions extends VirtioOptions {
  /** How many request queues to use, 1 to 1,024, in turn; the device may have fewer. Default 1. */
  queues?: number | undefined;
  /** The longest transfer of one command, 4,096 bytes to 4 MiB; longer ones are split. Default 256 KiB. */
  maxTransferBytes?: number | undefined;
}

/** A command of the caller's: see `VirtioScsi.command`. */
export interface ScsiCommand extends CallOptions {
  /** The target, 0 to 255. */
  target: number;
  /** The logical unit, 0 to 16,383. Default 0. */
  lun?: number | undefined;
  /** The command descriptor block. */
  cdb: Uint8Array;
  /** How many bytes the device may answer. Not with `dataOut`. */
  dataIn?: number | undefined;
  /** What the device reads. */
  dataOut?: Uint8Array | undefined;
  /** How often it is sent again where a reset of the device interrupted it: it may have been carried out. Default 0. */
  retries?: number | undefined;
}

/** What a command was answered. */
export interface ScsiResult {
  /** As many bytes as came, of `dataIn`. */
  readonly data: Buffer;
  /** Bytes of the data that were not transferred. */
  readonly residual: number;
}

/** The options of `ScsiUnit.readInto` and `write`. */
export interface ScsiTransferOptions extends CallOptions {
  /** Where the data begins in the buffer or array, bytes. Default 0. */
  offset?: number | undefined;
  /** How many blocks. Default: as many as there is data, or room, for. */
  blocks?: number | undefined;
}

/** Where the data of a transfer is: memory of this process, which goes through the queue's own, or DMA memory. */
export type ScsiData = BlkData;

const MOST_TRANSFER = 4 << 20;
const LEAST_TRANSFER = 4096;
export const MOST_LUN = 0x3fff;
export const DEFAULT_SCSI_TRANSFER = 256 << 10;

export const SCSI_OPTIONS = new option.OptionTable<VirtioScsiOptions>({
  ...VIRTIO_CHECKS,
  queues: option.wholeNumber(1, 1024),
  maxTransferBytes: option.wholeNumber(LEAST_TRANSFER, MOST_TRANSFER),
});
const uint8Array: option.Check = (value, caller, name) =>
  value instanceof Uint8Array
    ? undefined
    : wrongType(`${caller}: ${name}`, 'a Buffer or a Uint8Array', value);
export const COMMAND_OPTIONS = new option.OptionTable<ScsiCommand>(
  {
    ...option.CALL_CHECKS,
    target: option.wholeNumber(0, 255),
    lun: option.wholeNumber(0, MOST_LUN),
    cdb: uint8Array,
    dataIn: option.wholeNumber(0, MOST_TRANSFER),
    dataOut: uint8Array,
    retries: option.wholeNumber(0, 100),
  },
  ['target', 'cdb'],
);
export const SCSI_TRANSFER_OPTIONS = new option.OptionTable<ScsiTransferOptions>({
  ...option.CALL_CHECKS,
  offset: option.wholeNumber(),
  blocks: option.wholeNumber(1),
});
