/** The deadlines and signals of calls: who is watched, what becomes of those who are given up, and of their slots. */
import { TimeoutError, type CallOptions } from '../index.js';
import { MAX_TIMER_MS } from '../system-numbers.js';
import type { Answers, Backlog } from './backlog.js';
import { Command, Transfer, type PendingCall } from './command.js';
import type { CommandsInFlight } from './commands-in-flight.js';
import type { CommandRing, OutstandingCommand } from './command-ring.js';

/**
 * Calls that are given up: their deadline has passed, or their signal is aborted. And commands whose slot has to come back.
 *
 * A caller is told no sooner than the device is done with a command that writes, or that has memory of the caller's
 * own: a write that came late would undo a later one. Reads by way of bounce memory are given up at once; their slot and
 * memory stay taken until the device is done.
 */

/** The default deadline is checked that many times while it passes. */
const EPOCHS = 8;

export interface CallTimeoutsOptions {
  pair: CommandRing;
  /** Whoever gives up a command is told at once, whatever it is. */
  leavesAll: boolean;
  /** The deadline of a command that says nothing, milliseconds. */
  timeoutMs: number;
  answers: Answers;
  backlog: Backlog;
  inFlight: CommandsInFlight<Command>;
  /** Takes completions. */
  poll: () => void;
  /** Calls were given up: there may be room, or nothing left to do. */
  onGivenUp: () => void;
  /** A command is overdue: its completion, or its slot, has to be had by other means. Never rejects. */
  onOverdue: (command: OutstandingCommand) => Promise<void>;
  /** The caller does not want a command any more. */
  onUnwanted: (command: OutstandingCommand) => void;
}

export class CallTimeouts {
  readonly #options: CallTimeoutsOptions;
  readonly #timer: NodeJS.Timeout;
  /** Slots of overdue commands that somebody is getting back. */
  readonly #overdue = new Set<number>();

  constructor(options: CallTimeoutsOptions) {
    this.#options = options;
    // Deadlines of the submit/poll calls too. What waits for a promise keeps the process alive by other means.
    const epochMs = Math.min(MAX_TIMER_MS, options.timeoutMs / EPOCHS);
    this.#timer = setInterval(() => this.#onEpoch(), epochMs).unref();
  }

  /** Nothing is watched any more. */
  close(): void {
    clearInterval(this.#timer);
  }

  /** The slot is free. */
  completed(slot: number): void {
    this.#overdue.delete(slot);
  }

  /** The device was reset: all slots are free. */
  clear(): void {
    this.#overdue.clear();
  }

  onAborted(call: PendingCall): void {
    const { pair, onUnwanted, onGivenUp } = this.#options;
    this.#giveUp(call, call.signal?.reason, ({ slot }) => onUnwanted(pair.outstanding(slot)));
    onGivenUp();
  }

  onDeadline(call: PendingCall): void {
    const timeoutMs = call.hasOwnDeadline ? call.timeoutMs : this.#options.timeoutMs;
    this.#giveUp(call, new TimeoutError(call.name, timeoutMs), ({ slot }) => this.#getBack(slot));
    this.#options.onGivenUp();
  }

  /** Answers the caller, or sees to it that the caller is answered when the device is done. */
  #giveUp(call: PendingCall, reason: unknown, ask: (command: Command) => void): void {
    const { answers, backlog, inFlight } = this.#options;
    if (call instanceof Command) {
      this.#giveUpCommand(call, reason, ask);
      return;
    }
    if (!(call instanceof Transfer) || call.isSettled) return;
    answers.fail(call, reason);
    if (call.outCount === 0) return;
    // Commands that were to be sent again stand before all else; those that are in flight have to come back.
    for (let command = backlog.first; command instanceof Command && command.transfer !== undefined;) {
      const { next } = command;
      if (command.transfer === call) this.#giveUpCommand(command, reason, ask);
      command = next;
    }
    for (const command of inFlight.all())
      if (command.transfer === call) this.#giveUpCommand(command, reason, ask);
  }

