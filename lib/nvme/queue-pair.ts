/**
 * The two rings of a queue pair (NVM Express Base 2.0, sections 3.3.1 and 4.2), as typed arrays over shared memory.
 *
 * ```
 *   claim ──▶ a slot, and its command identifier ──▶ entry() ──▶ 16 dwords ──▶ ring() ──▶ the shared ring
 *   poll, reap ◀── completion entries whose phase tag is the current one
 * ```
 * Commands are composed in memory that only this thread touches, and copied to the ring that the controller fetches them
 * from before it is told of them: each entry of that ring is in the controller's cache, and to take it over store by store
 * takes longer than composing it.
 *
 * A command identifier is the slot's number, with a count of the slot's uses above it: a completion that comes twice, or
 * late, is not taken for that of the slot's next command.
 *
 * A slot is tagged (the completion goes to whoever polls, under a tag of theirs) or owned (the completion goes to
 * `onCompletion`). Nothing here allocates, and nothing here waits.
 *
 * Invariants: there are fewer slots than entries, so a slot that is free says that there is room in both rings. The head
 * of the completion queue is told together with the next tail, or when half of the ring is consumed: both doorbells lie
 * in one cache line, that the controller has to fetch each time that it is written.
 */
import { ProtocolError } from '../index.js';
import type { Doorbell } from './doorbells.js';
import { loadAcquire } from './memory-order.js';
import { STATUS_ABORTED_BY_HOST } from './status.js';

/** Dwords of a submission entry and of a completion entry, as powers of two. */
const SQE_SHIFT = 4;
const CQE_SHIFT = 2;

/** How many entries at once are copied by the engine, which makes an object for it: a pipeline of cache lines. */
const LEAST_IN_BULK = 8;

/** What a slot is in use for. */
const FREE = 0;
const TAGGED = 1;
const OWNED = 2;
/** Tagged, and completed while nobody polled. */
const PARKED = 3;

const NO_MEMORY = new Uint32Array(0);

/** Bits of a command identifier that are used, where slots do not need more: FFFFh is not to be used (section 3.3.3.1). */
const IDENTIFIER_BITS = 15;

/** Who a slot is for: see the top of the file. */
export type SlotUse = typeof TAGGED | typeof OWNED;
export const SLOT_TAGGED = TAGGED;
export const SLOT_OWNED = OWNED;

export interface QueuePairOptions {
  id: number;
  /** Of both rings. */
  entries: number;
  /** Commands that may be outstanding; fewer than entries. */
  slots: number;
  /** Where the controller fetches commands: 16 dwords an entry. */
  sq: Uint32Array;
  cq: Uint32Array;
  /** The head of the completion queue is told after every batch: who waits for interrupts has it coalesced by that. */
  tellsHeadAtOnce: boolean;
}

export class QueuePair {
  readonly id: number;
  readonly slots: number;
  /** Where commands are composed, as they lie in the submission ring: 16 dwords an entry. */
  readonly sq: Uint32Array;
  /** Of each slot that is in use the command's identifier. */
  readonly commandIds: Uint16Array;
  /** Tags of the commands that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status fields without the phase tag: 0 is success, `decodeStatus` has the rest. */
  readonly completedStatus: Uint16Array;
  /** Takes the completion of an owned slot, which is free by then. */
  onCompletion: (slot: number, status: number, result: number) => void = () => undefined;
  /** The controller broke the rules of the ring. Called once; the pair is closed by then. */
  onViolation: (error: ProtocolError) => void = () => undefined;
  /** Counted up from time to time by whoever watches for overdue commands. */
  epoch = 0;
  /** The epoch in which the controller last completed a command that somebody waited for. */
  answered = 0;
  readonly #entries: number;
  #shownSq: Uint32Array;
  #cq: Uint32Array;
  readonly #tellsHeadAtOnce: boolean;
  readonly #use: Uint8Array;
  readonly #tags: Uint32Array;
  readonly #epochs: Uint32Array;
  /** Counts the uses of each slot: tells a command from the one that had the slot before. */
  readonly #claims: Uint32Array;
  /** Of a command identifier: the slot's number, one use, and all bits that are used. */
  readonly #slotMask: number;
  readonly #useStep: number;
  readonly #identifierMask: number;
  readonly #free: Uint16Array;
  #freeCount: number;
  #tail = 0;
  #toldTail = 0;
  #head = 0;
  /** The phase tag of new completions. */
  #phase = 1;
  /** Completions consumed since the head was told. */
  #untold = 0;
  #isOpen = false;
  #sqDoorbell: Doorbell | undefined;
  #cqDoorbell: Doorbell | undefined;
  #parked: Uint16Array;
  #parkedStatus: Uint16Array;
  #parkedCount = 0;

