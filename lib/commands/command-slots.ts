/**
 * The slots of a queue: one for each command that may be outstanding, and the command identifier of each.
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

  /**
   * `identifierBits` of a command identifier are used, or one more than slots need. With 0 it is the slot's number.
   */
  constructor(count: number, identifierBits: number) {
    this.count = count;
    this.tags = new Uint32Array(count);
    this.#uses = new Uint8Array(count);
    this.#epochs = new Uint32Array(count);
    this.#claims = new Uint32Array(count);
    const slotBits = Math.ceil(Math.log2(count));
    this.#useStep = 1 << slotBits;
    this.#slotMask = this.#useStep - 1;
    const bits = identifierBits === 0 ? slotBits : Math.max(identifierBits, slotBits + 1);
    this.#identifierMask = (1 << bits) - 1;
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
