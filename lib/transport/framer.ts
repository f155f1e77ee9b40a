/**
 * Cuts a stream of bytes into messages.
 *
 * ```
 *            header whole,                 all of it here
 *   empty ── rest missing ──▶ assembling ───────────────────▶ empty     onMessage from own memory
 *     │                           │ prefix here and the handler lends memory
 *     │ whole in the chunk        ▼
 *     └──▶ empty   onMessage   landing ──── all of it here ──▶ empty     onLanded
 * ```
 * A message that lies whole in a chunk is handed over in place, without a copy. Only what is left of a message at the
 * end of a chunk is kept, in memory of its own, so that chunks can be given back at once.
 *
 * A handler that wants no more for now pauses: what is left of the chunk, up to all of its messages, is kept for `resume`.
 *
 * Fds belong to the last message begun in the chunk that they came with: one `recvmsg` may glue earlier bytes in front
 * of those that carry fds, and then stops (unix_stream_read_generic), so nothing later can be in the chunk.
 */
import { ProtocolError, TransportError } from '../errors.js';
import { closeFds, ENOMEM } from '../native.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { headerSize } from '../protocol/header.js';
import {
  LANDING_PREFIX,
  MAX_MESSAGE_FDS,
  MAX_MESSAGE_SIZE,
  type Landing,
  type TransportHandler,
} from './transport.js';

const NOTHING = Buffer.alloc(0);

export class Framer {
  readonly #handler: TransportHandler;
  #stopped = false;
  /** What has come of a message whose rest is missing: its prefix, or all of it where it is assembled here. */
  #partial: Buffer = NOTHING;
  /** Bytes of that message that have come, those in the landing included. */
  #have = 0;
  /** Its size; 0 until its header is whole. */
  #size = 0;
  #landing: Landing | undefined;
  /** Fds of that message. */
  #fds: number[] | undefined;
  /** Fds that came with the chunk being sorted and have found no message yet. */
  #chunkFds: number[] | undefined;
  #begun = 0;
  #paused = false;
  /** What was left of a chunk when the handler paused, and the fds that came with it. */
  #held: Buffer | undefined;
  #heldFds: number[] | undefined;

  constructor(handler: TransportHandler) {
    this.#handler = handler;
  }

  /** Whether a message has begun and not ended. */
  get inMessage(): boolean {
    return this.#have > 0;
  }

  /** Which of the messages that came in parts has begun and not ended: counted from 1, 0 where none has. */
  get begun(): number {
    return this.#have > 0 ? this.#begun : 0;
  }

