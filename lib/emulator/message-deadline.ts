/** A deadline for the rest of a message that has begun: half a message must not keep its sender's place. */
import { TransportError, type VfioUserError } from '../errors.js';
import type { Transport } from '../transport/index.js';
import { ETIMEDOUT } from '../system-numbers.js';

export class MessageDeadline {
  readonly #timeoutMs: number;
  readonly #onLate: (reason: VfioUserError) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number, onLate: (reason: VfioUserError) => void) {
    this.#timeoutMs = timeoutMs;
    this.#onLate = onLate;
  }

  /** Message number `begun` has begun. One timer is set at a time: messages that come in time cost no other. */
  onBegun(begun: number, transport: Transport): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = transport.begun;
      if (now === 0) return;
      // Another one, or one that we have not been reading, has all of its time.
      if (now !== begun || !transport.isReading) this.onBegun(now, transport);
      else {
        const what = `the rest of a message did not come within ${this.#timeoutMs} ms`;
        this.#onLate(new TransportError('recvmsg', ETIMEDOUT, what));
      }
    }, this.#timeoutMs).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
