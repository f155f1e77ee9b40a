/** The options of commands for blocks, and their checks. */
import { wrongType } from '../fields.js';
import type { CallOptions } from '../index.js';
import * as option from '../options.js';
import { NvmeNamespace } from './namespace.js';

/** What every command of an I/O queue takes: a deadline and a signal for the whole call, and the namespace. */
export interface IoOptions extends CallOptions {
  /** Another namespace of the same controller than the queue's own. */
  namespace?: NvmeNamespace | undefined;
}

/** The options of a read, write or compare. */
export interface TransferOptions extends IoOptions {
  /** FUA: the data is on the medium when the command completes. Default false. */
  forceUnitAccess?: boolean | undefined;
  /** Where the data begins in the buffer or array, bytes; in a DMA buffer a multiple of 4. Default 0. */
  offset?: number | undefined;
}

/** The options of `NvmeQueue.writeZeroes`. */
export interface WriteZeroesOptions extends IoOptions {
  /** FUA: the zeroes are on the medium when the command completes. Default false. */
  forceUnitAccess?: boolean | undefined;
  /** DEAC: the controller may deallocate the blocks. Default false. */
  deallocate?: boolean | undefined;
}

const IO_CHECKS = {
  ...option.CALL_CHECKS,
  // `BlockCommands` checks that it is of the same controller.
  namespace: (value: unknown, caller: string, name: string) =>
    value instanceof NvmeNamespace
      ? undefined
      : wrongType(`${caller}: ${name}`, 'an NvmeNamespace, from NvmeController.namespace', value),
} as const;

export const IO_OPTIONS = new option.OptionTable<IoOptions>(IO_CHECKS);
export const READ_OPTIONS = new option.OptionTable<Omit<TransferOptions, 'offset'>>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
});
export const TRANSFER_OPTIONS = new option.OptionTable<TransferOptions & { blocks?: number }>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
  offset: option.wholeNumber(),
  blocks: option.wholeNumber(1),
});
export const WRITE_ZEROES_OPTIONS = new option.OptionTable<WriteZeroesOptions>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
  deallocate: option.boolean,
});
