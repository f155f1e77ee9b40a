/** Who waits for what: slots by message id, ids given out, and the deadline of each. */
import { performance } from 'node:perf_hooks';
import { Slot, clearSlot } from './slot.js';

/** Calls use the lower half of the id space, posted writes the upper: some servers answer errors even to those. */
export const POSTED_ID_BASE = 0x8000;

/** An id rests while this many others are used, so that a reply sent twice is seen to be one. */
const RESTING_IDS = 64;
const KEPT_SLOTS = 256;
/** The longest time that Node's timers take. */
const MAX_TIMER_MS = 0x7fff_ffff;

export class SlotTable {
  readonly #byId: (Slot | undefined)[] = [];
  /** Ids that were used and rest, the longest first; a ring. */
  #resting = new Uint16Array(RESTING_IDS * 2);
  #restingFirst = 0;
  #restingCount = 0;
  /** Slots that no call uses. Of this connection alone: a mistake with one must not reach another server's calls. */
  readonly #spare: Slot[] = [];
  /** The list of calls that somebody waits for. */
  #first: Slot | undefined;
  #last: Slot | undefined;

  readonly #onDeadline: (slot: Slot) => void;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Infinity;
  #referenced = true;
  #closed = false;

  constructor(onDeadline: (slot: Slot) => void) {
    this.#onDeadline = onDeadline;
  }

  /** The slot that a reply's id names, if any call or tombstone has it. */
  get(id: number): Slot | undefined {
    return this.#byId[id];
  }

  /** A slot for a new call, in the list of those that wait. */
  take(timeoutMs: number): Slot {
    const slot = this.#spare.pop() ?? new Slot();
    slot.timeoutMs = timeoutMs;
    slot.previous = this.#last;
    slot.next = undefined;
    if (this.#last === undefined) this.#first = slot;
    else this.#last.next = slot;
    this.#last = slot;
    slot.deadline = timeoutMs === Infinity ? Infinity : performance.now() + timeoutMs;
    return slot;
  }

  /** From now on the slot's deadline ends it. Synchronous calls watch theirs alone. */
  watchDeadline(slot: Slot): void {
    // A timer that fires early looks again: so it is moved only for a deadline that lies before it.
    if (slot.deadline < this.#timerAt) this.#arm(slot.deadline);
  }

  /** An id that nobody uses: for `adopt`, or for `returnId`. */
  borrowId(): number {
    const fresh = this.#byId.length;
    if (this.#restingCount > RESTING_IDS || fresh >= POSTED_ID_BASE) return this.#wake();
    this.#byId.push(undefined);
    return fresh;
  }

  returnId(id: number): void {
    this.#rest(id);
  }

  /** The slot has the id from now on, which was borrowed. */
  adopt(slot: Slot, id: number): void {
    slot.id = id;
    this.#byId[id] = slot;
  }

  /** Nobody waits for the slot any more: its deadline is over or its reply has come. */
  unlink(slot: Slot): void {
    if (slot.previous === undefined) {
      if (this.#first === slot) this.#first = slot.next;
    } else slot.previous.next = slot.next;
    if (slot.next === undefined) {
      if (this.#last === slot) this.#last = slot.previous;
    } else slot.next.previous = slot.previous;
    slot.previous = undefined;
    slot.next = undefined;
  }

  /** The slot and its id may be used again. */
  release(slot: Slot): void {
    if (slot.id >= 0) {
      this.#byId[slot.id] = undefined;
      this.#rest(slot.id);
    }
    clearSlot(slot);
    if (this.#spare.length < KEPT_SLOTS) this.#spare.push(slot);
  }

  /** The call that waits longest. */
  get first(): Slot | undefined {
    return this.#first;
  }

  /** Lets go of the slots that no call uses: a burst is over. */
  trim(): void {
    this.#spare.length = 0;
  }

  setReferenced(on: boolean): void {
    this.#referenced = on;
    if (on) this.#timer?.ref();
    else this.#timer?.unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerAt = Infinity;
  }

  #arm(deadline: number): void {
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    const delay = Math.min(MAX_TIMER_MS, Math.max(1, Math.ceil(deadline - performance.now())));
    this.#timer = setTimeout(this.#onTimer, delay);
    if (!this.#referenced) this.#timer.unref();
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined;
    this.#timerAt = Infinity;
    const now = performance.now();
    let earliest = Infinity;
    // Giving one call up may end the connection, and with it all the others.
    for (let slot = this.#first; slot !== undefined && !this.#closed;) {
      const next: Slot | undefined = slot.next;
      if (!slot.synchronous) {
        if (slot.deadline <= now) this.#onDeadline(slot);
        else if (slot.deadline < earliest) earliest = slot.deadline;
      }
      slot = next;
    }
    if (earliest < this.#timerAt && !this.#closed) this.#arm(earliest);
  };

  #rest(id: number): void {
    if (this.#restingCount === this.#resting.length) {
      const grown = new Uint16Array(this.#resting.length * 2);
      for (let i = 0; i < this.#restingCount; i++) grown[i] = this.#resting[this.#ringIndex(i)]!;
      this.#resting = grown;
      this.#restingFirst = 0;
    }
    this.#resting[this.#ringIndex(this.#restingCount++)] = id;
  }

  #wake(): number {
    const id = this.#resting[this.#restingFirst]!;
    this.#restingFirst = this.#ringIndex(1);
    this.#restingCount--;
    return id;
  }

  #ringIndex(i: number): number {
    return (this.#restingFirst + i) & (this.#resting.length - 1);
  }
}
