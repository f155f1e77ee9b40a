/**
 * Finds whole messages in a stream of bytes. Of a message it reads the size and nothing else. A message that lies whole
 * in a chunk is handed over in place; only what is left at a chunk's end is kept, in memory of its own.
 *
 * Fds belong to the last message begun in the chunk that they came with (see the transport's framer): they must go out
 * with that message and no other, since the receiver takes them for those of the message that it is reading.
 *
 * A handler that wants no more for now pauses: what is left of the chunk is kept for `resume`.
 */
import { ProtocolError } from '../errors.js';
import { closeFds } from '../native.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { headerSize } from '../protocol/header.js';

const NOTHING = Buffer.alloc(0);

export interface CutHandler {
  /** A whole message, valid until this returns; for longer where `isKept`. `fds` are the handler's. */
  onMessage(bytes: Buffer, start: number, end: number, fds: readonly number[], isKept: boolean): void;
  /** What cannot be cut any more, from a header on whose size makes no sense. */
  onUncut(bytes: Buffer, start: number, end: number, fds: readonly number[]): void;
}

const NO_FDS: readonly number[] = [];
/** SCM_MAX_FD: a message cannot have been sent with more. */
const MAX_FDS = 253;

export class MessageCutter {
  readonly #handler: CutHandler;
  readonly #maxBytes: number;
  readonly #passesUncut: boolean;
  readonly #source: string;
  #partial: Buffer = NOTHING;
  #have = 0;
  /** 0 until the header is whole. */
  #size = 0;
  #fds: readonly number[] = NO_FDS;
  #isUncut = false;
  #stopped = false;
  #isPaused = false;
  /** What was left of a chunk when the handler paused, and the fds that came with it. */
  #held: Buffer | undefined;
  #heldFds: readonly number[] = NO_FDS;

  /** Sizes over `maxBytes` make no sense: a ProtocolError, or with `passesUncut` the end of cutting. */
  constructor(handler: CutHandler, source: string, maxBytes: number, passesUncut: boolean) {
    this.#handler = handler;
    this.#source = source;
    this.#maxBytes = maxBytes;
    this.#passesUncut = passesUncut;
  }

  /** Bytes of a message that has not ended. */
  get unfinished(): number {
    return this.#have;
  }

  /** What comes next is a header, as far as is known. */
  get isBetweenMessages(): boolean {
    return this.#have === 0 && !this.#isUncut && !this.#stopped && this.#held === undefined;
  }

  /** Hands over no more, also in the middle of `push`. No chunk may be pushed until `resume`. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Goes on, with what was kept. @throws ProtocolError as `push` does. */
  resume(): void {
    this.#isPaused = false;
    const held = this.#held;
    const fds = this.#heldFds;
    this.#held = undefined;
    this.#heldFds = NO_FDS;
    if (held !== undefined) this.push(held, 0, held.length, fds, true);
  }

  /**
   * `isOwn`: the memory of the chunk stays as it is.
   * @throws ProtocolError; the fds of the message begun are `clear`'s to close then.
   */
  push(chunk: Buffer, start: number, end: number, fds: readonly number[], isOwn = false): void {
    let at = start;
    if (this.#have > 0) {
      at = this.#resume(chunk, start, end, fds);
      if (this.#isUncut) {
        this.#passKeptHeader(at === end ? fds : NO_FDS);
      } else {
        if (at === end) this.#claim(fds);
        this.#settle();
      }
      if (at === end) return;
    }
    while (at < end) {
      if (this.#stopped) {
        closeFds(fds);
        return;
      }
      if (this.#isPaused) {
        const rest = chunk.subarray(at, end);
        this.#held = isOwn ? rest : Buffer.from(rest);
        this.#heldFds = fds;
        return;
      }
      const left = end - at;
      if (this.#isUncut) {
        this.#handler.onUncut(chunk, at, end, fds);
        return;
      }
      const size = left >= HEADER_SIZE ? this.#checked(chunk, at, fds) : 0;
      if (size < 0) continue;
      if (size === 0 || size > left) {
        this.#begin(chunk, at, end, size);
        this.#claim(fds);
        return;
      }
      const next = at + size;
      this.#handler.onMessage(chunk, at, next, next === end ? fds : NO_FDS, false);
      at = next;
    }
  }