  /**
   * Memory that the next bytes are best received into, so that long messages are not copied; undefined for a slab.
   * They go to `directOffset`, at most `missing` of them, and `advance` follows.
   */
  direct(): Uint8Array | undefined {
    if (this.#landing !== undefined) return this.#landingTarget(this.#landing);
    return this.#have >= LANDING_PREFIX ? this.#partial : undefined;
  }

  get directOffset(): number {
    return this.#landing === undefined ? this.#have : this.#have - LANDING_PREFIX;
  }

  get missing(): number {
    return this.#size - this.#have;
  }

  /** `count` bytes were received into `direct()`. */
  advance(count: number, fds: number[] | undefined): void {
    this.#have += count;
    this.#chunkFds = fds;
    this.#keepFds();
    this.#settle();
  }

  /** Sorts `chunk[start, end)`; `fds` came with its last bytes. The memory is lent, unless it is `isOwn`. */
  push(chunk: Buffer, start: number, end: number, fds: number[] | undefined, isOwn = false): void {
    this.#chunkFds = fds;
    let at = start;
    if (this.#have > 0) {
      at = this.#resume(chunk, at, end);
      if (at === end) this.#keepFds();
      this.#settle();
    }
    while (at < end && !this.#stopped) {
      if (this.#paused) {
        const rest = chunk.subarray(at, end);
        // What was kept is ours already.
        this.#held = isOwn ? rest : Buffer.from(rest);
        this.#heldFds = this.#takeChunkFds();
        return;
      }
      const left = end - at;
      const size = left >= HEADER_SIZE ? checkedSize(chunk, at) : 0;
      if (size === 0 || size > left) {
        this.#begin(chunk, at, end, size);
        this.#keepFds();
        this.#handler.onBegun?.(++this.#begun);
        return;
      }
      const next = at + size;
      const own = next === end ? this.#takeChunkFds() : undefined;
      this.#handler.onMessage(chunk, at, next, own);
      at = next;
    }
  }

  /** Hands no more messages over, also in the middle of `push`. No chunk may be pushed until `resume`. */
  pause(): void {
    this.#paused = true;
  }

  /** Whether it was told to stop for a while: nothing may be pushed then. */
  get isPaused(): boolean {
    return this.#paused;
  }

  /** Goes on, with what was kept. */
  resume(): void {
    this.#paused = false;
    const held = this.#held;
    const fds = this.#heldFds;
    this.#held = undefined;
    this.#heldFds = undefined;
    if (held !== undefined) this.push(held, 0, held.length, fds, true);
  }

  /** Ends sorting, also in the middle of `push`; closes the fds that no message took. */
  stop(): void {
    this.#stopped = true;
    if (this.#heldFds !== undefined) closeFds(this.#heldFds);
    this.#heldFds = undefined;
    this.#held = undefined;
    if (this.#fds !== undefined) closeFds(this.#fds);
    if (this.#chunkFds !== undefined) closeFds(this.#chunkFds);
    this.#chunkFds = undefined;
    this.#clear();
  }

  #clear(): void {
    this.#partial = NOTHING;
    this.#landing = undefined;
    this.#fds = undefined;
    this.#have = 0;
    this.#size = 0;
  }

  /** Keeps the beginning of a message, `chunk[start, end)`; `size` is 0 where its header is not whole. */
  #begin(chunk: Buffer, start: number, end: number, size: number): void {
    this.#size = size;
    this.#have = end - start;
    if (this.#have >= LANDING_PREFIX) {
      this.#makeRoom(chunk, start, this.#have);
    } else {
      this.#partial = Buffer.allocUnsafeSlow(LANDING_PREFIX);
      chunk.copy(this.#partial, 0, start, end);
    }
  }

  /** Adds bytes to the message that was begun in an earlier chunk. Returns where its bytes end. */
  #resume(chunk: Buffer, start: number, end: number): number {
    let at = start;
    if (this.#size === 0) {
      at = this.#fill(chunk, at, end, HEADER_SIZE);
      if (this.#have < HEADER_SIZE) return at;
      this.#size = checkedSize(this.#partial, 0);
    }
    if (this.#have < LANDING_PREFIX) {
      at = this.#fill(chunk, at, end, Math.min(LANDING_PREFIX, this.#size));
      if (this.#have < LANDING_PREFIX || this.#size === LANDING_PREFIX) return at;
      this.#makeRoom(this.#partial, 0, LANDING_PREFIX);
    }
    return this.#landing === undefined ? this.#fill(chunk, at, end, this.#size) : this.#land(chunk, at, end);
  }

  /** The prefix is whole and more is missing: borrows a landing, or makes room for all of the message here. */
  #makeRoom(bytes: Buffer, start: number, have: number): void {
    const landing = this.#handler.findLanding(bytes, start);
    const lent = landing?.target?.length === this.#size - LANDING_PREFIX;
    this.#landing = lent ? landing : undefined;
    const partial = allocate(lent ? LANDING_PREFIX : this.#size);
    bytes.copy(partial, 0, start, start + (lent ? LANDING_PREFIX : have));
    this.#partial = partial;
    if (lent) landing.target!.set(bytes.subarray(start + LANDING_PREFIX, start + have));
  }

  #fill(chunk: Buffer, start: number, end: number, upTo: number): number {
    const count = Math.min(end - start, upTo - this.#have);
    chunk.copy(this.#partial, this.#have, start, start + count);
    this.#have += count;
    return start + count;
  }

  #land(chunk: Buffer, start: number, end: number): number {
    const count = Math.min(end - start, this.missing);
    // A landing that was taken back (its caller gave up) swallows the bytes.
    const target = this.#landingTarget(this.#landing!);
    target?.set(chunk.subarray(start, start + count), this.#have - LANDING_PREFIX);
    this.#have += count;
    return start + count;
  }

  /** The memory that was lent, unless it was taken back, or its ArrayBuffer detached or resized, meanwhile. */
  #landingTarget(landing: Landing): Uint8Array | undefined {
    if (landing.target?.length !== this.#size - LANDING_PREFIX) landing.target = undefined;
    return landing.target;
  }

  /** Hands the message over when all of it is here. */
  #settle(): void {
    if (this.#size === 0 || this.#have < this.#size) return;
    const bytes = this.#partial;
    const landing = this.#landing;
    const fds = this.#fds;
    const size = this.#size;
    this.#clear();
    if (landing === undefined) this.#handler.onMessage(bytes, 0, size, fds);
    else this.#handler.onLanded(bytes, 0, landing, fds);
  }

  #takeChunkFds(): number[] | undefined {
    const fds = this.#chunkFds;
    this.#chunkFds = undefined;
    return fds;
  }

  /** The chunk ended within the message that is being kept: its fds belong to that one. */
  #keepFds(): void {
    const fds = this.#takeChunkFds();
    if (fds === undefined) return;
    this.#fds = this.#fds === undefined ? fds : this.#fds.concat(fds);
    if (this.#fds.length > MAX_MESSAGE_FDS) {
      throw new ProtocolError(`a message brought more than ${MAX_MESSAGE_FDS} file descriptors`);
    }
  }
}

/** @throws TransportError: the message cannot be skipped, so the connection has to end with it. */
function allocate(size: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(size);
  } catch (cause) {
    throw new TransportError('malloc', ENOMEM, `for a message of ${size} bytes`, { cause });
  }
}

function checkedSize(bytes: Buffer, at: number): number {
  const size = headerSize(bytes, at);
  if (size < HEADER_SIZE || size > MAX_MESSAGE_SIZE) {
    throw new ProtocolError(
      `a message header says ${size} bytes; a message has ${HEADER_SIZE} to ${MAX_MESSAGE_SIZE}`,
    );
  }
  return size;
}
