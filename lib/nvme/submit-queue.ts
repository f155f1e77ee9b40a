/**
 * The submit/poll face of an I/O queue, for those who count nanoseconds: nothing is allocated for a command, nothing is
 * awaited, and one doorbell serves many commands.
 *
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
import { forbidCloning } from '../cloning.js';
import { notInteger, UINT32_MAX } from '../fields.js';
import type { CommandQueue } from './command-queue.js';
import { POINTER_SHIFT, type IoBuffers } from './io-buffers.js';
import { USES_SGL } from './sgls.js';
import type { NvmeNamespace } from './namespace.js';
import { NvmOpcode } from './opcodes.js';
import { SLOT_TAGGED, type QueuePair } from './queue-pair.js';

const TWO_32 = 2 ** 32;
const NOTHING = new Uint32Array(0);
/** NLB has 16 bits. */
export const MAX_BLOCKS_A_COMMAND = 65_536;

export class SubmitQueue {
  /** The queue identifier, from 1. */
  readonly id: number;
  /** How many commands can be in flight. */
  readonly depth: number;
  /** What all commands are for that do not say otherwise. */
  readonly namespace: NvmeNamespace;
  /** Tags of the commands that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status fields: 0 is success, `decodeStatus` has the rest. */
  readonly completedStatus: Uint16Array;
  /** How many buffers there are for this face, and the length of each in bytes. */
  readonly bufferCount: number;
  readonly bufferBytes: number;
  /** @internal */
  protected readonly commands: CommandQueue;
  readonly #pair: QueuePair;
  readonly #buffers: IoBuffers | undefined;
  readonly #pointers: Uint32Array;
  readonly #nsid: number;
  readonly #blocks: number;
  readonly #blockSize: number;
  /** Of data on more than one page. */
  readonly #usesSgls: boolean;
  /** How much of a transfer lies on its first page. */
  readonly #firstBytes: number;

  /** @internal */
  constructor(commands: CommandQueue, namespace: NvmeNamespace, buffers: IoBuffers | undefined) {
    const { pair } = commands;
    this.commands = commands;
    this.id = pair.id;
    this.depth = pair.slots;
    this.namespace = namespace;
    this.completedTags = pair.completedTags;
    this.completedStatus = pair.completedStatus;
    this.bufferCount = buffers?.count ?? 0;
    this.bufferBytes = buffers?.bytes ?? 0;
    this.#pair = pair;
    this.#buffers = buffers;
    this.#pointers = buffers?.pointers ?? NOTHING;
    this.#nsid = namespace.id;
    this.#blocks = namespace.blocks;
    this.#blockSize = namespace.blockSize;
    this.#usesSgls = buffers?.usesSgls === true;
    this.#firstBytes = buffers?.firstBytes ?? 0;
    forbidCloning(this, 'an NVMe queue');
  }

  /** Commands of both faces that are in flight, or completed and not yet reported. */
  get inFlight(): number {
    return this.#pair.inFlight;
  }

  /** The memory of buffer `index`; empty once the queue is closed or its memory was taken away. */
  buffer(index: number): Buffer {
    if (
      this.#buffers === undefined ||
      typeof index !== 'number' ||
      !(index >>> 0 === index && index < this.bufferCount)
    ) {
      throw new RangeError(`the queue has ${this.bufferCount} buffers; ${index} is none of them`);
    }
    return this.#buffers.bytesOf(index);
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
    return this.#submit(NvmOpcode.READ, lba, blocks, buffer, tag);
  }

  /** Puts a write into the ring; see `submitRead`. */
  submitWrite(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submit(NvmOpcode.WRITE, lba, blocks, buffer, tag);
  }

  /** Puts a compare into the ring, where the controller has it; see `submitRead`. */
  submitCompare(lba: number, blocks: number, buffer: number, tag: number): boolean {
    return this.#submit(NvmOpcode.COMPARE, lba, blocks, buffer, tag);
  }

