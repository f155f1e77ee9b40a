/**
 * The calls that somebody waits for, and the messages that wait for room in flight. Here is decided who is sent when, and what
 * becomes of a call that is given up; the states of a call are drawn in pending-request.ts.
 */
import { performance } from 'node:perf_hooks';
import type { VfioUserError } from '../errors.js';
import { ClosedError, TimeoutError } from '../errors.js';
import { Command, commandName } from '../protocol/constants.js';
import { writeHeaderId } from '../protocol/header.js';
import { checkSignal, listenForAbort } from './abort-listeners.js';
import { deadlineOf, hasDeadline, timeoutOf, type CallOptions } from './call-options.js';
import { isWhole, lostMemory } from './callers-memory.js';
import { Deadlines, StallWatch, type Timed } from './deadlines.js';
import { LinkedList } from './linked-list.js';
import { PendingRequest, RequestDeadline, type Call, type QueuedMessage } from './pending-request.js';
import { Tombstone, type PendingRequests } from './pending-requests.js';
import type { EncodedMessage, SendQueueOwner } from './send-queue.js';
import type { Sockets } from './sockets.js';

/** The most calls that may be given up before their replies have come. They take no room, until there are so many. */
const MAX_TOMBSTONES = 1_024;
/** With so many in flight a read may wait until the loop turns, and go with others. */
const GATHER_FROM = 4;
/** With so few in flight the loop spins for a reply before it sleeps: with more there is always one to come. */
const SPIN_UP_TO = 2;
/** The largest `inFlight`: ids must suffice for these and the tombstones. */
export const MAX_IN_FLIGHT = 16_384;

export interface SchedulerOptions {
  sockets: Sockets;
  requests: PendingRequests;
  inFlight: number;
  /** The deadline of calls that say nothing, in milliseconds. */
  timeoutMs: number;
  /** The server leaves too much unanswered. */
  onOverdue: (reason: VfioUserError) => void;
}

/** A call whose message the fast path has sent, whole or in part. */
export interface StartedCall {
  readonly call: Call;
  readonly id: number;
  /** How long it was to take. In milliseconds. */
  readonly timeoutMs: number;
  /** When it is given up, on `performance.now()`'s clock. */
  readonly deadline: number;
}

export class RequestScheduler {
  readonly #sockets: Sockets;
  readonly #requests: PendingRequests;
  /** Of calls, and of the watch for a stalled server. */
  readonly #deadlines: Deadlines<Timed>;
  /** What waits for room in flight. */
  readonly #queue = new LinkedList<QueuedMessage>();
  #queued = 0;
  #inFlight = 0;
  #tombstones = 0;
  #inFlightLimit: number;
  #endReason: VfioUserError | undefined;
  /** Room became free, and is used before the code that is running returns to the loop. */
  #pumpsSoon = false;
  readonly #timeoutMs: number;
  readonly #stall: StallWatch;
  readonly #onOverdue: (reason: VfioUserError) => void;

  /** @throws RangeError for what is no limit of the commands in flight. */
  constructor({ sockets, requests, inFlight, timeoutMs, onOverdue }: SchedulerOptions) {
    this.#sockets = sockets;
    this.#requests = requests;
    this.#inFlightLimit = checkInFlight(inFlight);
    this.#timeoutMs = timeoutMs;
    this.#onOverdue = onOverdue;
    this.#deadlines = new Deadlines<Timed>(this.#onExpired, () => this.pump());
    this.#stall = new StallWatch(this.#deadlines, timeoutMs);
  }

  /** Why it has ended; undefined before. */
  get endReason(): VfioUserError | undefined {
    return this.#endReason;
  }

  /** Commands that wait for their replies. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Messages that wait for room in flight. */
  get queued(): number {
    return this.#queued;
  }

  /** Calls that were given up and whose replies have not come. */
  get tombstones(): number {
    return this.#tombstones;
  }

  /** It has not ended, and nothing is in flight or waits for it. */
  get isIdle(): boolean {
    return (
      this.#inFlight === 0 &&
      this.#tombstones === 0 &&
      this.#endReason === undefined &&
      this.#queue.first === undefined
    );
  }

  /** How many commands may wait for their replies at once; 1 where the server loses step otherwise. */
  get inFlightLimit(): number {
    return this.#inFlightLimit;
  }

  set inFlightLimit(limit: number) {
    this.#inFlightLimit = checkInFlight(limit);
    this.pump();
  }

