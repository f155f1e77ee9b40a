/**
 * Commands that callers wait for, on a queue pair: promises, deadlines, bounce pages, and what happens to commands when
 * the controller is reset.
 *
 * ```
 *   execute ──▶ backlog ──▶ in flight ──▶ answered
 *                  ▲            │ deadline, signal: the caller is told; the slot and its pages stay taken until the
 *                  └── reset ◀──┘ controller completes the command, or has been reset
 * ```
 * A caller's own DMA memory is the caller's again when the promise settles: with such memory the promise settles no
 * sooner than the device is done with it.
 */
import { TimeoutError, type CallOptions } from '../index.js';
import type { BouncePool } from './bounce-pool.js';
import { RESULT, type Command } from './command.js';
import { NvmeResetError } from './errors.js';
import type { PrpLists } from './prp-lists.js';
import { Pump } from './pump.js';
import { SLOT_OWNED, type QueuePair } from './queue-pair.js';
import { USES_SGL } from './sgls.js';
import { NvmeStatusError } from './status.js';

/** The default deadline is looked at that many times while it passes. */
const EPOCHS = 8;
const MAX_TIMER_MS = 0x7fff_ffff;

export interface CommandQueueOptions {
  pair: QueuePair;
  prps: PrpLists;
  /** Milliseconds for commands that say nothing. */
  timeoutMs: number;
  /** Completions are looked for while they are waited for; otherwise an interrupt calls `look`. */
  isPolled: boolean;
  /** Contiguous data on more than one page is named by SGLs. */
  usesSgls: boolean;
  /** A command is overdue: its completion, or its slot, has to be had by other means. */
  onStuck: (queue: CommandQueue, slot: number, claim: number) => Promise<void>;
  /** The caller does not want a command any more. */
  onUnwanted: (queue: CommandQueue, slot: number, claim: number) => void;
}

export class CommandQueue {
  readonly pair: QueuePair;
  readonly timeoutMs: number;
  /** Where data of this process goes through; commands with such data wait until it is there. */
  pool: BouncePool | undefined;
  readonly #prps: PrpLists;
  readonly #options: CommandQueueOptions;
  readonly #commands: (Command | undefined)[];
  #backlog: Command[] = [];
  #outCount = 0;
  #order = 0;
  readonly #pump: Pump;
  readonly #sweep: NodeJS.Timeout;
  /** Slots that somebody is taking care of. */
  readonly #stuck = new Set<number>();
  #ended: (() => Error) | undefined;
  #onIdle: (() => void) | undefined;
  #resolve!: (value: never) => void;
  #reject!: (reason: unknown) => void;

