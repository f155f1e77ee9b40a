/**
 * A virtqueue (Virtual I/O Device 1.2, section 2.6): its rings, and a slot for each request that may be outstanding.
 *
 * ```
 *   slots.claim ──▶ a slot ──▶ ring.chains ──▶ add() ──▶ ring() ──▶ the device
 *   poll, pollOwned ◀── used elements, each checked against what is in flight
 *
 *   closed ── open() ──▶ open ── pause() ──▶ paused          nothing is claimed while it is not open
 *     ▲                   ▲ └── close() ──▶ closed             what is completed is reported in any state
 *     └── close(), end()  └──── resume() ────┘
 * ```
 * A slot is tagged (its completion goes to whoever polls, under a tag of theirs) or owned (its completion goes to
 * `onCompletion`). Nothing here waits, and nothing allocates for a request.
 *
 * A device that names a request that is not in flight, or twice, or more bytes than the request had room for, is not to be
 * believed in anything: the queue ends, and nothing that it says afterwards is taken for a completion.
 */
import { KeptCompletions } from '../commands/kept-completions.js';
import { CommandSlots, SLOT_OWNED, SLOT_TAGGED } from '../commands/command-slots.js';
import type { CommandRing, OutstandingCommand } from '../commands/command-ring.js';
import { VirtioDeviceError } from './errors.js';
import type { Notifier } from './notify.js';
import { BROKEN, NOTHING_USED, type Ring } from './ring.js';

/** `completedStatus` of a request that a reset ended. */
export const STATUS_ABORTED = 0xfffe;
/** What a `StatusReader` gives where the device has not written the status: the completion is a lie. */
export const NOT_WRITTEN = -1;

/** The status of a request that was used: 0 is success. It lies in memory that the device writes. */
export type StatusReader = (slot: number, usedLength: number) => number;

export class Virtqueue implements CommandRing {
  readonly id: number;
  readonly slots: CommandSlots;
  readonly rings: Ring;
  /** Tags of the requests that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status: 0 is success. */
  readonly completedStatus: Uint16Array;
  /** Takes the completion of an owned slot, which is free by then: status, and the bytes that the device wrote. */
  onCompletion: (slot: number, status: number, usedLength: number) => void = () => undefined;
  /** The device broke the rules. Called once; the queue is closed by then. */
  onViolation: (error: VirtioDeviceError) => void = () => undefined;
  /** The epoch in which the device last completed a request that somebody waited for. */
  answered = 0;
  readonly #readStatus: StatusReader;
  readonly #isPolled: boolean;
  /** How many bytes the device may write, of each slot. */
  readonly #writable: Uint32Array;
  #state: 'closed' | 'open' | 'paused' = 'closed';
  #notifier: Notifier | undefined;
  readonly #kept: KeptCompletions;
  #isBroken = false;

  /** `depth`: how many requests may be outstanding, no more than the ring has slots. */
  constructor(id: number, rings: Ring, depth: number, isPolled: boolean, readStatus: StatusReader) {
    this.id = id;
    this.rings = rings;
    this.slots = new CommandSlots(depth, 0);
    this.completedTags = new Uint32Array(depth);
    this.completedStatus = new Uint16Array(depth);
    this.#kept = new KeptCompletions(this.slots);
    this.#writable = new Uint32Array(depth);
    this.#isPolled = isPolled;
    this.#readStatus = readStatus;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  get inFlight(): number {
    return this.slots.usedCount;
  }

  /** How the device is told; undefined while there is no queue. */
  get notifier(): Notifier | undefined {
    return this.#notifier;
  }

  /** Makes the rings a new queue's. */
  clear(): void {
    this.rings.clear();
    this.#isBroken = false;
  }

