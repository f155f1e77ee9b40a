/**
 * Commands for blocks of a namespace, by promises (NVM Command Set 1.0, section 3.2). A call that is longer than one
 * command may be becomes a transfer of several.
 */
import { outOfRange, wrongType } from '../fields.js';
import { ClosedError, DmaBuffer, UnsupportedError, type CallOptions } from '../index.js';
import * as option from '../options.js';
import { Transfer } from '../commands/command.js';
import { NvmeCommand, field } from './command.js';
import type { ControllerInfo } from './controller-info.js';
import { OptionalNvmCommands } from './identify.js';
import type { IoQueuePair } from './io-queue-pair.js';
import { lbaRangeError, NvmeNamespace } from './namespace.js';
import { MAX_BLOCKS_A_COMMAND, NvmOpcode } from './opcodes.js';

/** CDW12 of commands with blocks. */
const FORCE_UNIT_ACCESS = 1 << 30;
const DEALLOCATE = 1 << 25;
/** CDW11 of Dataset Management. */
const ATTRIBUTE_DEALLOCATE = 1 << 2;
const RANGE_BYTES = 16;
const MAX_RANGES = 256;
/** The most blocks of one range. */
const MAX_RANGE_BLOCKS = 0xffff_ffff;
const TWO_32 = 2 ** 32;

/** Blocks `[lba, lba + blocks)` of a namespace. */
export interface BlockRange {
  /** The first block, from 0. */
  lba: number;
  /** How many blocks. */
  blocks: number;
}

/** Where the data of a transfer is: memory of this process, which goes through the queue's own, or DMA memory. */
export type NvmeData = Uint8Array | DmaBuffer;

/** The commands that transfer blocks: the method for errors, the opcode, and what errors of the command call it. */
const MOVES = {
  readInto: { opcode: NvmOpcode.READ, verb: 'read' },
  write: { opcode: NvmOpcode.WRITE, verb: 'write' },
  compare: { opcode: NvmOpcode.COMPARE, verb: 'compare' },
} as const;

export class BlockCommands {
  readonly #pair: IoQueuePair;
  readonly #namespace: NvmeNamespace;
  readonly #info: ControllerInfo;

  /** `namespace` is the one of calls that name none. */
  constructor(pair: IoQueuePair, namespace: NvmeNamespace, info: ControllerInfo) {
    this.#pair = pair;
    this.#namespace = namespace;
    this.#info = info;
  }

