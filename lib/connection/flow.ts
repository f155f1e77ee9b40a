/**
 * What is under way on a connection: its sockets, the calls that somebody waits for, and the messages that wait for room
 * in flight. Here is decided who is sent when, who is answered, and what becomes of a call that is given up; the way of a
 * call is drawn in slot.ts.
 */
import type { VfioUserError } from '../errors.js';
import { ClosedError, TimeoutError } from '../errors.js';
import { Command, HEADER_SIZE, commandName } from '../protocol/constants.js';
import { writeHeader, writeHeaderId } from '../protocol/header.js';
import type { Channel } from './channel.js';
import type { Counters } from './counters.js';
import { FLAGS_COMMAND } from './flags.js';
import { MessageQueue } from './message-queue.js';
import { SlotTable } from './slot-table.js';
import { forgetCaller, timeoutError, type QueuedMessage, type Slot, type WriteBatch } from './slot.js';
import { decodeDone, encodeWrites, notDone, takeWrites } from './write-multi.js';

/** Calls given up whose replies have not come: past this the server is not merely slow. */
const MAX_TOMBSTONES = 1_024;
/** With so many under way a read may wait until the loop turns, and go with others. */
const GATHER_FROM = 4;
/** With so few under way an answer is looked for before the loop goes to sleep: with more there is always one to come. */
const FEW = 2;
/** The largest `inFlight`: ids must suffice for these and the tombstones. */
const MAX_IN_FLIGHT = 16_384;

export interface FlowOptions {
  main: Channel;
  counters: Counters;
  inFlight: number;
  /** The server leaves too much unanswered. */
  onOverdue: (reason: VfioUserError) => void;
}

export class Flow {
  readonly counters: Counters;
  readonly main: Channel;
  /** The server's commands come on this one as well, where there is one. */
  twin: Channel | undefined;
  readonly slots: SlotTable;
  readonly queue = new MessageQueue();
  /** How deep we are in handlers of the server's requests. */
  serving = 0;
  /** The most small writes that go as one message; none together where the server does not take that. */
  multiWrites = 0;
  #inFlightLimit: number;
  #endReason: VfioUserError | undefined;
  readonly #onOverdue: (reason: VfioUserError) => void;

  /** @throws RangeError for what is no limit of the commands in flight. */
  constructor({ main, counters, inFlight, onOverdue }: FlowOptions) {
    this.main = main;
    this.counters = counters;
    this.#inFlightLimit = checkInFlight(inFlight);
    this.#onOverdue = onOverdue;
    this.slots = new SlotTable((slot) => this.giveUp(slot, timeoutError(slot)));
  }

  /** Why it has ended; undefined before. */
  get endReason(): VfioUserError | undefined {
    return this.#endReason;
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
    this.slots.close();
    this.counters.inFlight = 0;
    this.counters.queued = 0;
    this.counters.tombstones = 0;
    for (let slot = this.slots.first; slot !== undefined; slot = this.slots.first) {
      this.slots.unlink(slot);
      this.answer(slot, closedError(commandName(slot.command), reason), undefined);
    }
  }

