/** The commands of a queue pair that are in flight, and their bounce pages. */
import type { PendingCall } from '../commands/command.js';
import { CommandsInFlight } from '../commands/commands-in-flight.js';
import type { NvmeCommand } from './command.js';
import { USES_SGL, type BouncePool, type PrpLists } from './data-pointers.js';
import type { QueuePair } from './queue-pair.js';
import { NvmeStatusError } from './status.js';

export class NvmeCommandsInFlight extends CommandsInFlight<NvmeCommand> {
  /** A command waits for bounce pages, and nobody is making them: `poolMade` or `memoryRefused` is to follow. */
  onPoolWanted: () => void = () => undefined;
  readonly #pair: QueuePair;
  readonly #prps: PrpLists;
  readonly #usesSgls: boolean;
  /** Where data of this process goes through; commands with such data are not sent before it is there. */
  #pool: BouncePool | undefined;
  /** Whom the pool is being made for. */
  #poolWantedBy: PendingCall | undefined;

  /** `usesSgls`: contiguous data on more than one page is named by SGLs. */
  constructor(pair: QueuePair, prps: PrpLists, usesSgls: boolean) {
    super(pair);
    this.#pair = pair;
    this.#prps = prps;
    this.#usesSgls = usesSgls;
  }

  /** The bounce pages that were wanted. */
  poolMade(pool: BouncePool): void {
    this.#poolWantedBy = undefined;
    this.#pool = pool;
  }

  override memoryRefused(): PendingCall | undefined {
    const call = this.#poolWantedBy;
    this.#poolWantedBy = undefined;
    return call;
  }

  override outcome(command: NvmeCommand, status: number): unknown {
    if (status !== 0) return new NvmeStatusError(command.name, status);
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

  protected override takeMemory(command: NvmeCommand): boolean {
    if (command.bytes === undefined || command.length === 0) return true;
    if (this.#pool === undefined) this.#wantPool(command);
    command.pages = this.#pool?.take(this.#pool.pagesFor(command.length));
    return command.pages !== undefined;
  }

  protected override giveMemory(command: NvmeCommand): void {
    if (command.pages === undefined) return;
    this.#pool?.give(command.pages);
    command.pages = undefined;
  }

  protected override compose(command: NvmeCommand, slot: number): void {
    const { sq, slots } = this.#pair;
    const flags = this.#point(command, slot);
    command.encode(sq.entries, sq.next(), slots.commandIds[slot]!, flags, this.#prps.entries);
  }

  #wantPool(command: NvmeCommand): void {
    if (this.#poolWantedBy !== undefined) return;
    this.#poolWantedBy = command.transfer ?? command;
    this.onPoolWanted();
  }

  /** Makes the data pointers. What dword 0 has to say of them. */
  #point(command: NvmeCommand, slot: number): number {
    const { length, pages, bytes } = command;
    const prps = this.#prps;
    const pool = this.#pool;
    if (pages !== undefined && bytes !== undefined && pool !== undefined) {
      if (command.isToDevice) pool.copyIn(pages, bytes);
      else if (command.mayBeShort) pool.clear(pages);
      prps.scattered(slot, pool.low, pool.high, pages);
    } else if (this.#usesSgls && prps.needsTwo(command.low, length)) {
      prps.block(command.low, command.high, length);
      return USES_SGL;
    } else if (length > 0) prps.contiguous(slot, command.low, command.high, length);
    else prps.verbatim(command.low, command.high, command.secondPointer);
    return 0;
  }
}
