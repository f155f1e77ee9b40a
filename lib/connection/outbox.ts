/**
 * What leaves through one socket, in the order in which it was given. With room in the socket a message goes out at
 * once and nothing is kept; else what is left of it waits here.
 */
import type { Transport } from '../transport/index.js';

interface Entry {
  /** Who may still take the message back; undefined for replies and posted messages. */
  owner: object | undefined;
  head: Uint8Array;
  body: Uint8Array | null;
  /** The body is the sender's memory, not a copy. */
  lent: boolean;
  sent: number;
  fds: readonly number[] | null;
}

export class Outbox {
  readonly #transport: Transport;
  readonly #entries: Entry[] = [];
  #bytes = 0;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Sends `head[0, headLength) + body`. What does not go out at once is copied, but for a `stable` body, which its
   * owner leaves alone until it has gone. Fds must stay open until the owner is answered or takes the message back.
   */
  send(
    owner: object | undefined,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    const sent = this.isEmpty ? this.#transport.trySend(head, headLength, body, 0, fds) : 0;
    const total = headLength + (body === null ? 0 : body.byteLength);
    if (sent === total) return;
    this.#entries.push({
      owner,
      // Buffer.slice would be a view.
      head: Buffer.from(head.subarray(0, headLength)),
      body: body === null || stable ? body : Buffer.from(body),
      lent: stable && body !== null,
      sent,
      fds,
    });
    this.#bytes += total - sent;
    // An empty outbox has just asked the transport to tell when there is room; a full one has done so before.
  }

  /** Sends what waits, as far as there is room. */
  flush(): void {
    while (this.#entries.length > 0) {
      const entry = this.#entries[0]!;
      const total = entry.head.byteLength + (entry.body === null ? 0 : entry.body.byteLength);
      const took = this.#transport.trySend(
        entry.head,
        entry.head.byteLength,
        entry.body,
        entry.sent,
        entry.fds,
      );
      entry.sent += took;
      this.#bytes -= took;
      if (entry.sent < total) return;
      this.#entries.shift();
    }
  }

  /** Takes back the owner's message if not a byte of it has gone. */
  takeBack(owner: object): boolean {
    const index = this.#entries.findIndex((entry) => entry.owner === owner);
    const entry = this.#entries[index];
    if (entry === undefined || entry.sent > 0) return false;
    this.#entries.splice(index, 1);
    this.#bytes -= entry.head.byteLength + (entry.body === null ? 0 : entry.body.byteLength);
    return true;
  }

  /** Copies what waits of stable bodies: their memory is about to change or to go. */
  copyBodies(): void {
    for (const entry of this.#entries) {
      if (!entry.lent) continue;
      entry.body = Buffer.from(entry.body!);
      entry.lent = false;
    }
  }

  clear(): void {
    this.#entries.length = 0;
    this.#bytes = 0;
  }
}
