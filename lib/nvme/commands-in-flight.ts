/**
 * The commands of a queue pair that are in flight, by slot, with what each keeps while the controller may use it: the slot,
 * bounce pages, a caller's buffer.
 */
import type { DmaBuffer } from '../index.js';
import type { Command, PendingCall } from './command.js';
import { USES_SGL, type BouncePool, type PrpLists } from './data-pointers.js';
import { SLOT_OWNED, type QueuePair } from './queue-pair.js';

export class CommandsInFlight {
  /** A command waits for bounce pages, and nobody is making them: `poolMade` or `poolRefused` is to follow. */
  onPoolWanted: () => void = () => undefined;
  readonly #pair: QueuePair;
  readonly #prps: PrpLists;
  readonly #usesSgls: boolean;
  /** Where data of this process goes through; commands with such data are not sent before it is there. */
  #pool: BouncePool | undefined;
  /** Whom the pool is being made for. */
  #poolWantedBy: PendingCall | undefined;
  readonly #bySlot: (Command | undefined)[];
  #count = 0;
  #unattendedCount = 0;
  /** How many were ever sent. */
  #sent = 0;
  /** Buffers of callers that were in use at the end. */
  readonly #lent: DmaBuffer[] = [];

  /** `usesSgls`: contiguous data on more than one page is named by SGLs. */
  constructor(pair: QueuePair, prps: PrpLists, usesSgls: boolean) {
    this.#pair = pair;
    this.#prps = prps;
    this.#usesSgls = usesSgls;
    this.#bySlot = new Array<Command | undefined>(pair.slots.count).fill(undefined);
  }

  get count(): number {
    return this.#count;
  }

  /** How many of them somebody waits, or waited, for. */
  get attendedCount(): number {
    return this.#count - this.#unattendedCount;
  }

  /** undefined where the slot is free, or is one of the submit/poll API's. */
  at(slot: number): Command | undefined {
    return this.#bySlot[slot];
  }

  /** The bounce pages that were wanted. */
  poolMade(pool: BouncePool): void {
    this.#poolWantedBy = undefined;
    this.#pool = pool;
  }

  /** They cannot be made. Whom they were for; the next command that needs them wants them again. */
  poolRefused(): PendingCall | undefined {
    const call = this.#poolWantedBy;
    this.#poolWantedBy = undefined;
    return call;
  }

  /** They may be taken out meanwhile. */
  *all(): Generator<Command, void> {
    for (const command of this.#bySlot) if (command !== undefined) yield command;
  }

  /** False where there is no room. @throws where the command is wrong, or its data is gone: nothing was sent then. */
  send(command: Command): boolean {
    command.checkFields();
    command.checkData();
    const pair = this.#pair;
    if (!pair.isOpen) return false;
    let pages: number[] | undefined;
    if (command.bytes !== undefined && command.length > 0) {
      if (this.#pool === undefined) this.#wantPool(command);
      pages = this.#pool?.take(this.#pool.pagesFor(command.length));
      if (pages === undefined) return false;
    }
    const slot = pair.slots.claim(SLOT_OWNED, 0);
    if (slot < 0) {
      if (pages !== undefined) this.#pool?.give(pages);
      return false;
    }
    this.#bySlot[slot] = command;
    command.slot = slot;
    command.pages = pages;
    if (command.order < 0) command.order = this.#sent++;
    command.buffer?.beginUse();
    this.#count++;
    if (command.isUnattended) this.#unattendedCount++;
    const flags = this.#point(command, slot);
    command.encode(pair.sq.entries, pair.sq.next(), pair.slots.commandIds[slot]!, flags, this.#prps.entries);
    return true;
  }

  /** Copies what was read to the caller's memory. What is wrong with that memory, or the namespace, if anything is. */
  deliver(command: Command): unknown {
    const { pages, bytes } = command;
    if (pages === undefined || bytes === undefined || command.isToDevice) return undefined;
    try {
      command.checkData();
      this.#pool?.copyOut(pages, bytes);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Takes the command out of its slot, which is free, and what it kept back. */
  take(slot: number): Command | undefined {
    const command = this.#bySlot[slot];
    if (command === undefined) return undefined;
    this.#remove(command);
    command.buffer?.endUse();
    if (command.pages !== undefined) {
      this.#pool?.give(command.pages);
      command.pages = undefined;
    }
    return command;
  }

  /**
   * The rings are not polled any more: takes all commands out. Bounce pages stay taken, and callers' buffers in use until
   * `giveBack`: the device may still write to them.
   */
  end(): Command[] {
    const commands = [...this.all()];
    for (const command of commands) {
      this.#remove(command);
      if (command.buffer !== undefined) this.#lent.push(command.buffer);
    }
    return commands;
  }

  /** After the end, when the device does not use the callers' buffers any more. */
  giveBack(): void {
    for (const buffer of this.#lent.splice(0)) buffer.endUse();
  }

  #wantPool(command: Command): void {
    if (this.#poolWantedBy !== undefined) return;
    this.#poolWantedBy = command.transfer ?? command;
    this.onPoolWanted();
  }

  #remove(command: Command): void {
    this.#bySlot[command.slot] = undefined;
    command.slot = -1;
    this.#count--;
    if (command.isUnattended) this.#unattendedCount--;
  }

  /** Makes the data pointers. What dword 0 has to say of them. */
  #point(command: Command, slot: number): number {
    const { length, pages, bytes } = command;
    const prps = this.#prps;
    const pool = this.#pool;
    if (pages !== undefined && bytes !== undefined && pool !== undefined) {
      if (command.isToDevice) pool.copyIn(pages, bytes);
      prps.scattered(slot, pool.low, pool.high, pages);
    } else if (this.#usesSgls && prps.needsTwo(command.low, length)) {
      prps.block(command.low, command.high, length);
      return USES_SGL;
    } else if (length > 0) prps.contiguous(slot, command.low, command.high, length);
    else prps.verbatim(command.low, command.high, command.secondPointer);
    return 0;
  }
}
