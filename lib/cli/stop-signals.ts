/** SIGINT, SIGTERM and SIGHUP: work ends in order, with files, devices and terminals as they should be. */
import { VfioUserError } from '../errors.js';

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

type StopListener = (reason: Error) => void;

/** The controllers to abort, by a signal or by `stop`. */
const listeners = new Set<StopListener>();

/** As the first of the signals does, with another reason: there is nothing to go on for. */
export function stop(reason: Error): void {
  for (const listener of [...listeners]) listener(reason);
}

/** Resolves at the first of the signals; at a second one the process ends as it would have. */
export function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    onStop(() => resolve());
  });
}

/**
 * Does `work`, whose signal aborts when the process is interrupted.
 * @throws what `work` throws; the reason, a VfioUserError `EINTR` where it was a signal.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const forget = onStop((reason) => controller.abort(reason));
  try {
    return await work(controller.signal);
  } catch (error) {
    // A stream that is aborted has an error of its own for it.
    throw isAbort(error) && controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    forget();
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** Calls `listener` once, at the first of the signals or at `stop`. @returns what takes it away again. */
export function onStop(listener: StopListener): () => void {
  const forget = () => {
    listeners.delete(onFirst);
    for (const signal of STOP_SIGNALS) process.off(signal, onSignal);
  };
  const onFirst = (reason: Error) => {
    forget();
    listener(reason);
  };
  const onSignal = () => onFirst(new VfioUserError('EINTR', 'interrupted'));
  listeners.add(onFirst);
  for (const signal of STOP_SIGNALS) process.on(signal, onSignal);
  return forget;
}
