/** Being told to stop: work ends in order, with files, devices and terminals as they should be. */
import { VfioUserError } from '../errors.js';

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Resolves at the first of the signals; at a second one the process ends as it would have. */
export function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    onStop(resolve);
  });
}

/** Does `work`, whose signal aborts when the process is told to stop. @throws VfioUserError `EINTR` as its reason. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const forget = onStop(() => controller.abort(new VfioUserError('EINTR', 'interrupted')));
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

/** Calls `listener` at the first of the signals. @returns what takes it away again. */
export function onStop(listener: () => void): () => void {
  const forget = () => {
    for (const signal of STOP_SIGNALS) process.off(signal, stop);
  };
  const stop = () => {
    forget();
    listener();
  };
  for (const signal of STOP_SIGNALS) process.on(signal, stop);
  return forget;
}