  #giveUpCommand(command: Command, reason: unknown, ask: (command: Command) => void): void {
    const { answers, leavesAll } = this.#options;
    if (command.isSettled) return;
    command.failure ??= reason;
    if (command.list !== undefined) command.list.remove(command);
    if (command.transfer !== undefined) answers.fail(command.transfer, command.failure);
    if (command.slot < 0) answers.fail(command, command.failure);
    else {
      if (leavesAll || command.canBeLeft) answers.abandon(command);
      ask(command);
    }
  }

  /** Has the slot of an overdue command got back. */
  #getBack(slot: number): void {
    if (this.#overdue.has(slot)) return;
    this.#overdue.add(slot);
    const { pair, onOverdue } = this.#options;
    void onOverdue(pair.outstanding(slot)).finally(() => this.#overdue.delete(slot));
  }

  #onEpoch(): void {
    const { pair, inFlight, backlog, poll, timeoutMs } = this.#options;
    const { slots } = pair;
    slots.epoch++;
    // An interrupt that went astray costs time, and nothing else.
    if (inFlight.count > 0) poll();
    for (const slot of slots.overdue(EPOCHS + 1)) {
      const command = inFlight.at(slot);
      // Without a command the slot belongs to the submit/poll calls. One that was given up has to come back.
      if (command === undefined || command.isSettled || command.failure !== undefined) this.#getBack(slot);
      else if (!command.isUnattended && !(command.transfer ?? command).hasOwnDeadline)
        this.onDeadline(command);
    }
    if (backlog.isEmpty || slots.epoch - pair.answered <= EPOCHS) return;
    backlog.fail(
      ({ hasOwnDeadline, epoch }) => !hasOwnDeadline && slots.epoch - epoch > EPOCHS,
      ({ name }) => new TimeoutError(name, timeoutMs),
    );
  }
}

/** The deadlines and signals that callers give. */
export class CallLimits {
  readonly #deadlines: Deadlines<PendingCall>;
  readonly #signals: AbortSignals<PendingCall>;

  /** Each hears of a call at most once, unless it was removed before. */
  constructor(onDeadline: (call: PendingCall) => void, onAborted: (call: PendingCall) => void) {
    this.#deadlines = new Deadlines(onDeadline);
    this.#signals = new AbortSignals(onAborted);
  }

  /** @throws TypeError and RangeError for a deadline that is none; the signal's reason where it is aborted already. */
  add(call: PendingCall, { timeoutMs, signal }: CallOptions): void {
    if (timeoutMs !== undefined) checkTimeout(timeoutMs);
    signal?.throwIfAborted();
    if (timeoutMs !== undefined) {
      call.hasOwnDeadline = true;
      call.timeoutMs = timeoutMs;
      if (timeoutMs !== Infinity) this.#deadlines.add(call, timeoutMs);
    }
    if (signal !== undefined) this.#signals.add(call, signal);
  }

  /** Nothing is done for a call that has none. */
  remove(call: PendingCall): void {
    if (call.heapIndex >= 0) this.#deadlines.remove(call);
    if (call.signal !== undefined) this.#signals.remove(call);
  }
}

