/**
 * One client's connection to a recording.
 *
 * ```
 *   requests ──▶ queue ──▶ cursor ──▶ the exchange's steps, one after the other: reply, DMA, interrupts
 *                            │
 *                            └─ not as recorded: refused, and by option all that follow, or the connection closes
 *   replies  ──▶ whoever waits for the answer to a recorded request of the server
 * ```
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { OutputQueue } from '../emulator/output-queue.js';
import { takeHeader, writeErrorReply } from '../emulator/headers.js';
import { TwinSocket } from '../emulator/twin-socket.js';
import { ClosedError, ProtocolError, VfioUserError } from '../errors.js';
import { Fifo } from '../fifo.js';
import { closeFds } from '../native.js';
import {
  Command,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import { headerCommand, headerErrno, headerFlags, headerId, writeHeader } from '../protocol/header.js';
import type { Transport, TransportHandler } from '../transport/index.js';
import { fdsForClients, queuedFdsFor } from '../process-limits.js';
import { TurnPace, TurnShare } from '../turn-share.js';
import { MatchingCursor, OrderedCursor, type RecordingCursor } from './recording-cursor.js';
import type { Comparable } from './comparison.js';
import { differenceOf, type Difference, type DifferenceKind } from './difference.js';
import { Eventfds } from './eventfds.js';
import type { Exchange, RecordedMessage, RequestStep, Step } from './exchange.js';
import { offersTwinSocket, withoutTwinSocket } from './handshake.js';
import { isDone } from './capture-limits.js';
import type { ReplaySettings } from './replay-options.js';
import type { Recording } from './recording.js';
import { nextOf, type ReplayReport } from './report.js';
import { PlaceholderFds } from './placeholder-fds.js';
import { MAX_TIMER_MS } from '../system-numbers.js';

/** A client's request, in memory of its own. */
interface Request {
  bytes: Buffer;
  fds: number;
  /** Not yet anybody's. */
  open: number[];
}

/** A request of ours that the client has not answered. */
interface Asked {
  settle: (reply: Buffer | undefined) => void;
}

/** Bytes that may wait, to be sent or to be answered, before we stop reading. */
export const HIGH_WATER = 4 << 20;
/** Bytes of requests that may wait while we must go on reading because an answer is due on the same socket. */
export const MAX_QUEUED = 64 << 20;
/** What a request costs beside its bytes, so that small ones count too. */
const REQUEST_OVERHEAD = 256;
/** And each fd: there are fewer of them than there is memory. */
const FD_COST = MAX_QUEUED / queuedFdsFor(1);
const MAX_DIFFERENCES = 100;
const MAX_ID = 0xffff;
/** Times below are as good as none: a timer's. */
const LEAST_PAUSE_NS = 1_000_000n;

export class ReplaySession implements TransportHandler {
  /** Settles when the connection has ended. */
  readonly ended: Promise<ReplayReport>;
  readonly #recording: Recording;
  readonly #settings: ReplaySettings;
  readonly #cursor: RecordingCursor;
  readonly #transport: Transport;
  readonly #output: OutputQueue;
  readonly #placeholders: PlaceholderFds;
  readonly #eventfds = new Eventfds(fdsForClients(), (note) => this.#note(note));
  readonly #closing = new AbortController();
  #twin: TwinSocket | undefined;
  readonly #queue = new Fifo<Request>();
  #queuedBytes = 0;
  #isBusy = false;
  /** Not until the first message, which was there before the session. */
  #isReading = false;
  /** Requests of ours that wait for their replies, by the ids that they have now. */
  readonly #asked = new Map<number, Asked>();
  /** The replies to come, by the recorded requests. */
  readonly #answers = new Map<RequestStep, Promise<Buffer | undefined>>();
  #lastId = 0;
  #isRefusing = false;
  #differences: Difference[] = [];
  #differenceCount = 0;
  #refused = 0;
  #undelivered = 0;
  /** Our requests wait for the client to take what was sent. */
  #onRoom: (() => void) | undefined;
  readonly #notes: Set<string>;
  readonly #pace = new TurnPace();
  /** Of the turn in which the output is flushed. */
  readonly #share = new TurnShare(() => this.onWritable());
  /** The exchange that is being played; what is left of it when the client leaves was not played. */
  #playing: Exchange | undefined;
  /** The client has gone: what it has asked is still played, for the report. */
  #leaving: VfioUserError | undefined;
  #reason: VfioUserError | undefined;
  #settleEnded!: (report: ReplayReport) => void;

