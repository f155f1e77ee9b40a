/**
 * A queue pair (NVM Express Base 2.0, section 3.3.1): a submission queue, a completion queue of its own, and a slot for
 * each command that may be outstanding.
 *
 * ```
 *   slots.claim ──▶ a slot, and its command identifier ──▶ sq.next() ──▶ 16 dwords ──▶ ring() ──▶ the controller
 *   poll, pollOwned ◀── completion entries whose phase tag is the current one
 *
 *   closed ── open() ──▶ open ── pause() ──▶ paused          nothing is claimed while it is not open
 *     ▲                   ▲ └── close() ──▶ closed             what is completed is reported in any state
 *     └── close(), end()  └──── resume() ────┘
 * ```
 * A slot is tagged (its completion goes to whoever polls, under a tag of theirs) or owned (its completion goes to
 * `onCompletion`). Nothing here waits, and nothing allocates for a command.
 *
 * Invariant: there are fewer slots than entries, so a slot that is free says that there is room in both rings.
 */
import { ProtocolError } from '../index.js';
import { CompletionQueue, SubmissionQueue, type Doorbell } from './rings.js';
import { STATUS_ABORTED_BY_HOST } from './status.js';

/** Of dword 3 of a completion: the command identifier, and where the status field begins, behind the phase tag. */
const COMMAND_ID_MASK = 0xffff;
const STATUS_SHIFT = 17;

export interface QueuePairOptions {
  /** The queue identifier; 0 is the admin queue's. */
  id: number;
  /** Commands that may be outstanding; fewer than entries. */
  slots: number;
  /** Where the controller fetches commands: 16 dwords an entry. */
  sq: Uint32Array;
  /** Where the controller puts completions: 4 dwords an entry, and as many entries. */
  cq: Uint32Array;
  /** See `CompletionQueue`. */
  tellsHeadAtOnce: boolean;
}

type QueuePairState = 'closed' | 'open' | 'paused';

/** A command in flight, told from earlier and later ones in its slot. */
export interface OutstandingCommand {
  readonly queueId: number;
  readonly commandId: number;
  /** Whether it is still in flight. */
  isOut(): boolean;
}

export class QueuePair {
  readonly id: number;
  readonly sq: SubmissionQueue;
  readonly slots: CommandSlots;
  /** Tags of the commands that the last `poll` reported, in the order of their completion. */
  readonly completedTags: Uint32Array;
  /** Their status fields without the phase tag: 0 is success, `decodeStatus` has the rest. */
  readonly completedStatus: Uint16Array;
  /** Takes the completion of an owned slot, which is free by then. */
  onCompletion: (slot: number, status: number, result: number) => void = () => undefined;
  /** The controller broke the rules of the ring. Called once; the pair is closed by then. */
  onViolation: (error: ProtocolError) => void = () => undefined;
  /** The epoch in which the controller last completed a command that somebody waited for. */
  answered = 0;
  readonly #cq: CompletionQueue;
  #state: QueuePairState = 'closed';
  /** Of the slots that are kept, in the order of their completion. */
  readonly #keptSlots: Uint16Array;
  readonly #keptStatus: Uint16Array;
  #keptCount = 0;