function checkTimeout(timeoutMs: number): void {
  if (typeof timeoutMs !== 'number')
    throw new TypeError(`timeoutMs must be a number of milliseconds, got ${String(timeoutMs)}`);
  if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs must be greater than 0, got ${timeoutMs}`);
}

/**
 * Deadlines of many calls on one timer: a binary heap, the next one first. Adding and removing take logarithmic time, and
 * those that are due together are reported in slices.
 */

export interface Due {
  /** On the clock of `performance.now()`, milliseconds. */
  due: number;
  /** Where it is in the heap; -1 where it is in none. */
  heapIndex: number;
}

export class Deadlines<T extends Due> {
  readonly #heap: T[] = [];
  readonly #onDue: (item: T) => void;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer fires. */
  #timerDue = Infinity;

  /** `onDue` hears of each item once; it is out of the heap by then. */
  constructor(onDue: (item: T) => void) {
    this.#onDue = onDue;
  }

  add(item: T, timeoutMs: number): void {
    item.due = performance.now() + timeoutMs;
    item.heapIndex = this.#heap.length;
    this.#heap.push(item);
    this.#up(item);
    // The first of the heap is due no later.
    this.#arm(item.due);
  }

  /** Nothing is done where it is not there. */
  remove(item: T): void {
    const at = item.heapIndex;
    if (at < 0) return;
    const last = this.#heap.pop();
    item.heapIndex = -1;
    if (last !== undefined && last !== item) {
      last.heapIndex = at;
      this.#heap[at] = last;
      this.#up(last);
      this.#down(last);
    }
    // The timer would keep the process alive for nothing.
    if (this.#heap.length === 0) this.#disarm();
  }

  /** Has the timer fire at `due` at the latest. */
  #arm(due: number): void {
    if (due >= this.#timerDue) return;
    this.#disarm();
    this.#timerDue = due;
    const timeoutMs = Math.max(1, Math.ceil(due - performance.now()));
    this.#timer = setTimeout(() => this.#fire(), Math.min(MAX_TIMER_MS, timeoutMs));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerDue = Infinity;
  }

  #fire(): void {
    this.#disarm();
    inSlices(() => {
      const item = this.#heap[0];
      if (item !== undefined && item.due <= performance.now()) {
        this.remove(item);
        this.#onDue(item);
        return true;
      }
      if (item !== undefined) this.#arm(item.due);
      return false;
    });
  }

  #up(item: T): void {
    const heap = this.#heap;
    let at = item.heapIndex;
    while (at > 0) {
      const above = (at - 1) >>> 1;
      const parent = heap[above]!;
      if (parent.due <= item.due) break;
      heap[at] = parent;
      parent.heapIndex = at;
      at = above;
    }
    heap[at] = item;
    item.heapIndex = at;
  }

  #down(item: T): void {
    const heap = this.#heap;
    let at = item.heapIndex;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]!.due < heap[below]!.due) below++;
      const child = heap[below]!;
      if (child.due >= item.due) break;
      heap[at] = child;
      child.heapIndex = at;
      at = below;
    }
    heap[at] = item;
    item.heapIndex = at;
  }
}

/**
 * Calls by the signals that may give them up: one listener a signal, as Node looks through all listeners of a signal when
 * one is added or removed. Those that share a signal are given up in slices.
 */
export class AbortSignals<T extends { signal: AbortSignal | undefined }> {
  readonly #groups = new Map<AbortSignal, { items: Set<T>; listener: () => void }>();
  readonly #onAbort: (item: T) => void;

  /** `onAbort` hears of each item whose signal is aborted, unless it was removed before. */
  constructor(onAbort: (item: T) => void) {
    this.#onAbort = onAbort;
  }

  /** `signal` is not aborted yet. */
  add(item: T, signal: AbortSignal): void {
    item.signal = signal;
    const group = this.#groups.get(signal);
    if (group !== undefined) {
      group.items.add(item);
      return;
    }
    const items = new Set([item]);
    const listener = () => {
      this.#groups.delete(signal);
      this.#giveUp(items);
    };
    this.#groups.set(signal, { items, listener });
    signal.addEventListener('abort', listener, { once: true });
  }

  /** Nothing is done where it is not there. */
  remove(item: T): void {
    const { signal } = item;
    if (signal === undefined) return;
    const group = this.#groups.get(signal);
    if (group === undefined) return;
    group.items.delete(item);
    if (group.items.size > 0) return;
    this.#groups.delete(signal);
    signal.removeEventListener('abort', group.listener);
  }

  #giveUp(items: Set<T>): void {
    const left = items.values();
    inSlices(() => {
      const { value, done } = left.next();
      if (done === true) return false;
      this.#onAbort(value);
      return true;
    });
  }
}

/** Work that may be long is done in slices, between which the event loop turns. */

/** No slice takes much longer. */
const SLICE_MS = 8;

/** Calls `step` until it says that nothing is left, in this turn of the loop and, where that is not enough, in later ones. */
export function inSlices(step: () => boolean): void {
  const end = performance.now() + SLICE_MS;
  while (step()) {
    if (performance.now() < end) continue;
    setImmediate(inSlices, step);
    return;
  }
}
