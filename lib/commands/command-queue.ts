/**
 * Commands that callers wait for, on a queue of a device: promises, deadlines, signals, and what happens to commands when the
 * device is reset.
 *
 * ```
 *   execute, transfer ──▶ backlog ──▶ in flight ──▶ answered
 *                            ▲            │ deadline, signal: the slot is got back by other means, a reset at the last
 *                            └── reset ◀──┘
 *
 *   open ── drain() ──▶ draining ── retire() ──▶ retired ── end() ──▶ ended        (an I/O queue; each leads to all later)
 *   open ── hold() ──▶ held ── release() ──▶ open ── end() ──▶ ended               (NVMe: the admin queue)
 * ```
 * Draining, it takes no calls, and what it has goes on. Retired, it sends nothing either, and what is in flight goes on.
 * Held, it sends the commands of a start only.
 *
 * Deadlines: that of the queue (`timeoutMs`) is for one command, from when it is sent. One that the caller gives is for
 * the whole call, from when it is made. What waits for room while nothing at all is answered for the queue's deadline
 * fails, too.
 */
import { ClosedError, TransportError, type CallOptions } from '../index.js';
import { Answers, Backlog } from './backlog.js';
import { CallLimits, CallTimeouts } from './call-limits.js';
import type { Command, PendingCall, Transfer } from './command.js';
import type { CommandsInFlight } from './commands-in-flight.js';
import { CompletionPoller } from './completion-poller.js';
import type { CommandRing, OutstandingCommand } from './command-ring.js';

/**
 * Whom a command is for: `user` waits while the queue is held; `driver` is refused then, as whoever holds the queue may
 * wait for whoever sends it; `start` is sent all the same: it is whoever holds the queue.
 */
export type CommandOrigin = 'user' | 'driver' | 'start';

/** What a queue cannot do by itself. */
export interface CommandQueueHost {
  /** A command is overdue: its completion, or its slot, has to be had by other means. Never rejects. */
  onOverdue: (command: OutstandingCommand, queue: CommandQueue) => Promise<void>;
  /** The caller does not want a command any more. */
  onUnwanted: (command: OutstandingCommand) => void;
  /** Polling threw: the queue cannot go on. */
  onBroken: (error: unknown) => void;
}

export interface CommandQueueOptions<R extends CommandRing, C extends Command> {
  pair: R;
  inFlight: CommandsInFlight<C>;
  /** Milliseconds for commands that say nothing. */
  timeoutMs: number;
  /** Completions are polled for while they are waited for; otherwise an interrupt calls `pollSafely`. */
  isPolled: boolean;
  /** How long polling may keep the event loop from turning, in microseconds, where it pays. */
  spinUs: number;
  /** Whoever gives up a command is told at once, whatever it is. */
  leavesAll: boolean;
  /** What a caller gets whose command a reset interrupted, and that is not sent again. */
  resetError: (name: string) => Error;
  host: CommandQueueHost;
}

export class CommandQueue<R extends CommandRing = CommandRing, C extends Command = Command> {
  readonly pair: R;
  readonly timeoutMs: number;
  readonly #host: CommandQueueHost;
  readonly #limits: CallLimits;
  readonly #answers: Answers;
  readonly #inFlight: CommandsInFlight<C>;
  readonly #resetError: (name: string) => Error;
  readonly #backlog: Backlog;
  readonly #timeouts: CallTimeouts;
  readonly #poller: CompletionPoller;
  #state: 'open' | 'held' | 'draining' | 'retired' | 'ended' = 'open';
  /** What callers get in `draining` and the states after it. */
  #refusal: (() => Error) | undefined;
  #onIdle: (() => void)[] = [];

