/** An I/O queue as its user has it: commands by promises (block-commands.ts), and the submit/poll API (submit-poll.ts). */
import { forbidCloning } from '../cloning.js';
import type { CallOptions } from '../index.js';
import {
  BlockCommands,
  type BlockRange,
  type IoOptions,
  type NvmeData,
  type TransferOptions,
  type WriteZeroesOptions,
} from './block-commands.js';
import type { NvmeCommandQueue } from './command-queue.js';
import type { ControllerInfo } from './controller-info.js';
import type { IoQueuePair } from './io-queue-pair.js';
import type { NvmeNamespace } from './namespace.js';
import { NvmOpcode } from './opcodes.js';
import { passThrough, type IoCommand, type IoResult } from './passthrough.js';
import type { QueuePair } from './queue-pair.js';
import type { DoorbellKind } from './rings.js';
import { SubmitPoll } from './submit-poll.js';

/**
 * An I/O queue pair (NVM Express Base Specification 2.0, section 3.3.1) of a namespace, made by
 * `NvmeController.createQueue`. It has two APIs, which may be used at once: promises (`read`, `write` and so on), and
 * submit/poll for those who count nanoseconds (`submitRead`, `ring`, `poll` and so on): nothing is allocated for a command,
 * nothing is awaited, and one doorbell serves many commands.
 *
 * In the submit/poll API a buffer belongs to the device from its submission until its tag is reported. Where `doorbell` is
 * `'message'`, and for deadlines, resets and the end of the connection to be noticed, the event loop has to turn now and
 * then.
 * @example By promises:
 * ```ts
 * const data = await queue.read(0, 8);
 * await queue.write(0, data, { forceUnitAccess: true });
 * ```
 * @example By submit and poll:
 * ```ts
 * const queue = await controller.createQueue({ buffers: { bytes: 4096 } });
 * for (let i = 0; i < 32; i++) queue.submitRead(8 * i, 8, i, i); // buffer i, tag i
 * queue.ring();
 * for (;;) {
 *   const count = queue.poll();
 *   for (let i = 0; i < count; i++) {
 *     const tag = queue.completedTags[i]; // its data: queue.buffer(tag)
 *     if (queue.completedStatus[i] !== 0) throw new Error(decodeStatus(queue.completedStatus[i]).name);
 *     queue.submitRead(nextLba(), 8, tag, tag);
 *   }
 *   queue.ring();
 * }
 * ```
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
  readonly #info: ControllerInfo;
  readonly #commands: NvmeCommandQueue;
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
    this.#info = info;
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
   * Reads blocks into a new Buffer, with as many Read commands as the controller's limit makes it (NVM Command Set 1.0,
   * section 3.2.4).
   * @param lba - the first block, from 0
   * @param blocks - how many, from 1
   * @throws (as a rejection) RangeError for blocks that the namespace does not have, or a Buffer cannot; NvmeStatusError
   * where the controller completes a command with an error; TimeoutError; NvmeResetError where the controller was reset and
   * `retries` are used up; NvmeNamespaceError where the namespace has changed; NvmeControllerError; ClosedError; the
   * signal's reason.
   */
  read(lba: number, blocks: number, options?: Omit<TransferOptions, 'offset'>): Promise<Buffer> {
    return this.#blocks.read(lba, blocks, options);
  }

  /**
   * Reads from `lba` on into `target`, as many blocks as it holds or `blocks` of them: straight into a DMA buffer, by way
   * of the queue's own memory into a Buffer or Uint8Array. `target` is the queue's until the promise settles: where it is
   * transferred, resized or freed before, the call rejects with TypeError or ClosedError.
   * @param lba - the first block, from 0
   * @param target - with `offset`, where the data goes
   * @throws as `read`; RangeError where `target` does not hold whole blocks, or fewer than `blocks`.
   */
  readInto(lba: number, target: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('readInto', lba, target, options);
  }

  /**
   * Writes (NVM Command Set 1.0, section 3.2.6) `data` from `lba` on, or the first `blocks` blocks of it: a DMA buffer, a Buffer or a Uint8Array. It must not
   * change until the promise settles. Once it does, the controller is done with the data, also where the promise is
   * rejected; but with ClosedError and NvmeControllerError nobody knows. A long write that fails may have written any of
   * its parts.
   * @param lba - the first block, from 0
   * @throws as `readInto`.
   */
  write(lba: number, data: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('write', lba, data, options);
  }

  /**
   * Compares (NVM Command Set 1.0, section 3.2.1) the blocks from `lba` on with `data`.
   * @param lba - the first block, from 0
   * @throws as `readInto`; NvmeStatusError COMPARE_FAILURE where they differ; UnsupportedError where the controller has no
   * such command (ONCS).
   */
  compare(lba: number, data: NvmeData, options?: TransferOptions & { blocks?: number }): Promise<void> {
    return this.#blocks.move('compare', lba, data, options);
  }

  /** Flush (NVM Express Base 2.0, section 7.1): what was written to the namespace is durable then. @throws as `read`. */
  flush(options?: IoOptions): Promise<void> {
    return this.#blocks.flush(options);
  }

  /**
   * Writes zeroes without transferring any (Write Zeroes, NVM Command Set 1.0, section 3.2.8).
   * @param lba - the first block, from 0
   * @param blocks - how many, from 1
   * @throws as `read`; UnsupportedError where the controller has no such command (ONCS).
   */
  writeZeroes(lba: number, blocks: number, options?: WriteZeroesOptions): Promise<void> {
    return this.#blocks.writeZeroes(lba, blocks, options);
  }

  /**
   * Tells the controller that the data of these blocks is not needed any more (Dataset Management, NVM Command Set 1.0,
   * section 3.2.3). What is read of them afterwards depends on the namespace (`identity.deallocation`).
   * @throws as `read`; UnsupportedError where the controller has no such command (ONCS).
   */
  deallocate(ranges: readonly BlockRange[], options?: IoOptions): Promise<void> {
    return this.#blocks.deallocate(ranges, options);
  }

  /** @internal Sends a command of a caller's: see `NvmeController.ioCommand`. */
  passThrough(
    request: IoCommand,
    namespace: NvmeNamespace | undefined,
    options: CallOptions | undefined,
  ): Promise<IoResult> {
    return passThrough({ commands: this.#commands, info: this.#info, namespace }, request, options);
  }

  /**
   * The memory of buffer `index`, 0 to `bufferCount` - 1; empty once the queue is closed or its memory was taken away.
   * @throws RangeError.
   */
  buffer(index: number): Buffer {
    return this.#submitPoll.buffer(index);
  }

  /**
   * Puts a read into the ring; the controller sees it after `ring`.
   * @param lba - the first block, from 0
   * @param blocks - how many, 1 to 65,536, of no more than `bufferBytes` together
   * @param buffer - the number of the buffer that the data goes to, from its beginning
   * @param tag - what `completedTags` will say, 32 bits
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
   * @param max - the most, from 0; default `depth`
   * @returns their number
   * @throws NvmeControllerError, ClosedError when nothing is left and the queue has ended.
   */
  poll(max: number = this.depth): number {
    return this.#submitPoll.poll(max);
  }

  /**
   * Waits for what is in flight, deletes the queue (sections 5.6 and 5.7) and gives its memory back. Nothing is submitted any more; a user of the
   * submit/poll API has to have taken its completions. Idempotent.
   * @throws what the controller answers to the deletion, where it goes on; the queue is closed to commands all the same.
   */
  close(): Promise<void> {
    return this.#close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
