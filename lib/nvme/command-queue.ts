/**
 * Commands that callers wait for, on a queue pair: promises, deadlines, bounce pages, and what happens to commands when
 * the controller is reset.
 *
 * ```
 *   execute, transfer ──▶ backlog ──▶ in flight ──▶ answered
 *                            ▲            │ deadline, signal: Abort, then a controller reset get the slot back
 *                            └── reset ◀──┘
 * ```
 * A caller is told no sooner than the controller is done with a command that writes, or that has memory of the caller's
 * own: a write that came late would undo a later one. Reads by way of bounce pages are given up at once; their slot and
 * pages stay taken until the controller is done.
 *
 * Deadlines: that of the queue (`timeoutMs`) is for one command, from when it is sent. One that the caller gives is for
 * the whole call, from when it is made. What waits for room while nothing at all is answered for the queue's deadline
 * fails, too.
 */
import { ClosedError, TimeoutError, TransportError, type CallOptions, type DmaBuffer } from '../index.js';
import type { BouncePool } from './bounce-pool.js';
import { AbortSignals } from './abort-signals.js';
import { RESULT, Command } from './command.js';
import { Deadlines } from './deadlines.js';
import { NvmeResetError } from './errors.js';
import { LinkedList } from './linked-list.js';
import type { PrpLists } from './prp-lists.js';
import { CompletionPoller } from './completion-poller.js';
import { SLOT_OWNED, type QueuePair } from './queue-pair.js';
import { USES_SGL } from './sgls.js';
import { inSlices } from './slices.js';
import { NvmeStatusError } from './status.js';
import type { Transfer } from './transfer.js';
import type { Waiting } from './waiting.js';

/** The default deadline is looked at that many times while it passes. */
const EPOCHS = 8;

/**
 * Whom a command is for: `user` waits while the queue is held; `driver` is refused then, as whoever holds the queue may
 * wait for whoever sends it; `start` is sent all the same: it is whoever holds the queue.
 */
export type CommandOrigin = 'user' | 'driver' | 'start';

const MAX_TIMER_MS = 0x7fff_ffff;

export interface CommandQueueOptions {
  pair: QueuePair;
  prps: PrpLists;
  /** Milliseconds for commands that say nothing. */
  timeoutMs: number;
  /** Completions are looked for while they are waited for; otherwise an interrupt calls `look`. */
  isPolled: boolean;
  /** How long looking may keep the event loop from turning, in microseconds, where it pays. */
  spinUs: number;
  /** Contiguous data on more than one page is named by SGLs. */
  usesSgls: boolean;
  /** A command is overdue: its completion, or its slot, has to be had by other means. */
  onStuck: (queue: CommandQueue, slot: number, claim: number) => Promise<void>;
  /** The caller does not want a command any more. */
  onUnwanted: (queue: CommandQueue, slot: number, claim: number) => void;
  /** Looking at the rings threw: the queue cannot go on. */
  onBroken: (error: unknown) => void;
}

export class CommandQueue {
  readonly pair: QueuePair;
  readonly timeoutMs: number;
  /** Where data of this process goes through; commands with such data wait until it is there. */
  pool: BouncePool | undefined;
  /** A command waits for the pool: it is made, which may end in `poolFailed`. */
  onPoolWanted: () => void = () => undefined;
  /** Whom the pool was asked for first. */
  #poolWantedBy: Waiting | undefined;
  readonly #prps: PrpLists;
  readonly #options: CommandQueueOptions;
  readonly #commands: (Command | undefined)[];
  /** What waits for room, in the order of the calls; what is sent again after a reset comes first. */
  readonly #backlog = new LinkedList<Waiting>();
  /** Out of the backlog, and about to be told so. */
  readonly #failing = new LinkedList<Waiting>();
  readonly #deadlines = new Deadlines<Waiting>((waiting) => this.#onDeadline(waiting));
  readonly #signals = new AbortSignals<Waiting>((waiting) => this.#onAborted(waiting));
  #isHeld = false;
  #isRetired = false;
  #outCount = 0;
  #unattendedCount = 0;
  #order = 0;
  readonly #poller: CompletionPoller;
  readonly #sweep: NodeJS.Timeout;
  /** Slots that somebody is taking care of. */
  readonly #stuck = new Set<number>();
  #ended: (() => Error) | undefined;
  /** Buffers of callers that were in use at the end. */
  readonly #lent: DmaBuffer[] = [];
  #refused: (() => Error) | undefined;
  #onIdle: (() => void)[] = [];

