/** What every waiting call takes, and how it is checked. docs/timeouts.md explains the deadlines. */
import { performance } from 'node:perf_hooks';
import { timeout } from '../options.js';

/** Where nothing is said. */
export const DEFAULT_TIMEOUT_MS = 5_000;

/** Options of a synchronous call. */
export interface SyncCallOptions {
  /**
   * How long the whole call may take, in milliseconds, counted from now: waiting to be sent, and every message of a call
   * that takes several, included. `Infinity` waits for as long as the connection lives. The call ends with a
   * `TimeoutError` then.
   *
   * Without it each message has the device's `timeoutMs` (`connect`; 5,000), counted from when it is sent; a call that
   * waits to be sent ends when the server has answered nothing at all for that long.
   */
  timeoutMs?: number | undefined;
}

/** Options of an asynchronous call. */
export interface CallOptions extends SyncCallOptions {
  /** Gives the call up: it rejects with the signal's reason. What was sent stays sent. */
  signal?: AbortSignal | undefined;
}

/** When a call of several messages ends, on `performance.now()`'s clock; each of its messages is given it. */
const DEADLINE = Symbol('deadline');

/** What the layers above may want to know besides. */
export interface TrackedCallOptions extends CallOptions {
  /**
   * The call is being given up although its command went out: the server may carry it out now, later or never. Called
   * before the call rejects. It must not throw.
   */
  onAbandoned?: (() => void) | undefined;
  /** @internal See `withDeadline`. */
  [DEADLINE]?: number | undefined;
}

/**
 * The deadline's length, checked: public functions have done so before, and name themselves. `fallback` is what the device
 * was opened with.
 */
export function timeoutOf(options: SyncCallOptions | undefined, fallback: number): number {
  const timeoutMs = options?.timeoutMs;
  if (timeoutMs === undefined) return fallback;
  if (typeof timeoutMs === 'number' && timeoutMs > 0) return timeoutMs;
  throw timeout(timeoutMs, 'a call', 'timeoutMs')!;
}

/** When a call that begins now, and lasts no longer than `timeoutMs`, ends: on `performance.now()`'s clock. */
export function deadlineOf(options: SyncCallOptions | undefined, timeoutMs: number): number {
  return (options as TrackedCallOptions | undefined)?.[DEADLINE] ?? performance.now() + timeoutMs;
}

/** Whether the options are of a message of a call that began before. */
export function hasDeadline(options: SyncCallOptions | undefined): boolean {
  return (options as TrackedCallOptions | undefined)?.[DEADLINE] !== undefined;
}

/**
 * The options for each message of a call that begins now and takes several: the time that the caller gave is for all of
 * them together. Options that have been through here stay what they are, so that calls may be made of calls.
 * @throws TypeError and RangeError for a timeout that is none.
 */
export function withDeadline<T extends SyncCallOptions | undefined>(options: T): T {
  if (options?.timeoutMs === undefined || hasDeadline(options)) return options;
  const timeoutMs = timeoutOf(options, Infinity);
  return timeoutMs === Infinity ? options : { ...options, [DEADLINE]: performance.now() + timeoutMs };
}

/** Whether the time of a call, as `withDeadline` has begun it, is over, or it was aborted. */
export function isOver(call: CallOptions | undefined): boolean {
  return call?.signal?.aborted === true || performance.now() >= deadlineOf(call, Infinity);
}

/**
 * The options of `work` that is part of a call: its own where it has any, and `call`'s else. A deadline of its own is counted
 * from now.
 */
export function ownOr<T extends CallOptions>(call: CallOptions | undefined, own: T): T {
  const { timeoutMs, signal } = own;
  const base = timeoutMs === undefined ? call : undefined;
  return withDeadline({
    ...base,
    ...own,
    timeoutMs: timeoutMs ?? call?.timeoutMs,
    signal: signal ?? call?.signal,
  });
}

/**
 * The options for undoing what a call had done: without its signal, which may be what ended it, and in a time of its own, as
 * long as the call's but no longer than the default deadline. Whoever has to wait for it does not wait for ever.
 */
export function forUndoing(call: CallOptions | undefined, defaultMs: number): CallOptions {
  if (call?.timeoutMs === undefined) return {};
  return withDeadline({ timeoutMs: Math.min(timeoutOf(call, defaultMs), defaultMs) });
}
