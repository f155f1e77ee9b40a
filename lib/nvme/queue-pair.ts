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
import { KeptCompletions } from '../commands/kept-completions.js';
import { CommandSlots, SLOT_OWNED, SLOT_TAGGED } from '../commands/command-slots.js';
import type { CommandRing, OutstandingCommand } from '../commands/command-ring.js';
import { ProtocolError } from '../index.js';
import { CompletionQueue, SubmissionQueue, type Doorbell } from './rings.js';
import { STATUS_ABORTED_BY_HOST } from './status.js';

/** Of dword 3 of a completion: the command identifier, and where the status field begins, behind the phase tag. */
const COMMAND_ID_MASK = 0xffff;
const STATUS_SHIFT = 17;
/** Bits of a command identifier that are used, where slots do not need more: FFFFh is not to be used (section 3.3.3.1). */
const IDENTIFIER_BITS = 15;
/** The most slots whose identifiers have a bit left that tells one use from the next. FFFFh is that of one more. */
export const MOST_SLOTS = 32_767;

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

export class QueuePair implements CommandRing {
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
  readonly #kept: KeptCompletions;

  constructor({ id, slots, sq, cq, tellsHeadAtOnce }: QueuePairOptions) {
    this.id = id;
    this.slots = new CommandSlots(slots, IDENTIFIER_BITS);
    this.sq = new SubmissionQueue(sq);
    this.#cq = new CompletionQueue(cq, tellsHeadAtOnce);
    this.completedTags = new Uint32Array(slots);
    this.completedStatus = new Uint16Array(slots);
    this.#kept = new KeptCompletions(this.slots);
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
    let count = 0;
    const cq = this.#cq;
    const { slots, completedTags, completedStatus } = this;
    if (!this.#kept.isEmpty) count = this.#kept.report(max, completedTags, completedStatus);
    let consumed = 0;
    // No more than there are slots, as in `pollOwned`.
    while (count < max && consumed < slots.count) {
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
        this.#kept.keep(slot, dword3 >>> STATUS_SHIFT);
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
      if (slots.isTagged(slot)) this.#kept.keep(slot, STATUS_ABORTED_BY_HOST);
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

  #violate(commandId: number): void {
    if (this.#state === 'closed') return;
    this.#enter('closed');
    this.onViolation(
      new ProtocolError(`queue ${this.id}: a completion of command ${commandId}, which is not in flight`),
    );
  }
}
