/**
 * The ring of a completion queue (NVM Express Base 2.0, sections 3.3.1 and 4.2), in memory that the controller writes. An
 * entry is new when its phase tag is the expected one, which changes each time that the ring has been gone round.
 *
 * The head is told together with the next tail, or when half of the ring was consumed: both doorbells lie in one cache
 * line, which the controller has to fetch each time that it is written.
 */
import type { Doorbell } from './doorbells.js';
import { loadAcquire } from './memory-order.js';

/** Dwords of an entry, as a power of two. */
const ENTRY_SHIFT = 2;
/** The phase tag in dword 3, and where it is. */
const PHASE_SHIFT = 16;
/** One entry without a phase tag: nothing ever comes. */
const NO_MEMORY = new Uint32Array(1 << ENTRY_SHIFT);

export class CompletionQueue {
  readonly #size: number;
  readonly #tellsHeadAtOnce: boolean;
  #ring: Uint32Array;
  #doorbell: Doorbell | undefined;
  #head = 0;
  #phase = 1;
  /** Entries that were consumed since the head was told. */
  #untold = 0;

  /**
   * `ring` is shared with the controller: 4 dwords an entry. With `tellsHeadAtOnce` the head is told after each batch: a
   * controller that signals by interrupts has them coalesced by that.
   */
  constructor(ring: Uint32Array, tellsHeadAtOnce: boolean) {
    this.#size = ring.length >>> ENTRY_SHIFT;
    this.#ring = ring;
    this.#tellsHeadAtOnce = tellsHeadAtOnce;
  }

  /** Makes the ring a new queue's. */
  clear(): void {
    this.#head = this.#untold = 0;
    this.#phase = 1;
    this.#ring.fill(0);
  }

  /** The controller has the queue. */
  open(doorbell: Doorbell): void {
    this.#doorbell = doorbell;
  }

  /** The doorbell is not rung any more: the controller may have no queue. */
  close(): void {
    this.#doorbell?.retire?.();
    this.#doorbell = undefined;
  }

  /** The ring's memory is somebody else's from here on. */
  detach(): void {
    this.#ring = NO_MEMORY;
    this.#head = 0;
    this.#phase = 1;
  }

  /** Dword 3 of the next entry: the command identifier, the phase tag and the status field. -1 where there is none. */
  next(): number {
    const dword3 = loadAcquire(this.#ring, (this.#head << ENTRY_SHIFT) + 3);
    return ((dword3 >>> PHASE_SHIFT) & 1) === this.#phase ? dword3 : -1;
  }

  /** Dword 0 of that entry. */
  result(): number {
    return this.#ring[this.#head << ENTRY_SHIFT]!;
  }

  /** Goes to the entry after it. */
  advance(): void {
    this.#untold++;
    if (++this.#head < this.#size) return;
    this.#head = 0;
    this.#phase ^= 1;
  }

  /** A batch was consumed: tells the head, if it is time to. */
  endBatch(): void {
    if (this.#tellsHeadAtOnce || this.#untold * 2 >= this.#size) this.tellHead();
  }

  /** Tells the head where the controller does not know it. */
  tellHead(): void {
    if (this.#untold === 0 || this.#doorbell === undefined) return;
    this.#untold = 0;
    this.#doorbell.write(this.#head);
  }
}
