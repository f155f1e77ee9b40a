/**
 * Interrupts go through eventfds that the client hands to the server with DEVICE_SET_IRQS: no message shows them. To see
 * them the proxy keeps the client's eventfd, gives the server one of its own, and passes each count on.
 *
 * ```
 *   server ── signals ──▶ ours ── count ──▶ told, then the client's
 * ```
 * What a request sets up counts once the server has agreed to it; what it takes the place of lives until then.
 */
import { readlinkSync } from 'node:fs';
import { MOST_SIGNALLED, native, type NativeEventFd } from '../native.js';
import {
  Command,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_DATA_EVENTFD,
  IRQ_SET_DATA_NONE,
} from '../protocol/constants.js';
import { headerCommand, headerFlags, headerId } from '../protocol/header.js';

export type OnInterrupt = (index: number, subindex: number, count: number) => void;
/** Lets an interrupt through, so often, now or later or never. */
export type ShapeInterrupt = (
  index: number,
  subindex: number,
  count: number,
  pass: (count: number) => void,
) => void;

/** argsz, flags, index, start, count. */
const SET_IRQS_SIZE = 20;
/** Requests whose replies are awaited: ids are 16 bits, no client has so many of these under way. */
const MAX_PENDING = 256;
const EVENTFD = 'anon_inode:[eventfd]';

/** A client's eventfd and ours in its place. */
class Line {
  readonly #ours: NativeEventFd;
  readonly #theirs: NativeEventFd;
  #isClosed = false;
  /** The server's: whoever sends it closes it. */
  readonly serverFd: number;

  /** `clientFd` is the line's from here on. @throws the errno, negative. */
  constructor(clientFd: number, onCount: (count: number, pass: (count: number) => void) => void) {
    const created = native().eventfd(0);
    const copy = created < 0 ? created : native().dupFd(created);
    if (copy < 0) {
      if (created >= 0) native().closeFd(created);
      throw new RangeError(`errno ${-copy}`);
    }
    this.serverFd = created;
    this.#theirs = new (native().EventFd)(clientFd, () => undefined);
    this.#ours = new (native().EventFd)(copy, (count) => onCount(count, (passed) => this.pass(passed)));
    this.#ours.watch(true);
    // The sockets keep the process alive, not these.
    this.#ours.unref();
  }

  /** What was signalled and not passed on yet goes out first. */
  close(): void {
    const count = this.#ours.read();
    if (count > 0) this.pass(count);
    this.#isClosed = true;
    this.#ours.close();
    this.#theirs.close();
  }

  /** Signals the client. */
  pass(count: number): void {
    if (!this.#isClosed) this.#theirs.signal(Math.min(count, MOST_SIGNALLED));
  }
}

interface Change {
  index: number;
  /** By subindex. Empty where the index is switched off. */
  lines: Map<number, Line>;
  /** Subindexes whose eventfds are passed on as they are. */
  unseen: number[];
  isOff: boolean;
}

export class Interrupts {
  readonly #onInterrupt: OnInterrupt;
  readonly #onNotice: (text: string) => void;
  readonly #shape: ShapeInterrupt | undefined;
  readonly #most: number;
  /** Lines that there are, agreed to or not. */
  #count = 0;
  #saidMost = false;
  /** By index and subindex. */
  readonly #lines = new Map<number, Map<number, Line>>();
  /** By the request's id. */
  readonly #pending = new Map<number, Change>();

  /** With `most` lines further interrupts are passed on as they are. */
  constructor(
    most: number,
    onInterrupt: OnInterrupt,
    onNotice: (text: string) => void,
    shape?: ShapeInterrupt,
  ) {
    this.#most = most;
    this.#shape = shape;
    this.#onInterrupt = onInterrupt;
    this.#onNotice = onNotice;
  }

