/**
 * What leaves through one socket, in the order in which it was given. With room in the socket a message goes out at
 * once and nothing is kept; else what is left of it waits here.
 *
 * Small messages that nobody can be waiting for yet are gathered until the code that is running has returned to the
 * loop, and leave with one system call.
 */
import { HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK } from '../protocol/constants.js';
import { headerFlags } from '../protocol/header.js';
import { borrowSlab, returnSlab, type Transport } from '../transport/index.js';
import { LinkedList, type Linked } from './linked-list.js';

/** Up to so much leaves as one buffer of the kernel's, so that no message in it is split. */
const GATHERED_MAX = 32_000;

/** A message that waits. */
export interface OutboxEntry extends Linked<OutboxEntry> {
  /** Who may still take the message back; undefined for replies and posted messages. */
  readonly owner: OutboxOwner | undefined;
  readonly head: Buffer;
  body: Uint8Array | null;
  /** The body is the sender's memory, not a copy. */
  lent: boolean;
  /** It answers a request of the server. */
  readonly isAnswer: boolean;
  sent: number;
  readonly fds: readonly number[] | null;
}

/** Whose message it is. */
export interface OutboxOwner {
  /** The message, while some of it waits. The outbox sets it. */
  entry: OutboxEntry | undefined;
}

/** What takes the messages: a transport, or whoever tells of what goes to it. */
export type MessageSender = Pick<Transport, 'takesMany' | 'trySend'>;

/** What keeping a message takes besides its bytes: many small ones are not little. */
const ENTRY_BYTES = 256;

export class Outbox {
  readonly #sender: MessageSender;
  readonly #onSent: (owner: OutboxOwner) => void;
  readonly #entries = new LinkedList<OutboxEntry>();
  /** What has been gathered: `#gathered[0, #gatheredLength)`, which goes out after all entries. */
  #gathered: Buffer | undefined;
  #gatheredLength = 0;
  #answerBytes = 0;
  #closed = false;

  /** `onSent` hears when all of an owner's message has gone that had to wait. */
  constructor(sender: MessageSender, onSent: (owner: OutboxOwner) => void = () => undefined) {
    this.#sender = sender;
    this.#onSent = onSent;
  }

  /** Nothing is kept, and nothing gathered. */
  get isQuiet(): boolean {
    return this.isEmpty && this.#gathered === undefined;
  }

  get isEmpty(): boolean {
    return this.#entries.first === undefined;
  }

  /** Memory that the waiting answers to the server's requests take. */
  get answerBytes(): number {
    return this.#answerBytes;
  }

  /**
   * Sends `head[0, headLength) + body`. What does not go out at once is copied, but for a `stable` body, which its
   * owner leaves alone until it has gone. Fds must stay open until the owner is answered or takes the message back.
   */
  send(
    owner: OutboxOwner | undefined,
    head: Buffer,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    this.sendGathered();
    const sent = this.isEmpty ? this.#sender.trySend(head, headLength, body, 0, fds) : 0;
    this.keepRest(owner, head, headLength, body, sent, fds, stable);
  }

  /** Keeps what is left of a message whose first `sent` bytes have gone. */
  keepRest(
    owner: OutboxOwner | undefined,
    head: Buffer,
    headLength: number,
    body: Uint8Array | null,
    sent: number,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    const total = headLength + (body === null ? 0 : body.length);
    // Sending may have ended the connection.
    if (sent === total || this.#closed) return;
    const entry: OutboxEntry = {
      owner,
      // Buffer.slice would be a view.
      head: Buffer.from(head.subarray(0, headLength)),
      body: body === null || stable ? body : Buffer.from(body),
      lent: stable && body !== null,
      isAnswer: (headerFlags(head, 0) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY,
      sent,
      fds,
      previous: undefined,
      next: undefined,
    };
    this.#entries.push(entry);
    if (owner !== undefined) owner.entry = entry;
    this.#count(entry, total - sent + ENTRY_BYTES);
    // An empty outbox has just asked the transport to tell when there is room; a full one has done so before.
  }

  /**
   * Sends `head`, a message without fds, before the loop turns, and before whatever is sent after it. It cannot be
   * taken back.
   */
  sendSoon(owner: OutboxOwner, head: Buffer): void {
    // What would have to wait can be taken back as long as it is by itself.
    if (!this.#sender.takesMany || !this.isEmpty) {
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
    let left = most;
    for (let entry = this.#entries.first; entry !== undefined; entry = this.#entries.first) {
      if (left-- === 0) return false;
      const { owner, head, body } = entry;
      const took = this.#sender.trySend(head, head.length, body, entry.sent, entry.fds);
      // A stream may bring the end of the connection while it takes a message.
      if (this.#closed) return true;
      entry.sent += took;
      this.#count(entry, -took);
      if (entry.sent < head.length + (body === null ? 0 : body.length)) return true;
      this.#count(entry, -ENTRY_BYTES);
      this.#entries.remove(entry);
      // A peer may answer before it has all of the message: then the owner has gone.
      if (owner?.entry !== entry) continue;
      owner.entry = undefined;
      this.#onSent(owner);
    }
    return true;
  }

  /** Takes the owner's message back if not a byte of it has gone. */
  takeBack(owner: OutboxOwner): boolean {
    const { entry } = owner;
    if (entry === undefined || entry.sent > 0) return false;
    owner.entry = undefined;
    this.#entries.remove(entry);
    this.#count(entry, -entry.head.length - (entry.body === null ? 0 : entry.body.length) - ENTRY_BYTES);
    return true;
  }

  /** Copies what waits of stable bodies: their memory is about to change or to go. */
  copyBodies(): void {
    for (let entry = this.#entries.first; entry !== undefined; entry = entry.next) {
      if (!entry.lent) continue;
      entry.body = Buffer.from(entry.body!);
      entry.lent = false;
    }
  }

  /** What was gathered still goes, like everything that was sent before: the rest is dropped. */
  close(): void {
    this.sendGathered();
    this.#closed = true;
    this.#entries.clear();
    this.#answerBytes = 0;
  }

  #count({ isAnswer }: OutboxEntry, bytes: number): void {
    if (isAnswer) this.#answerBytes += bytes;
  }
}
