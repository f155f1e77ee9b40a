/**
 * Deadlines of many calls on one timer: a binary heap, the next one first. Adding and removing take logarithmic time, and
 * those that are due together are reported in slices.
 */
import { inSlices } from './slices.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

export interface Due {
  /** On the clock of `performance.now()`, milliseconds. */
  due: number;
  /** Where it is in the heap; -1 where it is in none. */
  heapIndex: number;
}

export class Deadlines<T extends Due> {
  readonly #heap: T[] = [];
  readonly #onDue: (item: T) => void;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer fires. */
  #timerDue = Infinity;

  /** `onDue` hears of each item once; it is out of the heap by then. */
  constructor(onDue: (item: T) => void) {
    this.#onDue = onDue;
  }

  add(item: T, timeoutMs: number): void {
    item.due = performance.now() + timeoutMs;
    item.heapIndex = this.#heap.length;
    this.#heap.push(item);
    this.#up(item);
    // The first of the heap is due no later.
    this.#arm(item.due);
  }

  /** Nothing is done where it is not there. */
  remove(item: T): void {
    const at = item.heapIndex;
    if (at < 0) return;
    const last = this.#heap.pop();
    item.heapIndex = -1;
    if (last !== undefined && last !== item) {
      last.heapIndex = at;
      this.#heap[at] = last;
      this.#up(last);
      this.#down(last);
    }
    // The timer would keep the process alive for nothing.
    if (this.#heap.length === 0) this.#disarm();
  }

  /** Has the timer fire at `due` at the latest. */
  #arm(due: number): void {
    if (due >= this.#timerDue) return;
    this.#disarm();
    this.#timerDue = due;
    const timeoutMs = Math.max(1, Math.ceil(due - performance.now()));
    this.#timer = setTimeout(() => this.#fire(), Math.min(MAX_TIMER_MS, timeoutMs));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerDue = Infinity;
  }

  #fire(): void {
    this.#disarm();
    inSlices(() => {
      const item = this.#heap[0];
      if (item !== undefined && item.due <= performance.now()) {
        this.remove(item);
        this.#onDue(item);
        return true;
      }
      if (item !== undefined) this.#arm(item.due);
      return false;
    });
  }

  #up(item: T): void {
    const heap = this.#heap;
    let at = item.heapIndex;
    while (at > 0) {
      const above = (at - 1) >>> 1;
      const parent = heap[above]!;
      if (parent.due <= item.due) break;
      heap[at] = parent;
      parent.heapIndex = at;
      at = above;
    }
    heap[at] = item;
    item.heapIndex = at;
  }

  #down(item: T): void {
    const heap = this.#heap;
    let at = item.heapIndex;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]!.due < heap[below]!.due) below++;
      const child = heap[below]!;
      if (child.due >= item.due) break;
      heap[at] = child;
      child.heapIndex = at;
      at = below;
    }
    heap[at] = item;
    item.heapIndex = at;
  }
}
