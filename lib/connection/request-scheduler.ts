/**
 * What is under way on a connection: its sockets, the calls that somebody waits for, and the messages that wait for room
 * in flight. Here is decided who is sent when, who is answered, and what becomes of a call that is given up; the way of a
 * call is drawn in pending-request.ts.
 */
import { performance } from 'node:perf_hooks';
import type { VfioUserError } from '../errors.js';
import { ClosedError, TimeoutError } from '../errors.js';
import { Command, HEADER_SIZE, commandName } from '../protocol/constants.js';
import { writeHeader, writeHeaderId } from '../protocol/header.js';
import { checkSignal, listenForAbort } from './abort-listeners.js';
import { deadlineOf, hasDeadline, timeoutOf, type CallOptions } from './call-options.js';
import type { Channel } from './channel.js';
import type { Counters } from './counters.js';
import { Deadlines, type Timed } from './deadlines.js';
import { FLAGS_COMMAND } from './header-flags.js';
import { LinkedList } from './linked-list.js';
import { isWhole, lostMemory } from './callers-memory.js';
import type { OutboxOwner } from './send-queue.js';
import { ACCESS_HEAD_SIZE } from './region-access-codec.js';
import { SlotTable } from './pending-requests.js';
import { Slot, forgetCaller, type QueuedMessage } from './pending-request.js';
import { StallWatch } from './stall-watch.js';

/** The most calls that may be given up before their replies have come. They take no room, until there are so many. */
const MAX_TOMBSTONES = 1_024;
/** With so many under way a read may wait until the loop turns, and go with others. */
const GATHER_FROM = 4;
/** With so few under way an answer is looked for before the loop goes to sleep: with more there is always one to come. */
const FEW = 2;
/** The largest `inFlight`: ids must suffice for these and the tombstones. */
export const MAX_IN_FLIGHT = 16_384;

export interface FlowOptions {
  main: Channel;
  counters: Counters;
  inFlight: number;
  /** The deadline of calls that say nothing, in milliseconds. */
  timeoutMs: number;
  /** The server leaves too much unanswered. */
  onOverdue: (reason: VfioUserError) => void;
}

export class Flow {
  readonly counters: Counters;
  readonly main: Channel;
  /** The server's commands come on this one as well, where there is one. */
  twin: Channel | undefined;
  readonly slots = new SlotTable();
  /** Of calls, and of the watch for a stalled server. */
  readonly deadlines: Deadlines<Timed>;
  readonly queue = new LinkedList<QueuedMessage>();
  /** How deep we are in handlers of the server's requests. */
  serving = 0;
  /** Region accesses are encoded here: header and access structure. Sent, or copied, before the next one is. */
  readonly accessHead = Buffer.alloc(ACCESS_HEAD_SIZE);
  #isServedHere: boolean | undefined;
  #inFlightLimit: number;
  #endReason: VfioUserError | undefined;
  /** Room became free, and is used before the code that is running returns to the loop. */
  #pumpsSoon = false;
  readonly #timeoutMs: number;
  readonly #stall: StallWatch;
  readonly #onOverdue: (reason: VfioUserError) => void;

