/**
 * Calls that are given up: their deadline has passed, or their signal is aborted. And commands whose slot has to come back.
 *
 * A caller is told no sooner than the controller is done with a command that writes, or that has memory of the caller's
 * own: a write that came late would undo a later one. Reads by way of bounce pages are given up at once; their slot and
 * pages stay taken until the controller is done.
 */
import { TimeoutError } from '../index.js';
import type { Answers } from './answers.js';
import type { Backlog } from './backlog.js';
import { Command } from './command.js';
import type { CommandsInFlight } from './commands-in-flight.js';
import type { PendingCall } from './pending-call.js';
import type { OutstandingCommand, QueuePair } from './queue-pair.js';
import { Transfer } from './transfer.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** The default deadline is checked that many times while it passes. */
const EPOCHS = 8;

export interface CallTimeoutsOptions {
  pair: QueuePair;
  /** The deadline of a command that says nothing, milliseconds. */
  timeoutMs: number;
  answers: Answers;
  backlog: Backlog;
  inFlight: CommandsInFlight;
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

  /** The controller was reset: all slots are free. */
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
    const { answers, pair } = this.#options;
    if (command.isSettled) return;
    command.failure ??= reason;
    if (command.list !== undefined) command.list.remove(command);
    if (command.transfer !== undefined) answers.fail(command.transfer, command.failure);
    if (command.slot < 0) answers.fail(command, command.failure);
    else {
      // Admin commands are told of at once.
      if (pair.id === 0 || command.canBeLeft) answers.abandon(command);
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