  constructor({ id, slots, sq, cq, tellsHeadAtOnce }: QueuePairOptions) {
    this.id = id;
    this.slots = new CommandSlots(slots);
    this.sq = new SubmissionQueue(sq);
    this.#cq = new CompletionQueue(cq, tellsHeadAtOnce);
    this.completedTags = new Uint32Array(slots);
    this.completedStatus = new Uint16Array(slots);
    this.#keptSlots = new Uint16Array(slots);
    this.#keptStatus = new Uint16Array(slots);
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Commands that are not completed, or not reported yet. */
  get inFlight(): number {
    return this.slots.usedCount;
  }

  /** Makes the rings a new queue's. */
  clear(): void {
    this.sq.clear();
    this.#cq.clear();
  }

  /** The controller has the rings, as `clear` left them. */
  open(sqDoorbell: Doorbell, cqDoorbell: Doorbell): void {
    this.sq.open(sqDoorbell);
    this.#cq.open(cqDoorbell);
    this.#enter('open');
  }

  /** Nothing is claimed and no doorbell rung from here on. What completes is still reported. */
  close(): void {
    this.#enter('closed');
    this.sq.close();
    this.#cq.close();
  }

  /** Nothing is claimed until `resume`; what was written is shown to the controller, which keeps the queue. */
  pause(): void {
    this.ring();
    if (this.#state === 'open') this.#enter('paused');
  }

  /** Ends `pause`. */
  resume(): void {
    if (this.#state === 'paused') this.#enter('open');
  }

  /** The queue is gone, and the rings' memory somebody else's: frees all slots but those whose completion was kept. */
  end(): void {
    this.close();
    this.sq.detach();
    this.#cq.detach();
    const { slots } = this;
    for (let slot = 0; slot < slots.count; slot++) if (slots.isOut(slot)) slots.release(slot);
  }

  /** Shows all commands since the last time to the controller, and tells it of them. */
  ring(): void {
    const { sq } = this;
    // A pair that was closed may have no queue any more.
    if (!sq.hasNew || this.#state !== 'open') return;
    sq.publish();
    this.#cq.tellHead();
    sq.ringDoorbell();
  }

  /**
   * Consumes completions, at most `max` tagged ones, whose tags and status are in `completedTags` and `completedStatus`
   * until the next call. Returns their number.
   */
  poll(max = this.slots.count): number {
    let count = this.#keptCount === 0 ? 0 : this.#reportKept(max);
    const cq = this.#cq;
    const { slots, completedTags, completedStatus } = this;
    let consumed = 0;
    while (count < max) {
      const dword3 = cq.next();
      if (dword3 === -1) break;
      const commandId = dword3 & COMMAND_ID_MASK;
      const use = slots.complete(commandId);
      if (use === SLOT_TAGGED) {
        completedTags[count] = slots.tags[slots.slotOf(commandId)]!;
        completedStatus[count++] = dword3 >>> STATUS_SHIFT;
        cq.advance();
      } else if (use === SLOT_OWNED) this.#completeOwned(dword3);
      else {
        this.#violate(commandId);
        break;
      }
      consumed++;
    }
    if (count > 0) this.answered = slots.epoch;
    if (consumed > 0) cq.endBatch();
    return count;
  }

  /** Consumes completions of owned slots, and keeps those of tagged ones for the next `poll`. Returns how many came. */
  pollOwned(): number {
    const cq = this.#cq;
    const { slots } = this;
    let consumed = 0;
    // No more than there are slots: a controller that is faster than this must not hold the loop.
    while (consumed < slots.count) {
      const dword3 = cq.next();
      if (dword3 === -1) break;
      const commandId = dword3 & COMMAND_ID_MASK;
      const slot = slots.find(commandId);
      if (slot < 0) {
        this.#violate(commandId);
        break;
      }
      if (slots.isTagged(slot)) {
        this.#keep(slot, dword3 >>> STATUS_SHIFT);
        this.answered = slots.epoch;
        cq.advance();
      } else {
        slots.release(slot);
        this.#completeOwned(dword3);
      }
      consumed++;
    }
    if (consumed > 0) cq.endBatch();
    return consumed;
  }

  /**
   * The controller has let go of all commands: frees the owned slots and gives their numbers, in no promised order;
   * tagged ones are reported by the next `poll` as ABORTED_BY_HOST.
   */
  abandon(): number[] {
    const { slots } = this;
    const owned: number[] = [];
    for (let slot = 0; slot < slots.count; slot++) {
      if (!slots.isOut(slot)) continue;
      if (slots.isTagged(slot)) this.#keep(slot, STATUS_ABORTED_BY_HOST);
      else {
        slots.release(slot);
        owned.push(slot);
      }
    }
    return owned;
  }

  /** The command that is in that slot now. */
  outstanding(slot: number): OutstandingCommand {
    const { id, slots } = this;
    const claim = slots.claimOf(slot);
    const isOut = () => slots.claimOf(slot) === claim && slots.isOut(slot);
    return { queueId: id, commandId: slots.commandIds[slot]!, isOut };
  }

  #enter(state: QueuePairState): void {
    this.#state = state;
    this.slots.isOpen = state === 'open';
  }

  /** Of the next entry. The slot is free. */
  #completeOwned(dword3: number): void {
    const result = this.#cq.result();
    this.#cq.advance();
    this.onCompletion(this.slots.slotOf(dword3 & COMMAND_ID_MASK), dword3 >>> STATUS_SHIFT, result);
  }

  #keep(slot: number, status: number): void {
    this.slots.keep(slot);
    this.#keptSlots[this.#keptCount] = slot;
    this.#keptStatus[this.#keptCount++] = status;
  }

  #reportKept(max: number): number {
    const count = Math.min(max, this.#keptCount);
    for (let i = 0; i < count; i++) {
      const slot = this.#keptSlots[i]!;
      this.completedTags[i] = this.slots.tags[slot]!;
      this.completedStatus[i] = this.#keptStatus[i]!;
      this.slots.release(slot);
    }
    this.#keptSlots.copyWithin(0, count, this.#keptCount);
    this.#keptStatus.copyWithin(0, count, this.#keptCount);
    this.#keptCount -= count;
    return count;
  }

  #violate(commandId: number): void {
    if (this.#state === 'closed') return;
    this.#enter('closed');
    this.onViolation(
      new ProtocolError(`queue ${this.id}: a completion of command ${commandId}, which is not in flight`),
    );
  }
}

/**
 * The slots of a queue pair: one for each command that may be outstanding, and the command identifier of each.
 *
 * ```
 *   free ── claim(TAGGED) ──▶ tagged ──▶ reported to whoever polls, under its tag ──▶ free
 *    │                          └── keep() ──▶ kept, until somebody polls ──▶ free
 *    └───── claim(OWNED) ───▶ owned ──▶ free
 * ```
 * A command identifier is the slot's number, with a count of the slot's uses above it: a completion that comes twice, or
 * late, is not taken for that of the slot's next command. A slot is always less than `count`: `claim` gave it, or it was
 * compared with the count or by its identifier. Nothing here allocates but `overdue`.
 */

const FREE = 0;
const TAGGED = 1;
const OWNED = 2;
/** Tagged, and completed while nobody polled. */
const KEPT = 3;

/** Bits of a command identifier that are used, where slots do not need more: FFFFh is not to be used (section 3.3.3.1). */
const IDENTIFIER_BITS = 15;
/** The most slots whose identifiers have a bit left that tells one use from the next. FFFFh is that of one more. */
export const MOST_SLOTS = 32_767;

/** Who a slot is for: see the top of the file. */
export type SlotUse = typeof TAGGED | typeof OWNED;
export const SLOT_FREE = FREE;
export const SLOT_TAGGED = TAGGED;
export const SLOT_OWNED = OWNED;

export class CommandSlots {
  readonly count: number;
  /** Of each slot that is in use the command's identifier. */
  readonly commandIds: Uint16Array;
  /** Of each slot that is tagged. */
  readonly tags: Uint32Array;
  /** Whether slots are given out. */
  isOpen = false;
  /** Counted up from time to time by whoever watches for overdue commands. */
  epoch = 0;
  readonly #uses: Uint8Array;
  /** The epoch in which each slot was claimed. */
  readonly #epochs: Uint32Array;
  /** How many times each slot was claimed: tells a command from the one that had the slot before. */
  readonly #claims: Uint32Array;
  /** Of a command identifier: the slot's number, one use, and all bits that are used. */
  readonly #slotMask: number;
  readonly #useStep: number;
  readonly #identifierMask: number;
  readonly #free: Uint16Array;
  #freeCount: number;

