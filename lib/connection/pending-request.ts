/**
 * A call that waits for its reply.
 *
 * ```
 *          room in flight           all of it has gone          reply, error, close
 *   queued ──────────────▶ sending ────────────────────▶ sent ─────────────────────▶ settled
 *     │ deadline, abort,      │ none of it has gone:       │ deadline, abort
 *     │ stall                 │ deadline, abort, stall     ▼                late reply
 *     ▼                       ▼                         settled; its id ─────────────────▶ free
 *   settled                settled                      has a tombstone
 * ```
 * With room in flight and in the socket, as is usual, a call is sent at once. A tombstone keeps the id of a call that was
 * given up reserved until the late reply has come: the next call with that id would be given the wrong reply.
 */
import type { Landing } from '../transport/index.js';
import type { AbortListener } from './abort-listeners.js';
import type { Timed } from './deadlines.js';
import type { Linked } from './linked-list.js';
import { decodeAccess, type RegionAccess } from './region-access-codec.js';
import type { EncodedMessage, SendQueueEntry, SendQueueOwner } from './send-queue.js';

/** Makes the call's result of a reply's payload. What it does not take out of `fds` (set to -1) is closed. */
export type Decoder<T> = (bytes: Buffer, start: number, end: number, fds: number[]) => T;

/** What the caller gave. It stays as it is. */
export interface Call {
  readonly command: number;
  /** The caller blocks the thread until the call is settled. */
  readonly isBlocking: boolean;
  /** An access to a region, or a decoder of the reply. */
  readonly reply: RegionAccess<unknown> | Decoder<unknown>;
  readonly resolve: (value: never) => void;
  readonly reject: (reason: unknown) => void;
  /** See `TrackedCallOptions`. */
  readonly onAbandoned: (() => void) | undefined;
}

/** A message that waits for room in flight. */
export interface QueuedMessage extends Linked<QueuedMessage> {
  /** Undefined for a posted message: no reply will come, so it needs no room, and waits for its turn alone. */
  readonly request: PendingRequest | undefined;
  readonly message: EncodedMessage;
}

/** When a request is given up. `Deadlines` sets what can be set. */
export class RequestDeadline implements Timed {
  readonly request: PendingRequest;
  /** How long the call, or its message, may take. In milliseconds, rounded up. */
  readonly timeoutMs: number;
  /** It is the default deadline, which begins when the message is sent. */
  readonly startsWhenSent: boolean;
  deadline = 0;
  heapIndex = -1;

  constructor(request: PendingRequest, timeoutMs: number, startsWhenSent: boolean) {
    this.request = request;
    this.timeoutMs = timeoutMs;
    this.startsWhenSent = startsWhenSent;
  }
}

export type RequestState = 'new' | 'queued' | 'sending' | 'sent' | 'settled';

/** The call, and where it is on its way; the latter is for the request scheduler to write. */
export class PendingRequest implements Landing, Linked<PendingRequest>, SendQueueOwner {
  readonly call: Call;
  readonly deadline: RequestDeadline;
  state: RequestState = 'new';
  /** The message id, from the time that it is sent. */
  id = -1;
  /** Memory of the caller's that the reply's data goes to. Taken back when the call is given up. */
  target: Uint8Array | undefined;
  /** The message, while it waits for room in flight. */
  message: QueuedMessage | undefined;
  /** The message, while some of it waits for room in the socket. */
  entry: SendQueueEntry | undefined;
  /** Of the caller's signal. */
  abortListener: AbortListener | undefined;
  /** Neighbours in the list of calls that somebody waits for, in the order of the calls. */
  previous: PendingRequest | undefined;
  next: PendingRequest | undefined;

  constructor(call: Call, timeoutMs: number, startsWhenSent: boolean) {
    this.call = call;
    this.deadline = new RequestDeadline(this, timeoutMs, startsWhenSent);
    this.target = typeof call.reply === 'function' ? undefined : call.reply.target;
  }

  /** The message waits to be sent. */
  get isHeld(): boolean {
    return this.state === 'queued' || this.state === 'sending';
  }

  /** It takes room in flight. */
  get isInFlight(): boolean {
    return this.state === 'sent' || this.state === 'sending';
  }

  /**
   * Fds of the caller's wait to be sent: a reply comes too early, since they stay open only until the call is settled. Of other
   * messages that wait there are copies, and a stream may bring the reply while it takes one.
   */
  get hasUnsentFds(): boolean {
    const { entry } = this;
    return entry?.sent === 0 && entry.message.fds !== null && entry.message.fds.length > 0;
  }

  /** The result of a reply whose payload is `bytes[start, end)`; where `landed`, its data went to the target. */
  decode(bytes: Buffer, start: number, end: number, fds: number[], landed: boolean): unknown {
    const { reply } = this.call;
    if (typeof reply === 'function') return reply(bytes, start, end, fds);
    return decodeAccess(reply, this.target, landed, bytes, start, end);
  }
}
