/** An I/O queue pair: promises here, the submit/poll face in submit-queue.ts. Both may be used at once. */
import { integer, wrongType } from '../fields.js';
import { ClosedError, DmaBuffer, UnsupportedError, type CallOptions, type Device } from '../index.js';
import * as option from '../options.js';
import { BouncePool } from './bounce-pool.js';
import { Command } from './command.js';
import type { CommandQueue } from './command-queue.js';
import type { DoorbellKind } from './doorbells.js';
import { field } from './command-fields.js';
import { OptionalNvmCommands } from './identify-controller.js';
import type { IoBuffers } from './io-buffers.js';
import { NvmeNamespace } from './namespace.js';
import { NvmOpcode } from './opcodes.js';
import { MAX_BLOCKS_A_COMMAND, SubmitQueue } from './submit-queue.js';
import { Transfer } from './transfer.js';

/** CDW12 of commands with blocks. */
const FORCE_UNIT_ACCESS = 1 << 30;
const DEALLOCATE = 1 << 25;
/** CDW11 of Dataset Management. */
const ATTRIBUTE_DEALLOCATE = 1 << 2;
const RANGE_BYTES = 16;
const MAX_RANGES = 256;
/** The most blocks of one range. */
const MAX_RANGE_BLOCKS = 0xffff_ffff;
const LEAST_POOL_BYTES = 1 << 20;
const TWO_32 = 2 ** 32;

export interface IoOptions extends CallOptions {
  /** Another namespace than the queue's own. */
  namespace?: NvmeNamespace | undefined;
}

export interface TransferOptions extends IoOptions {
  /** FUA: the data is on the medium when the command completes. Default false. */
  forceUnitAccess?: boolean | undefined;
  /** Where the data begins in the buffer or array, bytes; in a DMA buffer a multiple of 4. Default 0. */
  offset?: number | undefined;
}

export interface WriteZeroesOptions extends IoOptions {
  forceUnitAccess?: boolean | undefined;
  /** DEAC: the controller may deallocate the blocks. Default false. */
  deallocate?: boolean | undefined;
}

const IO_CHECKS = {
  ...option.CALL_CHECKS,
  // Whose it is is looked at in `#namespaceOf`.
  namespace: (value: unknown, caller: string, name: string) =>
    value instanceof NvmeNamespace
      ? undefined
      : wrongType(`${caller}: ${name}`, 'one that NvmeController.namespace has given', value),
} as const;
const IO_OPTIONS = new option.OptionTable<IoOptions>(IO_CHECKS);
const READ_OPTIONS = new option.OptionTable<Omit<TransferOptions, 'offset'>>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
});
const TRANSFER_OPTIONS = new option.OptionTable<TransferOptions & { blocks?: number }>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
  offset: option.wholeNumber(),
  blocks: option.wholeNumber(1),
});
const WRITE_ZEROES_OPTIONS = new option.OptionTable<WriteZeroesOptions>({
  ...IO_CHECKS,
  forceUnitAccess: option.boolean,
  deallocate: option.boolean,
});

/** Blocks `[lba, lba + blocks)`. */
export interface BlockRange {
  lba: number;
  blocks: number;
}

/** @internal What the controller is to its queues. */
export interface QueueHost {
  readonly device: Device;
  readonly pageSize: number;
  readonly maxTransferBytes: number;
  /** ONCS. */
  readonly optionalCommands: number;
  /** How often a command is sent again after a controller reset. */
  readonly retries: number;
  closeQueue(queue: NvmeQueue): Promise<void>;
}

/** Where the data of a transfer is. */
export type Data = Uint8Array | DmaBuffer;

export class NvmeQueue extends SubmitQueue {
  /** How the controller is told of commands. */
  readonly doorbell: DoorbellKind;
  readonly #host: QueueHost;
  readonly #maxTransferBytes: number;
  readonly #retries: number;
  #poolBuffer: DmaBuffer | undefined;

