/**
 * Sections of several messages that must not interleave, one after the other. The time that a caller gives is for waiting
 * for its turn as well, and so is its signal.
 */
import { Mutex, type MutexInterface } from 'async-mutex';
import { TimeoutError } from '../errors.js';
import { checkSignal, listenForAbort } from './abort-listeners.js';
import { deadlineOf, hasDeadline, timeoutOf, withDeadline, type CallOptions } from './call-options.js';
import { Deadlines, type Timed } from './deadlines.js';

interface Waiter extends Timed {
  readonly giveUp: (reason: unknown) => void;
  readonly timeoutError: () => TimeoutError;
}

export class Exclusive {
  readonly #mutex = new Mutex();
  /** Of those that wait for their turn; made for the first that has one. */
  #deadlines: Deadlines<Waiter> | undefined;

  /**
   * Carries out `work` when all that was asked for before has been done; `call` has what is left of the caller's time.
   * `what` is for the error of a caller whose time is over before.
   * @throws TimeoutError, the signal's reason; what `work` throws.
   */
  async run<T, O extends CallOptions>(
    what: string,
    options: O | undefined,
    work: (call: O | undefined) => Promise<T>,
  ): Promise<T> {
    const call = withDeadline(options);
    const release = await this.#acquire(what, call);
    try {
      return await work(call);
    } finally {
      release();
    }
  }

  #acquire(what: string, options: CallOptions | undefined): Promise<MutexInterface.Releaser> {
    const signal = options?.signal;
    checkSignal(signal);
    const turn = this.#mutex.acquire();
    if (signal === undefined && !hasDeadline(options)) return turn;
    return new Promise((resolve, reject) => {
      let isWaiting = true;
      const leave = (): void => {
        isWaiting = false;
        this.#deadlines?.remove(waiter);
        // The timer would keep the process alive for nothing.
        if (this.#deadlines?.earliest === Infinity) this.#deadlines.close();
        listener?.remove();
      };
      const giveUp = (reason: unknown): void => {
        leave();
        reject(reason);
      };
      const timeoutError = (): TimeoutError =>
        new TimeoutError(`${what} (waiting for its turn)`, timeoutOf(options, Infinity));
      const waiter: Waiter = { deadline: 0, heapIndex: -1, giveUp, timeoutError };
      const listener = signal && listenForAbort(signal, giveUp);
      if (hasDeadline(options)) {
        this.#deadlines ??= new Deadlines((late) => late.giveUp(late.timeoutError()));
        this.#deadlines.add(waiter, deadlineOf(options, Infinity));
      }
      void turn.then((release) => {
        // The turn of one that has given up is the next one's.
        if (!isWaiting) release();
        else {
          leave();
          resolve(release);
        }
      });
    });
  }
}