  /** A message to the server. The fds that take the place of the client's are the caller's. */
  request(bytes: Buffer, start: number, end: number, fds: readonly number[]): readonly number[] {
    if (headerCommand(bytes, start) !== Command.DEVICE_SET_IRQS) return fds;
    const messageFlags = headerFlags(bytes, start);
    if ((messageFlags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY) return fds;
    if (end - start < HEADER_SIZE + SET_IRQS_SIZE) return fds;
    const at = start + HEADER_SIZE;
    const flags = bytes.readUInt32LE(at + 4);
    const [index, first, count] = [8, 12, 16].map((offset) => bytes.readUInt32LE(at + offset)) as [
      number,
      number,
      number,
    ];
    if ((flags & IRQ_SET_ACTION_TRIGGER) === 0) return fds;
    const isOff = (flags & IRQ_SET_DATA_NONE) !== 0 && count === 0;
    if (!isOff && ((flags & IRQ_SET_DATA_EVENTFD) === 0 || fds.length === 0)) return fds;
    const change: Change = { index, lines: new Map(), unseen: [], isOff };
    const passed = fds.map((fd, i) => this.#replace(change, first + i, fd));
    if ((messageFlags & HEADER_FLAG_NO_REPLY) !== 0) this.#agree(change);
    else this.#await(headerId(bytes, start), change);
    return passed;
  }

  /** A message to the client. */
  reply(bytes: Buffer, start: number): void {
    if (this.#pending.size === 0 || headerCommand(bytes, start) !== Command.DEVICE_SET_IRQS) return;
    const flags = headerFlags(bytes, start);
    if ((flags & HEADER_FLAG_TYPE_MASK) !== HEADER_FLAG_REPLY) return;
    const id = headerId(bytes, start);
    const change = this.#pending.get(id);
    if (change === undefined) return;
    this.#pending.delete(id);
    if ((flags & HEADER_FLAG_ERROR) === 0) this.#agree(change);
    else this.#drop(change.lines);
  }

  /** Signals the client, once, of what the server did not raise. */
  signal(index: number, subindex: number): void {
    const line = this.#lines.get(index)?.get(subindex);
    if (line === undefined) return;
    this.#onInterrupt(index, subindex, 1);
    line.pass(1);
  }

  close(): void {
    for (const { lines } of this.#pending.values()) this.#drop(lines);
    for (const lines of this.#lines.values()) this.#drop(lines);
    this.#pending.clear();
    this.#lines.clear();
  }

  #replace(change: Change, subindex: number, fd: number): number {
    const passed = isEventFd(fd) ? this.#standIn(change, subindex, fd) : fd;
    if (passed === fd) change.unseen.push(subindex);
    return passed;
  }

  /** What takes another one's place is there beside it until the server has agreed. */
  #hasRoomFor(index: number, subindex: number): boolean {
    const isKnown = this.#lines.get(index)?.has(subindex) === true;
    return this.#count < (isKnown ? 2 * this.#most : this.#most);
  }

  #standIn(change: Change, subindex: number, fd: number): number {
    if (!this.#hasRoomFor(change.index, subindex)) {
      if (!this.#saidMost) this.#onNotice(`more than ${this.#most} interrupts: the others are not seen`);
      this.#saidMost = true;
      return fd;
    }
    try {
      const { index } = change;
      const line = new Line(fd, (count, pass) => {
        const told = (passed: number): void => {
          this.#onInterrupt(index, subindex, passed);
          pass(passed);
        };
        if (this.#shape === undefined) told(count);
        else this.#shape(index, subindex, count, told);
      });
      this.#count++;
      change.lines.set(subindex, line);
      return line.serverFd;
    } catch {
      this.#onNotice(`no eventfd to be had for interrupt ${subindex}: it is not seen`);
      return fd;
    }
  }

  #await(id: number, change: Change): void {
    const before = this.#pending.get(id);
    if (before !== undefined) this.#drop(before.lines);
    // Requests that are never answered do not pile up: the oldest is taken for refused.
    const oldest = this.#pending.size >= MAX_PENDING ? [...this.#pending][0] : undefined;
    if (oldest !== undefined) {
      this.#pending.delete(oldest[0]);
      this.#drop(oldest[1].lines);
    }
    this.#pending.set(id, change);
  }

  #agree({ index, lines, unseen, isOff }: Change): void {
    if (isOff) {
      this.#drop(this.#lines.get(index));
      this.#lines.delete(index);
    }
    for (const subindex of unseen) this.#forget(index, subindex);
    // An index without lines is not kept: a client may name four billion.
    if (lines.size === 0) return;
    const known = this.#lines.get(index) ?? new Map<number, Line>();
    this.#lines.set(index, known);
    for (const [subindex, line] of lines) {
      this.#forget(index, subindex);
      known.set(subindex, line);
    }
  }

  #forget(index: number, subindex: number): void {
    const line = this.#lines.get(index)?.get(subindex);
    if (line === undefined) return;
    this.#lines.get(index)!.delete(subindex);
    this.#close(line);
  }

  #drop(lines: ReadonlyMap<number, Line> | undefined): void {
    for (const line of lines?.values() ?? []) this.#close(line);
  }

  #close(line: Line): void {
    this.#count--;
    line.close();
  }
}

function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === EVENTFD;
  } catch {
    return false;
  }
}

/** What fds are, for a note in a capture: `fd 0: eventfd; fd 1: memory of 4096 bytes`. */
export function describeFds(fds: readonly number[]): string {
  return fds.map((fd, i) => `fd ${i}: ${describeFd(fd)}`).join('; ');
}

const FILE_TYPE = 0o170000;
const REGULAR_FILE = 0o100000;
const SOCKET_FILE = 0o140000;

function describeFd(fd: number): string {
  if (isEventFd(fd)) return 'eventfd';
  const info = native().fdInfo(fd);
  if (typeof info === 'number') return 'unknown';
  if ((info.mode & FILE_TYPE) === REGULAR_FILE) return `memory of ${info.size} bytes`;
  return (info.mode & FILE_TYPE) === SOCKET_FILE ? 'socket' : 'other';
}