  constructor({ id, entries, slots, sq, cq, tellsHeadAtOnce }: QueuePairOptions) {
    this.id = id;
    this.slots = slots;
    this.sq = new Uint32Array(sq.length);
    this.#shownSq = sq;
    this.#entries = entries;
    this.#cq = cq;
    this.#tellsHeadAtOnce = tellsHeadAtOnce;
    this.completedTags = new Uint32Array(slots);
    this.completedStatus = new Uint16Array(slots);
    this.#use = new Uint8Array(slots);
    this.#tags = new Uint32Array(slots);
    this.#epochs = new Uint32Array(slots);
    this.#claims = new Uint32Array(slots);
    const slotBits = Math.ceil(Math.log2(slots));
    this.#useStep = 1 << slotBits;
    this.#slotMask = this.#useStep - 1;
    this.#identifierMask = (1 << Math.max(IDENTIFIER_BITS, slotBits)) - 1;
    this.commandIds = new Uint16Array(slots);
    for (let i = 0; i < slots; i++) this.commandIds[i] = (i - this.#useStep) & this.#identifierMask;
    this.#parked = new Uint16Array(slots);
    this.#parkedStatus = new Uint16Array(slots);
    this.#free = new Uint16Array(slots);
    for (let i = 0; i < slots; i++) this.#free[i] = slots - 1 - i;
    this.#freeCount = slots;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Commands that are not completed, or not reported yet. */
  get inFlight(): number {
    return this.slots - this.#freeCount;
  }

  /** Makes the rings a new queue's. */
  clear(): void {
    this.#tail = this.#toldTail = this.#head = this.#untold = 0;
    this.#phase = 1;
    this.#shownSq.fill(0);
    this.#cq.fill(0);
  }

  /** The controller has the rings, as `clear` left them. */
  open(sqDoorbell: Doorbell, cqDoorbell: Doorbell): void {
    this.#sqDoorbell = sqDoorbell;
    this.#cqDoorbell = cqDoorbell;
    this.#isOpen = true;
  }

  /** Nothing is claimed from here on. What completes is still reported. */
  close(): void {
    this.#isOpen = false;
    this.#sqDoorbell?.retire?.();
    this.#cqDoorbell?.retire?.();
  }

  /** Nothing is claimed until `reopen`; what was written is shown to the controller, which keeps the queue. */
  pause(): void {
    this.ring();
    this.#isOpen = false;
  }

  /** Ends `pause`. */
  reopen(): void {
    this.#isOpen = true;
  }

  /** The queue is gone, and the rings' memory somebody else's: frees all slots but those whose completion was kept. */
  end(): void {
    this.#isOpen = false;
    this.#phase = 1;
    this.#shownSq = this.#cq = NO_MEMORY;
    for (let slot = 0; slot < this.slots; slot++) {
      if (this.#use[slot] === TAGGED || this.#use[slot] === OWNED) this.#release(slot);
    }
  }

  /** Takes a free slot; -1 where there is none, or the pair is closed. */
  claim(use: SlotUse, tag: number): number {
    if (this.#freeCount === 0 || !this.#isOpen) return -1;
    const slot = this.#free[--this.#freeCount]!;
    this.#use[slot] = use;
    this.#tags[slot] = tag;
    this.#epochs[slot] = this.epoch;
    this.#claims[slot]!++;
    this.commandIds[slot] = (this.commandIds[slot]! + this.#useStep) & this.#identifierMask;
    return slot;
  }

  /** Where in `sq` the next command is to be written, all 16 dwords. The controller sees it after `ring`. */
  entry(): number {
    const at = this.#tail;
    this.#tail = at + 1 === this.#entries ? 0 : at + 1;
    return at << SQE_SHIFT;
  }

  /** Shows all entries since the last time to the controller, and tells it. */
  ring(): void {
    const from = this.#toldTail;
    const tail = this.#tail;
    // A pair that was closed may have no queue any more.
    if (tail === from || !this.#isOpen) return;
    if (from < tail) this.#show(from, tail);
    else {
      this.#show(from, this.#entries);
      this.#show(0, tail);
    }
    if (this.#untold > 0) this.#tellHead();
    this.#toldTail = tail;
    this.#sqDoorbell!.write(tail);
  }

  /**
   * Consumes completions, at most `max` tagged ones, whose tags and status are in `completedTags` and `completedStatus`
   * until the next call. Returns their number.
   */
  poll(max = this.slots): number {
    let count = this.#parkedCount === 0 ? 0 : this.#takeParked(max);
    const cq = this.#cq;
    const mask = this.#slotMask;
    let head = this.#head;
    let phase = this.#phase;
    let consumed = 0;
    while (count < max) {
      const word = loadAcquire(cq, (head << CQE_SHIFT) + 3);
      if (((word >>> 16) & 1) !== phase) break;
      const slot = word & mask;
      const use = this.commandIds[slot] === (word & 0xffff) ? this.#use[slot]! : FREE;
      if (use !== TAGGED && use !== OWNED) {
        this.#violate(word & 0xffff);
        break;
      }
      this.#use[slot] = FREE;
      this.#free[this.#freeCount++] = slot;
      if (use === TAGGED) {
        this.completedTags[count] = this.#tags[slot]!;
        this.completedStatus[count] = word >>> 17;
        count++;
      } else this.onCompletion(slot, word >>> 17, cq[head << CQE_SHIFT]!);
      consumed++;
      if (++head === this.#entries) {
        head = 0;
        phase ^= 1;
      }
    }
    if (count > 0) this.answered = this.epoch;
    if (consumed > 0) this.#consumed(consumed, head, phase);
    return count;
  }

  /** Consumes completions of owned slots, and keeps those of tagged ones for the next `poll`. Returns how many came. */
  reap(): number {
    const cq = this.#cq;
    const mask = this.#slotMask;
    let head = this.#head;
    let phase = this.#phase;
    let consumed = 0;
    // No more than a ring: a controller that is faster than this must not hold the loop.
    while (consumed < this.#entries) {
      const word = loadAcquire(cq, (head << CQE_SHIFT) + 3);
      if (((word >>> 16) & 1) !== phase) break;
      const slot = word & mask;
      const use = this.commandIds[slot] === (word & 0xffff) ? this.#use[slot]! : FREE;
      if (use === TAGGED) {
        this.#park(slot, word >>> 17);
        this.answered = this.epoch;
      } else if (use === OWNED) {
        this.#use[slot] = FREE;
        this.#free[this.#freeCount++] = slot;
        this.onCompletion(slot, word >>> 17, cq[head << CQE_SHIFT]!);
      } else {
        this.#violate(word & 0xffff);
        break;
      }
      consumed++;
      if (++head === this.#entries) {
        head = 0;
        phase ^= 1;
      }
    }
    if (consumed > 0) this.#consumed(consumed, head, phase);
    return consumed;
  }

  /**
   * The controller has let go of all commands: frees the owned slots and gives their numbers, in no promised order;
   * tagged ones are reported by the next `poll` as ABORTED_BY_HOST.
   */
  abandon(): number[] {
    const owned: number[] = [];
    for (let slot = 0; slot < this.slots; slot++) {
      if (this.#use[slot] === TAGGED) this.#park(slot, STATUS_ABORTED_BY_HOST);
      else if (this.#use[slot] === OWNED) {
        this.#release(slot);
        owned.push(slot);
      }
    }
    return owned;
  }

  /** Slots whose commands are out since `epochs` epochs or more. */
  overdue(epochs: number): number[] {
    const slots: number[] = [];
    if (this.#freeCount === this.slots) return slots;
    for (let slot = 0; slot < this.slots; slot++) {
      const use = this.#use[slot];
      const isOut = use === TAGGED || use === OWNED;
      if (isOut && this.epoch - this.#epochs[slot]! >= epochs) slots.push(slot);
    }
    return slots;
  }

  /** What tells the slot's present command from earlier and later ones. */
  claimOf(slot: number): number {
    return this.#claims[slot]!;
  }

  /** Whether that command is still out. */
  isOut(slot: number, claim: number): boolean {
    return this.#claims[slot] === claim && (this.#use[slot] === TAGGED || this.#use[slot] === OWNED);
  }

  /** Copies entries `[from, to)` to where the controller fetches them. */
  #show(from: number, to: number): void {
    const begin = from << SQE_SHIFT;
    const end = to << SQE_SHIFT;
    const shown = this.#shownSq;
    const { sq } = this;
    if (to - from >= LEAST_IN_BULK) shown.set(sq.subarray(begin, end), begin);
    else for (let i = begin; i < end; i++) shown[i] = sq[i]!;
  }

  #consumed(count: number, head: number, phase: number): void {
    this.#head = head;
    this.#phase = phase;
    this.#untold += count;
    if (this.#tellsHeadAtOnce || this.#untold * 2 >= this.#entries) this.#tellHead();
  }

  #tellHead(): void {
    this.#untold = 0;
    // A pair that was closed may have no queue any more.
    if (this.#isOpen) this.#cqDoorbell!.write(this.#head);
  }

  #release(slot: number): void {
    this.#use[slot] = FREE;
    this.#free[this.#freeCount++] = slot;
  }

  #park(slot: number, status: number): void {
    this.#use[slot] = PARKED;
    this.#parked[this.#parkedCount] = slot;
    this.#parkedStatus[this.#parkedCount++] = status;
  }

  #takeParked(max: number): number {
    const count = Math.min(max, this.#parkedCount);
    for (let i = 0; i < count; i++) {
      const slot = this.#parked[i]!;
      this.completedTags[i] = this.#tags[slot]!;
      this.completedStatus[i] = this.#parkedStatus[i]!;
      this.#release(slot);
    }
    this.#parked.copyWithin(0, count, this.#parkedCount);
    this.#parkedStatus.copyWithin(0, count, this.#parkedCount);
    this.#parkedCount -= count;
    return count;
  }

  #violate(commandId: number): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.onViolation(
      new ProtocolError(`queue ${this.id}: a completion of command ${commandId}, which is not in flight`),
    );
  }
}
