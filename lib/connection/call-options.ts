/** What every waiting call takes, and how it is checked. */

/** Where nothing is said. */
export const DEFAULT_TIMEOUT_MS = 5_000;

/** Options of a synchronous call. */
export interface SyncCallOptions {
  /** How long to wait for the answer, in milliseconds; `Infinity` for as long as the connection lives. Default 5,000. */
  timeoutMs?: number | undefined;
}

/** Options of an asynchronous call. */
export interface CallOptions extends SyncCallOptions {
  /** Gives the call up: it rejects with the signal's reason. What was sent stays sent. */
  signal?: AbortSignal | undefined;
}

/** What the layers above may want to know besides. */
export interface TrackedCallOptions extends CallOptions {
  /**
   * The call is being given up although its command went out: the server may carry it out now, later or never. Called
   * before the call rejects.
   */
  onAbandoned?: (() => void) | undefined;
}

/** The deadline's length, checked. `fallback` is what the device was opened with. */
export function timeoutOf(options: SyncCallOptions | undefined, fallback: number): number {
  const timeoutMs = options?.timeoutMs;
  if (timeoutMs === undefined) return fallback;
  if (typeof timeoutMs !== 'number') throw new TypeError('timeoutMs must be a number of milliseconds');
  if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs must be greater than 0, not ${timeoutMs}`);
  return timeoutMs;
}
