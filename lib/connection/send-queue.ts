/**
 * What leaves through one socket, in the order in which it was given. With room in the socket a message goes out at
 * once and nothing is kept; else what is left of it waits here.
 *
 * Small messages that nobody can be waiting for yet are gathered until the code that is running has returned to the
 * loop, and leave with one system call.
 */
import { HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK } from '../protocol/constants.js';
import { headerFlags } from '../protocol/header.js';
import { borrowSlab, returnSlab, sizeOf, type OutgoingMessage, type Transport } from '../transport/index.js';
import { LinkedList, type Linked } from './linked-list.js';

/** Up to so much leaves as one buffer of the kernel's, so that no message in it is split. */
const GATHERED_MAX = 32_000;

/** A message whose header is written. */
export interface EncodedMessage extends OutgoingMessage {
  readonly head: Buffer;
}

/** A message that waits. */
export interface SendQueueEntry extends Linked<SendQueueEntry> {
  /** Who may still take the message back; undefined for replies and posted messages. */
  readonly owner: SendQueueOwner | undefined;
  message: EncodedMessage;
  /** Its body is the sender's memory, not a copy. */
  isLent: boolean;
  /** It is a reply to a request of the server. */
  readonly isReply: boolean;
  /** How many of its bytes have gone. */
  sent: number;
}

/** Whose message it is. */
export interface SendQueueOwner {
  /** The message, while some of it waits. The send queue sets it. */
  entry: SendQueueEntry | undefined;
}

/** What takes the messages: a transport, or who stands before it. */
export type MessageSender = Pick<Transport, 'takesMany' | 'trySend'>;

/** What keeping a message takes besides its bytes: many small ones are not little. */
const ENTRY_BYTES = 256;

export class SendQueue {
  readonly #sender: MessageSender;
  readonly #onSent: (owner: SendQueueOwner) => void;
  readonly #entries = new LinkedList<SendQueueEntry>();
  /** What has been gathered: `#gathered[0, #gatheredLength)`, which goes out after all entries. */
  #gathered: Buffer | undefined;
  #gatheredLength = 0;
  #replyBytes = 0;
  #isClosed = false;

  /** `onSent` hears when all of an owner's message has gone that had to wait. */
  constructor(sender: MessageSender, onSent: (owner: SendQueueOwner) => void = () => undefined) {
    this.#sender = sender;
    this.#onSent = onSent;
  }

  /** Nothing waits, and nothing is gathered. */
  get isIdle(): boolean {
    return this.isEmpty && this.#gathered === undefined;
  }

  get isEmpty(): boolean {
    return this.#entries.first === undefined;
  }

  /** Memory that the waiting replies to the server's requests take, in bytes. */
  get replyBytes(): number {
    return this.#replyBytes;
  }

  /**
   * Sends a message. What does not go out at once is copied, but for a `stable` body, which its owner leaves alone until it
   * has gone. Fds must stay open until the owner is answered or takes the message back.
   */
  send(owner: SendQueueOwner | undefined, message: EncodedMessage, stable: boolean): void {
    this.sendGathered();
    const sent = this.isEmpty ? this.#sender.trySend(message, 0) : 0;
    this.keepRest(owner, message, sent, stable);
  }

  /** Keeps what is left of a message whose first `sent` bytes have gone. */
  keepRest(owner: SendQueueOwner | undefined, message: EncodedMessage, sent: number, stable: boolean): void {
    const total = sizeOf(message);
    // Sending may have ended the connection.
    if (sent === total || this.#isClosed) return;
    const { head, headLength, body, fds } = message;
    const entry: SendQueueEntry = {
      owner,
      message: {
        // Buffer.slice would be a view.
        head: Buffer.from(head.subarray(0, headLength)),
        headLength,
        body: body === null || stable ? body : Buffer.from(body),
        fds,
      },
      isLent: stable && body !== null,
      isReply: (headerFlags(head, 0) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY,
      sent,
      previous: undefined,
      next: undefined,
    };
    this.#entries.push(entry);
    if (owner !== undefined) owner.entry = entry;
    this.#count(entry, total - sent + ENTRY_BYTES);
    // An empty queue has just asked the transport to tell when there is room; one that is not has done so before.
  }

  /**
   * Sends a message without body and fds before the loop turns, and before whatever is sent after it. It cannot be taken
   * back.
   */
  sendSoon(owner: SendQueueOwner, message: EncodedMessage): void {
    // What would have to wait can be taken back as long as it is by itself.
    if (!this.#sender.takesMany || !this.isEmpty) {
      this.send(owner, message, false);
      return;
    }
    const { head, headLength } = message;
    if (this.#gatheredLength + headLength > GATHERED_MAX) this.sendGathered();
    if (this.#gathered === undefined) {
      this.#gathered = borrowSlab();
      // After all that is ready to run: callers who were answered together ask again together.
      process.nextTick(this.#onTick);
    }
    head.copy(this.#gathered, this.#gatheredLength, 0, headLength);
    this.#gatheredLength += headLength;
  }

  /** Sends what was gathered, or lets it wait with the rest. */
  sendGathered(): void {
    const head = this.#gathered;
    if (head === undefined) return;
    const headLength = this.#gatheredLength;
    this.#gathered = undefined;
    this.#gatheredLength = 0;
    this.send(undefined, { head, headLength, body: null, fds: null }, false);
    returnSlab(head);
  }

  readonly #onTick = (): void => this.sendGathered();

  /** Sends what waits, as far as there is room, but no more than `most` messages. False where there may be room still. */
  flush(most: number): boolean {
    let left = most;
    for (let entry = this.#entries.first; entry !== undefined; entry = this.#entries.first) {
      if (left-- === 0) return false;
      const { owner, message } = entry;
      const took = this.#sender.trySend(message, entry.sent);
      // A stream may bring the end of the connection while it takes a message.
      if (this.#isClosed) return true;
      entry.sent += took;
      this.#count(entry, -took);
      if (entry.sent < sizeOf(message)) return true;
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
  takeBack(owner: SendQueueOwner): boolean {
    const { entry } = owner;
    if (entry === undefined || entry.sent > 0) return false;
    owner.entry = undefined;
    this.#entries.remove(entry);
    this.#count(entry, -sizeOf(entry.message) - ENTRY_BYTES);
    return true;
  }

  /** Copies what waits of stable bodies: their memory is about to change or to go. */
  copyBodies(): void {
    for (let entry = this.#entries.first; entry !== undefined; entry = entry.next) {
      const { body } = entry.message;
      if (!entry.isLent || body === null) continue;
      entry.message = { ...entry.message, body: Buffer.from(body) };
      entry.isLent = false;
    }
  }

  /** What was gathered still goes, like everything that was sent before: the rest is dropped. */
  close(): void {
    this.sendGathered();
    this.#isClosed = true;
    this.#entries.clear();
    this.#replyBytes = 0;
  }

  #count({ isReply }: SendQueueEntry, bytes: number): void {
    if (isReply) this.#replyBytes += bytes;
  }
}