  /** @throws ClosedError once it has ended. */
  refuseWhenClosed(what: number | string): void {
    if (this.#endReason === undefined) return;
    throw closedError(typeof what === 'number' ? commandName(what) : what, this.#endReason);
  }

  /** Whether one more command may be in flight. */
  hasRoom(): boolean {
    // Where only one command may be under way, one whose reply is late still is.
    const { inFlight, tombstones } = this.counters;
    return inFlight + (this.#inFlightLimit === 1 ? tombstones : 0) < this.#inFlightLimit;
  }

  /** Sends the slot's message now, or when it is its turn. */
  submit(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    if (this.hasRoom() && this.counters.queued === 0) {
      this.dispatch(slot, head, body, fds);
      return;
    }
    slot.state = 'queued';
    slot.message = { slot, posted: false, head: Buffer.from(head), body, fds };
    this.counters.queued++;
    this.queue.push(slot.message);
  }

  /** Sends the slot's message: it is its turn, and there is room. */
  dispatch(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    // Only reads: of a write the caller may look for what it does, without a turn of the loop.
    const gather =
      slot.command === Command.REGION_READ && !slot.synchronous && this.counters.inFlight >= GATHER_FROM;
    this.giveId(slot, this.slots.borrowId());
    writeHeaderId(head, 0, slot.id);
    if (gather) this.main.sendSoon(slot, head);
    else {
      this.main.send(slot, head, head.length, body, fds, false);
      const isAwaited = !slot.synchronous && this.counters.inFlight <= FEW;
      // Sending may have ended the connection.
      if (isAwaited && this.#endReason === undefined) this.main.lookSoon();
    }
  }

  /** The slot's message is sent with this id. */
  giveId(slot: Slot, id: number): void {
    this.slots.adopt(slot, id);
    slot.state = 'sent';
    this.counters.inFlight++;
  }

  /** Sends what waits, as far as there is room. */
  pump(): void {
    for (let message = this.queue.peek(); message !== undefined; message = this.queue.peek()) {
      if (!message.posted && !this.hasRoom()) return;
      const writes = this.multiWrites > 1 ? takeWrites(this.queue, this.multiWrites) : [];
      if (writes.length > 0) {
        this.#dispatchWrites(writes);
        continue;
      }
      this.queue.shift();
      this.counters.queued--;
      const { slot, head, body, fds } = message;
      if (slot === undefined) {
        this.main.send(undefined, head, head.length, body, null, true);
      } else {
        slot.message = undefined;
        this.dispatch(slot, head, body, fds);
      }
    }
  }

  /** Sends writes that waited as one message, whose reply answers each of them. */
  #dispatchWrites(writes: readonly QueuedMessage[]): void {
    const payload = encodeWrites(writes);
    // The writes have their own deadlines; the message is given up when the last of them is.
    const carrier = this.slots.take(Infinity);
    // Nobody waits for it but through the writes: it is not among those that time out, nor those that `close` rejects.
    this.slots.unlink(carrier);
    carrier.command = Command.REGION_WRITE_MULTI;
    carrier.decode = (_slot, bytes, start, end) => decodeDone(writes.length, bytes, start, end);
    const slots = writes.map(({ slot }) => slot!);
    const batch: WriteBatch = { slots, carrier, waiting: slots.length };
    for (const slot of slots) {
      slot.state = 'batched';
      slot.message = undefined;
      slot.batch = batch;
    }
    this.counters.queued -= writes.length;
    carrier.resolve = (done: number) => this.#answerWrites(batch, done, undefined);
    carrier.reject = (error: unknown) => this.#answerWrites(batch, 0, error);
    this.dispatch(carrier, encodeHead(carrier.command, payload), payload, null);
  }

  /** The first `done` writes have been done; the others failed, of `error` where all of them did. */
  #answerWrites(batch: WriteBatch, done: number, error: unknown): void {
    for (const [i, slot] of batch.slots.entries()) {
      if (slot.batch !== batch) continue;
      this.slots.unlink(slot);
      this.answer(slot, i < done ? undefined : (error ?? notDone()), undefined);
    }
  }

  /** The caller waits no longer: takes the message back if it has not gone, else keeps its id until the reply comes. */
  giveUp(slot: Slot, reason: unknown): void {
    const { batch } = slot;
    if (batch !== undefined) {
      this.slots.unlink(slot);
      this.answer(slot, reason, undefined);
      if (--batch.waiting === 0) this.giveUp(batch.carrier, reason);
      return;
    }
    this.slots.unlink(slot);
    if (slot.state === 'sent' && this.main.outbox?.takeBack(slot) !== true) {
      slot.state = 'tombstone';
      slot.target = undefined;
      this.counters.inFlight--;
      this.counters.tombstones++;
      slot.onAbandoned?.();
      this.#answerOnly(slot, reason, undefined);
      if (this.counters.tombstones > MAX_TOMBSTONES) {
        this.#onOverdue(
          new TimeoutError(`more than ${MAX_TOMBSTONES} commands without a reply`, slot.timeoutMs),
        );
      }
      return;
    }
    if (slot.state === 'sent') this.counters.inFlight--;
    if (slot.message !== undefined) {
      slot.message.slot = undefined;
      slot.message = undefined;
      this.counters.queued--;
    }
    this.answer(slot, reason, undefined);
    this.pump();
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

  /** See `Touchable`. */
  touch(): number {
    const { counters, slots, main } = this;
    return counters.inFlight + slots.touch() + main.transport.touch();
  }

  /** Whether the loop stays alive for the connection's sake. */
  setReferenced(on: boolean): void {
    this.main.setReferenced(on);
    this.twin?.setReferenced(on);
    this.slots.setReferenced(on);
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
