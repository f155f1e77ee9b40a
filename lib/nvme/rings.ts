/**
 * The rings of a queue pair, and the doorbells by which the controller learns of their tail and head (NVM Express Base 2.0,
 * sections 3.3.1, 3.3.3.1 and 4.2): memory that both sides look at, and what keeps their accesses in order.
 */
import { LatestWrite } from '../commands/latest-write.js';
import { loadAcquire, passesEventIndex, storeRelease } from '../commands/shared-memory-order.js';
import type { MappedArea, Region } from '../index.js';

/**
 * The ring of a submission queue (NVM Express Base 2.0, sections 3.3.1 and 3.3.3.1), in memory that the controller reads.
 *
 * ```
 *   next() ──▶ 16 dwords of `entries` ──▶ publish() copies them to the ring ──▶ ringDoorbell() tells the tail
 * ```
 * Commands are composed in memory that only this thread touches. Each entry of the ring is in the controller's cache, and
 * to take it over store by store takes longer than composing it.
 */

/** Dwords of an entry, as a power of two. */
const SQE_SHIFT = 4;
/** How many entries at once are copied by the engine, which makes an object for it: a pipeline of cache lines. */
const LEAST_IN_BULK = 8;
const NO_ENTRIES = new Uint32Array(0);

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
    this.#size = ring.length >>> SQE_SHIFT;
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
    this.#ring = NO_ENTRIES;
  }

  /** Where in `entries` the next command is to be written, all 16 dwords. The caller knows that there is room. */
  next(): number {
    const at = this.#tail;
    this.#tail = at + 1 === this.#size ? 0 : at + 1;
    return at << SQE_SHIFT;
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
    const begin = from << SQE_SHIFT;
    const end = to << SQE_SHIFT;
    const ring = this.#ring;
    const { entries } = this;
    if (to - from >= LEAST_IN_BULK) ring.set(entries.subarray(begin, end), begin);
    else for (let i = begin; i < end; i++) ring[i] = entries[i]!;
  }
}

/**
 * The ring of a completion queue (NVM Express Base 2.0, sections 3.3.1 and 4.2), in memory that the controller writes. An
 * entry is new when its phase tag is the expected one, which changes each time that the ring has been gone round.
 *
 * The head is told together with the next tail, or when half of the ring was consumed: both doorbells lie in one cache
 * line, which the controller has to fetch each time that it is written.
 */

/** Dwords of an entry, as a power of two. */
const CQE_SHIFT = 2;
/** The phase tag in dword 3, and where it is. */
const PHASE_SHIFT = 16;
/** One entry without a phase tag: nothing ever comes. */
const NO_COMPLETIONS = new Uint32Array(1 << CQE_SHIFT);

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
    this.#size = ring.length >>> CQE_SHIFT;
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
    this.#ring = NO_COMPLETIONS;
    this.#head = 0;
    this.#phase = 1;
  }

  /** Dword 3 of the next entry: the command identifier, the phase tag and the status field. -1 where there is none. */
  next(): number {
    const dword3 = loadAcquire(this.#ring, (this.#head << CQE_SHIFT) + 3);
    return ((dword3 >>> PHASE_SHIFT) & 1) === this.#phase ? dword3 : -1;
  }

  /** Dword 0 of that entry. */
  result(): number {
    return this.#ring[this.#head << CQE_SHIFT]!;
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

/**
 * Doorbells: how the controller learns of a new submission queue tail or completion queue head.
 *
 * ```
 *   mapped    a store into the server's memory behind BAR 0
 *   message   REGION_WRITE; one at a time for each doorbell, and the newest value after it
 *   shadow    a store into a buffer of ours, and one of the above when the controller asked to be told
 * ```
 */

/**
 * How the controller is told of new queue entries: by a store to `mapped` memory of BAR 0, by a `message` (REGION_WRITE), or
 * by `shadow` doorbells (NVM Express Base 2.0, section 5.8) and one of the others where the controller asks for it.
 */
export type DoorbellKind = 'mapped' | 'message' | 'shadow';

export interface Doorbell {
  readonly kind: DoorbellKind;
  /** Tells the controller. What was stored before is visible to it when the value is. */
  write(value: number): void;
  /** The queue is about to be deleted: nothing is written any more, nor told of what was. */
  retire?(): void;
}

export class MappedDoorbell implements Doorbell {
  readonly kind = 'mapped';
  readonly #words: Uint32Array;
  readonly #index: number;

  /** `offset` is the doorbell's in the area. */
  constructor(area: MappedArea, offset: number) {
    this.#words = area.u32;
    this.#index = offset >>> 2;
  }

  write(value: number): void {
    storeRelease(this.#words, this.#index, value);
  }
}

export class MessageDoorbell implements Doorbell {
  readonly kind = 'message';
  readonly #write: LatestWrite;
  #value = 0;

  /** `onError` hears of a write that failed: the controller may not know of commands then. */
  constructor(region: Region, offset: number, onError: (error: unknown) => void) {
    this.#write = new LatestWrite(() => region.writeUInt32(offset, this.#value), onError);
  }

  write(value: number): void {
    this.#value = value;
    this.#write.request();
  }

  /** The value of a queue that is gone must not reach the one that is made in its place. */
  retire(): void {
    this.#write.retire();
  }
}

/** Doorbell Buffer Config (NVM Express Base 2.0, section 5.8 and annex B.5). */
export class ShadowDoorbell implements Doorbell {
  readonly kind = 'shadow';
  readonly #shadow: Uint32Array;
  readonly #eventIndexes: Uint32Array;
  readonly #index: number;
  readonly #real: Doorbell;

  /** `index` is the doorbell's in both buffers, in dwords. */
  constructor(shadow: Uint32Array, eventIndexes: Uint32Array, index: number, real: Doorbell) {
    this.#shadow = shadow;
    this.#eventIndexes = eventIndexes;
    this.#index = index;
    this.#real = real;
    // A new queue begins at 0. The event index is the controller's once it has the queue: what it left there of the one
    // before it would have the first commands pass unnoticed.
    shadow[index] = eventIndexes[index] = 0;
  }

  retire(): void {
    this.#real.retire?.();
  }

  write(value: number): void {
    // In the page of doorbells: `DoorbellMap` has checked that.
    const old = this.#shadow[this.#index]!;
    // Both sequentially consistent: the controller sets its index and looks at the shadow again in the same way, so that
    // one of the two sees the other's store.
    Atomics.store(this.#shadow, this.#index, value);
    const eventIndex = Atomics.load(this.#eventIndexes, this.#index);
    if (passesEventIndex(eventIndex, value, old)) this.#real.write(value);
  }
}
