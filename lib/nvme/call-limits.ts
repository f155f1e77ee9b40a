/** The deadlines and signals that callers give. */
import type { CallOptions } from '../index.js';
import { AbortSignals } from './abort-signals.js';
import { Deadlines } from './deadlines.js';
import type { PendingCall } from './pending-call.js';

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
