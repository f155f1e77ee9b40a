/** A command on its way, for one caller that waits. */
import type { DmaBuffer } from '../index.js';

/** `Command.answer` until something else is set: the promise gives dword 0 of the completion. */
export const RESULT: unique symbol = Symbol('dword 0 of the completion');

/** Parts of one long transfer: when one has failed, those that have not begun are not sent. */
export interface Group {
  failure: unknown;
  hasFailed: boolean;
}

export class Command {
  /** For errors: `read of 8 blocks at 0`. */
  readonly name: string;
  readonly opcode: number;
  readonly namespace: number;
  cdw10 = 0;
  cdw11 = 0;
  cdw12 = 0;
  cdw13 = 0;
  cdw14 = 0;
  cdw15 = 0;
  /** Bytes of data; 0 for none. */
  length = 0;
  /** Memory of this process, which goes through bounce pages; without it `low` and `high` are a DMA address. */
  bytes: Uint8Array | undefined = undefined;
  isToDevice = false;
  /** The data's address; without `length` what PRP1 is, as it stands. */
  low = 0;
  high = 0;
  /** Without `length`: what PRP2 is. */
  secondPointer = 0n;
  /** What the promise gives. */
  answer: unknown = RESULT;
  /** How many times it is sent again after a controller reset. */
  retries = 0;
  group: Group | undefined = undefined;

  // What follows is the queue's.
  resolve!: (value: never) => void;
  reject!: (reason: unknown) => void;
  /** The slot while the command is in flight, else -1. */
  slot = -1;
  pages: number[] | undefined = undefined;
  /** The caller has an answer; the slot may still be in use. */
  isSettled = false;
  /** Why the caller gets an error whatever comes, when there is one. */
  verdict: unknown = undefined;
  /** In the order in which they came. */
  order = 0;
  epoch = 0;
  /** The default deadline is not for this one. */
  hasOwnDeadline = false;
  timer: NodeJS.Timeout | undefined = undefined;
  signal: AbortSignal | undefined = undefined;
  onAbort: (() => void) | undefined = undefined;

  constructor(name: string, opcode: number, namespace: number) {
    this.name = name;
    this.opcode = opcode;
    this.namespace = namespace;
  }

  /** Data in memory of this process. */
  through(bytes: Uint8Array, isToDevice: boolean): this {
    this.bytes = bytes;
    this.length = bytes.length;
    this.isToDevice = isToDevice;
    return this;
  }

  /** Data in memory that the device reaches, from `offset`. It must not be reused before the promise settles. */
  direct(buffer: DmaBuffer, offset: number, length: number): this {
    const { iova } = buffer;
    // A number where that is exact: bigints cost more than the rest of a command.
    if (iova <= MAX_EXACT) {
      const address = Number(iova) + offset;
      this.low = address >>> 0;
      this.high = Math.floor(address / TWO_32);
    } else {
      const address = iova + BigInt(offset);
      this.low = Number(BigInt.asUintN(32, address));
      this.high = Number(address >> 32n);
    }
    this.length = length;
    return this;
  }

  /** The memory is the caller's own: the caller has no answer before the device is done with it. */
  get isDirect(): boolean {
    return this.length > 0 && this.bytes === undefined;
  }
}

const TWO_32 = 2 ** 32;
const MAX_EXACT = 1n << 52n;
