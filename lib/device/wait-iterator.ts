/**
 * An async iterator over things that are waited for. An async generator would not do: its `return()` waits in turn behind
 * a `next()` that waits, for as long as nothing comes.
 */

/** What waits are given up with: nobody sees it. */
const RETURNED = Symbol('returned');

export class WaitIterator<T> implements AsyncGenerator<T, void, undefined> {
  readonly #wait: (signal: AbortSignal) => Promise<T>;
  readonly #isOver: () => boolean;
  readonly #end = new AbortController();

  /**
   * `wait` gives the next item, and takes nothing where the signal is aborted first. What it throws is thrown by one step
   * and ends the iteration; where `isOver` says that there is no more to come, the iteration ends without.
   */
  constructor(wait: (signal: AbortSignal) => Promise<T>, isOver: () => boolean) {
    this.#wait = wait;
    this.#isOver = isOver;
  }

  async next(): Promise<IteratorResult<T, void>> {
    const { signal } = this.#end;
    if (signal.aborted || this.#isOver()) return this.return();
    try {
      return { value: await this.#wait(signal), done: false };
    } catch (error) {
      const hasEnded = signal.aborted || this.#isOver();
      this.#end.abort(RETURNED);
      if (hasEnded) return { value: undefined, done: true };
      throw error;
    }
  }

  /** Ends the iteration: steps that wait are done, and take nothing. */
  async return(): Promise<IteratorReturnResult<void>> {
    this.#end.abort(RETURNED);
    return { value: undefined, done: true };
  }

  /** Ends the iteration as `return()` does. @throws `error`. */
  async throw(error: unknown): Promise<never> {
    this.#end.abort(RETURNED);
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort(RETURNED);
  }
}
