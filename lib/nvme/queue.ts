/** An I/O queue pair: promises here, the submit/poll face in submit-queue.ts. Both may be used at once. */
import { setMaxListeners } from 'node:events';
import { DmaBuffer, UnsupportedError, type CallOptions, type Device } from '../index.js';
import { BouncePool } from './bounce-pool.js';
import { Command, type Group } from './command.js';
import type { CommandQueue } from './command-queue.js';
import type { DoorbellKind } from './doorbells.js';
import { OptionalNvmCommands } from './identify-controller.js';
import type { IoBuffers } from './io-buffers.js';
import type { NvmeNamespace } from './namespace.js';
import { NvmOpcode } from './opcodes.js';
import { MAX_BLOCKS_A_COMMAND, SubmitQueue } from './submit-queue.js';

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
  /** For DMA buffers: where the data begins in it, a multiple of 4. Default 0. */
  offset?: number | undefined;
}

export interface WriteZeroesOptions extends IoOptions {
  forceUnitAccess?: boolean | undefined;
  /** DEAC: the controller may deallocate the blocks. Default false. */
  deallocate?: boolean | undefined;
}

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
type Data = Uint8Array | DmaBuffer;

export class NvmeQueue extends SubmitQueue {
  /** How the controller is told of commands. */
  readonly doorbell: DoorbellKind;
  readonly #host: QueueHost;
  readonly #maxTransferBytes: number;
  readonly #retries: number;
  #poolBuffer: DmaBuffer | undefined;
  #makingPool: Promise<void> | undefined;

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
  }

  /**
   * Reads `blocks` blocks from `lba` on into a new Buffer, with as many commands as the controller's limit makes it.
   * @throws RangeError for blocks that the namespace does not have; NvmeStatusError, TimeoutError, NvmeResetError,
   * NvmeControllerError, ClosedError; the signal's reason.
   */
  read(lba: number, blocks: number, options?: TransferOptions): Promise<Buffer> {
    const namespace = options?.namespace ?? this.namespace;
    this.#check(namespace, lba, blocks);
    const into = Buffer.allocUnsafe(blocks * namespace.blockSize);
    return this.#transfer(NvmOpcode.READ, 'read', namespace, lba, blocks, into, into, options);
  }

  /**
   * Reads from `lba` on into `target`, as many blocks as it holds or `blocks` of them: straight into a DMA buffer, by way
   * of the queue's own memory into a Buffer or Uint8Array. `target` is the queue's until the promise settles.
   * @throws as `read`; RangeError where `target` holds no whole number of blocks.
   */
  readInto(lba: number, target: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#move(NvmOpcode.READ, 'read', lba, target, options);
  }

  /**
   * Writes `data` from `lba` on, or the first `blocks` blocks of it: a DMA buffer, a Buffer or a Uint8Array. It must not
   * change until the promise settles. A long write that fails may have written any of its parts.
   * @throws as `readInto`.
   */
  write(lba: number, data: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#move(NvmOpcode.WRITE, 'write', lba, data, options);
  }

  /**
   * Compares the blocks from `lba` on with `data`.
   * @throws as `readInto`; NvmeStatusError COMPARE_FAILURE where they differ; UnsupportedError where the controller has
   * no such command.
   */
  async compare(lba: number, data: Data, options?: TransferOptions & { blocks?: number }): Promise<void> {
    this.#require(OptionalNvmCommands.COMPARE, 'Compare');
    await this.#move(NvmOpcode.COMPARE, 'compare', lba, data, options);
  }

  /** Makes everything that was written to the namespace durable. */
  async flush(options?: IoOptions): Promise<void> {
    const namespace = options?.namespace ?? this.namespace;
    const command = this.#command('flush', NvmOpcode.FLUSH, namespace);
    await this.commands.execute<void>(command, options);
  }

  /** Writes zeroes without transferring any. @throws as `read`; UnsupportedError where the controller cannot. */
  async writeZeroes(lba: number, blocks: number, options: WriteZeroesOptions = {}): Promise<void> {
    this.#require(OptionalNvmCommands.WRITE_ZEROES, 'Write Zeroes');
    const namespace = options.namespace ?? this.namespace;
    this.#check(namespace, lba, blocks);
    // Old controllers hold it to the transfer limit although nothing is transferred, and cannot say so.
    const most = Math.min(MAX_BLOCKS_A_COMMAND, Math.floor(this.#maxTransferBytes / namespace.blockSize));
    const flags =
      (options.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0) |
      (options.deallocate === true ? DEALLOCATE : 0);
    await this.#inParts(blocks, most, options, (at, count) =>
      this.#onBlocks('write zeroes', NvmOpcode.WRITE_ZEROES, namespace, lba + at, count, flags),
    );
  }

  /**
   * Tells the controller that the data of these blocks is not needed any more (Dataset Management).
   * @throws as `read`; UnsupportedError where the controller cannot.
   */
  async deallocate(ranges: readonly BlockRange[], options: IoOptions = {}): Promise<void> {
    this.#require(OptionalNvmCommands.DATASET_MANAGEMENT, 'Dataset Management');
    const namespace = options.namespace ?? this.namespace;
    for (const { lba, blocks } of ranges) this.#check(namespace, lba, blocks);
    const pieces = ranges.flatMap(inRangesOf(MAX_RANGE_BLOCKS));
    if (pieces.length === 0) return;
    await this.#pooled();
    await this.#inParts(pieces.length, MAX_RANGES, options, (at, count) => {
      const command = this.#command('deallocate', NvmOpcode.DATASET_MANAGEMENT, namespace);
      command.cdw10 = count - 1;
      command.cdw11 = ATTRIBUTE_DEALLOCATE;
      return command.through(encodeRanges(pieces.slice(at, at + count)), true);
    });
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
    opcode: number,
    verb: string,
    lba: number,
    data: Data,
    options?: TransferOptions & { blocks?: number },
  ): Promise<void> {
    const namespace = options?.namespace ?? this.namespace;
    const isDma = data instanceof DmaBuffer;
    if (isDma) checkOffset(options?.offset);
    const held = (sizeOf(data) - (isDma ? (options?.offset ?? 0) : 0)) / namespace.blockSize;
    const blocks = options?.blocks ?? held;
    if (blocks > held)
      throw new RangeError(`${blocks} blocks are more than the ${sizeOf(data)} bytes of the data`);
    this.#check(namespace, lba, blocks);
    return this.#transfer(opcode, verb, namespace, lba, blocks, data, undefined, options);
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
    if (!(data instanceof DmaBuffer) && this.commands.pool === undefined) {
      return this.#pooled().then(() =>
        this.#transfer(opcode, verb, namespace, lba, blocks, data, answer, options),
      );
    }
    const flags = options?.forceUnitAccess === true ? FORCE_UNIT_ACCESS : 0;
    const most = Math.floor(this.#maxTransferBytes / namespace.blockSize);
    if (blocks <= most) {
      const command = this.#onBlocks(verb, opcode, namespace, lba, blocks, flags);
      const length = blocks * namespace.blockSize;
      if (data instanceof DmaBuffer) command.direct(data, options?.offset ?? 0, length);
      else
        command.through(data.length === length ? data : data.subarray(0, length), opcode !== NvmOpcode.READ);
      command.answer = answer;
      return this.commands.execute<T>(command, options);
    }
    const parts = this.#inParts(blocks, most, options, (at, count) => {
      const command = this.#onBlocks(verb, opcode, namespace, lba + at, count, flags);
      const begin = at * namespace.blockSize;
      const length = count * namespace.blockSize;
      if (data instanceof DmaBuffer) command.direct(data, (options?.offset ?? 0) + begin, length);
      else command.through(data.subarray(begin, begin + length), opcode !== NvmOpcode.READ);
      return command;
    });
    return parts.then(() => answer);
  }

  /** The first failure fails the whole; what is under way then is waited for, so that the memory is free. */
  async #inParts(
    total: number,
    most: number,
    options: CallOptions | undefined,
    make: (at: number, count: number) => Command,
  ): Promise<void> {
    const group: Group = { failure: undefined, hasFailed: false };
    const signal = options?.signal === undefined ? undefined : AbortSignal.any([options.signal]);
    if (signal !== undefined) setMaxListeners(0, signal);
    const call = { timeoutMs: options?.timeoutMs, signal };
    const parts: Promise<unknown>[] = [];
    for (let at = 0; at < total; at += most) {
      const command = make(at, Math.min(most, total - at));
      command.group = group;
      parts.push(this.commands.execute(command, call));
    }
    await Promise.allSettled(parts);
    if (group.hasFailed) throw group.failure;
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
    command.cdw12 = (blocks - 1) | flags;
    return command;
  }

  #command(verb: string, opcode: number, namespace: NvmeNamespace): Command {
    const command = new Command(verb, opcode, namespace.id);
    command.retries = this.#retries;
    command.answer = undefined;
    return command;
  }

  /** Bounce pages are had when they are first needed. */
  #pooled(): Promise<void> {
    return (this.#makingPool ??= this.#makePool());
  }

  async #makePool(): Promise<void> {
    const { device, pageSize } = this.#host;
    try {
      const size = Math.max(LEAST_POOL_BYTES, 2 * this.#maxTransferBytes);
      this.#poolBuffer = await device.dma.alloc(size, { alignment: pageSize });
      this.commands.pool = new BouncePool(this.#poolBuffer, pageSize);
    } catch (error) {
      this.#makingPool = undefined;
      throw error;
    }
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
    throw new RangeError(
      `namespace ${namespace.id} has ${namespace.blocks} blocks of ${namespace.blockSize} bytes: ${blocks} from ${lba} are none of them`,
    );
  }

  #require(bit: number, name: string): void {
    if ((this.#host.optionalCommands & bit) === 0)
      throw new UnsupportedError(`the controller has no ${name}`);
  }
}

function sizeOf(data: Data): number {
  if (data instanceof DmaBuffer) {
    if (data.closed) throw new RangeError('the DMA buffer is closed');
    return data.size;
  }
  if (data instanceof Uint8Array) return data.length;
  throw new TypeError('data is a Buffer, a Uint8Array or a DMA buffer');
}

function checkOffset(offset = 0): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset % 4 === 0) return;
  throw new RangeError(`the offset in a DMA buffer is a multiple of 4, not ${offset}`);
}

function inRangesOf(most: number): (range: BlockRange) => BlockRange[] {
  return ({ lba, blocks }) =>
    Array.from({ length: Math.ceil(blocks / most) }, (_, i) => ({
      lba: lba + i * most,
      blocks: Math.min(most, blocks - i * most),
    }));
}

function encodeRanges(ranges: readonly BlockRange[]): Buffer {
  const bytes = Buffer.alloc(ranges.length * RANGE_BYTES);
  for (const [i, { lba, blocks }] of ranges.entries()) {
    bytes.writeUInt32LE(blocks, i * RANGE_BYTES + 4);
    bytes.writeBigUInt64LE(BigInt(lba), i * RANGE_BYTES + 8);
  }
  return bytes;
}