  read(lba: number, blocks: number, options?: Omit<TransferOptions, 'offset'>): Promise<Buffer> {
    try {
      READ_OPTIONS.check('NvmeQueue.read', options);
      const namespace = this.#namespaceOf(options);
      requireBlocks(namespace, lba, blocks);
      const into = Buffer.allocUnsafe(blocks * namespace.blockSize);
      return this.#transfer(NvmOpcode.READ, 'read', namespace, lba, blocks, into, into, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** `readInto`, `write` and `compare`. */
  move(
    method: keyof typeof MOVES,
    lba: number,
    data: NvmeData,
    options?: TransferOptions & { blocks?: number },
  ): Promise<void> {
    try {
      if (options !== undefined) TRANSFER_OPTIONS.check(`NvmeQueue.${method}`, options);
      if (method === 'compare') this.#require(OptionalNvmCommands.COMPARE, 'Compare');
      const namespace = this.#namespaceOf(options);
      const size = sizeOf(data);
      const offset = offsetIn(data, options?.offset);
      const held = (size - offset) / namespace.blockSize;
      const blocks = options?.blocks ?? held;
      if (blocks > held) {
        throw outOfRange(
          `blocks: ${blocks} blocks of ${namespace.blockSize} bytes from offset ${offset} do not fit in data of ${size} bytes`,
        );
      }
      requireBlocks(namespace, lba, blocks);
      const { opcode, verb } = MOVES[method];
      return this.#transfer(opcode, verb, namespace, lba, blocks, data, undefined, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async flush(options?: IoOptions): Promise<void> {
    IO_OPTIONS.check('NvmeQueue.flush', options);
    const command = this.#command('flush', NvmOpcode.FLUSH, this.#namespaceOf(options));
    await this.#pair.commands.execute<void>(command, options);
  }

  async writeZeroes(lba: number, blocks: number, options: WriteZeroesOptions = {}): Promise<void> {
    WRITE_ZEROES_OPTIONS.check('NvmeQueue.writeZeroes', options);
    this.#require(OptionalNvmCommands.WRITE_ZEROES, 'Write Zeroes');
    const namespace = this.#namespaceOf(options);
    requireBlocks(namespace, lba, blocks);
    const flags =
      (options.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0) |
      (options.deallocate === true ? DEALLOCATE : 0);
    // Old controllers hold it to the transfer limit although nothing is transferred, and cannot say so.
    const parts = partsOf(blocks, this.#mostBlocks(namespace), (at, count) =>
      this.#onBlocks('write zeroes', NvmOpcode.WRITE_ZEROES, namespace, lba + at, count, flags),
    );
    await this.#pair.commands.transfer<void>(new Transfer('write zeroes', parts), options);
  }

  async deallocate(ranges: readonly BlockRange[], options: IoOptions = {}): Promise<void> {
    IO_OPTIONS.check('NvmeQueue.deallocate', options);
    const isList: boolean = Array.isArray(ranges);
    if (!isList) throw wrongType('NvmeQueue.deallocate: ranges', 'a list of { lba, blocks }', ranges);
    this.#require(OptionalNvmCommands.DATASET_MANAGEMENT, 'Dataset Management');
    const namespace = this.#namespaceOf(options);
    for (const { lba, blocks } of ranges) requireBlocks(namespace, lba, blocks);
    if (ranges.length === 0) return;
    const parts = this.#deallocations(namespace, [...ranges]);
    await this.#pair.commands.transfer<void>(new Transfer('deallocate', parts), options);
  }

  #transfer<T>(
    opcode: number,
    verb: string,
    namespace: NvmeNamespace,
    lba: number,
    blocks: number,
    data: NvmeData,
    answer: T,
    options: TransferOptions | undefined,
  ): Promise<T> {
    const { commands } = this.#pair;
    const flags = options?.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0;
    const begin = options?.offset ?? 0;
    const make = (at: number, count: number): NvmeCommand => {
      const command = this.#onBlocks(verb, opcode, namespace, lba + at, count, flags);
      const from = begin + at * namespace.blockSize;
      const length = count * namespace.blockSize;
      if (data instanceof DmaBuffer) return command.direct(data, from, length);
      return command.through(bytesOf(verb, data, from, length), opcode !== NvmOpcode.READ);
    };
    const most = this.#mostBlocks(namespace);
    if (blocks <= most) {
      const command = make(0, blocks);
      command.answer = answer;
      return commands.execute<T>(command, options);
    }
    const transfer = new Transfer(verb, partsOf(blocks, most, make));
    transfer.answer = answer;
    return commands.transfer<T>(transfer, options);
  }

  *#deallocations(namespace: NvmeNamespace, ranges: readonly BlockRange[]): Generator<NvmeCommand, void> {
    let part: BlockRange[] = [];
    const make = () => {
      const command = this.#command('deallocate', NvmOpcode.DATASET_MANAGEMENT, namespace);
      command.cdw10 = field('NR', part.length - 1, 8);
      command.cdw11 = ATTRIBUTE_DEALLOCATE;
      command.through(encodeRanges(part), true);
      part = [];
      return command;
    };
    for (const { lba, blocks } of ranges) {
      for (let at = 0; at < blocks; at += MAX_RANGE_BLOCKS) {
        part.push({ lba: lba + at, blocks: Math.min(MAX_RANGE_BLOCKS, blocks - at) });
        if (part.length === MAX_RANGES) yield make();
      }
    }
    if (part.length > 0) yield make();
  }

  /** The most blocks of one command. */
  #mostBlocks(namespace: NvmeNamespace): number {
    return Math.min(MAX_BLOCKS_A_COMMAND, Math.floor(this.#pair.maxTransferBytes / namespace.blockSize));
  }

  /** @throws UnsupportedError, NvmeNamespaceError, TypeError. */
  #namespaceOf(options: IoOptions | undefined): NvmeNamespace {
    const namespace = options?.namespace ?? this.#namespace;
    if (namespace !== this.#namespace) {
      if (!(namespace instanceof NvmeNamespace) || namespace.owner !== this.#namespace.owner) {
        throw new TypeError('namespace must be one of this controller, from NvmeController.namespace');
      }
      namespace.requireUsable();
    }
    namespace.requireCurrent();
    return namespace;
  }

  #onBlocks(
    verb: string,
    opcode: number,
    namespace: NvmeNamespace,
    lba: number,
    blocks: number,
    flags: number,
  ): NvmeCommand {
    const command = this.#command(verb, opcode, namespace);
    command.cdw10 = lba >>> 0;
    command.cdw11 = lba < TWO_32 ? 0 : Math.floor(lba / TWO_32);
    command.cdw12 = field('NLB', blocks - 1, 16) | flags;
    return command;
  }

