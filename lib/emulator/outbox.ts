/** What leaves through one socket, in order; what the socket does not take at once is kept here. */
import type { Transport } from '../transport/index.js';

interface Entry {
  head: Uint8Array;
  body: Uint8Array | null;
  sent: number;
  fds: readonly number[] | null;
  onSent: (() => void) | undefined;
}

export class Outbox {
  readonly #transport: Transport;
  readonly #entries: Entry[] = [];
  #bytes = 0;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Bytes that wait. */
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
    const total = headLength + (body?.byteLength ?? 0);
    const isFirst = this.#entries.length === 0;
    const sent = isFirst ? this.#transport.trySend(head, headLength, body, 0, fds) : 0;
    if (sent === total) {
      onSent?.();
      return;
    }
    // Both may be Buffers, whose `slice` does not copy.
    this.#entries.push({
      head: Uint8Array.prototype.slice.call(head, 0, headLength),
      body: body === null ? null : Uint8Array.prototype.slice.call(body),
      sent,
      fds,
      onSent,
    });
    this.#bytes += total - sent;
  }

  /** Sends what waits, as far as there is room. */
  flush(): void {
    for (let entry = this.#entries[0]; entry !== undefined; entry = this.#entries[0]) {
      const total = entry.head.byteLength + (entry.body?.byteLength ?? 0);
      // The first byte has taken the fds along.
      const fds = entry.sent === 0 ? entry.fds : null;
      const taken = this.#transport.trySend(entry.head, entry.head.byteLength, entry.body, entry.sent, fds);
      entry.sent += taken;
      this.#bytes -= taken;
      if (entry.sent < total) return;
      this.#entries.shift();
      entry.onSent?.();
    }
  }

  clear(): void {
    const entries = this.#entries.splice(0);
    this.#bytes = 0;
    for (const entry of entries) entry.onSent?.();
  }
}
