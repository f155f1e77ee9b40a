/**
 * Sections of several messages that must not interleave, one after the other. The time that a caller gives is for waiting
 * for its turn as well, and so is its signal. Who gives none waits as long as those before it take, whose messages have
 * deadlines; it does not fail because of a callback that takes long (docs/timeouts.md).
 */
import { Mutex, type MutexInterface } from 'async-mutex';
import { withDeadline, type CallOptions } from './call-options.js';
import { within } from './within.js';

export class Exclusive {
  readonly #mutex = new Mutex();

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

  async #acquire(what: string, options: CallOptions | undefined): Promise<MutexInterface.Releaser> {
    const turn = this.#mutex.acquire();
    try {
      return await within(`${what} (waiting for its turn)`, turn, options, Infinity);
    } catch (error) {
      // The turn of one that has given up is the next one's.
      void turn.then((release) => release());
      throw error;
    }
  }
}