  /** @throws RangeError for what is no limit of the commands in flight. */
  constructor({ main, counters, inFlight, timeoutMs, onOverdue }: FlowOptions) {
    this.main = main;
    this.counters = counters;
    this.#inFlightLimit = checkInFlight(inFlight);
    this.#timeoutMs = timeoutMs;
    this.#onOverdue = onOverdue;
    this.deadlines = new Deadlines<Timed>(this.#onExpired, () => this.pump());
    this.#stall = new StallWatch(this.deadlines, timeoutMs);
  }

  /** Why it has ended; undefined before. */
  get endReason(): VfioUserError | undefined {
    return this.#endReason;
  }

  /** Nothing is under way, waits to go or is being served: a message that goes now is the next, and what comes is new. */
  get isQuiet(): boolean {
    const { counters, main, twin } = this;
    return (
      counters.inFlight === 0 &&
      counters.tombstones === 0 &&
      this.serving === 0 &&
      this.#endReason === undefined &&
      this.queue.first === undefined &&
      main.isQuiet &&
      (twin === undefined || twin.isQuiet)
    );
  }

  /** The server is in this thread, which cannot wait for itself. Asked for once, by the first call that would block. */
  get isServedHere(): boolean {
    return (this.#isServedHere ??= this.main.transport.isServedHere);
  }

  /** Serves what the server has sent on the twin socket. */
  receiveFromTwin(): void {
    this.twin?.transport.receiveSync(0, undefined);
  }

  /** How many commands may wait for their replies at once; 1 where the server loses step otherwise. */
  get inFlightLimit(): number {
    return this.#inFlightLimit;
  }

  set inFlightLimit(limit: number) {
    this.#inFlightLimit = checkInFlight(limit);
    this.pump();
  }

  /** Nothing goes any more, and everybody who waits is told `reason`. Once. */
  end(reason: VfioUserError): void {
    this.#endReason = reason;
    this.main.close();
    this.twin?.close();
    this.queue.clear();
    this.deadlines.close();
    this.counters.inFlight = 0;
    this.counters.queued = 0;
    this.counters.tombstones = 0;
    // One error for all calls of a command: with thousands of them, making one for each would hold up the loop.
    const errors = new Map<number, ClosedError>();
    for (let slot = this.slots.first; slot !== undefined; slot = this.slots.first) {
      let error = errors.get(slot.command);
      if (error === undefined) {
        error = closedError(commandName(slot.command), reason);
        errors.set(slot.command, error);
      }
      this.unlink(slot);
      this.answer(slot, error, undefined);
    }
  }

  /** @throws ClosedError once it has ended. */
  refuseWhenClosed(what: number | string): void {
    if (this.#endReason === undefined) return;
    throw closedError(typeof what === 'number' ? commandName(what) : what, this.#endReason);
  }

  /** Whether one more command may be in flight. */
  hasRoom(): boolean {
    const { inFlight, tombstones } = this.counters;
    const limit = this.#inFlightLimit;
    if (inFlight >= limit) return false;
    // Where only one command may be under way, one whose reply is late still is.
    const mostUnanswered = limit === 1 ? 1 : Math.max(limit, MAX_TOMBSTONES);
    return inFlight + tombstones < mostUnanswered;
  }

  /**
   * A slot for a new call. A deadline of the caller's own begins now, the default one when the message is sent.
   * @throws ClosedError, TimeoutError where the time is over already, the signal's reason; TypeError and RangeError for
   * options that make no sense.
   */
  open(command: number, options: CallOptions | undefined, isSync: boolean): Slot {
    this.refuseWhenClosed(command);
    if (options?.signal !== undefined) checkSignal(options.signal);
    const isDefault = options?.timeoutMs === undefined;
    // In whole milliseconds: V8 keeps a fraction in memory of its own.
    const timeoutMs = Math.ceil(isDefault ? this.#timeoutMs : timeoutOf(options, Infinity));
    const deadline = isDefault || timeoutMs === Infinity ? Infinity : deadlineOf(options, timeoutMs);
    if (hasDeadline(options) && deadline <= performance.now()) {
      throw new TimeoutError(commandName(command), timeoutMs);
    }
    const slot = this.slots.take();
    slot.command = command;
    slot.synchronous = isSync;
    slot.timeoutMs = timeoutMs;
    slot.startsWhenSent = isDefault && timeoutMs !== Infinity;
    if (deadline !== Infinity) this.deadlines.add(slot, deadline, !isSync);
    if (options?.signal !== undefined) this.#watchSignal(slot, options.signal);
    return slot;
  }

  /** Sends the slot's message now, or when it is its turn. */
  submit(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    if (this.hasRoom() && this.counters.queued === 0) {
      this.dispatch(slot, head, body, fds);
      return;
    }
    const message = { slot, head: Buffer.from(head), body, fds, previous: undefined, next: undefined };
    slot.state = 'queued';
    slot.message = message;
    this.#hold(slot);
    this.enqueue(message);
  }

  /** The message is sent when it is its turn. */
  enqueue(message: QueuedMessage): void {
    this.counters.queued++;
    this.queue.push(message);
  }

  /** Sends the slot's message: it is its turn, and there is room. */
  dispatch(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    // Only reads: of a write the caller may look for what it does, without a turn of the loop.
    const gather =
      slot.command === Command.REGION_READ && !slot.synchronous && this.counters.inFlight >= GATHER_FROM;
    this.giveId(slot, this.slots.borrowId());
    writeHeaderId(head, 0, slot.id);
    if (gather) this.main.sendSoon(slot, head);
    else this.main.send(slot, head, head.length, body, fds, false);
    // It waits for room in the socket. Sending may also have ended the connection, or brought the answer.
    if (slot.entry !== undefined) this.#hold(slot);
    else if (!gather && !slot.synchronous && this.counters.inFlight <= FEW && this.#endReason === undefined) {
      this.main.lookSoon();
    }
  }

  /** All of a message has gone that had to wait for room in the socket. */
  onSent(owner: OutboxOwner): void {
    if (owner instanceof Slot && owner.state === 'sent') this.startDeadline(owner);
  }

  /** The message has gone: its default deadline begins. */
  startDeadline(slot: Slot): void {
    this.#unhold(slot);
    if (!slot.startsWhenSent || slot.deadline !== 0) return;
    this.deadlines.add(slot, performance.now() + slot.timeoutMs, !slot.synchronous);
  }

  /** The slot's message is sent with this id. */
  giveId(slot: Slot, id: number): void {
    this.slots.adopt(slot, id);
    slot.state = 'sent';
    this.counters.inFlight++;
    this.startDeadline(slot);
  }

  /** Sends what waits, as far as there is room. */
  pump(): void {
    if (this.queue.first === undefined) return;
    const now = performance.now();
    for (let message = this.queue.first; message !== undefined; message = this.queue.first) {
      const { slot, head, body, fds } = message;
      if (slot !== undefined && !this.hasRoom()) return;
      // Of calls that are over nothing is sent. There may be more of them than a turn may take: the timer goes on then.
      if (slot !== undefined && slot.deadline !== 0 && slot.deadline <= now) {
        if (this.deadlines.expire()) continue;
        return;
      }
      this.queue.remove(message);
      this.counters.queued--;
      if (slot === undefined) {
        this.main.send(undefined, head, head.length, body, null, true);
        continue;
      }
      slot.message = undefined;
      if (isWhole(head, body)) this.dispatch(slot, head, body, fds);
      else this.#fail(slot, lostMemory(slot.command));
    }
  }

  /** `pump`, when the code that is running returns to the loop: several calls that are aborted together make room once. */
  #pumpSoon(): void {
    if (this.#pumpsSoon || this.queue.first === undefined) return;
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
  giveUp(slot: Slot, reason: unknown): void {
    if (slot.state === 'sent') {
      this.counters.inFlight--;
      if (this.main.outbox?.takeBack(slot) !== true) {
        this.#leaveTombstone(slot, reason);
        return;
      }
    }
    if (slot.message !== undefined) {
      this.queue.remove(slot.message);
      slot.message = undefined;
      this.counters.queued--;
    }
    this.#fail(slot, reason);
  }

  /** Nobody waits for the slot any more: it is being answered or given up. */
  unlink(slot: Slot): void {
    this.slots.unlink(slot);
    this.deadlines.remove(slot);
    this.#unhold(slot);
  }

  /** The slot's reply has come, in time or late. */
  onAnswered(): void {
    this.#stall.onAnswer();
  }

  /** Why the slot is given up when its time is over. */
  timeoutError(slot: Slot): TimeoutError {
    const { command, state, entry, timeoutMs } = slot;
    const { inFlight, tombstones } = this.counters;
    const isWaiting = state === 'queued' || (entry !== undefined && entry.sent === 0);
    const where = isWaiting ? ` (not sent: ${inFlight + tombstones} commands without an answer)` : '';
    return new TimeoutError(`${commandName(command)}${where}`, timeoutMs);
  }

  /** The message has gone, its caller too. */
  #leaveTombstone(slot: Slot, reason: unknown): void {
    this.unlink(slot);
    slot.state = 'tombstone';
    slot.target = undefined;
    this.counters.tombstones++;
    slot.onAbandoned?.();
    this.#answerOnly(slot, reason, undefined);
    if (this.counters.tombstones > MAX_TOMBSTONES) this.#endOverdue(slot.timeoutMs);
  }

  /** The server is not merely slow. */
  #endOverdue(timeoutMs: number): void {
    const { inFlight, tombstones } = this.counters;
    this.#onOverdue(new TimeoutError(`${inFlight + tombstones} commands without a reply`, timeoutMs));
  }

  #fail(slot: Slot, reason: unknown): void {
    this.unlink(slot);
    this.answer(slot, reason, undefined);
  }

  readonly #onExpired = (item: Timed): void => {
    if (item instanceof Slot) this.giveUp(item, this.timeoutError(item));
    else if (this.#stall.isStalled()) this.#onStalled();
  };

  /** Nothing at all was answered for one default deadline while calls waited to be sent. */
  #onStalled(): void {
    if (this.#inFlightLimit > 1 && this.counters.tombstones >= MAX_TOMBSTONES) {
      this.#endOverdue(this.#timeoutMs);
      return;
    }
    // By their deadlines, which are now: there may be more than one turn of the loop may end.
    const now = performance.now();
    for (let slot = this.slots.first; slot !== undefined; slot = slot.next) {
      if (slot.isHeld && slot.startsWhenSent && slot.deadline === 0) this.deadlines.add(slot, now);
    }
  }

  /** The slot's message has to wait before it is sent. */
  #hold(slot: Slot): void {
    if (slot.isHeld) return;
    slot.isHeld = true;
    if (slot.startsWhenSent) this.deadlines.remove(slot);
    this.#stall.add();
  }

  /** Undoes `#hold`. */
  #unhold(slot: Slot): void {
    if (!slot.isHeld) return;
    slot.isHeld = false;
    this.#stall.remove();
  }