  constructor(options: CommandQueueOptions) {
    const { pair, timeoutMs, isPolled } = options;
    this.pair = pair;
    this.timeoutMs = timeoutMs;
    this.#options = options;
    this.#prps = options.prps;
    this.#commands = new Array<Command | undefined>(pair.slots).fill(undefined);
    this.#pump = new Pump(
      () => this.look(),
      () => isPolled && this.#ended === undefined && this.#outCount + this.#backlog.length > 0,
    );
    pair.onCompletion = (slot, status, result) => this.#complete(slot, status, result);
    // Deadlines of the submit/poll face too. What waits for a promise keeps the process alive by other means.
    this.#sweep = setInterval(() => this.#onEpoch(), Math.min(MAX_TIMER_MS, timeoutMs / EPOCHS)).unref();
  }

  /** Commands in flight that callers wait, or waited, for. */
  get outCount(): number {
    return this.#outCount;
  }

  /** Throws where the queue has ended. */
  throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended();
  }

  /**
   * Sends the command, as soon as there is room. The promise gives `command.answer`.
   * @throws NvmeStatusError, TimeoutError, NvmeResetError, NvmeControllerError, ClosedError; the signal's reason.
   */
  execute<T>(command: Command, options?: CallOptions): Promise<T> {
    const promise = new Promise<T>(this.#capture);
    command.resolve = this.#resolve;
    command.reject = this.#reject;
    if (this.#ended !== undefined) {
      this.#settle(command, this.#ended());
      return promise;
    }
    command.order = this.#order++;
    command.epoch = this.pair.epoch;
    if (options !== undefined && !this.#watch(command, options)) return promise;
    if (this.#backlog.length > 0 || !this.#dispatch(command)) this.#backlog.push(command);
    this.#pump.wake();
    return promise;
  }

  /** Sends what waits, rings, and takes completions. Returns how many came. */
  look(): number {
    if (this.#backlog.length > 0) this.#drain();
    this.pair.ring();
    return this.pair.reap();
  }

  /** Settles when nothing is in flight or waits. */
  idle(): Promise<void> {
    if (this.#outCount + this.#backlog.length === 0) return Promise.resolve();
    return new Promise((resolve) => (this.#onIdle = resolve));
  }

  /**
   * The controller was reset and has let go of all memory: answers the callers of what was in flight, but for commands
   * that are to be sent again.
   */
  recover(): void {
    const again: Command[] = [];
    for (const slot of this.pair.abandon()) {
      const command = this.#take(slot);
      if (command.isSettled) continue;
      if (command.verdict !== undefined) this.#settle(command, command.verdict);
      else if (command.retries-- > 0) again.push(command);
      else this.#settle(command, new NvmeResetError(command.name));
    }
    again.sort((a, b) => a.order - b.order);
    this.#backlog = [...again, ...this.#backlog];
    this.#stuck.clear();
    this.#checkIdle();
  }

  /** The pair is open again. */
  resume(): void {
    this.#pump.wake();
  }

  /**
   * The end: each caller gets an error of its own. Bounce pages of what is in flight stay taken: the device may still
   * write to them.
   */
  end(error: () => Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    clearInterval(this.#sweep);
    this.pair.close();
    const waiting = this.#backlog;
    this.#backlog = [];
    for (const command of [...this.#commands, ...waiting]) {
      if (command !== undefined && !command.isSettled) this.#settle(command, command.verdict ?? error());
    }
    this.#onIdle?.();
  }

  /** An executor that costs no closure a call. */
  readonly #capture = (resolve: (value: never) => void, reject: (reason: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  #dispatch(command: Command): boolean {
    let pages: number[] | undefined;
    if (command.bytes !== undefined && command.length > 0) {
      pages = this.pool?.take(this.pool.pagesFor(command.length));
      if (pages === undefined) return false;
    }
    const slot = this.pair.claim(SLOT_OWNED, 0);
    if (slot < 0) {
      if (pages !== undefined) this.pool!.give(pages);
      return false;
    }
    this.#commands[slot] = command;
    command.slot = slot;
    command.pages = pages;
    this.#outCount++;
    const flags = this.#point(command, slot);
    this.#write(command, slot, flags);
    // Rings, also where an interrupt will tell of the completion.
    this.#pump.wake();
    return true;
  }

  /** Makes the data pointers. What dword 0 has to say of them. */
  #point(command: Command, slot: number): number {
    const { length, pages } = command;
    if (pages !== undefined) {
      const pool = this.pool!;
      if (command.isToDevice) pool.copyIn(pages, command.bytes!);
      this.#prps.scattered(slot, pool.low, pool.high, pages);
    } else if (this.#options.usesSgls && this.#prps.needsTwo(command.low, length)) {
      this.#prps.block(command.low, command.high, length);
      return USES_SGL;
    } else if (length > 0) this.#prps.contiguous(slot, command.low, command.high, length);
    else this.#prps.verbatim(command.low, command.high, command.secondPointer);
    return 0;
  }

  /** Common command format (NVM Express Base 2.0, section 3.3.3.1). */
  #write(command: Command, slot: number, flags: number): void {
    const { sq } = this.pair;
    const { entries } = this.#prps;
    const at = this.pair.entry();
    sq[at] = command.opcode | flags | (slot << 16);
    sq[at + 1] = command.namespace;
    sq[at + 2] = 0;
    sq[at + 3] = 0;
    sq[at + 4] = 0;
    sq[at + 5] = 0;
    sq[at + 6] = entries[0]!;
    sq[at + 7] = entries[1]!;
    sq[at + 8] = entries[2]!;
    sq[at + 9] = entries[3]!;
    sq[at + 10] = command.cdw10;
    sq[at + 11] = command.cdw11;
    sq[at + 12] = command.cdw12;
    sq[at + 13] = command.cdw13;
    sq[at + 14] = command.cdw14;
    sq[at + 15] = command.cdw15;
  }

  #drain(): void {
    while (this.#backlog.length > 0) {
      const command = this.#backlog[0]!;
      if (command.group?.hasFailed === true) this.#settle(command, command.group.failure);
      else if (!this.#dispatch(command)) return;
      this.#backlog.shift();
    }
    this.#checkIdle();
  }

  #complete(slot: number, status: number, result: number): void {
    const command = this.#commands[slot]!;
    if (status === 0 && command.pages !== undefined && !command.isToDevice && !command.isSettled) {
      this.pool!.copyOut(command.pages, command.bytes!);
    }
    this.#take(slot);
    this.#stuck.delete(slot);
    if (!command.isSettled) {
      if (command.verdict !== undefined) this.#settle(command, command.verdict);
      else if (status !== 0) this.#settle(command, new NvmeStatusError(command.name, status));
      else {
        command.isSettled = true;
        if (command.timer !== undefined || command.signal !== undefined) forget(command);
        command.resolve((command.answer === RESULT ? result : command.answer) as never);
      }
    }
    if (this.#backlog.length > 0) this.#drain();
    else if (this.#outCount === 0) this.#checkIdle();
  }

  /** Takes the command out of its slot, and its pages back. */
  #take(slot: number): Command {
    const command = this.#commands[slot]!;
    this.#commands[slot] = undefined;
    this.#outCount--;
    command.slot = -1;
    if (command.pages !== undefined) {
      this.pool!.give(command.pages);
      command.pages = undefined;
    }
    return command;
  }

  #settle(command: Command, error: unknown): void {
    command.isSettled = true;
    forget(command);
    if (command.group !== undefined && !command.group.hasFailed) {
      command.group.hasFailed = true;
      command.group.failure = error;
    }
    command.reject(error);
  }

  /** Deadline and signal of a single call. False where it is aborted already. */
  #watch(command: Command, { timeoutMs, signal }: CallOptions): boolean {
    if (signal?.aborted === true) {
      this.#settle(command, signal.reason);
      return false;
    }
    if (timeoutMs !== undefined && timeoutMs !== this.timeoutMs) {
      command.hasOwnDeadline = true;
      if (timeoutMs !== Infinity) {
        command.timer = setTimeout(
          () => this.#onDeadline(command, timeoutMs),
          Math.min(timeoutMs, MAX_TIMER_MS),
        );
      }
    }
    if (signal !== undefined) {
      command.signal = signal;
      command.onAbort = () => this.#onAborted(command, signal.reason);
      signal.addEventListener('abort', command.onAbort, { once: true });
    }
    return true;
  }

  #onAborted(command: Command, reason: unknown): void {
    const { slot } = command;
    this.#giveUp(command, reason);
    if (slot >= 0) this.#options.onUnwanted(this, slot, this.pair.claimOf(slot));
  }

  #onDeadline(command: Command, timeoutMs: number): void {
    const { slot } = command;
    this.#giveUp(command, new TimeoutError(command.name, timeoutMs));
    if (slot >= 0) this.#rescue(slot);
  }

  /** Answers the caller, or sees to it that the caller is answered when the device is done. */
  #giveUp(command: Command, reason: unknown): void {
    command.verdict ??= reason;
    if (command.slot < 0) this.#backlog = this.#backlog.filter((other) => other !== command);
    else if (command.isDirect) return;
    if (!command.isSettled) this.#settle(command, command.verdict);
    this.#checkIdle();
  }

  #rescue(slot: number): void {
    if (this.#stuck.has(slot)) return;
    this.#stuck.add(slot);
    void this.#options.onStuck(this, slot, this.pair.claimOf(slot)).finally(() => this.#stuck.delete(slot));
  }

  #onEpoch(): void {
    this.pair.epoch++;
    // An interrupt that went astray costs time, and nothing else.
    if (this.#outCount > 0) this.look();
    for (const slot of this.pair.overdue(EPOCHS + 1)) {
      const command = this.#commands[slot];
      // Without a command the slot belongs to the submit/poll face.
      if (command === undefined) this.#rescue(slot);
      else if (!command.hasOwnDeadline) this.#onDeadline(command, this.timeoutMs);
    }
    if (this.#backlog.length === 0) return;
    const overdue = this.#backlog.filter(
      ({ epoch, hasOwnDeadline }) => !hasOwnDeadline && this.pair.epoch - epoch > EPOCHS,
    );
    for (const command of overdue) this.#onDeadline(command, this.timeoutMs);
  }

  #checkIdle(): void {
    if (this.#onIdle === undefined || this.#outCount + this.#backlog.length > 0) return;
    this.#onIdle();
    this.#onIdle = undefined;
  }
}

function forget(command: Command): void {
  clearTimeout(command.timer);
  command.timer = undefined;
  if (command.onAbort === undefined) return;
  command.signal!.removeEventListener('abort', command.onAbort);
  command.onAbort = undefined;
}
