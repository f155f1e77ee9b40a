/**
 * Deadlines of many waits: a binary heap, and one timer for the earliest of them. Adding and removing take the logarithm
 * of how many there are. Where thousands end together they are ended a few at a time, so that the loop is not held up.
 */
import { performance } from 'node:perf_hooks';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** Something that waits until a time. */
export interface Timed {
  /** When the wait ends, on `performance.now()`'s clock, in whole milliseconds; 0 for never. `Deadlines` sets it. */
  deadline: number;
  /** Where it stands in the heap; -1 where it does not. `Deadlines` sets it. */
  heapIndex: number;
}

/** How long the ended waits of one turn may take. What is left goes on in the next one. */
const TURN_MS = 10;
/** The clock is looked at once in so many. */
const CHECKED_EACH = 16;

export class Deadlines<T extends Timed> {
  readonly #heap: T[] = [];
  readonly #onExpired: (item: T) => void;
  readonly #afterwards: () => void;
  #timer: NodeJS.Timeout | undefined;
  /** 0 without a timer. */
  #timerAt = 0;
  #referenced = true;

  /**
   * `onExpired` is called with each item whose time is over, which has been removed. `afterwards` is called when the
   * timer's turn is done with them. Neither may throw.
   */
  constructor(onExpired: (item: T) => void, afterwards: () => void = () => undefined) {
    this.#onExpired = onExpired;
    this.#afterwards = afterwards;
  }

  /** The earliest deadline; Infinity where there is none. */
  get earliest(): number {
    return this.#heap[0]?.deadline ?? Infinity;
  }

  /**
   * Has `item` end at `deadline`, a time on `performance.now()`'s clock, rounded up. Without `wakes` no timer is set for
   * it: whoever blocks the loop until then calls `expire`.
   */
  add(item: T, deadline: number, wakes = true): void {
    item.deadline = Math.ceil(deadline);
    item.heapIndex = this.#heap.length;
    this.#heap.push(item);
    this.#rise(item);
    // A timer that fires early looks again: so it is moved only for a deadline that lies before it.
    if (wakes && (this.#timerAt === 0 || item.deadline < this.#timerAt)) this.#setTimer(item.deadline);
  }

  /** `item` waits for no time any more; nothing happens where it did not. */
  remove(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    item.deadline = 0;
    const last = this.#heap.pop()!;
    if (last === item) return;
    this.#heap[index] = last;
    last.heapIndex = index;
    this.#rise(last);
    this.#sink(last);
  }

  /** Ends what is over now, no longer than a turn may take. Returns whether all of it was ended. */
  expire(): boolean {
    const now = performance.now();
    for (let count = 1; this.earliest <= now; count++) {
      const item = this.#heap[0]!;
      this.remove(item);
      this.#onExpired(item);
      if (count % CHECKED_EACH === 0 && performance.now() - now > TURN_MS) return this.earliest > now;
    }
    return true;
  }

  /** Whether the timer keeps the loop alive. */
  setReferenced(on: boolean): void {
    this.#referenced = on;
    if (on) this.#timer?.ref();
    else this.#timer?.unref();
  }

  /** Forgets every item. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerAt = 0;
    for (const item of this.#heap.splice(0)) {
      item.heapIndex = -1;
      item.deadline = 0;
    }
  }

  #setTimer(deadline: number): void {
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    const delay = Math.min(MAX_TIMER_MS, Math.max(1, Math.ceil(deadline - performance.now())));
    this.#timer = setTimeout(this.#onTimer, delay);
    if (!this.#referenced) this.#timer.unref();
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined;
    this.#timerAt = 0;
    this.expire();
    this.#afterwards();
    const { earliest } = this;
    if (earliest !== Infinity && (this.#timerAt === 0 || earliest < this.#timerAt)) this.#setTimer(earliest);
  };

  /** Moves `item` towards the root, as far as it belongs there. */
  #rise(item: T): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    while (index > 0) {
      const above = (index - 1) >>> 1;
      const parent = heap[above]!;
      if (parent.deadline <= item.deadline) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = above;
    }
    heap[index] = item;
    item.heapIndex = index;
  }

  /** Moves `item` away from the root, as far as it belongs there. */
  #sink(item: T): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    for (;;) {
      const left = 2 * index + 1;
      if (left >= heap.length) break;
      const right = left + 1;
      const below = right < heap.length && heap[right]!.deadline < heap[left]!.deadline ? right : left;
      const child = heap[below]!;
      if (child.deadline >= item.deadline) break;
      heap[index] = child;
      child.heapIndex = index;
      index = below;
    }
    heap[index] = item;
    item.heapIndex = index;
  }
}

/**
 * A little longer than the default deadline: what is in flight ends first, and what is sent in its place may be answered.
 */
const PATIENCE = 1.1;

/**
 * Notices that the server answers nothing while calls wait to be sent. Their default deadline begins when they are sent,
 * so without this they would wait for ever behind what is never answered.
 */
export class StallWatch implements Timed {
  deadline = 0;
  heapIndex = -1;
  readonly #deadlines: Deadlines<Timed>;
  readonly #patienceMs: number;
  #waiting = 0;
  /** When the server answered last, or the first call began to wait. */
  #since = 0;

  /** `timeoutMs` is the default deadline; Infinity watches nothing. */
  constructor(deadlines: Deadlines<Timed>, timeoutMs: number) {
    this.#deadlines = deadlines;
    this.#patienceMs = timeoutMs * PATIENCE;
  }

  /** One more call waits to be sent. */
  add(): void {
    if (this.#waiting++ > 0 || this.#patienceMs === Infinity) return;
    this.#since = performance.now();
    this.#deadlines.add(this, this.#since + this.#patienceMs);
  }

  /** One call waits no more. */
  remove(): void {
    if (--this.#waiting === 0) this.#deadlines.remove(this);
  }

  /** The server answered something. */
  onReply(): void {
    if (this.#waiting > 0) this.#since = performance.now();
  }

  /** The deadline has passed: whether the server is stalled. Where it is not, or calls still wait, the watch goes on. */
  isStalled(): boolean {
    const now = performance.now();
    const isStalled = now >= this.#since + this.#patienceMs;
    if (isStalled) this.#since = now;
    if (this.#waiting > 0) this.#deadlines.add(this, this.#since + this.#patienceMs);
    return isStalled;
  }
}