  constructor(count: number) {
    this.count = count;
    this.tags = new Uint32Array(count);
    this.#uses = new Uint8Array(count);
    this.#epochs = new Uint32Array(count);
    this.#claims = new Uint32Array(count);
    const slotBits = Math.ceil(Math.log2(count));
    this.#useStep = 1 << slotBits;
    this.#slotMask = this.#useStep - 1;
    this.#identifierMask = (1 << Math.max(IDENTIFIER_BITS, slotBits + 1)) - 1;
    this.commandIds = new Uint16Array(count);
    for (let i = 0; i < count; i++) this.commandIds[i] = (i - this.#useStep) & this.#identifierMask;
    this.#free = new Uint16Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.#freeCount = count;
  }

  /** How many are not free. */
  get usedCount(): number {
    return this.count - this.#freeCount;
  }

  /** Takes a free slot; -1 where there is none, or none is given out. */
  claim(use: SlotUse, tag: number): number {
    if (this.#freeCount === 0 || !this.isOpen) return -1;
    const slot = this.#free[--this.#freeCount]!;
    this.#uses[slot] = use;
    this.tags[slot] = tag;
    this.#epochs[slot] = this.epoch;
    this.#claims[slot]!++;
    this.commandIds[slot] = (this.commandIds[slot]! + this.#useStep) & this.#identifierMask;
    return slot;
  }

  release(slot: number): void {
    this.#uses[slot] = FREE;
    this.#free[this.#freeCount++] = slot;
  }

  /** A tagged command is completed, and its slot taken until that was reported. */
  keep(slot: number): void {
    this.#uses[slot] = KEPT;
  }

  /** The slot that a command identifier names; it may be none that there is. */
  slotOf(commandId: number): number {
    return commandId & this.#slotMask;
  }

  /** Frees the slot of the command that is out under that identifier. What it was for; SLOT_FREE where none is out. */
  complete(commandId: number): SlotUse | typeof FREE {
    const slot = commandId & this.#slotMask;
    const use = this.#uses[slot];
    if (this.commandIds[slot] !== commandId || (use !== TAGGED && use !== OWNED)) return FREE;
    this.#uses[slot] = FREE;
    this.#free[this.#freeCount++] = slot;
    return use;
  }

  /** The slot of the command that is out under that identifier; -1 where none is. */
  find(commandId: number): number {
    const slot = commandId & this.#slotMask;
    if (this.commandIds[slot] !== commandId) return -1;
    const use = this.#uses[slot];
    return use === TAGGED || use === OWNED ? slot : -1;
  }

  /** Whether a command is in the slot that is not completed. */
  isOut(slot: number): boolean {
    const use = this.#uses[slot]!;
    return use === TAGGED || use === OWNED;
  }

  /** Of a slot that is out: whether it is tagged. */
  isTagged(slot: number): boolean {
    return this.#uses[slot] === TAGGED;
  }

  /** What tells the slot's present command from earlier and later ones, together with the slot. */
  claimOf(slot: number): number {
    return this.#claims[slot]!;
  }

  /** Slots whose commands are out since `epochs` epochs or more. */
  overdue(epochs: number): number[] {
    const slots: number[] = [];
    if (this.usedCount === 0) return slots;
    for (let slot = 0; slot < this.count; slot++)
      if (this.isOut(slot) && this.epoch - this.#epochs[slot]! >= epochs) slots.push(slot);
    return slots;
  }
}
