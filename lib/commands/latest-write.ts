/**
 * A register that is written by message: one message at a time, and one more with the newest value for all that was asked for
 * meanwhile.
 */
export class LatestWrite {
  readonly #send: () => Promise<void>;
  readonly #onError: (error: unknown) => void;
  #isSending = false;
  #isStale = false;
  #isRetired = false;

  /** `send` writes what is newest; `onError` hears of a write that failed: the device may not know of commands then. */
  constructor(send: () => Promise<void>, onError: (error: unknown) => void) {
    this.#send = send;
    this.#onError = onError;
  }

  /** There is a new value. */
  request(): void {
    if (this.#isSending) this.#isStale = true;
    else void this.#sendAll();
  }

  /** The queue is about to be gone: what is new must not reach the one in its place, and errors are not told of. */
  retire(): void {
    this.#isRetired = true;
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    try {
      do {
        this.#isStale = false;
        await this.#send();
      } while (this.#isStale && !this.#isRetired);
    } catch (error) {
      if (!this.#isRetired) this.#onError(error);
    } finally {
      this.#isSending = false;
    }
  }
}