  constructor(
    recording: Recording,
    settings: ReplaySettings,
    open: (handler: TransportHandler) => Transport,
  ) {
    this.#recording = recording;
    this.#settings = settings;
    const { exchanges } = recording;
    this.#cursor =
      settings.mode === 'ordered'
        ? new OrderedCursor(exchanges, settings.comparison, settings.afterDifference === 'continue')
        : new MatchingCursor(exchanges, settings.comparison, settings.repeatLast);
    this.#notes = new Set(recording.limits);
    this.#placeholders = new PlaceholderFds(settings.mappings, (note) => this.#note(note));
    this.ended = new Promise((resolve) => (this.#settleEnded = resolve));
    this.#transport = open(this);
    this.#output = new OutputQueue(this.#transport);
  }

  /** How it has gone so far. */
  get report(): ReplayReport {
    const { name, exchanges } = this.#recording;
    const left = this.#cursor.left;
    const next = this.#playing ?? left[0];
    const played = exchanges.length - left.length - (this.#playing === undefined ? 0 : 1);
    return {
      outcome: this.#differenceCount > 0 ? 'different' : next === undefined ? 'complete' : 'incomplete',
      connection: name,
      requests: exchanges.length,
      played,
      next: next === undefined ? undefined : nextOf(next.request),
      differences: [...this.#differences],
      differenceCount: this.#differenceCount,
      refused: this.#refused,
      undelivered: this.#undelivered,
      notes: [...this.#notes],
      reason: this.#reason,
    };
  }

  /** Memory that waits for the client: requests that are not answered yet, and what it has not taken. Bytes. */
  get kept(): { commands: number; replies: number } {
    return { commands: this.#queuedBytes, replies: this.#output.bytes };
  }

  ref(): void {
    this.#transport.ref();
    this.#twin?.transport.ref();
  }

  unref(): void {
    this.#transport.unref();
    this.#twin?.transport.unref();
  }

  close(reason: VfioUserError = new ClosedError('the server was closed')): void {
    if (this.#isOver) return;
    this.#reason = reason;
    this.#disconnect();
    for (const { open } of this.#queue.drain()) closeFds(open);
    this.#eventfds.close();
    this.#placeholders.close();
    this.#settleEnded(this.report);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] = []): void {
    const header = takeHeader(bytes, start, fds);
    if ((header.flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY) {
      closeFds(fds);
      this.#onReply(bytes, start, end);
      return;
    }
    const request = { bytes: Buffer.from(bytes.subarray(start, end)), fds: fds.length, open: fds };
    // It may wait for long: it does not keep what it will not need.
    if (header.command !== Command.DEVICE_SET_IRQS) closeFds(fds.splice(0));
    this.#queue.push(request);
    this.#queuedBytes += costOf(request);
    if (this.#queuedBytes > MAX_QUEUED) {
      throw new ProtocolError(`the client sent too many requests: ${this.#queue.length} are waiting`);
    }
    this.#throttle();
    this.#answerQueue();
  }

  findLanding(): undefined {
    return undefined;
  }

  /** No landing was lent. */
  onLanded(): void {}

  onWritable(): void {
    if (!this.#output.flush()) this.#share.useUp();
    // An answer to what has left now may be what the exchange that is played waits for.
    this.#throttle();
    this.#answerQueue();
  }

  onEnd(reason: VfioUserError): void {
    if (this.#isOver || this.#leaving !== undefined) return;
    this.#leaving =
      reason instanceof ClosedError ? new ClosedError('the client closed the connection') : reason;
    this.#disconnect();
    this.#answerQueue();
  }

  /** Nothing comes or goes any more, and nobody waits for it. */
  #disconnect(): void {
    this.#closing.abort();
    this.#share.stop();
    this.#transport.close();
    this.#twin?.close();
    this.#output.clear();
    this.#onRoom?.();
    for (const { settle } of this.#asked.values()) settle(undefined);
    this.#asked.clear();
  }

  get #isOver(): boolean {
    return this.#reason !== undefined;
  }

  #onReply(bytes: Buffer, start: number, end: number): void {
    const id = headerId(bytes, start);
    const asked = this.#asked.get(id);
    if (asked === undefined) {
      const name = commandName(headerCommand(bytes, start));
      throw new ProtocolError(`a reply to ${name} with id ${id}: nothing was asked`);
    }
    this.#asked.delete(id);
    asked.settle(Buffer.from(bytes.subarray(start, end)));
  }

  #answerQueue(): void {
    if (this.#isBusy || this.#isOver) return;
    this.#isBusy = true;
    this.#pace.begin();
    this.#answerAll().then(
      () => this.#rest(),
      (error: unknown) => {
        this.#isBusy = false;
        this.close(failure(error));
      },
    );
  }

  #rest(): void {
    this.#isBusy = false;
    if (this.#isOver) return;
    if (this.#leaving !== undefined) {
      this.close(this.#leaving);
      return;
    }
    this.#throttle();
    // The output may have emptied, and a request come, since the last one was looked for.
    if (this.#queue.length > 0 && this.#output.bytes <= HIGH_WATER) this.#answerQueue();
  }

  async #answerAll(): Promise<void> {
    while (!this.#isOver && this.#output.bytes <= HIGH_WATER) {
      // The client left in the middle of an exchange.
      if (this.#playing !== undefined) return;
      const request = this.#queue.shift();
      if (request === undefined) return;
      this.#queuedBytes -= costOf(request);
      try {
        await this.#answer(request);
      } finally {
        closeFds(request.open.splice(0));
      }
      await this.#pace.rest();
    }
  }

  async #answer(request: Request): Promise<void> {
    if (this.#isRefusing) {
      this.#refuse(request);
      return;
    }
    const found = this.#cursor.next(request);
    if (found.kind === 'difference') {
      this.#differ(found.why, found.expected, request);
      this.#refuse(request);
      return;
    }
    for (const { request: skipped } of found.skipped) this.#differ('skipped', skipped, undefined);
    if (this.#isOver) return;
    const { exchange, isRepeated } = found;
    const steps = isRepeated ? exchange.steps.filter(({ kind }) => kind === 'reply') : exchange.steps;
    if (isDone(exchange, Command.DEVICE_SET_IRQS)) this.#eventfds.set(request.bytes, request.open);
    await this.#play(request, exchange, this.#settings.timing === 'fast' ? soon(steps) : steps);
  }

  async #play(request: Request, exchange: Exchange, steps: readonly Step[]): Promise<void> {
    const lastDue = steps.findLastIndex(({ kind }) => kind !== 'interrupt');
    let time = exchange.request.time;
    let isAnswered = false;
    for (const [i, step] of steps.entries()) {
      this.#playing = i <= lastDue ? exchange : undefined;
      if (step.kind !== 'answer' && this.#settings.timing === 'recorded') await this.#pause(step.time - time);
      time = step.time;
      if (this.#isOver) return;
      if (step.kind === 'reply') {
        isAnswered = true;
        this.#reply(request, step.message);
      } else if (step.kind === 'interrupt') this.#interrupt(step);
      else if (!(await (step.kind === 'request' ? this.#hasAsked(step) : this.#hasAnswered(step)))) {
        if (this.#isOver || this.#leaving !== undefined) return;
        if (this.#settings.afterDifference === 'continue') continue;
        if (!isAnswered) this.#refuse(request);
        break;
      }
    }
    this.#playing = undefined;
  }

  async #pause(nanoseconds: bigint): Promise<void> {
    if (nanoseconds < LEAST_PAUSE_NS) return;
    const ms = Math.min(Number(nanoseconds / 1_000_000n), MAX_TIMER_MS);
    await sleep(ms, undefined, { signal: this.#closing.signal }).catch(() => {});
  }

  #reply(request: Request, message: RecordedMessage): void {
    const { bytes, fds, onSent } = this.#served(request, message);
    const id = headerId(request.bytes, 0);
    const command = headerCommand(bytes, 0);
    const head = encodeHeader(id, command, bytes.length, headerFlags(bytes, 0), headerErrno(bytes, 0));
    const body = bytes.length === HEADER_SIZE ? null : bytes.subarray(HEADER_SIZE);
    this.#send(this.#output, head, body, fds, onSent);
  }

  #served(
    request: Request,
    message: RecordedMessage,
  ): { bytes: Buffer; fds: readonly number[]; onSent?: () => void } {
    const isVersion = headerCommand(message.bytes, 0) === Command.VERSION;
    if (!isVersion || !offersTwinSocket(message.bytes)) return this.#placeholders.serve(message);
    if (!this.#transport.passesFds || !offersTwinSocket(request.bytes) || message.fds !== 1) {
      this.#note(
        'the recorded server had a twin socket and this client did not ask for one: DMA requests are sent on its only socket',
      );
      return { bytes: withoutTwinSocket(message.bytes), fds: [] };
    }
    this.#twin ??= new TwinSocket(
      (bytes, start, end) => this.#onReply(bytes, start, end),
      // A client closes both; the other one may still have something to say.
      (reason) => (reason instanceof ClosedError ? undefined : this.onEnd(reason)),
      this.#settings.messageTimeoutMs,
    );
    const fds = [this.#twin.clientFd];
    return { bytes: message.bytes, fds, onSent: () => closeFds(fds) };
  }

  /**
   * Sends a recorded request of the server. A client that does not take our requests gets no more of them: whether there
   * was room in time.
   */
  async #hasAsked(step: RequestStep): Promise<boolean> {
    const output = this.#twin?.output ?? this.#output;
    while (output.bytes > HIGH_WATER && this.#leaving === undefined && !this.#isOver) {
      const taken = new Promise<true>((resolve) => {
        this.#onRoom = output.onTaken = () => resolve(true);
      });
      if ((await this.#inTime(taken)) === undefined && !this.#isOver) {
        this.#differ('silence', step.message, undefined);
        return false;
      }
    }
    if (!this.#isOver) this.#ask(step);
    return !this.#isOver;
  }

  /** Sends a recorded request of the server, with an id of this session. */
  #ask(step: RequestStep): void {
    const { bytes } = step.message;
    const id = this.#nextId();
    const answer = new Promise<Buffer | undefined>((settle) => this.#asked.set(id, { settle }));
    this.#answers.set(step, answer);
    const head = encodeHeader(id, headerCommand(bytes, 0), bytes.length, headerFlags(bytes, 0), 0);
    const body = bytes.length === HEADER_SIZE ? null : bytes.subarray(HEADER_SIZE);
    this.#send(this.#twin?.output ?? this.#output, head, body);
    if (this.#leaving === undefined) this.#throttle();
    else this.#disconnect();
  }

  #nextId(): number {
    if (this.#asked.size >= MAX_ID) throw new ProtocolError(`the client owes ${this.#asked.size} replies`);
    do this.#lastId = (this.#lastId + 1) & MAX_ID;
    while (this.#asked.has(this.#lastId));
    return this.#lastId;
  }

  /** Waits for the client's reply, and tells whether it is the recorded one. */
  async #hasAnswered({ request, message }: Extract<Step, { kind: 'answer' }>): Promise<boolean> {
    const answer = this.#answers.get(request);
    // It was not asked.
    if (answer === undefined) return false;
    const reply = await this.#inTime(answer);
    this.#answers.delete(request);
    if (this.#isOver || (reply === undefined && this.#leaving !== undefined)) return false;
    const { comparison } = this.#settings;
    if (reply === undefined) {
      this.#differ('silence', message, undefined);
      return false;
    }
    const received = { bytes: reply, fds: 0 };
    if (comparison.isSame({ bytes: message.bytes, fds: 0 }, received)) return true;
    this.#differ('answer', { ...message, fds: 0 }, received);
    return false;
  }

  /** What comes of `answer`; undefined where it takes too long. */
  async #inTime<T>(answer: Promise<T>): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), this.#settings.answerTimeoutMs);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #interrupt({ interrupt }: Extract<Step, { kind: 'interrupt' }>): void {
    if (!this.#eventfds.signal(interrupt)) this.#undelivered++;
  }

  /** Of the first ones it is found out what they are; a client that does nothing else is no more work than that. */
  #differ(kind: DifferenceKind, expected: RecordedMessage | undefined, actual: Comparable | undefined): void {
    this.#differenceCount++;
    if (this.#differences.length < MAX_DIFFERENCES) {
      this.#differences.push(differenceOf(kind, expected, actual, this.#settings.comparison));
    }
    const { afterDifference } = this.#settings;
    this.#isRefusing = afterDifference === 'refuse';
    if (afterDifference === 'close') this.close(new ClosedError('the client left the recording'));
  }

  /** An error reply: a bare header. */
  #refuse({ bytes }: Request): void {
    if (this.#isOver) return;
    this.#refused++;
    if ((headerFlags(bytes, 0) & HEADER_FLAG_NO_REPLY) !== 0) return;
    const head = Buffer.alloc(HEADER_SIZE);
    writeErrorReply(head, headerId(bytes, 0), headerCommand(bytes, 0), this.#settings.errno);
    this.#send(this.#output, head, null);
  }

  #send(
    output: OutputQueue,
    head: Buffer,
    body: Buffer | null,
    fds: readonly number[] = [],
    onSent?: () => void,
  ): void {
    if (this.#leaving === undefined)
      output.send(head, HEADER_SIZE, body, fds.length === 0 ? null : fds, onSent);
    else onSent?.();
  }

  #note(note: string): void {
    this.#notes.add(note);
  }

  /** Stops reading where the client asks for more than it takes. */
  #throttle(): void {
    if (this.#isOver) return;
    const waitsForReply = this.#twin === undefined && this.#asked.size > 0;
    const on = this.#output.bytes <= HIGH_WATER && (this.#queuedBytes <= HIGH_WATER || waitsForReply);
    if (on === this.#isReading) return;
    this.#isReading = on;
    this.#transport.setReading(on);
  }
}

/** What a request that waits takes, in bytes. */
function costOf({ bytes, open }: Request): number {
  return REQUEST_OVERHEAD + bytes.length + open.length * FD_COST;
}

/**
 * A client reads its eventfds some time after they were signalled: an interrupt that is recorded right behind a reply
 * may have been there before it. As no request came between, the client sees no difference, and finds it when the reply
 * has come, as it did then.
 */
function soon(steps: readonly Step[]): Step[] {
  const order: Step[] = [];
  for (const step of steps) {
    const last = order.at(-1);
    if (step.kind === 'interrupt' && last?.kind === 'reply') order.splice(-1, 0, step);
    else order.push(step);
  }
  return order;
}

function failure(error: unknown): VfioUserError {
  return error instanceof VfioUserError ? error : new ClosedError('the replay failed', { cause: error });
}

function encodeHeader(id: number, command: number, size: number, flags: number, errno: number): Buffer {
  const head = Buffer.alloc(HEADER_SIZE);
  writeHeader(head, 0, id, command, size, flags, errno);
  return head;
}
