/**
 * One connection of a probe: it sends any bytes, waits for answers until its time is over, and writes down what went
 * over the socket. Nothing that the server does makes it throw, or wait longer than its time.
 */
import { ClosedError, errnoName, ProtocolError, TransportError, type VfioUserError } from '../errors.js';
import { closeFds } from '../native.js';
import {
  commandName,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
} from '../protocol/constants.js';
import { headerCommand, headerErrno, headerFlags, headerId } from '../protocol/header.js';
import { wholeMessage } from '../transport/index.js';
import type { Transport, TransportHandler } from '../transport/index.js';
import { message } from './raw-messages.js';
import type { Evidence } from './report.js';
import { ENOTSUP } from '../system-numbers.js';

/** A message is shown up to here. */
const SHOWN_BYTES = 96;
/** Steps of one conversation that are written down; a flood is cut. */
const MOST_STEPS = 600;
/** The most messages that wait to be taken. A server that sends more is not read any further. */
const MOST_WAITING = 1024;
const MOST_WAITING_BYTES = 16 << 20;
/** Fds that the server sent and that are kept open; more are closed. */
const MOST_FDS = 64;
/** Of the time that is left: what an answer gets, so that the next step has some too. */
const PATIENCE = 0.6;

interface ReplyFields {
  kind: 'reply';
  id: number;
  command: number;
  flags: number;
  errno: number;
  payload: Buffer;
  fds: number;
}

export type GoodReply = ReplyFields & { outcome: 'good' };
export type ErrorReply = ReplyFields & { outcome: 'error' };
export type Reply = GoodReply | ErrorReply;

/** A reply, or what came instead. */
export type Answer = Reply | { kind: 'silence'; waitedMs: number } | { kind: 'ended'; reason: VfioUserError };

/** Called with every reply and the command that it answers. */
export type ReplyWatcher = (reply: Reply, asked: Asked | undefined, evidence: () => Evidence[]) => void;

export interface Asked {
  id: number;
  command: number;
}

interface HeaderOptions {
  /** Header flags. Default 0: a command that wants a reply. */
  flags?: number;
  errno?: number;
}

interface AskOptions extends HeaderOptions {
  fds?: readonly number[];
  /** How long to wait, in milliseconds. Default: the larger part of what is left of the probe's time. */
  waitMs?: number;
}

export class RawConnection implements TransportHandler {
  readonly #transport: Transport;
  readonly #watch: ReplyWatcher;
  readonly #deadline: number;
  readonly #steps: Evidence[] = [];
  /** Of `#steps`, the first that is evidence. */
  #marked = 0;
  readonly #asked = new Map<number, Asked>();
  #waiting: Reply[] = [];
  #waitingBytes = 0;
  #lastId = 0xc0de;
  #ended: VfioUserError | undefined;
  #isClosed = false;
  #wake: (() => void) | undefined;
  readonly #fds: number[] = [];
  /** Requests that the server made meanwhile. */
  serverRequests = 0;
  /** Replies to ids that were not sent: the server is out of sync. */
  unexpectedReplies = 0;

  /** `deadline` is of `performance.now()`. */
  constructor(
    open: (handler: TransportHandler) => Transport,
    deadline: number,
    watch: ReplyWatcher = () => undefined,
  ) {
    this.#deadline = deadline;
    this.#watch = watch;
    this.#transport = open(this);
  }

  /** Whether file descriptors can go with messages. */
  get passesFds(): boolean {
    return this.#transport.passesFds;
  }

