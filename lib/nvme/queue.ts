/** An I/O queue as its user has it: commands by promises (block-commands.ts), and the submit/poll API (submit-poll.ts). */
import { forbidCloning } from '../cloning.js';
import { BlockCommands, type BlockRange, type NvmeData } from './block-commands.js';
import type { CommandQueue } from './command-queue.js';
import type { ControllerInfo } from './controller-info.js';
import type { DoorbellKind } from './doorbells.js';
import type { IoOptions, TransferOptions, WriteZeroesOptions } from './io-options.js';
import type { IoQueuePair } from './io-queue-pair.js';
import type { NvmeNamespace } from './namespace.js';
import { NvmOpcode } from './opcodes.js';
import type { QueuePair } from './queue-pair.js';
import { SubmitPoll } from './submit-poll.js';

/**
 * An I/O queue pair (NVM Express Base Specification 2.0, section 3.3.1) of a namespace, made by
 * `NvmeController.createQueue`. It has two APIs, which may be used at once.
 *
 * By promises:
 * @example
 * ```ts
 * const data = await queue.read(0, 8);
 * await queue.write(0, data, { forceUnitAccess: true });
 * ```
 * By submit and poll, for those who count nanoseconds: nothing is allocated for a command, nothing is awaited, and one
 * doorbell serves many commands.
 * @example
 * ```ts
 * const queue = await controller.createQueue({ buffers: { bytes: 4096 } });
 * for (let i = 0; i < 32; i++) queue.submitRead(8 * i, 8, i, i);        // buffer i, tag i
 * queue.ring();
 * for (;;) {
 *   const count = queue.poll();
 *   for (let i = 0; i < count; i++) {
 *     const tag = queue.completedTags[i];                               // its data: queue.buffer(tag)
 *     if (queue.completedStatus[i] !== 0) throw new Error(decodeStatus(queue.completedStatus[i]).name);
 *     queue.submitRead(nextLba(), 8, tag, tag);
 *   }
 *   queue.ring();
 * }
 * ```
 * A buffer belongs to the device from its submission until its tag is reported. Where `doorbell` is `'message'`, and for
 * deadlines, resets and the end of the connection to be noticed, the event loop has to turn now and then.
 */
export class NvmeQueue {
  /** The queue identifier, from 1. */
  readonly id: number;
  /** How many commands can be in flight, of both APIs together. */
  readonly depth: number;
  /** What all commands are for that do not name another one. */
  readonly namespace: NvmeNamespace;
  /** How the controller is told of commands. */
  readonly doorbell: DoorbellKind;
  /** Tags of the commands that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status fields: 0 is success, `decodeStatus` has the rest. */
  readonly completedStatus: Uint16Array;
  /** How many buffers the submit/poll API has; 0 where the queue was made without. */
  readonly bufferCount: number;
  /** The length of each, in bytes. */
  readonly bufferBytes: number;
  readonly #commands: CommandQueue;
  readonly #rings: QueuePair;
  readonly #blocks: BlockCommands;
  readonly #submitPoll: SubmitPoll;
  readonly #close: () => Promise<void>;

  /** @internal See `NvmeController.createQueue`. */
  constructor(pair: IoQueuePair, namespace: NvmeNamespace, info: ControllerInfo, close: () => Promise<void>) {
    const { commands, buffers } = pair;
    this.id = pair.id;
    this.depth = commands.pair.slots.count;
    this.namespace = namespace;
    this.doorbell = pair.doorbell;
    this.completedTags = commands.pair.completedTags;
    this.completedStatus = commands.pair.completedStatus;
    this.bufferCount = buffers?.count ?? 0;
    this.bufferBytes = buffers?.bytes ?? 0;
    this.#commands = commands;
    this.#rings = commands.pair;
    this.#blocks = new BlockCommands(pair, namespace, info);
    this.#submitPoll = new SubmitPoll(commands, namespace, buffers);
    this.#close = close;
    forbidCloning(this, 'an NVMe queue');
  }

  /** `close` was called, or the queue takes no commands any more: its namespace has changed, or the controller has ended. */
  get isClosed(): boolean {
    return this.#commands.isRefusing;
  }

  /** Commands of both APIs that are in flight, or completed and not yet reported. */
  get inFlight(): number {
    return this.#rings.inFlight;
  }

  /**
   * Reads `blocks` blocks from `lba` on into a new Buffer, with as many commands as the controller's limit makes it.
   * Rejects with RangeError for blocks that the namespace does not have, or a Buffer cannot; NvmeStatusError,
   * TimeoutError, NvmeResetError, NvmeControllerError, NvmeNamespaceError, ClosedError; the signal's reason.
   */
  read(lba: number, blocks: number, options?: Omit<TransferOptions, 'offset'>): Promise<Buffer> {
    return this.#blocks.read(lba, blocks, options);
  }