  constructor(options: CommandQueueOptions<R, C>) {
    const { pair, inFlight, timeoutMs, isPolled, spinUs, leavesAll, host } = options;
    this.pair = pair;
    this.timeoutMs = timeoutMs;
    this.#host = host;
    this.#resetError = options.resetError;
    this.#limits = new CallLimits(
      (call) => this.#timeouts.onDeadline(call),
      (call) => this.#timeouts.onAborted(call),
    );
    const answers = new Answers(this.#limits);
    const backlog = new Backlog(inFlight, answers, () => this.#checkIdle());
    this.#answers = answers;
    this.#inFlight = inFlight;
    this.#backlog = backlog;
    this.#timeouts = new CallTimeouts({
      ...{ pair, leavesAll, timeoutMs, answers, backlog, inFlight },
      poll: () => this.pollSafely(),
      onGivenUp: () => this.#onGivenUp(),
      onOverdue: (command) => host.onOverdue(command, this),
      onUnwanted: (command) => host.onUnwanted(command),
    });
    this.#poller = new CompletionPoller(
      () => this.pollSafely(),
      () => isPolled && this.#state !== 'ended' && !this.isIdle,
      spinUs,
    );
    pair.onCompletion = (slot, status, result) => this.#complete(slot, status, result);
  }

  /** Nothing that callers wait, or waited, for is in flight or waits for room. */
  get isIdle(): boolean {
    return this.#inFlight.attendedCount === 0 && this.#backlog.isIdle;
  }

  get hasEnded(): boolean {
    return this.#state === 'ended';
  }

  /** Nothing is sent any more: `retire` or `end` was called. */
  get isRetired(): boolean {
    return this.#state === 'retired' || this.#state === 'ended';
  }

  /** No calls are taken any more: `drain`, `retire` or `end` was called. */
  get isRefusing(): boolean {
    return this.#refusal !== undefined;
  }

  /** Throws where the queue has ended, or takes no calls any more and nothing is in flight. */
  throwIfEnded(): void {
    if (this.#refusal !== undefined && (this.#state === 'ended' || this.pair.inFlight === 0))
      throw this.#refusal();
  }

  /**
   * Sends the command, as soon as there is room. The promise gives `command.answer`.
   * @throws what the device answered; TimeoutError, ClosedError, the error of a reset or of the end; TypeError where the caller's
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
  poll(): number {
    if (!this.#backlog.isEmpty) this.#sendWaiting();
    this.pair.ring();
    return this.pair.pollOwned();
  }

  /** `poll`, which tells the host instead of throwing: for timers and microtasks. */
  pollSafely(): number {
    try {
      return this.poll();
    } catch (error) {
      this.#host.onBroken(error);
      return 0;
    }
  }

  /** Settles when nothing is in flight or waits. */
  idle(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  /**
   * The driver's memory for commands cannot be had: fails the call that it was wanted for. Where the connection was lost the
   * call waits, as others do: the device is set up again, or ends.
   */
  memoryFailed(error: unknown): void {
    const call = this.#inFlight.memoryRefused();
    const isLost = error instanceof ClosedError || error instanceof TransportError;
    if (!isLost && call !== undefined && this.#backlog.remove(call)) {
      this.#answers.fail(call, error);
      this.#checkIdle();
    }
    this.#poller.wake();
  }

  /** What comes from here on gets that error; what is under way, or waits for room, goes on. */
  drain(error: () => Error): void {
    this.#refusal ??= error;
    if (this.#state === 'open') this.#state = 'draining';
  }

  /** Nothing is sent from here on: what comes, or waits for room, gets that error. What is in flight goes on. */
  retire(error: () => Error): void {
    this.drain(error);
    if (this.#state === 'draining') this.#state = 'retired';
    this.pair.pause();
    this.#backlog.failAll(error);
  }

  /**
   * The device is about to be reset: whoever waits for a command hears of it now, since the reset may have to wait for
   * them. From here to `release` only commands of the `start` are sent. For the admin queue, whose commands are not sent
   * again.
   */
  hold(): void {
    if (this.#state === 'ended') return;
    this.#state = 'held';
    this.pair.close();
    for (const command of this.#inFlight.all())
      if (!command.isSettled) this.#answers.fail(command, this.#resetError(command.name));
    this.#backlog.failAll(({ name }) => this.#resetError(name));
  }

  /** Ends `hold`. */
  release(): void {
    if (this.#state === 'held') this.#state = 'open';
    this.resume();
  }

  /**
   * The device was reset and has let go of all memory: answers the callers of what was in flight, but for commands
   * that are to be sent again.
   */
  recover(): void {
    const again: C[] = [];
    for (const slot of this.pair.abandon()) {
      const command = this.#inFlight.take(slot);
      if (command === undefined) continue;
      if (command.isSettled) this.#answers.commandEnded(command);
      else if (command.failure !== undefined) this.#answers.fail(command, command.failure);
      else if (this.isRetired && this.#refusal !== undefined) this.#answers.fail(command, this.#refusal());
      else if (command.retries-- > 0) again.push(command);
      else this.#answers.fail(command, this.#resetError(command.name));
    }
    again.sort((a, b) => b.order - a.order);
    for (const command of again) {
      command.epoch = this.pair.slots.epoch;
      this.#backlog.unshift(command);
    }
    this.#timeouts.clear();
    this.#checkIdle();
  }

  /** The pair is open again. */
  resume(): void {
    this.pair.answered = this.pair.slots.epoch;
    this.#poller.wake();
  }

  /**
   * The end: each caller gets an error of its own, and the rings are not polled any more. Memory of what is in
   * flight stays taken, and buffers of the callers' in use until `giveBack`: the device may still write to them. Those whose
   * call was given up hear of that where the device `isDone` with them, and else of the end, which says that nobody knows.
   */
  end(error: () => Error, isDone = false): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#refusal = error;
    this.#timeouts.close();
    this.pair.end();
    for (const command of this.#inFlight.end()) {
      const { transfer } = command;
      if (command.isSettled) {
        this.#answers.commandEnded(command);
        continue;
      }
      if (!isDone) command.failure = undefined;
      if (!isDone && transfer !== undefined) transfer.failure = undefined;
      this.#answers.fail(command, command.failure ?? error());
    }
    this.#backlog.failAll(error);
    this.#tellIdle();
  }

  /** After the end, when the device does not use the callers' buffers any more. */
  giveBack(): void {
    this.#inFlight.giveBack();
  }

  #begin(call: PendingCall, options: CallOptions | undefined, origin: CommandOrigin): void {
    if (this.#refusal !== undefined) {
      this.#answers.fail(call, this.#refusal());
      return;
    }
    call.epoch = this.pair.slots.epoch;
    if (options !== undefined) {
      try {
        this.#limits.add(call, options);
      } catch (error) {
        this.#answers.fail(call, error);
        return;
      }
    }
    const isHeld = this.#state === 'held';
    // A start goes on until its next command after the connection was lost.
    const isInterrupted = origin === 'start' && !this.pair.isOpen;
    if (isInterrupted || (isHeld && origin === 'driver')) {
      this.#answers.fail(call, this.#resetError(call.name));
      return;
    }
    const mayGo = origin === 'start' || (this.#backlog.isEmpty && !isHeld);
    if (!mayGo || !this.#backlog.send(call)) this.#backlog.push(call);
    // Rings, also where an interrupt will tell of the completion.
    this.#poller.wake();
  }

  #sendWaiting(): void {
    if (this.#state === 'held') return;
    const isEmpty = this.#backlog.sendWaiting();
    this.#poller.wake();
    if (isEmpty) this.#checkIdle();
  }

  #complete(slot: number, status: number, result: number): void {
    const command = this.#inFlight.at(slot);
    // After the end.
    if (command === undefined) return;
    if (command.isSettled || command.failure !== undefined) {
      this.#inFlight.take(slot);
      if (command.isSettled) this.#answers.commandEnded(command);
      else this.#answers.fail(command, command.failure);
    } else {
      this.pair.answered = this.pair.slots.epoch;
      const error = this.#inFlight.outcome(command, status, result);
      this.#inFlight.take(slot);
      if (error === undefined) this.#answers.fulfil(command, result);
      else this.#answers.fail(command, error);
    }
    this.#timeouts.completed(slot);
    if (!this.#backlog.isEmpty) this.#sendWaiting();
    else if (this.#onIdle.length > 0) this.#checkIdle();
  }

  /** What waits is sent in this turn where there is room now. */
  #onGivenUp(): void {
    if (!this.#backlog.isEmpty) this.#sendWaiting();
    this.#poller.wake();
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (this.#onIdle.length > 0 && this.isIdle) this.#tellIdle();
  }

  #tellIdle(): void {
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }
}