  /** Milliseconds that are left of the probe's time. */
  get leftMs(): number {
    return Math.max(0, this.#deadline - performance.now());
  }

  /** Whether nothing more can be tried: the connection or the time has ended. */
  get isOver(): boolean {
    return this.#ended !== undefined || this.leftMs === 0;
  }

  /** Why the connection ended; undefined while it lives. */
  get ended(): VfioUserError | undefined {
    return this.#ended;
  }

  /** What comes from now on is evidence. */
  mark(): void {
    this.#marked = this.#steps.length;
  }

  /** What was sent and received since the last mark: the first two steps and the last ones, `most` in all. */
  evidence(most = 6): Evidence[] {
    const steps = this.#steps.slice(this.#marked);
    return steps.length <= most ? steps : [...steps.slice(0, 2), ...steps.slice(2 - most)];
  }

  /** A command with an id of its own, ready to be sent, whose reply is expected. */
  compose(command: number, payload?: Uint8Array, header: HeaderOptions = {}): { id: number; bytes: Buffer } {
    const id = this.#newId();
    this.expect(id, command);
    return { id, bytes: message({ id, command, ...header }, payload) };
  }

  /** Sends a command and waits for its answer. */
  async ask(command: number, payload?: Uint8Array, options: AskOptions = {}): Promise<Answer> {
    const { waitMs = PATIENCE * this.leftMs, fds, ...header } = options;
    const { id, bytes } = this.compose(command, payload, header);
    if (!(await this.send(bytes, fds))) return this.noAnswer(0);
    return this.answer(id, waitMs);
  }

  /** Says that a reply to this id is due: it is checked to be of this command. */
  expect(id: number, command: number): void {
    this.#asked.set(id, { id, command });
  }

  /**
   * Sends bytes as they are, in one `sendmsg` where the socket has room.
   * @returns false where they did not all go out within the time.
   */
  async send(bytes: Uint8Array, fds: readonly number[] = []): Promise<boolean> {
    this.#note({ direction: 'sent', ...shown(bytes), fds: fds.length });
    let sent = 0;
    while (this.#ended === undefined) {
      sent += this.#transport.trySend(wholeMessage(bytes, fds), sent);
      if (sent >= bytes.byteLength) return true;
      if (!(await this.#pause(this.leftMs))) {
        this.event(`only ${sent} of ${bytes.byteLength} bytes could be sent`);
        return false;
      }
    }
    return false;
  }

  /** What can be sent now and no more: bytes taken. */
  sendNow(bytes: Uint8Array): number {
    if (this.#ended !== undefined) return 0;
    return this.#transport.trySend(wholeMessage(bytes), 0);
  }

  setReading(on: boolean): void {
    this.#transport.setReading(on);
  }

  /** The answer to `id`, or the next reply of all where there is no id. */
  async answer(id?: number, waitMs = Infinity): Promise<Answer> {
    const begun = performance.now();
    const until = Math.min(this.#deadline, begun + waitMs);
    for (;;) {
      const at = this.#waiting.findIndex((reply) => id === undefined || reply.id === id);
      if (at !== -1) {
        const [reply] = this.#waiting.splice(at, 1);
        this.#waitingBytes -= reply!.payload.byteLength;
        return reply!;
      }
      const left = until - performance.now();
      if (this.#ended !== undefined || left <= 0) return this.noAnswer(performance.now() - begun);
      await this.#pause(left);
    }
  }

  /** An answer that is none, written down. */
  noAnswer(waitedMs: number): Answer {
    if (this.#ended !== undefined) return { kind: 'ended', reason: this.#ended };
    this.event(`no answer within ${Math.round(waitedMs)} ms`);
    return { kind: 'silence', waitedMs };
  }

  event(note: string): void {
    this.#note({ direction: 'event', hex: '', size: 0, fds: 0, note });
  }

  /** Waits, or until the connection ends. */
  async sleep(ms: number): Promise<void> {
    const until = Math.min(this.#deadline, performance.now() + ms);
    for (let left = ms; left > 0 && this.#ended === undefined; left = until - performance.now()) {
      await this.#pause(left);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#ended ??= new ClosedError();
    this.#transport.close();
    closeFds(this.#fds.splice(0));
    this.#wake?.();
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] = []): void {
    // Nothing here needs the memory behind an fd, but a twin socket that is closed ends the session.
    this.#fds.push(...fds);
    closeFds(this.#fds.splice(0, this.#fds.length - MOST_FDS));
    const whole = bytes.subarray(start, end);
    this.#note({ direction: 'received', ...shown(whole), fds: fds.length });
    const reply: Reply = {
      kind: 'reply',
      outcome: (headerFlags(whole, 0) & HEADER_FLAG_ERROR) === 0 ? 'good' : 'error',
      id: headerId(whole, 0),
      command: headerCommand(whole, 0),
      flags: headerFlags(whole, 0),
      errno: headerErrno(whole, 0),
      payload: Buffer.from(whole.subarray(HEADER_SIZE)),
      fds: fds.length,
    };
    if ((reply.flags & HEADER_FLAG_TYPE_MASK) === 0) {
      this.#refuse(reply);
      return;
    }
    if (!this.#asked.has(reply.id)) this.unexpectedReplies++;
    this.#waiting.push(reply);
    this.#waitingBytes += reply.payload.byteLength;
    const at = this.#steps.length;
    this.#watch(reply, this.#asked.get(reply.id), () => this.#around(at));
    if (this.#waiting.length > MOST_WAITING || this.#waitingBytes > MOST_WAITING_BYTES) {
      throw new ProtocolError('the server keeps sending replies to commands that were not sent');
    }
    this.#wake?.();
  }

  findLanding(): undefined {
    return undefined;
  }

  /** No landing was lent. */
  onLanded(): void {}

  onWritable(): void {
    this.#wake?.();
  }

  onEnd(reason: VfioUserError): void {
    this.#ended = reason;
    this.event(shortReason(reason));
    this.#wake?.();
  }

  /** The message at `at` and the one before it. */
  #around(at: number): Evidence[] {
    return this.#steps.slice(Math.max(0, at - 2), at);
  }

  /** A request of the server's is refused: an error reply, a bare header. */
  #refuse({ id, command }: Reply): void {
    this.serverRequests++;
    const flags = HEADER_FLAG_REPLY | HEADER_FLAG_ERROR;
    // Probes have no memory for what the server asks.
    const refusal = message({ id, command, flags, errno: ENOTSUP });
    this.#note({ direction: 'sent', ...shown(refusal), fds: 0 });
    this.#transport.trySend(wholeMessage(refusal), 0);
  }

  #newId(): number {
    this.#lastId = this.#lastId === 0xffff ? 0x8000 : this.#lastId + 1;
    return this.#lastId;
  }

  #note(step: Evidence): void {
    if (this.#steps.length < MOST_STEPS) this.#steps.push(step);
  }

  /** Until something happens; false where nothing did. */
  async #pause(ms: number): Promise<boolean> {
    if (ms <= 0) return false;
    return new Promise((resolve) => {
      const done = (happened: boolean): void => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve(happened);
      };
      const timer = setTimeout(() => done(false), Math.ceil(ms));
      this.#wake = () => done(true);
    });
  }
}

function shown(bytes: Uint8Array): { hex: string; size: number } {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, SHOWN_BYTES)).toString(
    'hex',
  );
  return { hex, size: bytes.byteLength };
}

export function isError(answer: Answer): answer is ErrorReply {
  return answer.kind === 'reply' && answer.outcome === 'error';
}

export function isGood(answer: Answer): answer is GoodReply {
  return answer.kind === 'reply' && answer.outcome === 'good';
}

/** In words: `EINVAL`, `a reply with 16 bytes`, `no answer`, `the server closed the connection`. */
export function describeAnswer(answer: Answer): string {
  if (answer.kind === 'silence') return `no answer within ${Math.round(answer.waitedMs)} ms`;
  if (answer.kind === 'ended') return `the connection ended: ${shortReason(answer.reason)}`;
  if (isError(answer)) return answer.errno === 0 ? 'an error without errno' : errnoName(answer.errno);
  return `${commandName(answer.command)} was answered with ${answer.payload.byteLength} bytes`;
}

/** Without the socket's name, which means nothing to others. */
export function shortReason(reason: VfioUserError): string {
  return reason instanceof TransportError ? `${reason.syscall}: ${reason.code}` : reason.message;
}

/** The errno's name, or what came instead, in few words. */
export function shortAnswer(answer: Answer): string {
  if (answer.kind === 'silence') return 'no answer';
  if (answer.kind === 'ended') return 'connection lost';
  if (isError(answer)) return answer.errno === 0 ? 'error without errno' : errnoName(answer.errno);
  return 'answered';
}