  /** The device has the rings, as `clear` left them, and runs. */
  open(notifier: Notifier): void {
    this.#notifier = notifier;
    this.#enter('open');
    if (this.#isPolled) this.rings.disarm();
    else this.rings.arm();
  }

  close(): void {
    this.#enter('closed');
    this.#notifier?.retire();
    this.#notifier = undefined;
  }

  pause(): void {
    this.ring();
    if (this.#state === 'open') this.#enter('paused');
  }

  resume(): void {
    if (this.#state === 'paused') this.#enter('open');
  }

  end(): void {
    this.close();
    this.rings.detach();
    const { slots } = this;
    for (let slot = 0; slot < slots.count; slot++) if (slots.isOut(slot)) slots.release(slot);
  }

  /** Puts the slot's chain into the ring; `writable` of its bytes are the device's to write. */
  add(slot: number, descriptors: number, writable: number): void {
    this.#writable[slot] = writable;
    this.rings.add(slot, descriptors);
  }

  ring(): void {
    if (!this.rings.hasNew || this.#state !== 'open') return;
    if (this.rings.publish()) this.#notifier?.notify();
  }

  /**
   * Consumes completions, at most `max` tagged ones, whose tags and status are in `completedTags` and `completedStatus`
   * until the next call. Returns their number.
   */
  poll(max = this.slots.count): number {
    let count = 0;
    const { slots, completedTags, completedStatus } = this;
    if (!this.#kept.isEmpty) count = this.#kept.report(max, completedTags, completedStatus);
    let consumed = 0;
    // No more than there are slots, as in `pollOwned`.
    while (count < max && consumed < slots.count) {
      const slot = this.#next();
      if (slot < 0) break;
      const status = this.#statusOf(slot);
      if (status < 0) break;
      const length = this.rings.usedLength;
      this.rings.advance(slot);
      const tag = slots.tags[slot]!;
      if (slots.complete(slot) === SLOT_TAGGED) {
        completedTags[count] = tag;
        completedStatus[count++] = status;
      } else this.onCompletion(slot, status, length);
      consumed++;
    }
    if (count > 0) this.answered = slots.epoch;
    if (consumed > 0) this.#endBatch();
    return count;
  }

  pollOwned(): number {
    const { slots } = this;
    let consumed = 0;
    // No more than there are slots: a device that is faster than this must not hold the loop.
    while (consumed < slots.count) {
      const slot = this.#next();
      if (slot < 0) break;
      const status = this.#statusOf(slot);
      if (status < 0) break;
      const length = this.rings.usedLength;
      this.rings.advance(slot);
      if (slots.isTagged(slot)) {
        this.#kept.keep(slot, status);
        this.answered = slots.epoch;
      } else {
        slots.release(slot);
        this.onCompletion(slot, status, length);
      }
      consumed++;
    }
    if (consumed > 0) this.#endBatch();
    return consumed;
  }

  abandon(): number[] {
    const { slots } = this;
    const owned: number[] = [];
    for (let slot = 0; slot < slots.count; slot++) {
      if (!slots.isOut(slot)) continue;
      if (slots.isTagged(slot)) this.#kept.keep(slot, STATUS_ABORTED);
      else {
        slots.release(slot);
        owned.push(slot);
      }
    }
    return owned;
  }

  outstanding(slot: number): OutstandingCommand {
    const { id, slots } = this;
    const claim = slots.claimOf(slot);
    const isOut = () => slots.claimOf(slot) === claim && slots.isOut(slot);
    return { queueId: id, commandId: slot, isOut };
  }

  /** The slot of the next completion that can be believed so far; less than 0 where there is none. */
  #next(): number {
    if (this.#isBroken) return NOTHING_USED;
    const slot = this.rings.next();
    if (slot === NOTHING_USED) return slot;
    if (slot === BROKEN) return this.#violate(this.rings.problem);
    if (slot >= this.slots.count || !this.slots.isOut(slot))
      return this.#violate(`the device has used request ${slot}, which is not in flight`);
    const writable = this.#writable[slot]!;
    const { usedLength } = this.rings;
    if (usedLength <= writable) return slot;
    return this.#violate(
      `the device says that it wrote ${usedLength} bytes for request ${slot}, which has room for ${writable}`,
    );
  }

  #statusOf(slot: number): number {
    const status = this.#readStatus(slot, this.rings.usedLength);
    if (status !== NOT_WRITTEN) return status;
    return this.#violate(
      `the device has used request ${slot} without a status, or not all that it has to write`,
    );
  }

  #endBatch(): void {
    // What was used before the device could see that it is to interrupt is found by polling again.
    if (!this.#isPolled && this.#state !== 'closed' && this.rings.arm())
      queueMicrotask(() => this.pollAgain());
  }

  /** Whoever polls when an interrupt comes. */
  pollAgain: () => void = () => undefined;

  #enter(state: 'closed' | 'open' | 'paused'): void {
    this.#state = state;
    this.slots.isOpen = state === 'open';
  }

  #violate(problem: string): typeof BROKEN {
    this.#isBroken = true;
    if (this.#state !== 'closed') {
      this.#enter('closed');
      this.onViolation(new VirtioDeviceError(`queue ${this.id}: ${problem}`));
    }
    return BROKEN;
  }
}

export { SLOT_OWNED, SLOT_TAGGED };
