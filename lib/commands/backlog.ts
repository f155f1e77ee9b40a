/** What waits for room, in the order of the calls; what is sent again after a reset comes first. */
import { inSlices, type CallLimits } from './call-limits.js';
import { Command, RESULT, Transfer, type PendingCall } from './command.js';
import type { CommandsInFlight } from './commands-in-flight.js';

export class Backlog {
  readonly #inFlight: CommandsInFlight<Command>;
  readonly #answers: Answers;
  readonly #onFailed: () => void;
  readonly #waiting = new LinkedList<PendingCall>();
  /** Out of the backlog, and about to be told so. */
  readonly #failing = new LinkedList<PendingCall>();

  /** `onFailed` hears when all that failed together were answered. */
  constructor(inFlight: CommandsInFlight<Command>, answers: Answers, onFailed: () => void) {
    this.#inFlight = inFlight;
    this.#answers = answers;
    this.#onFailed = onFailed;
  }

  get first(): PendingCall | undefined {
    return this.#waiting.first;
  }

  get isEmpty(): boolean {
    return this.#waiting.isEmpty;
  }

  /** Nothing waits, and everybody was told. */
  get isIdle(): boolean {
    return this.#waiting.isEmpty && this.#failing.isEmpty;
  }

  push(call: PendingCall): void {
    this.#waiting.push(call);
  }

  /** Takes the call out. Whether it was there. */
  remove(call: PendingCall): boolean {
    if (call.list !== this.#waiting) return false;
    this.#waiting.remove(call);
    return true;
  }

  /** To be sent before all that waits. */
  unshift(call: PendingCall): void {
    this.#waiting.unshift(call);
  }

  /** Sends it, as much as there is room for. Whether nothing is left to be sent; what cannot be sent has failed. */
  send(call: PendingCall): boolean {
    try {
      if (call instanceof Command) return this.#inFlight.send(call);
      if (!(call instanceof Transfer)) return true;
      for (let command = call.peek(); command !== undefined; command = call.peek()) {
        if (!this.#inFlight.send(command)) return false;
        call.advance();
      }
    } catch (error) {
      this.#answers.fail(call, error);
    }
    return true;
  }

  /** Sends what waits, in order. Whether nothing is left: there may be no room. */
  sendWaiting(): boolean {
    for (;;) {
      const call = this.#waiting.first;
      if (call === undefined) return true;
      const command = call instanceof Command ? call : undefined;
      if (call.signal?.aborted === true) {
        // Its turn to be told comes (`AbortSignals`); there may be many.
        call.failure ??= call.signal.reason;
        this.#waiting.remove(call);
        this.#failing.push(call);
      } else if (command?.transfer?.failure !== undefined) {
        // It was to be sent again, and the transfer has failed meanwhile.
        this.#waiting.remove(call);
        this.#answers.fail(command, command.transfer.failure);
      } else if (!this.send(call)) return false;
      else this.remove(call);
    }
  }

  /** Fails what waits, as far as it `isMeant`, with its `failure` or that error: there may be many, so it is done in slices. */
  fail(isMeant: (call: PendingCall) => boolean, error: (call: PendingCall) => unknown): void {
    for (let call = this.#waiting.first; call !== undefined;) {
      const { next } = call;
      const whole = call instanceof Command ? (call.transfer ?? call) : call;
      if (isMeant(whole)) {
        this.#waiting.remove(call);
        this.#failing.push(call);
      }
      call = next;
    }
    inSlices(() => {
      const call = this.#failing.shift();
      if (call === undefined) {
        this.#onFailed();
        return false;
      }
      this.#answers.fail(call, call.failure ?? error(call));
      return true;
    });
  }

  /** Fails all that waits. */
  failAll(error: (call: PendingCall) => unknown): void {
    this.fail(() => true, error);
  }
}

/**
 * Answers callers. A transfer is answered when none of its commands is out any more: with an error when one of them
 * failed, and then no further one is sent.
 */
export class Answers {
  readonly #limits: CallLimits;

  constructor(limits: CallLimits) {
    this.#limits = limits;
  }

  /** The device has completed the command. `result` is what the completion says. */
  fulfil(command: Command, result: number): void {
    command.isSettled = true;
    if (command.transfer !== undefined) {
      this.commandEnded(command);
      return;
    }
    this.#limits.remove(command);
    command.resolve((command.answer === RESULT ? result : command.answer) as never);
  }

  /** The caller gets that error: now, or for a command of a transfer when the others are done. */
  fail(call: PendingCall, error: unknown): void {
    if (call instanceof Transfer) {
      this.#failTransfer(call, error);
      return;
    }
    call.isSettled = true;
    if (call instanceof Command && call.transfer !== undefined) {
      this.#failTransfer(call.transfer, error);
      if (call.slot < 0) this.commandEnded(call);
      return;
    }
    this.#limits.remove(call);
    call.reject(error);
  }

  /** The caller does not wait any more for a command that is in flight. */
  abandon(command: Command): void {
    if (command.transfer === undefined) {
      this.fail(command, command.failure);
      return;
    }
    command.isSettled = true;
    this.commandEnded(command);
    command.transfer = undefined;
  }

  /** A command of a transfer is out of its slot, or is not sent again. Nothing is done for other commands. */
  commandEnded({ transfer }: Command): void {
    if (transfer === undefined) return;
    transfer.outCount--;
    if (transfer.outCount === 0 && (transfer.isDone || transfer.failure !== undefined)) this.#end(transfer);
  }

  #failTransfer(transfer: Transfer, error: unknown): void {
    transfer.failure ??= error;
    if (transfer.list !== undefined) transfer.list.remove(transfer);
    if (transfer.outCount === 0) this.#end(transfer);
  }

  #end(transfer: Transfer): void {
    if (transfer.isSettled) return;
    transfer.isSettled = true;
    this.#limits.remove(transfer);
    if (transfer.failure === undefined) transfer.resolve(transfer.answer as never);
    else transfer.reject(transfer.failure);
  }
}

/** A doubly linked list of items that carry their own links: every operation takes constant time, and allocates nothing. */

export interface Linked<T extends Linked<T>> {
  /** The list that the item is in. */
  list: LinkedList<T> | undefined;
  previous: T | undefined;
  next: T | undefined;
}

export class LinkedList<T extends Linked<T>> {
  #first: T | undefined;
  #last: T | undefined;

  get first(): T | undefined {
    return this.#first;
  }

  get isEmpty(): boolean {
    return this.#first === undefined;
  }

  /** `item` must not be in a list. */
  push(item: T): void {
    item.list = this;
    item.previous = this.#last;
    item.next = undefined;
    if (this.#last === undefined) this.#first = item;
    else this.#last.next = item;
    this.#last = item;
  }

  /** `item` must not be in a list. */
  unshift(item: T): void {
    item.list = this;
    item.previous = undefined;
    item.next = this.#first;
    if (this.#first === undefined) this.#last = item;
    else this.#first.previous = item;
    this.#first = item;
  }

  shift(): T | undefined {
    const item = this.#first;
    if (item !== undefined) this.remove(item);
    return item;
  }

  /** `item` must be in this list. */
  remove(item: T): void {
    const { previous, next } = item;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    item.list = item.previous = item.next = undefined;
  }
}
