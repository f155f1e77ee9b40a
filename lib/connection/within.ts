/**
 * Waiting for what goes on by itself, as long as a call's options allow: for a turn, for a message that another call has
 * sent, for a driver that uses memory.
 */
import { TimeoutError } from '../errors.js';
import { checkSignal, listenForAbort } from './abort-listeners.js';
import { deadlineOf, timeoutOf, type CallOptions } from './call-options.js';
import { Deadlines, type Timed } from './deadlines.js';

interface Waiter extends Timed {
  readonly expire: () => void;
}

/** Of all that wait. */
const deadlines = new Deadlines<Waiter>((late) => late.expire());

/**
 * What `promise` comes to, waited for as long as `options` allow, and `defaultMs` where they say nothing. What it stands for
 * goes on whoever has given up; it has a handler from here on.
 * @throws what it rejects with; TimeoutError, which names `what`; the signal's reason.
 */
export function within<T>(
  what: string,
  promise: Promise<T>,
  options: CallOptions | undefined,
  defaultMs: number,
): Promise<T> {
  const signal = options?.signal;
  const timeoutMs = timeoutOf(options, defaultMs);
  if (signal === undefined && timeoutMs === Infinity) return promise;
  // Nobody waits for it here, and what it comes to is for whoever began it.
  if (signal?.aborted === true) promise.catch(() => undefined);
  return new Promise<T>((resolve, reject) => {
    checkSignal(signal);
    const leave = (): void => {
      deadlines.remove(waiter);
      // The timer would keep the process alive for nothing.
      if (deadlines.earliest === Infinity) deadlines.close();
      listener?.remove();
    };
    const giveUp = (reason: unknown): void => {
      leave();
      reject(reason);
    };
    const expire = (): void => giveUp(new TimeoutError(what, timeoutMs));
    const waiter: Waiter = { deadline: 0, heapIndex: -1, expire };
    const listener = signal && listenForAbort(signal, giveUp);
    if (timeoutMs !== Infinity) deadlines.add(waiter, deadlineOf(options, timeoutMs));
    promise.then((value) => {
      leave();
      resolve(value);
    }, giveUp);
  });
}
