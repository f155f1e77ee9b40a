/**
 * The commands of a queue that are in flight, by slot, with what each keeps while the device may use it: the slot, a
 * caller's buffer, and what memory the driver gives it.
 */
import type { DmaBuffer } from '../index.js';
import type { Command, PendingCall } from './command.js';
import type { CommandRing } from './command-ring.js';
import { SLOT_OWNED } from './command-slots.js';

export abstract class CommandsInFlight<C extends Command> {
  readonly #ring: CommandRing;
  readonly #bySlot: (C | undefined)[];
  #count = 0;
  #unattendedCount = 0;
  /** How many were ever sent. */
  #sent = 0;
  /** Buffers of callers that were in use at the end. */
  readonly #lent: DmaBuffer[] = [];

  constructor(ring: CommandRing) {
    this.#ring = ring;
    this.#bySlot = new Array<C | undefined>(ring.slots.count).fill(undefined);
  }

  get count(): number {
    return this.#count;
  }

  /** How many of them somebody waits, or waited, for. */
  get attendedCount(): number {
    return this.#count - this.#unattendedCount;
  }

  /** undefined where the slot is free, or is one of the submit/poll API's. */
  at(slot: number): C | undefined {
    return this.#bySlot[slot];
  }

  /** They may be taken out meanwhile. */
  *all(): Generator<C, void> {
    for (const command of this.#bySlot) if (command !== undefined) yield command;
  }

  /** False where there is no room. @throws where the command is wrong, or its data is gone: nothing was sent then. */
  send(command: C): boolean {
    command.check();
    const ring = this.#ring;
    if (!ring.isOpen || !this.takeMemory(command)) return false;
    const slot = ring.slots.claim(SLOT_OWNED, 0);
    if (slot < 0) {
      this.giveMemory(command);
      return false;
    }
    this.#bySlot[slot] = command;
    command.slot = slot;
    if (command.order < 0) command.order = this.#sent++;
    command.buffer?.beginUse();
    this.#count++;
    if (command.isUnattended) this.#unattendedCount++;
    this.compose(command, slot);
    return true;
  }

  /**
   * The device has completed the command: delivers what was read to the caller's memory. The error that the caller gets,
   * if it is to get one.
   */
  abstract outcome(command: C, status: number, result: number): unknown;

  /** Takes the command out of its slot, which is free, and what it kept back. */
  take(slot: number): C | undefined {
    const command = this.#bySlot[slot];
    if (command === undefined) return undefined;
    this.#remove(command);
    command.buffer?.endUse();
    this.giveMemory(command);
    return command;
  }

  /**
   * The rings are not polled any more: takes all commands out. Their memory stays taken, and callers' buffers in use until
   * `giveBack`: the device may still write to them.
   */
  end(): C[] {
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

  /** The driver's memory for commands cannot be had. Whom it was wanted for; the next command wants it again. */
  memoryRefused(): PendingCall | undefined {
    return undefined;
  }

  /** Takes memory of the driver's for the command's data. False where there is none left. */
  protected abstract takeMemory(command: C): boolean;

  /** Gives it back, where there is any. */
  protected abstract giveMemory(command: C): void;

  /** Writes the command where the device is to read it. */
  protected abstract compose(command: C, slot: number): void;

  #remove(command: C): void {
    this.#bySlot[command.slot] = undefined;
    command.slot = -1;
    this.#count--;
    if (command.isUnattended) this.#unattendedCount--;
  }
}
