/**
 * The ring of a submission queue (NVM Express Base 2.0, sections 3.3.1 and 3.3.3.1), in memory that the controller reads.
 *
 * ```
 *   next() ──▶ 16 dwords of `entries` ──▶ publish() copies them to the ring ──▶ ringDoorbell() tells the tail
 * ```
 * Commands are composed in memory that only this thread touches. Each entry of the ring is in the controller's cache, and
 * to take it over store by store takes longer than composing it.
 */
import type { Doorbell } from './doorbells.js';

/** Dwords of an entry, as a power of two. */
const ENTRY_SHIFT = 4;
/** How many entries at once are copied by the engine, which makes an object for it: a pipeline of cache lines. */
const LEAST_IN_BULK = 8;
const NO_MEMORY = new Uint32Array(0);

export class SubmissionQueue {
  /** Where commands are composed, as they lie in the ring: 16 dwords an entry. */
  readonly entries: Uint32Array;
  readonly #size: number;
  #ring: Uint32Array;
  #doorbell: Doorbell | undefined;
  #tail = 0;
  /** The tail that the controller was told last. */
  #toldTail = 0;

  /** `ring` is shared with the controller: 16 dwords an entry. */
  constructor(ring: Uint32Array) {
    this.entries = new Uint32Array(ring.length);
    this.#size = ring.length >>> ENTRY_SHIFT;
    this.#ring = ring;
  }

  /** Entries were composed that the controller does not know of. */
  get hasNew(): boolean {
    return this.#tail !== this.#toldTail;
  }

  /** Makes the ring a new queue's, which is told of by `doorbell`. */
  clear(): void {
    this.#tail = this.#toldTail = 0;
    this.#ring.fill(0);
  }

  /** The controller has the queue. */
  open(doorbell: Doorbell): void {
    this.#doorbell = doorbell;
  }

  /** The doorbell is not rung any more. */
  close(): void {
    this.#doorbell?.retire?.();
  }

  /** The ring's memory is somebody else's from here on. */
  detach(): void {
    this.#ring = NO_MEMORY;
  }

  /** Where in `entries` the next command is to be written, all 16 dwords. The caller knows that there is room. */
  next(): number {
    const at = this.#tail;
    this.#tail = at + 1 === this.#size ? 0 : at + 1;
    return at << ENTRY_SHIFT;
  }

  /** Copies what is new to the ring. */
  publish(): void {
    const from = this.#toldTail;
    const to = this.#tail;
    if (from <= to) this.#copy(from, to);
    else {
      this.#copy(from, this.#size);
      this.#copy(0, to);
    }
  }

  /** Tells the controller of what was published. */
  ringDoorbell(): void {
    this.#toldTail = this.#tail;
    this.#doorbell!.write(this.#tail);
  }

  /** Copies entries `[from, to)`. */
  #copy(from: number, to: number): void {
    const begin = from << ENTRY_SHIFT;
    const end = to << ENTRY_SHIFT;
    const ring = this.#ring;
    const { entries } = this;
    if (to - from >= LEAST_IN_BULK) ring.set(entries.subarray(begin, end), begin);
    else for (let i = begin; i < end; i++) ring[i] = entries[i]!;
  }
}