  #watchSignal(slot: Slot, signal: AbortSignal): void {
    slot.abortListener = listenForAbort(signal, (reason) => {
      this.giveUp(slot, reason);
      this.#pumpSoon();
    });
  }

  /** Answers the caller; the slot is free, but for a synchronous caller, who looks into it first. */
  answer(slot: Slot, error: unknown, value: unknown): void {
    this.#answerOnly(slot, error, value);
    if (!slot.synchronous) this.slots.release(slot);
  }

  #answerOnly(slot: Slot, error: unknown, value: unknown): void {
    const { resolve, reject } = slot;
    forgetCaller(slot);
    if (slot.synchronous) {
      slot.settled = true;
      slot.error = error;
      slot.value = value;
    } else if (error !== undefined) reject(error);
    else resolve(value as never);
  }

  /** Whether the loop stays alive for the connection's sake. */
  setReferenced(on: boolean): void {
    this.main.setReferenced(on);
    this.twin?.setReferenced(on);
    this.deadlines.setReferenced(on);
  }
}

/** A header with id 0, before `payload`. */
export function encodeHead(command: number, payload: Uint8Array | null): Buffer {
  const head = Buffer.allocUnsafe(HEADER_SIZE);
  const size = HEADER_SIZE + (payload === null ? 0 : payload.length);
  writeHeader(head, 0, 0, command, size, FLAGS_COMMAND, 0);
  return head;
}

function closedError(what: string, reason: VfioUserError): ClosedError {
  return new ClosedError(`${what}: ${reason.message}`, { cause: reason });
}

/** @throws RangeError for what is no limit of the commands in flight. */
export function checkInFlight(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_IN_FLIGHT) {
    throw new RangeError(`inFlight must be an integer from 1 to ${MAX_IN_FLIGHT}, not ${limit}`);
  }
  return limit;
}