  /** When the first call is given up, on `performance.now()`'s clock; Infinity where none is. */
  get earliestDeadline(): number {
    return this.#deadlines.earliest;
  }

  /** Nothing goes any more, and everybody who waits is told `reason`. Once. */
  end(reason: VfioUserError): void {
    this.#endReason = reason;
    this.#sockets.close();
    this.#queue.clear();
    this.#deadlines.close();
    this.#inFlight = 0;
    this.#queued = 0;
    this.#tombstones = 0;
    // One error for all calls of a command: with thousands of them, making one for each would hold up the loop.
    const errors = new Map<number, ClosedError>();
    for (let request = this.#requests.first; request !== undefined; request = this.#requests.first) {
      const { command } = request.call;
      let error = errors.get(command);
      if (error === undefined) errors.set(command, (error = closedError(commandName(command), reason)));
      this.#fail(request, error);
    }
  }

  /** @throws ClosedError once it has ended. */
  refuseWhenClosed(what: number | string): void {
    if (this.#endReason === undefined) return;
    throw closedError(typeof what === 'number' ? commandName(what) : what, this.#endReason);
  }

  /**
   * A request for a new call; `submit` follows. A deadline of the caller's own begins now, the default one when the message
   * is sent.
   * @throws ClosedError, TimeoutError where the time is over already, the signal's reason; TypeError and RangeError for
   * options that make no sense.
   */
  open(call: Call, options: CallOptions | undefined): PendingRequest {
    this.refuseWhenClosed(call.command);
    if (options?.signal !== undefined) checkSignal(options.signal);
    const isDefault = options?.timeoutMs === undefined;
    // In whole milliseconds: V8 keeps a fraction in memory of its own.
    const timeoutMs = Math.ceil(isDefault ? this.#timeoutMs : timeoutOf(options, Infinity));
    const deadline = isDefault || timeoutMs === Infinity ? Infinity : deadlineOf(options, timeoutMs);
    if (options !== undefined && hasDeadline(options) && deadline <= performance.now()) {
      throw new TimeoutError(commandName(call.command), timeoutMs);
    }
    const request = new PendingRequest(call, timeoutMs, isDefault && timeoutMs !== Infinity);
    this.#requests.add(request);
    if (deadline !== Infinity) this.#deadlines.add(request.deadline, deadline, !call.isBlocking);
    if (options?.signal !== undefined) this.#watchSignal(request, options.signal);
    return request;
  }

  /** Sends the request's message now, or when it is its turn. */
  submit(request: PendingRequest, message: EncodedMessage): void {
    if (this.#hasRoom() && this.#queued === 0) this.#dispatch(request, message);
    else this.#enqueue(request, { ...message, head: Buffer.from(message.head) });
  }

  /** Sends a message that has no reply, in its turn among the calls. */
  post(message: EncodedMessage): void {
    if (this.#queue.first === undefined) {
      this.#sockets.main.send(undefined, message, false);
      return;
    }
    const { head, headLength, body, fds } = message;
    this.#enqueue(undefined, {
      head: Buffer.from(head),
      headLength,
      body: body === null ? null : Buffer.from(body),
      fds,
    });
  }

  /** A call that the fast path has begun, with an id that it has borrowed, goes on as any other. */
  resume({ call, id, timeoutMs, deadline }: StartedCall): PendingRequest {
    const request = new PendingRequest(call, Math.ceil(timeoutMs), false);
    this.#requests.add(request);
    if (deadline !== Infinity) this.#deadlines.add(request.deadline, deadline, !call.isBlocking);
    this.#putInFlight(request, id);
    return request;
  }

  /** `resume`, where only the first `sent` bytes of the message have gone. */
  resumeSending(started: StartedCall, message: EncodedMessage, sent: number): PendingRequest {
    const request = this.resume(started);
    this.#sockets.main.sendRest(request, message, sent);
    if (request.entry !== undefined) this.#hold(request, 'sending');
    return request;
  }

  /** The request with this id that waits for its reply; undefined where none does. */
  find(id: number): PendingRequest | undefined {
    const holder = this.#requests.get(id);
    return holder instanceof PendingRequest && !holder.hasUnsentFds ? holder : undefined;
  }

  /** Nobody waits for the request any more: its reply, if it comes, is drained. */
  abandon(request: PendingRequest, reason: unknown): void {
    this.#giveUp(request, reason);
    this.#pumpSoon();
  }

  /** The request's reply has come: it is settled next, and then `pump` follows. */
  onReply(request: PendingRequest): void {
    this.#inFlight--;
    this.#remove(request);
    this.#stall.onReply();
  }

  /** A reply has come that nobody waits for any more. Returns whether it was one that is late. */
  onLateReply(id: number): boolean {
    const holder = this.#requests.get(id);
    if (!(holder instanceof Tombstone)) return false;
    this.#tombstones--;
    this.#requests.free(holder);
    this.#stall.onReply();
    this.pump();
    return true;
  }

  /** All of a message has gone that had to wait for room in the socket. */
  onSent(owner: SendQueueOwner): void {
    if (owner instanceof PendingRequest && owner.state === 'sending') this.#markSent(owner);
  }

  /** Ends the calls whose time is over, and sends what waits for their room. */
  expire(): void {
    this.#deadlines.expire();
    this.pump();
  }

  /** Sends what waits, as far as there is room. */
  pump(): void {
    if (this.#queue.first === undefined) return;
    const now = performance.now();
    for (let item = this.#queue.first; item !== undefined; item = this.#queue.first) {
      const { request, message } = item;
      if (request !== undefined) {
        if (!this.#hasRoom()) return;
        const { deadline } = request.deadline;
        // Of calls that are over nothing is sent. There may be more of them than a turn may take: the timer goes on then.
        if (deadline !== 0 && deadline <= now) {
          if (this.#deadlines.expire()) continue;
          return;
        }
      }
      this.#dequeue(item);
      if (request === undefined) this.#sockets.main.send(undefined, message, true);
      else if (isWhole(message)) this.#dispatch(request, message);
      else this.#fail(request, lostMemory(request.call.command));
    }
  }

  /** Opening, a burst of calls, is over: a process may have thousands of connections that are idle now. */
  trim(): void {
    this.#requests.trim();
  }

  /** Whether the loop stays alive for the calls' sake. */
  setReferenced(on: boolean): void {
    this.#deadlines.setReferenced(on);
  }

  /** Whether one more command may be in flight. */
  #hasRoom(): boolean {
    const limit = this.#inFlightLimit;
    if (this.#inFlight >= limit) return false;
    // Where only one command may be in flight, one whose reply is late still is.
    const mostUnanswered = limit === 1 ? 1 : Math.max(limit, MAX_TOMBSTONES);
    return this.#inFlight + this.#tombstones < mostUnanswered;
  }

  /** Sends the request's message: it is its turn, and there is room. */
  #dispatch(request: PendingRequest, message: EncodedMessage): void {
    const { command, isBlocking } = request.call;
    const { main } = this.#sockets;
    // Only reads: of a write the caller may look for what it does, without a turn of the loop.
    const gather = command === Command.REGION_READ && !isBlocking && this.#inFlight >= GATHER_FROM;
    const id = this.#requests.borrowId();
    this.#putInFlight(request, id);
    writeHeaderId(message.head, 0, id);
    if (gather) main.sendSoon(request, message);
    else main.send(request, message, false);
    // Sending may also have ended the connection, or brought the reply.
    if (request.entry !== undefined) this.#hold(request, 'sending');
    else if (!gather && !isBlocking && this.#inFlight <= SPIN_UP_TO && this.#endReason === undefined) {
      main.scheduleSpin();
    }
  }

  #putInFlight(request: PendingRequest, id: number): void {
    this.#requests.give(request, id);
    this.#inFlight++;
    this.#markSent(request);
  }

  /** The message has gone, or is about to: its default deadline begins. */
  #markSent(request: PendingRequest): void {
    this.#setState(request, 'sent');
    const { deadline } = request;
    if (!deadline.startsWhenSent || deadline.deadline !== 0) return;
    this.#deadlines.add(deadline, performance.now() + deadline.timeoutMs, !request.call.isBlocking);
  }

  /** The message has to wait before it is sent. */
  #hold(request: PendingRequest, state: 'queued' | 'sending'): void {
    this.#setState(request, state);
    if (request.deadline.startsWhenSent) this.#deadlines.remove(request.deadline);
  }

  #setState(request: PendingRequest, state: PendingRequest['state']): void {
    const wasHeld = request.isHeld;
    request.state = state;
    if (wasHeld === request.isHeld) return;
    if (wasHeld) this.#stall.remove();
    else this.#stall.add();
  }