  /**
   * Reads from `lba` on into `target`, as many blocks as it holds or `blocks` of them: straight into a DMA buffer, by way
   * of the queue's own memory into a Buffer or Uint8Array. `target` is the queue's until the promise settles: where it is
   * transferred, resized or freed before, the call rejects with TypeError or ClosedError.
   * Rejects as `read`, and with RangeError where `target` holds no whole number of blocks.
   */
  readInto(lba: number, target: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('readInto', lba, target, options);
  }

  /**
   * Writes `data` from `lba` on, or the first `blocks` blocks of it: a DMA buffer, a Buffer or a Uint8Array. It must not
   * change until the promise settles. Once it does, the controller is done with the data, also where the promise is
   * rejected; but with ClosedError and NvmeControllerError nobody knows. A long write that fails may have written any of
   * its parts.
   * Rejects as `readInto`.
   */
  write(lba: number, data: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('write', lba, data, options);
  }

  /**
   * Compares the blocks from `lba` on with `data`.
   * Rejects as `readInto`; with NvmeStatusError COMPARE_FAILURE where they differ; with UnsupportedError where the
   * controller has no such command.
   */
  compare(lba: number, data: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('compare', lba, data, options);
  }

  /** Makes everything that was written to the namespace durable. Rejects as `read`. */
  flush(options?: IoOptions): Promise<void> {
    return this.#blocks.flush(options);
  }

  /**
   * Writes zeroes without transferring any. Rejects as `read`; with UnsupportedError where the controller cannot.
   */
  writeZeroes(lba: number, blocks: number, options?: WriteZeroesOptions): Promise<void> {
    return this.#blocks.writeZeroes(lba, blocks, options);
  }

  /**
   * Tells the controller that the data of these blocks is not needed any more (Dataset Management). Rejects as `read`;
   * with UnsupportedError where the controller cannot.
   */
  deallocate(ranges: readonly BlockRange[], options?: IoOptions): Promise<void> {
    return this.#blocks.deallocate(ranges, options);
  }

  /** The memory of buffer `index`; empty once the queue is closed or its memory was taken away. */
  buffer(index: number): Buffer {
    return this.#submitPoll.buffer(index);
  }

  /**
   * Puts a read into the ring; the controller sees it after `ring`.
   * @param lba the first block, a whole number
   * @param buffer the number of the buffer that the data goes to, from its beginning
   * @param tag what `completedTags` will say, 32 bits
   * @returns false where there is no room until some commands are reported, or while the controller is being reset
   * @throws RangeError for what is past the namespace's or the buffer's end; NvmeControllerError, ClosedError when the
   * queue has ended.
   */
  submitRead(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submitPoll.transfer(NvmOpcode.READ, lba, blocks, buffer, tag);
  }

  /** Puts a write into the ring; see `submitRead`. */
  submitWrite(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submitPoll.transfer(NvmOpcode.WRITE, lba, blocks, buffer, tag);
  }

  /** Puts a compare into the ring, where the controller has it; see `submitRead`. */
  submitCompare(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submitPoll.transfer(NvmOpcode.COMPARE, lba, blocks, buffer, tag);
  }

  /** Puts a write of zeroes into the ring, where the controller has it; see `submitRead`. */
  submitWriteZeroes(lba: number, blocks: number, tag: number): boolean {
    return this.#submitPoll.blocks(NvmOpcode.WRITE_ZEROES, lba, blocks, tag);
  }

  /** Puts a flush of the namespace into the ring; see `submitRead`. */
  submitFlush(tag: number): boolean {
    return this.#submitPoll.whole(NvmOpcode.FLUSH, tag);
  }

  /** Shows the controller everything that was submitted since the last time: one doorbell. */
  ring(): void {
    this.#rings.ring();
  }

  /**
   * Takes completions, at most `max`: their tags and status are in `completedTags` and `completedStatus` until the next
   * call. Does not wait for any.
   * @returns their number
   * @throws NvmeControllerError, ClosedError when nothing is left and the queue has ended.
   */
  poll(max: number = this.depth): number {
    return this.#submitPoll.poll(max);
  }

  /**
   * Waits for what is in flight, deletes the queue and gives its memory back. Nothing is submitted any more; a user of the
   * submit/poll API has to have taken its completions. Idempotent.
   */
  close(): Promise<void> {
    return this.#close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