  /** @internal See `NvmeController.createQueue`. */
  constructor(
    host: QueueHost,
    commands: CommandQueue,
    namespace: NvmeNamespace,
    buffers: IoBuffers | undefined,
    doorbell: DoorbellKind,
  ) {
    super(commands, namespace, buffers);
    this.doorbell = doorbell;
    this.#host = host;
    this.#maxTransferBytes = host.maxTransferBytes;
    this.#retries = host.retries;
    commands.onPoolWanted = () => this.#makePool();
  }

  /**
   * Reads `blocks` blocks from `lba` on into a new Buffer, with as many commands as the controller's limit makes it.
   * Rejects with RangeError for blocks that the namespace does not have, or a Buffer cannot; NvmeStatusError,
   * TimeoutError, NvmeResetError, NvmeControllerError, NvmeNamespaceError, ClosedError; the signal's reason.
   */
  read(lba: number, blocks: number, options?: Omit<TransferOptions, 'offset'>): Promise<Buffer> {
    try {
      READ_OPTIONS.check('NvmeQueue.read', options);
      const namespace = this.#namespaceOf(options);
      this.#check(namespace, lba, blocks);
      const into = Buffer.allocUnsafe(blocks * namespace.blockSize);
      return this.#transfer(NvmOpcode.READ, 'read', namespace, lba, blocks, into, into, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Reads from `lba` on into `target`, as many blocks as it holds or `blocks` of them: straight into a DMA buffer, by way
   * of the queue's own memory into a Buffer or Uint8Array. `target` is the queue's until the promise settles: where it is
   * transferred, resized or freed before, the call rejects with TypeError or ClosedError.
   * Rejects as `read`, and with RangeError where `target` holds no whole number of blocks.
   */
  readInto(lba: number, target: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#move('readInto', NvmOpcode.READ, 'read', lba, target, options);
  }

  /**
   * Writes `data` from `lba` on, or the first `blocks` blocks of it: a DMA buffer, a Buffer or a Uint8Array. It must not
   * change until the promise settles. Once it does, the controller is done with the data, also where the promise is
   * rejected; but with ClosedError and NvmeControllerError nobody knows. A long write that fails may have written any of
   * its parts.
   * Rejects as `readInto`.
   */
  write(lba: number, data: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#move('write', NvmOpcode.WRITE, 'write', lba, data, options);
  }

  /**
   * Compares the blocks from `lba` on with `data`.
   * Rejects as `readInto`; with NvmeStatusError COMPARE_FAILURE where they differ; with UnsupportedError where the
   * controller has no such command.
   */
  async compare(lba: number, data: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    TRANSFER_OPTIONS.check('NvmeQueue.compare', options);
    this.#require(OptionalNvmCommands.COMPARE, 'Compare');
    await this.#move('compare', NvmOpcode.COMPARE, 'compare', lba, data, options);
  }

  /** Makes everything that was written to the namespace durable. Rejects as `read`. */
  async flush(options?: IoOptions): Promise<void> {
    IO_OPTIONS.check('NvmeQueue.flush', options);
    const command = this.#command('flush', NvmOpcode.FLUSH, this.#namespaceOf(options));
    await this.commands.execute<void>(command, options);
  }

  /**
   * Writes zeroes without transferring any. Rejects as `read`; with UnsupportedError where the controller cannot.
   */
  async writeZeroes(lba: number, blocks: number, options: WriteZeroesOptions = {}): Promise<void> {
    WRITE_ZEROES_OPTIONS.check('NvmeQueue.writeZeroes', options);
    this.#require(OptionalNvmCommands.WRITE_ZEROES, 'Write Zeroes');
    const namespace = this.#namespaceOf(options);
    this.#check(namespace, lba, blocks);
    const flags =
      (options.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0) |
      (options.deallocate === true ? DEALLOCATE : 0);
    // Old controllers hold it to the transfer limit although nothing is transferred, and cannot say so.
    const parts = this.#parts(blocks, this.#mostBlocks(namespace), (at, count) =>
      this.#onBlocks('write zeroes', NvmOpcode.WRITE_ZEROES, namespace, lba + at, count, flags),
    );
    await this.commands.transfer<void>(new Transfer('write zeroes', parts), options);
  }

  /**
   * Tells the controller that the data of these blocks is not needed any more (Dataset Management). Rejects as `read`;
   * with UnsupportedError where the controller cannot.
   */
  async deallocate(ranges: readonly BlockRange[], options: IoOptions = {}): Promise<void> {
    IO_OPTIONS.check('NvmeQueue.deallocate', options);
    const isList: boolean = Array.isArray(ranges);
    if (!isList) throw wrongType('NvmeQueue.deallocate: ranges', 'a list of { lba, blocks }', ranges);
    this.#require(OptionalNvmCommands.DATASET_MANAGEMENT, 'Dataset Management');
    const namespace = this.#namespaceOf(options);
    for (const { lba, blocks } of ranges) this.#check(namespace, lba, blocks);
    if (ranges.length === 0) return;
    const parts = this.#deallocations(namespace, [...ranges]);
    await this.commands.transfer<void>(new Transfer('deallocate', parts), options);
  }

  /**
   * Waits for what is in flight, deletes the queue and gives its memory back. Nothing is submitted any more; the
   * submit/poll face has to have taken its completions. Idempotent.
   */
  close(): Promise<void> {
    return this.#host.closeQueue(this);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal Memory beside the rings, for the controller to free. */
  get poolBuffer(): DmaBuffer | undefined {
    return this.#poolBuffer;
  }

  /** @internal */
  get queue(): CommandQueue {
    return this.commands;
  }

  #move(
    method: 'readInto' | 'write' | 'compare',
    opcode: number,
    verb: string,
    lba: number,
    data: Data,
    options?: TransferOptions & { blocks?: number },
  ): Promise<void> {
    try {
      if (options !== undefined) TRANSFER_OPTIONS.check(`NvmeQueue.${method}`, options);
      const namespace = this.#namespaceOf(options);
      const size = sizeOf(data);
      const offset = offsetIn(data, options?.offset);
      const held = (size - offset) / namespace.blockSize;
      const blocks = options?.blocks ?? held;
      if (blocks > held) {
        throw new RangeError(
          `${blocks} blocks of ${namespace.blockSize} bytes are more than the ${size} bytes of the data` +
            (offset > 0 ? ` from offset ${offset}` : ''),
        );
      }
      this.#check(namespace, lba, blocks);
      return this.#transfer(opcode, verb, namespace, lba, blocks, data, undefined, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #transfer<T>(
    opcode: number,
    verb: string,
    namespace: NvmeNamespace,
    lba: number,
    blocks: number,
    data: Data,
    answer: T,
    options: TransferOptions | undefined,
  ): Promise<T> {
    const flags = options?.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0;
    const begin = options?.offset ?? 0;
    const make = (at: number, count: number): Command => {
      const command = this.#onBlocks(verb, opcode, namespace, lba + at, count, flags);
      const from = begin + at * namespace.blockSize;
      const length = count * namespace.blockSize;
      if (data instanceof DmaBuffer) return command.direct(data, from, length);
      return command.through(partOf(verb, data, from, length), opcode !== NvmOpcode.READ);
    };
    const most = this.#mostBlocks(namespace);
    if (blocks <= most) {
      const command = make(0, blocks);
      command.answer = answer;
      return this.commands.execute<T>(command, options);
    }
    const transfer = new Transfer(verb, this.#parts(blocks, most, make));
    transfer.answer = answer;
    return this.commands.transfer<T>(transfer, options);
  }

  *#parts(
    total: number,
    most: number,
    make: (at: number, count: number) => Command,
  ): Generator<Command, void> {
    for (let at = 0; at < total; at += most) yield make(at, Math.min(most, total - at));
  }

  *#deallocations(namespace: NvmeNamespace, ranges: readonly BlockRange[]): Generator<Command, void> {
    let pieces: BlockRange[] = [];
    const make = () => {
      const command = this.#command('deallocate', NvmOpcode.DATASET_MANAGEMENT, namespace);
      command.cdw10 = field('NR', pieces.length - 1, 8);
      command.cdw11 = ATTRIBUTE_DEALLOCATE;
      command.through(encodeRanges(pieces), true);
      pieces = [];
      return command;
    };
    for (const { lba, blocks } of ranges) {
      for (let at = 0; at < blocks; at += MAX_RANGE_BLOCKS) {
        pieces.push({ lba: lba + at, blocks: Math.min(MAX_RANGE_BLOCKS, blocks - at) });
        if (pieces.length === MAX_RANGES) yield make();
      }
    }
    if (pieces.length > 0) yield make();
  }

  /** The most blocks of one command. */
  #mostBlocks(namespace: NvmeNamespace): number {
    return Math.min(MAX_BLOCKS_A_COMMAND, Math.floor(this.#maxTransferBytes / namespace.blockSize));
  }

  /** @throws UnsupportedError, NvmeNamespaceError, TypeError. */
  #namespaceOf(options: IoOptions | undefined): NvmeNamespace {
    const namespace = options?.namespace ?? this.namespace;
    if (namespace !== this.namespace) {
      if (!(namespace instanceof NvmeNamespace) || namespace.owner !== this.namespace.owner) {
        throw new TypeError(
          'namespace must be one that this controller has given (NvmeController.namespace)',
        );
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
  ): Command {
    const command = this.#command(verb, opcode, namespace);
    command.cdw10 = lba >>> 0;
    command.cdw11 = lba < TWO_32 ? 0 : Math.floor(lba / TWO_32);
    command.cdw12 = field('NLB', blocks - 1, 16) | flags;
    return command;
  }

  #command(verb: string, opcode: number, namespace: NvmeNamespace): Command {
    const command = new Command(verb, opcode, namespace.id);
    command.target = namespace;
    command.retries = this.#retries;
    command.answer = undefined;
    return command;
  }

  /** Bounce pages are had when they are first needed. */
  #makePool(): void {
    const { device, pageSize } = this.#host;
    const size = Math.max(LEAST_POOL_BYTES, 2 * this.#maxTransferBytes);
    device.dma.alloc(size, { alignment: pageSize }).then(
      (buffer) => {
        this.#poolBuffer = buffer;
        // The queue has been closed meanwhile, and its memory is free.
        if (this.commands.hasEnded) buffer.close().catch(() => undefined);
        this.commands.poolMade(new BouncePool(buffer, pageSize));
      },
      (error: unknown) => this.commands.poolFailed(error),
    );
  }

  #check(namespace: NvmeNamespace, lba: number, blocks: number): void {
    if (
      Number.isSafeInteger(lba) &&
      Number.isSafeInteger(blocks) &&
      lba >= 0 &&
      blocks > 0 &&
      lba + blocks <= namespace.blocks
    ) {
      return;
    }
    integer('lba', lba, 0, Number.MAX_SAFE_INTEGER);
    if (typeof blocks !== 'number') throw wrongType('blocks', 'a number', blocks);
    throw new RangeError(
      `namespace ${namespace.id}: ${String(blocks)} blocks from ${String(lba)} are out of bounds or not whole ` +
        `(${namespace.blocks} blocks of ${namespace.blockSize} bytes)`,
    );
  }

  #require(bit: number, name: string): void {
    if ((this.#host.optionalCommands & bit) === 0)
      throw new UnsupportedError(`the controller has no ${name}`);
  }
}

function sizeOf(data: Data): number {
  if (data instanceof DmaBuffer) {
    if (data.isClosed) throw new ClosedError('the DMA buffer is closed');
    return data.size;
  }
  if (data instanceof Uint8Array) return data.length;
  throw wrongType('data', 'a Buffer, a Uint8Array or a DmaBuffer', data);
}

/** Where in it the data begins. @throws RangeError. */
function offsetIn(data: Data, offset = 0): number {
  const step = data instanceof DmaBuffer ? 4 : 1;
  if (Number.isSafeInteger(offset) && offset >= 0 && offset % step === 0) return offset;
  throw new RangeError(`offset must be a multiple of ${step} from 0 on, not ${String(offset)}`);
}

/** `length` bytes of the caller's from `from` on. @throws TypeError where the array was transferred or resized meanwhile. */
function partOf(verb: string, data: Uint8Array, from: number, length: number): Uint8Array {
  if (from === 0 && data.length === length) return data;
  if (from + length <= data.length) return data.subarray(from, from + length);
  throw new TypeError(
    `${verb}: the array has ${data.length} bytes, too few for ${length} from ${from} on: it was transferred or resized meanwhile`,
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
