/** What leaves through one socket, in order; what the socket does not take at once is kept here. */
import { Fifo } from '../fifo.js';
import { sizeOf, type OutgoingMessage, type Transport } from '../transport/index.js';

interface Entry {
  message: OutgoingMessage;
  sent: number;
  onSent: (() => void) | undefined;
}

/** What an entry takes beside its bytes, roughly: many small ones are not little. */
const ENTRY_BYTES = 256;
/** Messages that leave in one turn of the loop: a client that reads as fast as we write must not keep us writing. */
const FLUSHED_A_TURN = 64;

export class OutputQueue {
  readonly #transport: Transport;
  /** Called when the socket has taken some of what waited. */
  onTaken: (() => void) | undefined;
  readonly #entries = new Fifo<Entry>();
  #bytes = 0;
  #isOver = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Memory that what waits takes. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Sends `head[0, headLength) + body`; both may be reused at once. The fds must stay open until `onSent`, which is
   * called when the last byte has gone, or by `clear`.
   */
  send(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null = null,
    onSent?: () => void,
  ): void {
    const message = { head, headLength, body, fds };
    const total = sizeOf(message);
    const isFirst = this.#entries.length === 0;
    const sent = isFirst ? this.#transport.trySend(message, 0) : 0;
    if (sent === total) {
      onSent?.();
      return;
    }
    // Sending may have ended the connection.
    if (this.#isOver) {
      onSent?.();
      return;
    }
    // Both may be Buffers, whose `slice` does not copy.
    this.#entries.push({
      message: {
        head: Uint8Array.prototype.slice.call(head, 0, headLength),
        headLength,
        body: body === null ? null : Uint8Array.prototype.slice.call(body),
        fds,
      },
      sent,
      onSent,
    });
    this.#bytes += total - sent + ENTRY_BYTES;
  }

  /**
   * Sends what waits, as far as there is room, or as much as one turn of the loop is for: false where more would go, in
   * another turn.
   */
  flush(): boolean {
    const before = this.#bytes;
    const isAll = this.#flush();
    if (this.#bytes < before) this.onTaken?.();
    return isAll;
  }

  #flush(): boolean {
    for (let i = 0; ; i++) {
      const entry = this.#entries.peek();
      if (entry === undefined) return true;
      if (i === FLUSHED_A_TURN) return false;
      const taken = this.#transport.trySend(entry.message, entry.sent);
      entry.sent += taken;
      this.#bytes -= taken;
      if (entry.sent < sizeOf(entry.message)) return true;
      // Sending may have ended the connection, and with it all that waited.
      if (this.#entries.peek() !== entry) return true;
      this.#entries.shift();
      this.#bytes -= ENTRY_BYTES;
      entry.onSent?.();
    }
  }

  /** The connection has ended: nothing leaves any more. */
  clear(): void {
    this.#isOver = true;
    const entries = this.#entries.drain();
    this.#bytes = 0;
    for (const entry of entries) entry.onSent?.();
  }
}