  /** The message is sent when it is its turn. */
  #enqueue(request: PendingRequest | undefined, message: EncodedMessage): void {
    const item: QueuedMessage = { request, message, previous: undefined, next: undefined };
    this.#queued++;
    this.#queue.push(item);
    if (request === undefined) return;
    request.message = item;
    this.#hold(request, 'queued');
  }

  #dequeue(item: QueuedMessage): void {
    this.#queue.remove(item);
    this.#queued--;
    if (item.request !== undefined) item.request.message = undefined;
  }

  /** `pump`, when the code that is running returns to the loop: several calls that are aborted together make room once. */
  #pumpSoon(): void {
    if (this.#pumpsSoon || this.#queue.first === undefined) return;
    this.#pumpsSoon = true;
    queueMicrotask(() => {
      this.#pumpsSoon = false;
      this.pump();
    });
  }

  /**
   * The caller waits no longer: takes the message back if it has not gone, else keeps its id until the reply comes.
   * `pump` follows, once all are given up that end together: what is about to be given up is not sent before.
   */
  #giveUp(request: PendingRequest, reason: unknown): void {
    if (request.isInFlight) {
      this.#inFlight--;
      if (!this.#sockets.main.takeBack(request)) {
        this.#bury(request, reason);
        return;
      }
    }
    if (request.message !== undefined) this.#dequeue(request.message);
    this.#fail(request, reason);
  }

  /** The message has gone, its caller too. */
  #bury(request: PendingRequest, reason: unknown): void {
    this.#requests.bury(request);
    this.#settle(request);
    request.target = undefined;
    this.#tombstones++;
    request.call.onAbandoned?.();
    request.call.reject(reason);
    if (this.#tombstones > MAX_TOMBSTONES) this.#endOverdue(request.deadline.timeoutMs);
  }

  #fail(request: PendingRequest, reason: unknown): void {
    this.#remove(request);
    request.call.reject(reason);
  }

  /** Nobody waits for the request any more, and no reply will come to it. */
  #remove(request: PendingRequest): void {
    this.#requests.remove(request);
    this.#settle(request);
  }

  /** The request is over. */
  #settle(request: PendingRequest): void {
    this.#setState(request, 'settled');
    this.#deadlines.remove(request.deadline);
    request.abortListener?.remove();
    request.entry = undefined;
  }

  /** The server is not merely slow. */
  #endOverdue(timeoutMs: number): void {
    const unanswered = this.#inFlight + this.#tombstones;
    this.#onOverdue(new TimeoutError(`${unanswered} commands without a reply`, timeoutMs));
  }

  readonly #onExpired = (item: Timed): void => {
    if (item instanceof RequestDeadline) this.#giveUp(item.request, this.#timeoutError(item));
    else if (this.#stall.isStalled()) this.#onStalled();
  };

  /** Why a request is given up when its time is over. */
  #timeoutError({ request, timeoutMs }: RequestDeadline): TimeoutError {
    const { call, state, entry } = request;
    const isUnsent = state === 'queued' || (state === 'sending' && entry?.sent === 0);
    const unanswered = this.#inFlight + this.#tombstones;
    const where = isUnsent ? ` (not sent: ${unanswered} commands without an answer)` : '';
    return new TimeoutError(`${commandName(call.command)}${where}`, timeoutMs);
  }

  /** Nothing at all was answered for one default deadline while calls waited to be sent. */
  #onStalled(): void {
    if (this.#inFlightLimit > 1 && this.#tombstones >= MAX_TOMBSTONES) {
      this.#endOverdue(this.#timeoutMs);
      return;
    }
    // By their deadlines, which are now: there may be more than one turn of the loop may end.
    const now = performance.now();
    for (let request = this.#requests.first; request !== undefined; request = request.next) {
      const { deadline } = request;
      if (request.isHeld && deadline.startsWhenSent && deadline.deadline === 0) {
        this.#deadlines.add(deadline, now);
      }
    }
  }

  #watchSignal(request: PendingRequest, signal: AbortSignal): void {
    request.abortListener = listenForAbort(signal, (reason) => {
      this.#giveUp(request, reason);
      this.#pumpSoon();
    });
  }
}

function closedError(what: string, reason: VfioUserError): ClosedError {
  return new ClosedError(`${what}: ${reason.message}`, { cause: reason });
}

/** @throws RangeError for what is no limit of the commands in flight. */
export function checkInFlight(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_IN_FLIGHT) {
    throw new RangeError(`inFlight must be an integer from 1 to ${MAX_IN_FLIGHT}, got ${limit}`);
  }
  return limit;
}
