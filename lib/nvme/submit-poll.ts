/**
 * The submit/poll API of an I/O queue: commands whose data is in the queue's own buffers, composed in the submission queue
 * itself. Nothing is allocated for a command, nothing is awaited, and one doorbell serves many commands.
 */
import { notInteger, outOfRange, UINT32_MAX } from '../fields.js';
import type { NvmeCommandQueue } from './command-queue.js';
import { USES_SGL } from './data-pointers.js';
import { POINTER_SHIFT, type IoBuffers } from './io-buffers.js';
import { lbaRangeError, type NvmeNamespace } from './namespace.js';
import { MAX_BLOCKS_A_COMMAND } from './opcodes.js';
import { SLOT_TAGGED, type CommandSlots } from '../commands/command-slots.js';
import type { QueuePair } from './queue-pair.js';
import type { SubmissionQueue } from './rings.js';

const TWO_32 = 2 ** 32;
const NOTHING = new Uint32Array(0);

export class SubmitPoll {
  readonly #commands: NvmeCommandQueue;
  readonly #pair: QueuePair;
  // Of the pair: each is asked for with every command.
  readonly #slots: CommandSlots;
  readonly #commandIds: Uint16Array;
  readonly #sq: SubmissionQueue;
  readonly #entries: Uint32Array;
  readonly #namespace: NvmeNamespace;
  readonly #buffers: IoBuffers | undefined;
  readonly #bufferCount: number;
  readonly #bufferBytes: number;
  readonly #pointers: Uint32Array;
  readonly #nsid: number;
  readonly #blocks: number;
  readonly #blockSize: number;
  /** Of data on more than one page. */
  readonly #usesSgls: boolean;
  /** How much of a transfer lies on its first page. */
  readonly #firstBytes: number;

  constructor(commands: NvmeCommandQueue, namespace: NvmeNamespace, buffers: IoBuffers | undefined) {
    this.#commands = commands;
    const { slots, sq } = commands.pair;
    this.#pair = commands.pair;
    this.#slots = slots;
    this.#commandIds = slots.commandIds;
    this.#sq = sq;
    this.#entries = sq.entries;
    this.#namespace = namespace;
    this.#buffers = buffers;
    this.#bufferCount = buffers?.count ?? 0;
    this.#bufferBytes = buffers?.bytes ?? 0;
    this.#pointers = buffers?.pointers ?? NOTHING;
    this.#nsid = namespace.id;
    this.#blocks = namespace.blocks;
    this.#blockSize = namespace.blockSize;
    this.#usesSgls = buffers?.usesSgls === true;
    this.#firstBytes = buffers?.firstBytes ?? 0;
  }

  /** @throws RangeError. */
  buffer(index: number): Buffer {
    if (
      this.#buffers === undefined ||
      typeof index !== 'number' ||
      !(index >>> 0 === index && index < this.#bufferCount)
    ) {
      throw this.#bufferError(index);
    }
    return this.#buffers.bytesOf(index);
  }

  /** A command with data. False where there is no room. @throws RangeError; what ended the queue. */
  transfer(opcode: number, lba: number, blocks: number, buffer: number, tag: number): boolean {
    let bytes = 0;
    if (!(
      this.#areBlocks(lba, blocks) &&
      (bytes = blocks * this.#blockSize) <= this.#bufferBytes &&
      typeof buffer === 'number' &&
      buffer >>> 0 === buffer &&
      buffer < this.#bufferCount
    )) {
      throw this.#refusal(lba, blocks, buffer);
    }
    if (typeof tag !== 'number' || tag >>> 0 !== tag) throw tagError(tag);
    const slot = this.#slots.claim(SLOT_TAGGED, tag);
    if (slot < 0) return this.#isFull();
    const pointers = this.#pointers;
    const from = buffer << POINTER_SHIFT;
    const sq = this.#entries;
    const at = this.#sq.next();
    sq[at] = opcode | (this.#commandIds[slot]! << 16);
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
      // There are buffers: the number of this one was checked above.
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

  /** A command for blocks that has no data. See `transfer`. */
  blocks(opcode: number, lba: number, blocks: number, tag: number): boolean {
    if (!this.#areBlocks(lba, blocks)) throw this.#refusal(lba, blocks);
    return this.#put(opcode, lba, blocks - 1, tag);
  }

  /** A command for the namespace as a whole. See `transfer`. */
  whole(opcode: number, tag: number): boolean {
    return this.#put(opcode, 0, 0, tag);
  }

  /** Takes completions. @throws TypeError, RangeError; when nothing is left and the queue has ended, what ended it. */
  poll(max: number): number {
    if (typeof max !== 'number' || max >>> 0 !== max)
      throw notInteger('NvmeQueue.poll: max', max, 0, UINT32_MAX);
    const count = this.#pair.poll(max);
    if (count === 0 && !this.#pair.isOpen) this.#commands.throwIfEnded();
    return count;
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
  #put(opcode: number, lba: number, cdw12: number, tag: number): boolean {
    if (typeof tag !== 'number' || tag >>> 0 !== tag) throw tagError(tag);
    const slot = this.#slots.claim(SLOT_TAGGED, tag);
    if (slot < 0) return this.#isFull();
    const sq = this.#entries;
    const at = this.#sq.next();
    sq[at] = opcode | (this.#commandIds[slot]! << 16);
    sq[at + 1] = this.#nsid;
    for (let i = 2; i < 16; i++) sq[at + i] = 0;
    sq[at + 10] = lba >>> 0;
    sq[at + 11] = Math.floor(lba / TWO_32);
    sq[at + 12] = cdw12;
    return true;
  }

  #isFull(): false {
    this.#commands.throwIfEnded();
    return false;
  }

  /** The error for what `areBlocks` or the buffer refuse. */
  #refusal(lba: number, blocks: number, buffer?: number): Error {
    const namespace = this.#namespace;
    const isInRange = Number.isInteger(lba) && lba >= 0 && Number.isInteger(blocks) && blocks > 0;
    if (!isInRange || lba + blocks > namespace.blocks) return lbaRangeError(namespace, lba, blocks);
    if (blocks > MAX_BLOCKS_A_COMMAND)
      return outOfRange(`blocks must be at most ${MAX_BLOCKS_A_COMMAND} in one command, got ${blocks}`);
    const count = this.#bufferCount;
    if (typeof buffer !== 'number' || buffer >>> 0 !== buffer || buffer >= count)
      return this.#bufferError(buffer);
    return outOfRange(
      `blocks: ${blocks} blocks of ${namespace.blockSize} bytes do not fit in a buffer of ${this.#bufferBytes} bytes`,
    );
  }

  #bufferError(index: unknown): Error {
    if (this.#bufferCount === 0)
      return outOfRange('the queue has no buffers: see the option buffers of createQueue');
    return outOfRange(`buffer must be an integer from 0 to ${this.#bufferCount - 1}, got ${String(index)}`);
  }
}

function tagError(tag: number): RangeError {
  return outOfRange(`tag must be an integer from 0 to ${UINT32_MAX}, got ${String(tag)}`);
}