  /** Puts a write of zeroes into the ring, where the controller has it; see `submitRead`. */
  submitWriteZeroes(lba: number, blocks: number, tag: number): boolean {
    if (!this.#areBlocks(lba, blocks)) this.#refuse(lba, blocks, 0);
    return this.#put(NvmOpcode.WRITE_ZEROES, lba, blocks, tag);
  }

  /** Puts a flush of the namespace into the ring; see `submitRead`. */
  submitFlush(tag: number): boolean {
    return this.#put(NvmOpcode.FLUSH, 0, 1, tag);
  }

  /** Shows the controller everything that was submitted since the last time: one doorbell. */
  ring(): void {
    this.#pair.ring();
  }

  /**
   * Takes completions, at most `max`: their tags and status are in `completedTags` and `completedStatus` until the next
   * call. Does not wait for any.
   * @returns their number
   * @throws NvmeControllerError, ClosedError when nothing is left and the queue has ended.
   */
  poll(max: number = this.depth): number {
    if (typeof max !== 'number' || max >>> 0 !== max)
      throw notInteger('SubmitQueue.poll: max', max, 0, UINT32_MAX);
    const pair = this.#pair;
    const count = pair.poll(max);
    if (count === 0 && !pair.isOpen) this.commands.throwIfEnded();
    return count;
  }

  #submit(opcode: number, lba: number, blocks: number, buffer: number, tag: number): boolean {
    let bytes = 0;
    if (!(
      this.#areBlocks(lba, blocks) &&
      (bytes = blocks * this.#blockSize) <= this.bufferBytes &&
      typeof buffer === 'number' &&
      buffer >>> 0 === buffer &&
      buffer < this.bufferCount
    )) {
      this.#refuse(lba, blocks, buffer);
    }
    if (typeof tag !== 'number' || tag >>> 0 !== tag) refuseTag(tag);
    const pair = this.#pair;
    const slot = pair.claim(SLOT_TAGGED, tag);
    if (slot < 0) return this.#isFull();
    const pointers = this.#pointers;
    const from = buffer << POINTER_SHIFT;
    const { sq } = pair;
    const at = pair.entry();
    sq[at] = opcode | (pair.commandIds[slot]! << 16);
    sq[at + 1] = this.#nsid;
    sq[at + 2] = 0;
    sq[at + 3] = 0;
    sq[at + 4] = 0;
    sq[at + 5] = 0;
    sq[at + 6] = pointers[from]!;
    sq[at + 7] = pointers[from + 1]!;
    if (bytes <= this.#firstBytes) {
      sq[at + 8] = 0;
      sq[at + 9] = 0;
    } else if (this.#usesSgls) {
      sq[at] |= USES_SGL;
      sq[at + 8] = bytes;
      sq[at + 9] = 0;
    } else {
      const second = from + this.#buffers!.secondPointer(bytes);
      sq[at + 8] = pointers[second]!;
      sq[at + 9] = pointers[second + 1]!;
    }
    sq[at + 10] = lba >>> 0;
    sq[at + 11] = lba < TWO_32 ? 0 : Math.floor(lba / TWO_32);
    sq[at + 12] = blocks - 1;
    sq[at + 13] = 0;
    sq[at + 14] = 0;
    sq[at + 15] = 0;
    return true;
  }

  /** Whether the namespace has them, and one command can name them: NLB has 16 bits. */
  #areBlocks(lba: number, blocks: number): boolean {
    return (
      Number.isInteger(lba) &&
      lba >= 0 &&
      Number.isInteger(blocks) &&
      blocks > 0 &&
      blocks <= MAX_BLOCKS_A_COMMAND &&
      lba + blocks <= this.#blocks
    );
  }

  /** A command without data. */
  #put(opcode: number, lba: number, blocks: number, tag: number): boolean {
    if (typeof tag !== 'number' || tag >>> 0 !== tag) refuseTag(tag);
    const pair = this.#pair;
    const slot = pair.claim(SLOT_TAGGED, tag);
    if (slot < 0) return this.#isFull();
    const { sq } = pair;
    const at = pair.entry();
    sq[at] = opcode | (pair.commandIds[slot]! << 16);
    sq[at + 1] = this.#nsid;
    for (let i = 2; i < 16; i++) sq[at + i] = 0;
    sq[at + 10] = lba >>> 0;
    sq[at + 11] = Math.floor(lba / TWO_32);
    sq[at + 12] = blocks - 1;
    return true;
  }

  #isFull(): false {
    this.commands.throwIfEnded();
    return false;
  }

  #refuse(lba: number, blocks: number, buffer: number): never {
    const { namespace, bufferCount, bufferBytes } = this;
    const where = `namespace ${namespace.id} has ${namespace.blocks} blocks of ${namespace.blockSize} bytes`;
    throw new RangeError(
      `${String(blocks)} blocks at ${String(lba)}, buffer ${String(buffer)}: ${where}, ` +
        `the queue ${bufferCount} buffers of ${bufferBytes} bytes, a command ${MAX_BLOCKS_A_COMMAND} blocks at most`,
    );
  }
}

function refuseTag(tag: number): never {
  throw new RangeError(`tag must be a whole number from 0 to ${0xffff_ffff}, not ${String(tag)}`);
}
