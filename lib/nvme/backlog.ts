/** What waits for room, in the order of the calls; what is sent again after a reset comes first. */
import type { Answers } from './answers.js';
import { Command } from './command.js';
import type { CommandsInFlight } from './commands-in-flight.js';
import { LinkedList } from './linked-list.js';
import type { PendingCall } from './pending-call.js';
import { inSlices } from './slices.js';
import { Transfer } from './transfer.js';

export class Backlog {
  readonly #inFlight: CommandsInFlight;
  readonly #answers: Answers;
  readonly #onFailed: () => void;
  readonly #waiting = new LinkedList<PendingCall>();
  /** Out of the backlog, and about to be told so. */
  readonly #failing = new LinkedList<PendingCall>();

  /** `onFailed` hears when all that failed together were answered. */
  constructor(inFlight: CommandsInFlight, answers: Answers, onFailed: () => void) {
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
