/**
 * What leaves through one socket, in the order in which it was given. With room in the socket a message goes out at
 * once and nothing is kept; else what is left of it waits here.
 *
 * Small messages that nobody can be waiting for yet are gathered until the code that is running has returned to the
 * loop, and leave with one system call.
 */
import { borrowSlab, returnSlab, type Transport } from '../transport/index.js';

/** Up to so much leaves as one buffer of the kernel's, so that no message in it is split. */
const GATHERED_MAX = 32_000;

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

/** What keeping a message takes besides its bytes: many small ones are not little. */
const ENTRY_BYTES = 256;
/** Once this much of the array's front is used up it is cut off: taking one at a time off a long array is slow. */
const CUT_AT = 256;

export class Outbox {
  readonly #transport: Transport;
  /** Undefined while nothing waits, as it is mostly. */
  #entries: Entry[] | undefined;
  /** Entries before this one have gone. */
  #first = 0;
  /** What has been gathered: `#gathered[0, #gatheredLength)`, which goes out after all entries. */
  #gathered: Buffer | undefined;
  #gatheredLength = 0;
  #bytes = 0;
  #closed = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Nothing is kept, and nothing gathered. */
  get isQuiet(): boolean {
    return this.isEmpty && this.#gathered === undefined;
  }

  get isEmpty(): boolean {
    return this.#entries === undefined;
  }

  /** Memory that what waits takes. */
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
    this.sendGathered();
    const sent = this.isEmpty ? this.#transport.trySend(head, headLength, body, 0, fds) : 0;
    this.keepRest(owner, head, headLength, body, sent, fds, stable);
  }

  /** Keeps what is left of a message whose first `sent` bytes have gone. */
  keepRest(
    owner: object | undefined,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    sent: number,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    const total = headLength + (body === null ? 0 : body.length);
    // Sending may have ended the connection.
    if (sent === total || this.#closed) return;
    (this.#entries ??= []).push({
      owner,
      // Buffer.slice would be a view.
      head: Buffer.from(head.subarray(0, headLength)),
      body: body === null || stable ? body : Buffer.from(body),
      lent: stable && body !== null,
      sent,
      fds,
    });
    this.#bytes += total - sent + ENTRY_BYTES;
    // An empty outbox has just asked the transport to tell when there is room; a full one has done so before.
  }

  /**
   * Sends `head`, a message without fds, before the loop turns, and before whatever is sent after it. It cannot be
   * taken back.
   */
  sendSoon(owner: object, head: Uint8Array): void {
    if (!this.#transport.takesMany) {
      this.send(owner, head, head.length, null, null, false);
      return;
    }
    if (this.#gatheredLength + head.length > GATHERED_MAX) this.sendGathered();
    if (this.#gathered === undefined) {
      this.#gathered = borrowSlab();
      // After all that is ready to run: callers who were answered together ask again together.
      process.nextTick(this.#onTick);
    }
    this.#gathered.set(head, this.#gatheredLength);
    this.#gatheredLength += head.length;
  }

  /** Sends what was gathered, or lets it wait with the rest. */
  sendGathered(): void {
    const gathered = this.#gathered;
    if (gathered === undefined) return;
    const length = this.#gatheredLength;
    this.#gathered = undefined;
    this.#gatheredLength = 0;
    this.send(undefined, gathered, length, null, null, false);
    returnSlab(gathered);
  }

  readonly #onTick = (): void => this.sendGathered();

  /** Sends what waits, as far as there is room, but no more than `most` messages. False where there may be room still. */
  flush(most: number): boolean {
    for (let left = most; this.#entries !== undefined; left--) {
      if (left === 0) return false;
      const entry = this.#entries[this.#first]!;
      const total = entry.head.length + (entry.body === null ? 0 : entry.body.length);
      const took = this.#transport.trySend(entry.head, entry.head.length, entry.body, entry.sent, entry.fds);
      entry.sent += took;
      this.#bytes -= took;
      if (entry.sent < total) return true;
      this.#bytes -= ENTRY_BYTES;
      this.#shift();
    }
    return true;
  }

  /** Takes back the owner's message if not a byte of it has gone. */
  takeBack(owner: object): boolean {
    const entries = this.#entries ?? [];
    const index = entries.findIndex((entry, i) => i >= this.#first && entry.owner === owner);
    const entry = entries[index];
    if (entry === undefined || entry.sent > 0) return false;
    entries.splice(index, 1);
    if (entries.length === this.#first) this.#forget();
    this.#bytes -= entry.head.length + (entry.body === null ? 0 : entry.body.length) + ENTRY_BYTES;
    return true;
  }

  /** Copies what waits of stable bodies: their memory is about to change or to go. */
  copyBodies(): void {
    // Asked before each DMA write, nearly always with nothing waiting.
    if (this.#entries === undefined) return;
    for (let i = this.#first; i < this.#entries.length; i++) {
      const entry = this.#entries[i]!;
      if (!entry.lent) continue;
      entry.body = Buffer.from(entry.body!);
      entry.lent = false;
    }
  }

  /** What was gathered still goes, like everything that was sent before: the rest is dropped. */
  close(): void {
    this.sendGathered();
    this.#closed = true;
    this.#forget();
    this.#bytes = 0;
  }

  /** The first has gone. */
  #shift(): void {
    // A stream may bring the end of the connection while it takes a message.
    if (this.#entries === undefined) return;
    this.#first++;
    if (this.#first === this.#entries.length) this.#forget();
    else if (this.#first === CUT_AT) {
      this.#entries.splice(0, CUT_AT);
      this.#first = 0;
    }
  }

  #forget(): void {
    this.#entries = undefined;
    this.#first = 0;
  }
}