  /** Forgets what was begun, closes its fds, and cuts no more, also in the middle of `push`. */
  clear(): void {
    this.#stopped = true;
    if (this.#heldFds.length > 0) closeFds(this.#heldFds);
    this.#heldFds = NO_FDS;
    this.#held = undefined;
    this.#forget();
  }

  /** What was begun, as it is: the stream has ended within a message. */
  takeUnfinished(): { bytes: Buffer; fds: readonly number[] } | undefined {
    if (this.#have === 0) return undefined;
    const taken = { bytes: this.#partial.subarray(0, this.#have), fds: this.#fds };
    this.#fds = NO_FDS;
    this.#forget();
    return taken;
  }

  #forget(): void {
    if (this.#fds.length > 0) closeFds(this.#fds);
    this.#fds = NO_FDS;
    this.#partial = NOTHING;
    this.#have = 0;
    this.#size = 0;
  }

  #begin(chunk: Buffer, start: number, end: number, size: number): void {
    this.#size = size;
    this.#have = end - start;
    this.#partial = Buffer.allocUnsafeSlow(size === 0 ? HEADER_SIZE : size);
    chunk.copy(this.#partial, 0, start, end);
  }

  /** Adds bytes to the message begun. Returns where its bytes end. */
  #resume(chunk: Buffer, start: number, end: number, fds: readonly number[]): number {
    let at = start;
    if (this.#size === 0) {
      at = this.#fill(chunk, at, end, HEADER_SIZE);
      if (this.#have < HEADER_SIZE) return at;
      const size = this.#checked(this.#partial, 0, fds);
      if (size < 0) return at;
      const whole = Buffer.allocUnsafeSlow(size);
      this.#partial.copy(whole, 0, 0, HEADER_SIZE);
      this.#partial = whole;
      this.#size = size;
    }
    return this.#fill(chunk, at, end, this.#size);
  }

  /** The header that was kept turns out to be none: it goes out as it is, and so does what follows. */
  #passKeptHeader(more: readonly number[]): void {
    const kept = this.takeUnfinished();
    if (kept !== undefined) this.#handler.onUncut(kept.bytes, 0, kept.bytes.length, [...kept.fds, ...more]);
  }

  #fill(chunk: Buffer, start: number, end: number, upTo: number): number {
    const count = Math.min(end - start, upTo - this.#have);
    chunk.copy(this.#partial, this.#have, start, start + count);
    this.#have += count;
    return start + count;
  }

  #settle(): void {
    if (this.#size === 0 || this.#have < this.#size) return;
    const bytes = this.#partial;
    const fds = this.#fds;
    this.#fds = NO_FDS;
    this.#forget();
    this.#handler.onMessage(bytes, 0, bytes.length, fds, true);
  }

  /** The chunk ended within the message begun, or with it: its fds are that one's. */
  #claim(fds: readonly number[]): void {
    if (fds.length === 0) return;
    this.#fds = this.#fds.length === 0 ? fds : [...this.#fds, ...fds];
    if (this.#fds.length <= MAX_FDS) return;
    throw new ProtocolError(`a message of ${this.#source} brought more than ${MAX_FDS} file descriptors`);
  }

  /** The size that a header says; -1 where it makes no sense and everything from here on is passed as it is. */
  #checked(bytes: Buffer, at: number, fds: readonly number[]): number {
    const size = headerSize(bytes, at);
    if (size >= HEADER_SIZE && size <= this.#maxBytes) return size;
    if (this.#passesUncut) {
      this.#isUncut = true;
      return -1;
    }
    closeFds(fds);
    throw new ProtocolError(
      `a message header of ${this.#source} says ${size} bytes; a message has ${HEADER_SIZE} to ${this.#maxBytes}`,
    );
  }
}
