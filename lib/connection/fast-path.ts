/**
 * The fast path of a small synchronous access: one native call sends it, from memory that the thread's connections share,
 * and brings the answer there. An answer that is not exactly the plain reply becomes a call like any other.
 *
 * The system calls between an answer and the next question empty the processor's caches, so what counts is how little code
 * and memory there is in between: the message is encoded and its reply compared a word at a time, and whether the path may
 * be taken is looked at once, and again after something has gone another way through the transport (`isUndisturbed`).
 */
import { TWO_TO_32 } from '../protocol/bytes.js';
import { HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { writeRegionAccess } from '../protocol/region-access.js';
import {
  QUICK_OTHER_AT,
  QUICK_REPLY_AT,
  SLICE_MS,
  type MessageTap,
  type QuickFace,
  type QuickMemory,
} from '../transport/index.js';
import { countRoundTrip, countSent } from './counters.js';
import { FLAGS_COMMAND } from './header-flags.js';
import type { Flow } from './request-scheduler.js';
import { ACCESS_HEAD_SIZE, type Access, type RegionAccess } from './region-access-codec.js';

/** What is written stands before the answer; what is read has room behind it. In bytes. */
const WRITE_MAX = QUICK_REPLY_AT - ACCESS_HEAD_SIZE;
const READ_MAX = 4096;
/** The widest register, in bytes. */
const REGISTER_MAX = 8;
const REPLY_WORD = QUICK_REPLY_AT >>> 2;
const OTHER_WORD = QUICK_OTHER_AT >>> 2;
/** Where a reply's data stands. */
const DATA_AT = QUICK_REPLY_AT + ACCESS_HEAD_SIZE;
/** From bytes to the upper half of a 64-bit field: a product is there sooner than a quotient. */
const FROM_2_32 = 2 ** -32;

/** A round trip that did not bring the plain reply. */
export interface Unfinished {
  readonly id: number;
  /** Of the message, in bytes. */
  readonly size: number;
  /** How many bytes of an answer stand in the shared memory; negative: as many of the message were not sent. */
  readonly came: number;
}

export class FastPath {
  readonly quick: QuickFace;
  readonly #flow: Flow;
  readonly #tap: MessageTap | undefined;
  /** Of the twin, where there was one when it was looked for the last time. */
  #twin: QuickFace | undefined;
  #isForbidden = false;

  constructor(flow: Flow, quick: QuickFace, tap: MessageTap | undefined) {
    this.#flow = flow;
    this.quick = quick;
    this.#tap = tap;
  }

  /** Nobody may make synchronous calls. */
  set isForbidden(on: boolean) {
    this.#isForbidden = on;
    this.disturb();
  }

  /** What decides whether the path may be taken has changed, other than by a message: it is looked at again. */
  disturb(): void {
    this.quick.isUndisturbed = false;
  }

  /** Whether the access may go this way now: it is small, nobody listens, and nothing else is under way or being done. */
  mayTake({ count, body }: Access): boolean {
    if (body === null ? count > READ_MAX : body.length > WRITE_MAX) return false;
    if (this.#tap?.active === true) return false;
    // Whatever ends the quiet goes through one of the transports, or is told to `disturb`.
    if (this.quick.isUndisturbed && this.#twin?.isUndisturbed !== false) return true;
    if (this.#isForbidden || !this.#flow.isQuiet || this.#flow.isServedHere) return false;
    this.#twin = this.#flow.twin?.transport.quick;
    if (this.#twin !== undefined) this.#twin.isUndisturbed = true;
    this.quick.isUndisturbed = true;
    return true;
  }

  /**
   * Sends the access and waits for its reply, for one slice of `timeoutMs` at the most; `goOn` makes the result where that
   * does not come, or is not plain.
   * @throws TypeError where the memory of the access is gone; TypeError, RangeError for what a field cannot hold.
   */
  run<T>(access: RegionAccess<T>, timeoutMs: number, goOn: (unfinished: Unfinished) => T): T {
    const { quick } = this;
    const { memory } = quick;
    const { body, count } = access;
    const id = this.#flow.slots.borrowId();
    const size = encode(memory, id, access);
    const twin = this.#twin;
    let came = quick.roundTrip(size, timeoutMs < SLICE_MS ? timeoutMs : SLICE_MS, twin);
    const dataBytes = body === null ? count : 0;
    if (!isPlainReply(memory, came, dataBytes)) {
      came = quick.afterRoundTrip(came, size);
      if (!isPlainReply(memory, came, dataBytes)) {
        countSent(this.#flow.counters, size);
        return goOn({ id, size, came });
      }
    }
    countRoundTrip(this.#flow.counters, size, came);
    const value = access.take(memory.bytes, DATA_AT, access);
    // What the server asked for before it answered comes before the answer: a read pushes writes.
    if (twin !== undefined && memory.words[OTHER_WORD] !== 0) this.#flow.receiveFromTwin();
    return value;
  }
}

/** Encodes the whole message, a word at a time. Returns its size. */
function encode({ bytes, words }: QuickMemory, id: number, access: Access): number {
  const { command, region, offset, count, body } = access;
  const size = ACCESS_HEAD_SIZE + (body === null ? 0 : body.length);
  words[0] = (command << 16) | id;
  words[1] = size;
  words[2] = FLAGS_COMMAND;
  words[3] = 0;
  // A store takes the value modulo 2^32.
  words[4] = offset;
  words[5] = offset * FROM_2_32;
  words[6] = region;
  words[7] = count;
  // What stands there is what was meant, or the slower way says what is wrong with it.
  if (words[5] * TWO_TO_32 + words[4] !== offset || words[6] !== region || words[7] !== count) {
    writeRegionAccess(bytes, HEADER_SIZE, offset, region, count);
  }
  if (body !== null) setBody(bytes, body);
  return size;
}

/** A register's few bytes are there before `set` has been found. */
function setBody(bytes: Buffer, body: Uint8Array): void {
  const { length } = body;
  if (length === 0 || length > REGISTER_MAX) bytes.set(body, ACCESS_HEAD_SIZE);
  else for (let i = 0; i < length; i++) bytes[ACCESS_HEAD_SIZE + i] = body[i]!;
}

/**
 * Whether the `received` bytes of an answer are one whole message, the plain reply to what `encode` wrote: id, command,
 * offset, region and count echoed, and `dataBytes` of data.
 */
function isPlainReply({ words }: QuickMemory, received: number, dataBytes: number): boolean {
  return (
    received === ACCESS_HEAD_SIZE + dataBytes &&
    words[REPLY_WORD] === words[0] &&
    words[REPLY_WORD + 1] === received &&
    words[REPLY_WORD + 2] === HEADER_FLAG_REPLY &&
    words[REPLY_WORD + 4] === words[4] &&
    words[REPLY_WORD + 5] === words[5] &&
    words[REPLY_WORD + 6] === words[6] &&
    words[REPLY_WORD + 7] === words[7]
  );
}
