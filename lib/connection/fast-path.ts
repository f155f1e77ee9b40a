/**
 * The fast path of a small synchronous access: one native call sends it, from memory that the thread's connections share, and
 * brings the reply there. A reply that is not exactly the expected one becomes that of a call like any other.
 *
 * The system calls between a reply and the next request empty the processor's caches, so what counts is how little code and
 * memory there is in between: the message is encoded and its reply compared a word at a time, and whether the path may be
 * taken is looked at once, and again after something has gone another way through the transport (`isKnownIdle`).
 */
import { TWO_TO_32 } from '../protocol/bytes.js';
import { HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { writeRegionAccess } from '../protocol/region-access.js';
import {
  FAST_PATH_OTHER_AT,
  FAST_PATH_REPLY_AT,
  FAST_PATH_WAITED_AT,
  SLICE_MS,
  type FastPathMemory,
  type FastPathSocket,
  type MessageTap,
} from '../transport/index.js';
import type { Statistics } from './counters.js';
import type { PendingRequests } from './pending-requests.js';
import { ACCESS_HEAD_SIZE, FLAGS_COMMAND, type Access, type RegionAccess } from './region-access-codec.js';
import type { RequestScheduler } from './request-scheduler.js';
import type { EncodedMessage } from './send-queue.js';
import type { ServerRequests } from './server-request.js';
import type { Sockets } from './sockets.js';

/** What is written stands before the reply; what is read has room behind it. In bytes. */
const WRITE_MAX = FAST_PATH_REPLY_AT - ACCESS_HEAD_SIZE;
const READ_MAX = 4096;
/** The widest register, in bytes. */
const REGISTER_MAX = 8;
const REPLY_WORD = FAST_PATH_REPLY_AT >>> 2;
const OTHER_WORD = FAST_PATH_OTHER_AT >>> 2;
/** Where a reply's data stands. */
const DATA_AT = FAST_PATH_REPLY_AT + ACCESS_HEAD_SIZE;
/** From bytes to the upper half of a 64-bit field: a product is there sooner than a quotient. */
const FROM_2_32 = 2 ** -32;

/** A round trip that did not bring the expected reply. */
export interface Unfinished {
  readonly id: number;
  /** In the shared memory, until somebody else uses the fast path. */
  readonly message: EncodedMessage;
  /** How many bytes of the message have gone. */
  readonly sent: number;
  /** How many bytes that came stand in the shared memory: `FastPath.handOver` treats them as any others. */
  readonly received: number;
  /** How long the reply was waited for, in milliseconds. */
  readonly waitedMs: number;
}

/** What the fast path has to know of its connection. */
export interface FastPathOptions {
  socket: FastPathSocket;
  sockets: Sockets;
  requests: PendingRequests;
  scheduler: RequestScheduler;
  serverRequests: ServerRequests;
  statistics: Statistics;
  tap: MessageTap | undefined;
}

export class FastPath {
  readonly #socket: FastPathSocket;
  readonly #sockets: Sockets;
  readonly #requests: PendingRequests;
  readonly #scheduler: RequestScheduler;
  readonly #serverRequests: ServerRequests;
  readonly #statistics: Statistics;
  readonly #tap: MessageTap | undefined;
  /** Of the twin socket, where there was one when it was looked for the last time. */
  #twin: FastPathSocket | undefined;
  #isForbidden = false;

  constructor({ socket, sockets, requests, scheduler, serverRequests, statistics, tap }: FastPathOptions) {
    this.#socket = socket;
    this.#sockets = sockets;
    this.#requests = requests;
    this.#scheduler = scheduler;
    this.#serverRequests = serverRequests;
    this.#statistics = statistics;
    this.#tap = tap;
  }

  /** Nobody may make synchronous calls. */
  set isForbidden(on: boolean) {
    this.#isForbidden = on;
    this.recheck();
  }

  /** What decides whether the path may be taken has changed, other than by a message: it is looked at again. */
  recheck(): void {
    this.#socket.isKnownIdle = false;
  }

  /** Whether the access may take the path now: it is small, nobody listens, and the connection is idle. */
  mayTake({ count, body }: Access): boolean {
    if (body === null ? count > READ_MAX : body.length > WRITE_MAX) return false;
    if (this.#tap?.active === true) return false;
    // What ends the idleness goes through one of the transports, or calls `recheck`.
    if (this.#socket.isKnownIdle && this.#twin?.isKnownIdle !== false) return true;
    if (this.#isForbidden || !this.#isIdle()) return false;
    this.#twin = this.#sockets.twinFastPath;
    if (this.#twin !== undefined) this.#twin.isKnownIdle = true;
    this.#socket.isKnownIdle = true;
    return true;
  }

  /**
   * Sends the access and waits for its reply, for one slice of `timeoutMs` at the most; `goOn` makes the result where the
   * expected one does not come.
   * @throws TypeError where the memory of the access is gone; TypeError, RangeError for what a field cannot hold.
   */
  run<T>(access: RegionAccess<T>, timeoutMs: number, goOn: (unfinished: Unfinished) => T): T {
    const socket = this.#socket;
    const { memory } = socket;
    const { body, count } = access;
    const id = this.#requests.borrowId();
    const size = encode(memory, id, access);
    const twin = this.#twin;
    let received = socket.roundTrip(size, timeoutMs < SLICE_MS ? timeoutMs : SLICE_MS, twin);
    const dataBytes = body === null ? count : 0;
    if (!isExpectedReply(memory, received, dataBytes)) {
      received = socket.afterRoundTrip(received, size);
      if (!isExpectedReply(memory, received, dataBytes)) {
        this.#statistics.countSent(size);
        return goOn(unfinished(memory, id, size, received));
      }
    }
    this.#statistics.countSent(size);
    this.#statistics.countReceived(received);
    const value = access.take(memory.bytes, DATA_AT, access);
    // What the server asked for before it answered comes before the reply: a read pushes writes.
    if (twin !== undefined && memory.words[OTHER_WORD] !== 0) this.#sockets.receiveFromTwin();
    return value;
  }

  /** Has what a round trip has received treated as any other bytes. */
  handOver({ received }: Unfinished): void {
    this.#socket.handOver(received);
  }

  /** Nothing is under way, waits to go or is being served: a message that goes now is the next, and what comes is new. */
  #isIdle(): boolean {
    return (
      this.#scheduler.isIdle &&
      !this.#serverRequests.isServing &&
      this.#sockets.isIdle &&
      !this.#sockets.main.isServedHere
    );
  }
}

/** `result` is that of `afterRoundTrip`. */
function unfinished({ bytes }: FastPathMemory, id: number, size: number, result: number): Unfinished {
  const message = { head: bytes, headLength: size, body: null, fds: null };
  // A message that was not sent whole was not waited for: what stands there is of another call.
  if (result < 0) return { id, message, sent: size + result, received: 0, waitedMs: 0 };
  return { id, message, sent: size, received: result, waitedMs: bytes.readDoubleLE(FAST_PATH_WAITED_AT) };
}

/** Encodes the whole message, a word at a time. Returns its size. */
function encode({ bytes, words }: FastPathMemory, id: number, access: Access): number {
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
  // What stands there is what was meant, or the slow path says what is wrong with it.
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
 * Whether the `received` bytes are one whole message, the expected reply to what `encode` wrote: id, command,
 * offset, region and count echoed, and `dataBytes` of data.
 */
function isExpectedReply({ words }: FastPathMemory, received: number, dataBytes: number): boolean {
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