  #command(verb: string, opcode: number, namespace: NvmeNamespace): NvmeCommand {
    const command = new NvmeCommand(verb, opcode, namespace.id);
    command.target = namespace;
    command.retries = this.#info.settings.retries;
    command.answer = undefined;
    return command;
  }

  /** @throws UnsupportedError where ONCS has not that bit. */
  #require(bit: number, name: string): void {
    if ((this.#info.identity.optionalNvmCommands & bit) === 0)
      throw new UnsupportedError(`the controller does not support ${name} (ONCS)`);
  }
}

/** Commands for `total` blocks, of at most `most` each. */
function* partsOf(
  total: number,
  most: number,
  make: (at: number, count: number) => NvmeCommand,
): Generator<NvmeCommand, void> {
  for (let at = 0; at < total; at += most) yield make(at, Math.min(most, total - at));
}

function requireBlocks(namespace: NvmeNamespace, lba: number, blocks: number): void {
  if (
    Number.isSafeInteger(lba) &&
    Number.isSafeInteger(blocks) &&
    lba >= 0 &&
    blocks > 0 &&
    lba + blocks <= namespace.blocks
  ) {
    return;
  }
  throw lbaRangeError(namespace, lba, blocks);
}

function sizeOf(data: NvmeData): number {
  if (data instanceof DmaBuffer) {
    if (data.isClosed) throw new ClosedError('the DMA buffer is closed');
    return data.size;
  }
  if (data instanceof Uint8Array) return data.length;
  throw wrongType('data', 'a Buffer, a Uint8Array or a DmaBuffer', data);
}

/** Where in it the data begins. @throws RangeError. */
function offsetIn(data: NvmeData, offset = 0): number {
  const step = data instanceof DmaBuffer ? 4 : 1;
  if (Number.isSafeInteger(offset) && offset >= 0 && offset % step === 0) return offset;
  throw outOfRange(`offset must be a multiple of ${step} and at least 0, got ${String(offset)}`);
}

/** `length` bytes of the caller's from `from` on. @throws TypeError where the array was transferred or resized meanwhile. */
function bytesOf(verb: string, data: Uint8Array, from: number, length: number): Uint8Array {
  if (from === 0 && data.length === length) return data;
  if (from + length <= data.length) return data.subarray(from, from + length);
  throw new TypeError(
    `${verb}: [${from}, ${from + length}) is out of bounds (the array has ${data.length} bytes): it was transferred or resized`,
  );
}

function encodeRanges(ranges: readonly BlockRange[]): Buffer {
  const bytes = Buffer.alloc(ranges.length * RANGE_BYTES);
  for (const [i, { lba, blocks }] of ranges.entries()) {
    bytes.writeUInt32LE(blocks, i * RANGE_BYTES + 4);
    bytes.writeBigUInt64LE(BigInt(lba), i * RANGE_BYTES + 8);
  }
  return bytes;
}

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