  constructor(options: CommandQueueOptions) {
    const { pair, timeoutMs, isPolled } = options;
    this.pair = pair;
    this.timeoutMs = timeoutMs;
    this.#options = options;
    this.#prps = options.prps;
    this.#commands = new Array<Command | undefined>(pair.slots).fill(undefined);
    this.#poller = new CompletionPoller(
      () => this.lookSafely(),
      () => isPolled && this.#ended === undefined && !this.isIdle,
      options.spinUs,
    );
    pair.onCompletion = (slot, status, result) => this.#complete(slot, status, result);
    // Deadlines of the submit/poll calls too. What waits for a promise keeps the process alive by other means.
    this.#sweep = setInterval(() => this.#onEpoch(), Math.min(MAX_TIMER_MS, timeoutMs / EPOCHS)).unref();
  }

  /** Nothing that callers wait, or waited, for is in flight or waits for room. */
  get isIdle(): boolean {
    return this.#outCount === this.#unattendedCount && this.#backlog.isEmpty && this.#failing.isEmpty;
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Nothing is sent any more: it has ended, or `retire` was called. */
  get isRetired(): boolean {
    return this.hasEnded || this.#isRetired;
  }

  /** Throws where the queue has ended, or takes nothing any more and nothing is in flight. */
  throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended();
    if (this.#refused !== undefined && this.pair.inFlight === 0) throw this.#refused();
  }

  /**
   * Sends the command, as soon as there is room. The promise gives `command.answer`.
   * @throws NvmeStatusError, TimeoutError, NvmeResetError, NvmeControllerError, ClosedError; TypeError where the caller's
   * memory is gone; the signal's reason.
   */
  execute<T>(command: Command, options?: CallOptions, origin: CommandOrigin = 'user'): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      command.resolve = resolve;
      command.reject = reject;
      this.#begin(command, options, origin);
    });
  }

  /** Sends the commands of a transfer, one after the other, as soon as there is room. @throws as `execute`. */
  transfer<T>(transfer: Transfer, options?: CallOptions): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      transfer.resolve = resolve;
      transfer.reject = reject;
      this.#begin(transfer, options, 'user');
    });
  }

  /** Sends what waits, rings, and takes completions. Returns how many came. */
  look(): number {
    if (!this.#backlog.isEmpty) this.#drain();
    this.pair.ring();
    return this.pair.reap();
  }

  /** `look`, which ends the queue instead of throwing: for timers and microtasks. */
  lookSafely(): number {
    try {
      return this.look();
    } catch (error) {
      this.#options.onBroken(error);
      return 0;
    }
  }

  /** Settles when nothing is in flight or waits. */
  idle(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  /** What comes from here on gets that error; what is under way, or waits for room, goes on. */
  refuse(error: () => Error): void {
    this.#refused ??= error;
  }

  /** The pool that was wanted: what waits for it is sent. */
  poolMade(pool: BouncePool): void {
    this.#poolWantedBy = undefined;
    this.pool = pool;
    this.resume();
  }

  /**
   * The pool cannot be made: fails the call that it was asked for, and asks again for the next one. Where the connection
   * was lost the call waits, as others do: the controller is set up again, or ends.
   */
  poolFailed(error: unknown): void {
    const waiting = this.#poolWantedBy;
    this.#poolWantedBy = undefined;
    const isLost = error instanceof ClosedError || error instanceof TransportError;
    if (!isLost && waiting?.list === this.#backlog) {
      this.#backlog.remove(waiting);
      if (waiting instanceof Command) this.#settle(waiting, error);
      else this.#failTransfer(waiting as Transfer, error);
      this.#checkIdle();
    }
    this.#poller.wake();
  }

  /** Nothing is sent from here on: what comes, or waits for room, gets that error. What is in flight goes on. */
  retire(error: () => Error): void {
    this.refuse(error);
    this.#isRetired = true;
    this.pair.pause();
    this.#failWaiting(() => true, error);
  }

  /**
   * The controller is about to be reset: whoever waits for a command hears of it now, since the reset may have to wait for
   * them. From here to `release` only commands of the `start` are sent. For the admin queue, whose commands are not sent
   * again.
   */
  hold(): void {
    this.#isHeld = true;
    this.pair.close();
    for (const command of this.#commands) {
      if (command?.isSettled === false) this.#settle(command, new NvmeResetError(command.name));
    }
    this.#failWaiting(
      () => true,
      ({ name }) => new NvmeResetError(name),
    );
  }

  /** Ends `hold`. */
  release(): void {
    this.#isHeld = false;
    this.resume();
  }

  /**
   * The controller was reset and has let go of all memory: answers the callers of what was in flight, but for commands
   * that are to be sent again.
   */
  recover(): void {
    const again: Command[] = [];
    for (const slot of this.pair.abandon()) {
      const command = this.#take(slot);
      if (command.isSettled) this.#partEnded(command);
      else if (command.verdict !== undefined) this.#settle(command, command.verdict);
      else if (this.#isRetired) this.#settle(command, this.#refused!());
      else if (command.retries-- > 0) again.push(command);
      else this.#settle(command, new NvmeResetError(command.name));
    }
    again.sort((a, b) => b.order - a.order);
    for (const command of again) {
      command.epoch = this.pair.epoch;
      this.#backlog.unshift(command);
    }
    this.#stuck.clear();
    this.#checkIdle();
  }

  /** The pair is open again. */
  resume(): void {
    this.pair.answered = this.pair.epoch;
    this.#poller.wake();
  }

  /**
   * The end: each caller gets an error of its own, and the rings are not looked at any more. Bounce pages of what is in
   * flight stay taken, and buffers of the callers' in use until `giveBack`: the device may still write to them. Those whose
   * call was given up hear of that where the device `isDone` with them, and else of the end, which says that nobody knows.
   */
  end(error: () => Error, isDone = false): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    clearInterval(this.#sweep);
    this.pair.end();
    for (const [slot, command] of this.#commands.entries()) {
      if (command === undefined) continue;
      this.#commands[slot] = undefined;
      command.slot = -1;
      if (command.buffer !== undefined) this.#lent.push(command.buffer);
      if (command.isSettled) {
        this.#partEnded(command);
        continue;
      }
      const { transfer } = command;
      if (!isDone) command.verdict = undefined;
      if (!isDone && transfer !== undefined) transfer.verdict = undefined;
      this.#settle(command, command.verdict ?? error());
    }
    this.#outCount = this.#unattendedCount = 0;
    this.#failWaiting(() => true, error);
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** After the end, when the device does not use the callers' buffers any more. */
  giveBack(): void {
    for (const buffer of this.#lent.splice(0)) buffer.endUse();
  }

  #begin(waiting: Waiting, options: CallOptions | undefined, origin: CommandOrigin): void {
    const ended = this.#ended ?? this.#refused;
    if (ended !== undefined) {
      this.#settle(waiting, ended());
      return;
    }
    waiting.epoch = this.pair.epoch;
    if (options !== undefined && !this.#watch(waiting, options)) return;
    if (this.#isHeld && origin === 'driver') {
      this.#settle(waiting, new NvmeResetError(waiting.name));
      return;
    }
    const mayGo = origin === 'start' || (this.#backlog.isEmpty && !this.#isHeld);
    if (!mayGo || !this.#dispatch(waiting)) this.#backlog.push(waiting);
    this.#poller.wake();
  }

  /** Sends it, as much as there is room for. Whether nothing is left to be sent; what cannot be sent has failed. */
  #dispatch(waiting: Waiting): boolean {
    try {
      if (waiting instanceof Command) return this.#send(waiting);
      const transfer = waiting as Transfer;
      for (let command = transfer.peek(); command !== undefined; command = transfer.peek()) {
        if (!this.#send(command)) return false;
        transfer.advance();
      }
    } catch (error) {
      if (waiting instanceof Command) this.#settle(waiting, error);
      else this.#failTransfer(waiting as Transfer, error);
    }
    return true;
  }

  /** False where there is no room. @throws where the command is wrong, or its data is gone: nothing was sent then. */
  #send(command: Command): boolean {
    command.checkFields();
    command.checkData();
    let pages: number[] | undefined;
    if (!this.pair.isOpen) return false;
    if (command.bytes !== undefined && command.length > 0) {
      if (this.pool === undefined) this.#wantPool(command);
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
    if (command.order < 0) command.order = this.#order++;
    command.buffer?.beginUse();
    this.#outCount++;
    if (command.isUnattended) this.#unattendedCount++;
    const flags = this.#point(command, slot);
    const { pair } = this;
    command.encode(pair.sq, pair.entry(), pair.commandIds[slot]!, flags, this.#prps.entries);
    // Rings, also where an interrupt will tell of the completion.
    this.#poller.wake();
    return true;
  }

  #wantPool(command: Command): void {
    if (this.#poolWantedBy !== undefined) return;
    this.#poolWantedBy = command.transfer ?? command;
    this.onPoolWanted();
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

  /** Sends what waits, until there is no room. */
  #drain(): void {
    if (this.#isHeld) return;
    for (;;) {
      const waiting = this.#backlog.first;
      if (waiting === undefined) break;
      const part = waiting instanceof Command ? waiting : undefined;
      if (waiting.signal?.aborted === true) {
        // Its turn to be told comes (`AbortSignals`); there may be many.
        waiting.verdict ??= waiting.signal.reason;
        this.#backlog.remove(waiting);
        this.#failing.push(waiting);
      } else if (part?.transfer?.verdict !== undefined) {
        // It was to be sent again, and the transfer has failed meanwhile.
        this.#backlog.remove(waiting);
        this.#settle(part, part.transfer.verdict);
      } else if (!this.#dispatch(waiting)) return;
      else if (waiting.list === this.#backlog) this.#backlog.remove(waiting);
    }
    this.#checkIdle();
  }

  #complete(slot: number, status: number, result: number): void {
    const command = this.#commands[slot];
    // After the end.
    if (command === undefined) return;
    if (command.isSettled || command.verdict !== undefined) {
      this.#take(slot);
      if (command.isSettled) this.#partEnded(command);
      else this.#settle(command, command.verdict);
    } else {
      this.pair.answered = this.pair.epoch;
      const error = status === 0 ? this.#deliver(command) : new NvmeStatusError(command.name, status);
      this.#take(slot);
      if (error === undefined) this.#fulfil(command, result);
      else this.#settle(command, error);
    }
    this.#stuck.delete(slot);
    if (!this.#backlog.isEmpty) this.#drain();
    else if (this.#onIdle.length > 0) this.#checkIdle();
  }

  /** Copies what was read to the caller's memory. What is wrong with that memory, if anything is. */
  #deliver(command: Command): unknown {
    if (command.pages === undefined || command.isToDevice) return undefined;
    try {
      command.checkData();
      this.pool!.copyOut(command.pages, command.bytes!);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Takes the command out of its slot, and its pages back. */
  #take(slot: number): Command {
    const command = this.#commands[slot]!;
    this.#commands[slot] = undefined;
    this.#outCount--;
    if (command.isUnattended) this.#unattendedCount--;
    command.slot = -1;
    command.buffer?.endUse();
    if (command.pages !== undefined) {
      this.pool!.give(command.pages);
      command.pages = undefined;
    }
    return command;
  }

  #fulfil(command: Command, result: number): void {
    command.isSettled = true;
    if (command.transfer === undefined) {
      if (command.signal !== undefined || command.heapIndex >= 0) this.#forget(command);
      command.resolve((command.answer === RESULT ? result : command.answer) as never);
    } else this.#partEnded(command);
  }

  #settle(waiting: Waiting, error: unknown): void {
    waiting.isSettled = true;
    if (waiting instanceof Command && waiting.transfer !== undefined) {
      this.#failTransfer(waiting.transfer, error);
      if (waiting.slot < 0) this.#partEnded(waiting);
      return;
    }
    this.#forget(waiting);
    waiting.reject(error);
  }

  /** No further part is sent; the caller is told when those in flight are done. */
  #failTransfer(transfer: Transfer, error: unknown): void {
    transfer.verdict ??= error;
    if (transfer.list !== undefined) transfer.list.remove(transfer);
    if (transfer.outCount === 0) this.#endTransfer(transfer);
  }

  /** A part is out of its slot, or is not sent again. Nothing is done for other commands. */
  #partEnded({ transfer }: Command): void {
    if (transfer === undefined) return;
    transfer.outCount--;
    if (transfer.outCount === 0 && (transfer.isDone || transfer.verdict !== undefined)) {
      this.#endTransfer(transfer);
    }
  }

  #endTransfer(transfer: Transfer): void {
    if (transfer.isSettled) return;
    transfer.isSettled = true;
    this.#forget(transfer);
    if (transfer.verdict === undefined) transfer.resolve(transfer.answer as never);
    else transfer.reject(transfer.verdict);
  }

  /** Deadline and signal of a single call. False where it is aborted already. */
  #watch(waiting: Waiting, { timeoutMs, signal }: CallOptions): boolean {
    try {
      if (timeoutMs !== undefined) checkTimeout(timeoutMs);
      signal?.throwIfAborted();
    } catch (error) {
      this.#settle(waiting, error);
      return false;
    }
    if (timeoutMs !== undefined) {
      waiting.hasOwnDeadline = true;
      waiting.timeoutMs = timeoutMs;
      if (timeoutMs !== Infinity) this.#deadlines.add(waiting, timeoutMs);
    }
    if (signal !== undefined) {
      this.#signals.add(waiting, signal);
    }
    return true;
  }

  #forget(waiting: Waiting): void {
    this.#deadlines.remove(waiting);
    this.#signals.remove(waiting);
  }

  #onAborted(waiting: Waiting): void {
    this.#giveUp(waiting, waiting.signal?.reason, ({ slot }) =>
      this.#options.onUnwanted(this, slot, this.pair.claimOf(slot)),
    );
    this.#useRoom();
  }

  #onDeadline(waiting: Waiting): void {
    const timeoutMs = waiting.hasOwnDeadline ? waiting.timeoutMs : this.timeoutMs;
    this.#giveUp(waiting, new TimeoutError(waiting.name, timeoutMs), ({ slot }) => this.#rescue(slot));
    this.#useRoom();
  }

  /** Answers the caller, or sees to it that the caller is answered when the device is done. */
  #giveUp(waiting: Waiting, reason: unknown, ask: (command: Command) => void): void {
    if (waiting instanceof Command) {
      this.#giveUpCommand(waiting, reason, ask);
      return;
    }
    const transfer = waiting as Transfer;
    if (transfer.isSettled) return;
    this.#failTransfer(transfer, reason);
    if (transfer.outCount === 0) return;
    // Parts that were to be sent again stand before all else; those that are in flight have to come back.
    for (let part = this.#backlog.first; part instanceof Command && part.transfer !== undefined;) {
      const { next } = part;
      if (part.transfer === transfer) this.#giveUpCommand(part, reason, ask);
      part = next;
    }
    for (const command of this.#commands) {
      if (command?.transfer === transfer) this.#giveUpCommand(command, reason, ask);
    }
  }

  #giveUpCommand(command: Command, reason: unknown, ask: (command: Command) => void): void {
    if (command.isSettled) return;
    command.verdict ??= reason;
    if (command.list !== undefined) command.list.remove(command);
    if (command.transfer !== undefined) this.#failTransfer(command.transfer, command.verdict);
    if (command.slot < 0) this.#settle(command, command.verdict);
    else {
      if (!this.#mustWait(command)) this.#leave(command);
      ask(command);
    }
    this.#checkIdle();
  }

  /** The caller does not wait for a command that is in flight any more. */
  #leave(command: Command): void {
    if (command.transfer === undefined) {
      this.#settle(command, command.verdict);
      return;
    }
    command.isSettled = true;
    this.#partEnded(command);
    command.transfer = undefined;
  }

  /** Whether the caller is told no sooner than the controller is done. Admin commands are told of at once. */
  #mustWait(command: Command): boolean {
    return this.pair.id !== 0 && !command.canBeLeft;
  }

  #rescue(slot: number): void {
    if (this.#stuck.has(slot)) return;
    this.#stuck.add(slot);
    void this.#options.onStuck(this, slot, this.pair.claimOf(slot)).finally(() => this.#stuck.delete(slot));
  }

  #onEpoch(): void {
    this.pair.epoch++;
    // An interrupt that went astray costs time, and nothing else.
    if (this.#outCount > 0) this.lookSafely();
    for (const slot of this.pair.overdue(EPOCHS + 1)) {
      const command = this.#commands[slot];
      // Without a command the slot belongs to the submit/poll calls. One that was given up has to come back.
      if (command === undefined || command.isSettled || command.verdict !== undefined) this.#rescue(slot);
      else if (!command.isUnattended && !(command.transfer ?? command).hasOwnDeadline)
        this.#onDeadline(command);
    }
    if (this.#backlog.isEmpty || this.pair.epoch - this.pair.answered <= EPOCHS) return;
    this.#failWaiting(
      ({ hasOwnDeadline, epoch }) => !hasOwnDeadline && this.pair.epoch - epoch > EPOCHS,
      ({ name }) => new TimeoutError(name, this.timeoutMs),
    );
  }

  /** Fails what waits for room, as far as it `isMeant`: there may be many, so it is done in slices. */
  #failWaiting(isMeant: (waiting: Waiting) => boolean, error: (waiting: Waiting) => unknown): void {
    for (let waiting = this.#backlog.first; waiting !== undefined;) {
      const { next } = waiting;
      const call = waiting instanceof Command ? (waiting.transfer ?? waiting) : waiting;
      if (isMeant(call)) {
        this.#backlog.remove(waiting);
        this.#failing.push(waiting);
      }
      waiting = next;
    }
    inSlices(() => {
      const waiting = this.#failing.shift();
      if (waiting === undefined) {
        this.#checkIdle();
        return false;
      }
      const reason = waiting.verdict ?? error(waiting);
      if (waiting instanceof Command) this.#settle(waiting, reason);
      else this.#failTransfer(waiting as Transfer, reason);
      return true;
    });
  }

  /** Something that waited is gone, or a slot may be free: what waits is sent in this turn. */
  #useRoom(): void {
    if (!this.#backlog.isEmpty) this.#drain();
    this.#poller.wake();
  }

  #checkIdle(): void {
    if (this.#onIdle.length === 0 || !this.isIdle) return;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }
}

/** @throws TypeError, RangeError. */
function checkTimeout(timeoutMs: number): void {
  if (typeof timeoutMs !== 'number')
    throw new TypeError(`timeoutMs must be a number of milliseconds, not ${String(timeoutMs)}`);
  if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs must be greater than 0, not ${timeoutMs}`);
}
