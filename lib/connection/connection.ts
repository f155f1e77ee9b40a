/**
 * One connection to a server: calls wait for their replies by message id, the server's requests are served, and
 * everything ends together.
 *
 * ```
 *   open ──── close(), end of stream, broken framing, too many tombstones ────▶ closed
 * ```
 * Each call that waits when the connection ends is rejected once with a ClosedError, whose `cause` is the reason that
 * `closed` settles with. The way of a call is drawn in slot.ts.
 *
 * The uncontended way, from `access` through `Channel.send` to `sendmsg`, awaits nothing and allocates nothing but the
 * caller's promise.
 */
import { setMaxListeners } from 'node:events';
import { performance } from 'node:perf_hooks';
import { Mutex } from 'async-mutex';
import type { VfioUserError } from '../errors.js';
import { ClosedError, ProtocolError, RemoteError, TimeoutError, UnsupportedError } from '../errors.js';
import { EINVAL, closeFds } from '../native.js';
import {
  Command,
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import {
  headerCommand,
  headerErrno,
  headerFlags,
  headerId,
  writeHeader,
  writeHeaderId,
} from '../protocol/header.js';
import {
  LANDING_PREFIX,
  QUICK_OTHER_AT,
  QUICK_REPLY_AT,
  QUICK_WAITED_AT,
  SLICE_MS,
  tapped,
  type Landing,
  type MessageTap,
  type QuickMemory,
  type Transport,
  type TransportHandler,
} from '../transport/index.js';
import {
  ACCESS_HEAD_SIZE,
  encodeAccess,
  encodeQuickly,
  identifyQuickly,
  isPlainReply,
  isQuick,
} from './access.js';
import {
  DEFAULT_TIMEOUT_MS,
  timeoutOf,
  type CallOptions,
  type SyncCallOptions,
  type TrackedCallOptions,
} from './call-options.js';
import { Channel, REQUEST_WEIGHT, STRAY_WEIGHT, type ChannelHandler } from './channel.js';
import { newCounters, type Counters } from './counters.js';
import { FLAGS_COMMAND, FLAGS_POSTED } from './flags.js';
import { MessageQueue } from './message-queue.js';
import { ServerRequest, type RequestHandler } from './server-request.js';
import { POSTED_ID_BASE, SlotTable } from './slot-table.js';
import { Slot, forgetCaller, type Decoder, type QueuedMessage } from './slot.js';
import { decodeDone, encodeWrites, notDone, takeWrites, type WriteBatch } from './write-multi.js';

/** Calls given up whose replies have not come: past this the server is not merely slow. */
const MAX_TOMBSTONES = 1_024;
const DEFAULT_IN_FLIGHT = 128;
/** With so many under way a read may wait until the loop turns, and go with others. */
const GATHER_FROM = 4;
/** The largest `inFlight`: ids must suffice for these and the tombstones. */
const MAX_IN_FLIGHT = 16_384;

/** Opens the transport with the handler that it will talk to. */
export type OpenTransport = (handler: TransportHandler) => Transport;

export interface ConnectionOptions {
  /** The deadline of calls that say nothing, in milliseconds. Default 5,000. */
  timeoutMs?: number | undefined;
  /** How many commands may wait for their replies at once. Default 128. */
  inFlight?: number | undefined;
  /** Hears of every message on this connection's sockets. */
  tap?: MessageTap | undefined;
}

const NO_FDS: number[] = [];

/** Region accesses are encoded here: header and access structure. Sent, or copied, before the next one is. */
const accessHead = Buffer.alloc(ACCESS_HEAD_SIZE);
/** What a quick access was, for its decoder alone, once its reply is known to be the plain one. */
const quickSlot = new Slot();
quickSlot.isPlain = true;
const QUICK_OTHER_WORD = QUICK_OTHER_AT >>> 2;

const NOTHING: ReadonlySet<number> = new Set();

export class Connection implements ChannelHandler {
  readonly counters: Counters = newCounters();
  /** Settles, never rejects, with the reason when the connection ends. */
  readonly closed: Promise<VfioUserError>;
  /** Guards what must not interleave on this socket: the handshake, transactions, read-modify-write. */
  readonly mutex = new Mutex();
  /** The deadline of calls that say nothing. */
  readonly timeoutMs: number;
  readonly #tap: MessageTap | undefined;
  readonly #main: Channel;
  readonly #slots: SlotTable;
  readonly #queue = new MessageQueue();
  #twin: Channel | undefined;
  #handler: RequestHandler | undefined;
  #inFlightLimit: number;
  #postedId = POSTED_ID_BASE;
  #endReason: VfioUserError | undefined;
  #settleClosed!: (reason: VfioUserError) => void;
  /** How deep we are in handlers of the server's requests. */
  #serving = 0;
  #whyNotSync: string | undefined;
  /** The most small writes that go as one message; none together where the server does not take that. */
  #multiWrites = 0;
  /** Commands that this server is not sent: `call` refuses them. */
  forbidden: ReadonlySet<number> = NOTHING;

  constructor(open: OpenTransport, options: ConnectionOptions = {}) {
    this.timeoutMs = timeoutOf(options, DEFAULT_TIMEOUT_MS);
    this.#inFlightLimit = checkInFlight(options.inFlight ?? DEFAULT_IN_FLIGHT);
    this.#slots = new SlotTable((slot) => this.#onDeadline(slot));
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    this.#tap = options.tap;
    this.#main = new Channel(tapped(open, this.#tap), this, this.counters);
  }

  /** Why the connection ended; undefined while it is open. */
  get endReason(): VfioUserError | undefined {
    return this.#endReason;
  }

  get passesFds(): boolean {
    return this.#main.transport.passesFds;
  }

  /** Whether synchronous calls work on this kind of transport. */
  get canBlock(): boolean {
    return this.#main.transport.canBlock;
  }

  get peer(): string {
    return this.#main.transport.peer;
  }

  get hasTwin(): boolean {
    return this.#twin !== undefined;
  }

  /** How many commands may wait for their replies at once; 1 where the server loses step otherwise. */
  get inFlightLimit(): number {
    return this.#inFlightLimit;
  }

  set inFlightLimit(limit: number) {
    this.#inFlightLimit = checkInFlight(limit);
    this.#pump();
  }

  /** VERSION settled `write_multiple`: small writes that wait may go together, to this server at most as many. */
  set multiWrites(most: number) {
    this.#multiWrites = most;
  }

  /** Who serves the server's DMA_READ and DMA_WRITE. Without one they are refused. */
  set requestHandler(handler: RequestHandler | undefined) {
    this.#handler = handler;
  }

  /** Refuses synchronous calls with this explanation, until set to undefined. */
  set whyNotSync(reason: string | undefined) {
    this.#whyNotSync = reason;
  }

  /** Whoever follows the traffic hears of an interrupt: its eventfd had `count`. */
  tellInterrupt(index: number, subindex: number, count: number): void {
    if (this.#tap?.active === true) this.#tap.interrupt(this.peer, index, subindex, count);
  }

  /** The server's commands come on this socket as well from now on (VERSION's twin_socket). */
  attachTwin(open: OpenTransport): void {
    this.#refuseWhenClosed('twin_socket');
    if (this.#twin !== undefined) throw new ProtocolError('a second twin socket');
    this.#twin = new Channel(tapped(open, this.#tap, `${this.peer} (twin)`), this, this.counters);
  }

  /**
   * Sends a command and waits for its reply, from which `decode` makes the result. `fds` stay the caller's and must
   * stay open, and `payload` unchanged, until the call settles.
   * @throws ClosedError, RemoteError, TimeoutError, ProtocolError, UnsupportedError for fds where none can be passed;
   * the signal's reason.
   */
  call<T>(
    command: number,
    payload: Uint8Array | null,
    fds: readonly number[] | null,
    decode: Decoder<T>,
    options?: TrackedCallOptions,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const head = this.#encodeCall(command, payload, fds);
      const slot = this.#open(command, decode, options);
      slot.resolve = resolve;
      slot.reject = reject;
      slot.onAbandoned = options?.onAbandoned;
      this.#watchSignal(slot, options?.signal);
      this.#submit(slot, head, payload, fds);
    });
  }

  /** `call`, blocking. */
  callSync<T>(
    command: number,
    payload: Uint8Array | null,
    fds: readonly number[] | null,
    decode: Decoder<T>,
    options?: SyncCallOptions,
  ): T {
    const head = this.#encodeCall(command, payload, fds);
    const slot = this.#openSync(command, decode, options);
    this.#waitForTurn(slot);
    if (!slot.settled) this.#dispatch(slot, head, payload, fds);
    return this.#block(slot) as T;
  }

  /**
   * REGION_READ and REGION_WRITE, the hot path: `body` is what is written, `target` where a read's data goes (exactly
   * `count` bytes). Both stay the connection's until the call settles.
   */
  access<T>(
    command: number,
    region: number,
    offset: number,
    count: number,
    body: Uint8Array | null,
    target: Uint8Array | undefined,
    decode: Decoder<T>,
    options: CallOptions | undefined,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const slot = this.#open(command, decode, options);
      slot.resolve = resolve;
      slot.reject = reject;
      if (options?.signal !== undefined) this.#watchSignal(slot, options.signal);
      aim(slot, region, offset, count, target);
      encodeAccess(accessHead, command, region, offset, count, body, FLAGS_COMMAND);
      this.#submit(slot, accessHead, body, null);
    });
  }

  /** `access`, blocking: the lowest latency. */
  accessSync<T>(
    command: number,
    region: number,
    offset: number,
    count: number,
    body: Uint8Array | null,
    target: Uint8Array | undefined,
    decode: Decoder<T>,
    options: SyncCallOptions | undefined,
  ): T {
    const { quick } = this.#main.transport;
    if (quick !== undefined && isQuick(count, body) && this.#isQuiet()) {
      return this.#accessQuickly(quick, command, region, offset, count, body, target, decode, options);
    }
    const slot = this.#openSync(command, decode, options);
    aim(slot, region, offset, count, target);
    this.#waitForTurn(slot);
    encodeAccess(accessHead, command, region, offset, count, body, FLAGS_COMMAND);
    if (!slot.settled) this.#dispatch(slot, accessHead, body, null);
    return this.#block(slot) as T;
  }

  /** REGION_WRITE with No_reply, in its turn among the calls. An error of it is only counted. */
  post(command: number, region: number, offset: number, count: number, body: Uint8Array): void {
    this.#refuseWhenClosed(command);
    encodeAccess(accessHead, command, region, offset, count, body, FLAGS_POSTED);
    writeHeaderId(accessHead, 0, this.#postedId);
    this.#postedId = this.#postedId === 0xffff ? POSTED_ID_BASE : this.#postedId + 1;
    if (this.#queue.peek() === undefined) {
      this.#main.send(undefined, accessHead, accessHead.byteLength, body, null, false);
    } else {
      this.counters.queued++;
      this.#queue.push({
        slot: undefined,
        posted: true,
        head: Buffer.from(accessHead),
        body: Buffer.from(body),
        fds: null,
      });
    }
  }

  /** Opening, a burst of calls, is over: a process may have thousands of connections that are idle now. */
  trim(): void {
    this.#slots.trim();
  }

  /** Memory that answers were lent from is about to change or to go: what waits of them is copied. */
  copyLentBodies(): void {
    this.#main.outbox.copyBodies();
    this.#twin?.outbox.copyBodies();
  }

  /** Whether the loop stays alive for this connection's sake. */
  ref(): void {
    this.#setReferenced(true);
  }

  unref(): void {
    this.#setReferenced(false);
  }

  /** Ends the connection; idempotent. Every call that waits is rejected with a ClosedError whose cause is `reason`. */
  close(reason: VfioUserError = new ClosedError('the connection was closed by its owner')): void {
    if (this.#endReason !== undefined) return;
    this.#endReason = reason;
    this.#main.close();
    this.#twin?.close();
    this.#queue.clear();
    this.#slots.close();
    this.counters.inFlight = 0;
    this.counters.queued = 0;
    this.counters.tombstones = 0;
    for (let slot = this.#slots.first; slot !== undefined; slot = this.#slots.first) {
      this.#slots.unlink(slot);
      this.#answer(slot, closedError(commandName(slot.command), reason), undefined);
    }
    this.#settleClosed(reason);
  }

  onMessage(channel: Channel, bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    const type = headerFlags(bytes, start) & HEADER_FLAG_TYPE_MASK;
    if (type === HEADER_FLAG_REPLY) {
      this.#onReply(channel, bytes, start, end, fds, false);
    } else {
      if (fds !== undefined) closeFds(fds);
      if (type !== HEADER_FLAG_COMMAND) throw new ProtocolError(`a message of unknown type ${type}`);
      this.#onRequest(channel, bytes, start, end, undefined);
    }
  }

  findLanding(channel: Channel, bytes: Buffer, start: number): Landing | undefined {
    const flags = headerFlags(bytes, start);
    if ((flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_COMMAND)
      return this.#handler?.findLanding?.(bytes, start);
    // An error reply has no data; anything but a plain reply is assembled and looked at. And replies come on the main
    // socket: were a slot lent to both, one message could end in memory of the slot's next call.
    if (flags !== HEADER_FLAG_REPLY || channel !== this.#main) return undefined;
    const slot = this.#slots.get(headerId(bytes, start));
    return slot?.state === 'sent' && slot.command === headerCommand(bytes, start) ? slot : undefined;
  }

  onLanded(
    channel: Channel,
    bytes: Buffer,
    start: number,
    landing: Landing,
    fds: number[] | undefined,
  ): void {
    if (landing instanceof Slot) {
      landing.landed = true;
      this.#onReply(channel, bytes, start, start + LANDING_PREFIX, fds, true);
    } else {
      if (fds !== undefined) closeFds(fds);
      this.#onRequest(channel, bytes, start, start + LANDING_PREFIX, landing);
    }
  }

  onEnd(channel: Channel, reason: VfioUserError): void {
    if (channel === this.#twin && reason instanceof ClosedError) {
      this.close(new ClosedError('the server closed the twin socket', { cause: reason }));
    } else this.close(reason);
  }

  #open<T>(command: number, decode: Decoder<T>, options: CallOptions | undefined): Slot {
    this.#refuseWhenClosed(command);
    const slot = this.#slots.take(
      options === undefined ? this.timeoutMs : timeoutOf(options, this.timeoutMs),
    );
    slot.command = command;
    slot.decode = decode;
    this.#slots.watchDeadline(slot);
    return slot;
  }

  #openSync<T>(command: number, decode: Decoder<T>, options: SyncCallOptions | undefined): Slot {
    this.#refuseWhenClosed(command);
    if (!this.canBlock)
      throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${this.peer}`);
    if (this.#serving > 0) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made while a request of the server is served`,
      );
    }
    if (this.#tap?.telling === true) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made by what listens to the messages`,
      );
    }
    if (this.#whyNotSync !== undefined)
      throw new UnsupportedError(`${commandName(command)}: ${this.#whyNotSync}`);
    const slot = this.#slots.take(timeoutOf(options, this.timeoutMs));
    slot.command = command;
    slot.decode = decode;
    slot.synchronous = true;
    return slot;
  }

  /** No call but the next is under way, nothing is being done, and nobody listens: there is nothing to mind. */
  #isQuiet(): boolean {
    const { inFlight, tombstones } = this.counters;
    return (
      inFlight === 0 &&
      tombstones === 0 &&
      this.#serving === 0 &&
      this.#endReason === undefined &&
      this.#whyNotSync === undefined &&
      this.#queue.peek() === undefined &&
      this.#main.isQuiet &&
      (this.#twin === undefined || this.#twin.isQuiet) &&
      this.#tap?.active !== true &&
      this.#tap?.telling !== true
    );
  }

  /**
   * `accessSync` of a few bytes where there is nothing to mind: the answer is expected to be the next message. Where it is
   * not the access becomes a call like any other.
   */
  #accessQuickly<T>(
    quick: QuickMemory,
    command: number,
    region: number,
    offset: number,
    count: number,
    body: Uint8Array | null,
    target: Uint8Array | undefined,
    decode: Decoder<T>,
    options: SyncCallOptions | undefined,
  ): T {
    const timeoutMs = timeoutOf(options, this.timeoutMs);
    const size = encodeQuickly(quick, command, region, offset, count, body);
    const id = this.#slots.borrowId();
    identifyQuickly(quick, id);
    const twin = this.#twin;
    const result = this.#main.quickSync(size, timeoutMs, twin);
    if (result > 0 && isPlainReply(quick, result, body === null ? count : 0)) {
      this.#main.countReceived(result);
      this.#slots.returnId(id);
      quickSlot.count = count;
      quickSlot.target = target;
      const value = decode(
        quickSlot,
        quick.bytes,
        QUICK_REPLY_AT + HEADER_SIZE,
        QUICK_REPLY_AT + result,
        NO_FDS,
      );
      quickSlot.target = undefined;
      // What the server asked for before it answered comes before the answer: a read pushes writes.
      if (twin !== undefined && quick.words[QUICK_OTHER_WORD] !== 0) twin.transport.receiveSync(0, undefined);
      return value;
    }
    const slot = this.#openSync(command, decode, { timeoutMs });
    aim(slot, region, offset, count, target);
    // What was not sent whole was not waited for: what stands there is of another call.
    if (result >= 0) slot.deadline -= quick.bytes.readDoubleLE(QUICK_WAITED_AT);
    this.#giveId(slot, id);
    if (result > 0) this.#main.transport.handOver(result);
    // None of it has gone: it is sent again, so that the transport tells when there is room.
    else if (result === -size) this.#main.outbox.send(slot, quick.bytes, size, null, null, false);
    else if (result < 0)
      this.#main.outbox.keepRest(slot, quick.bytes, size, null, size + result, null, false);
    return this.#block(slot) as T;
  }

  #refuseWhenClosed(what: number | string): void {
    if (this.#endReason === undefined) return;
    throw closedError(typeof what === 'number' ? commandName(what) : what, this.#endReason);
  }

  #encodeCall(command: number, payload: Uint8Array | null, fds: readonly number[] | null): Buffer {
    if (this.forbidden.has(command)) {
      throw new UnsupportedError(`${commandName(command)} must not be sent to this server (quirk doNotSend)`);
    }
    if (fds !== null && fds.length > 0 && !this.passesFds) {
      throw new UnsupportedError(
        `${commandName(command)}: no file descriptor can be passed over ${this.peer}`,
      );
    }
    const head = Buffer.allocUnsafe(HEADER_SIZE);
    const size = HEADER_SIZE + (payload === null ? 0 : payload.byteLength);
    writeHeader(head, 0, 0, command, size, FLAGS_COMMAND, 0);
    return head;
  }

  #watchSignal(slot: Slot, signal: AbortSignal | undefined): void {
    if (signal === undefined) return;
    if (signal.aborted) {
      this.#slots.unlink(slot);
      this.#slots.release(slot);
      throw signal.reason;
    }
    // One signal for many calls is usual, and every listener goes with its call: Node's warning of a leak would be wrong.
    setMaxListeners(0, signal);
    slot.signal = signal;
    slot.onAbort = () => this.#giveUp(slot, signal.reason);
    signal.addEventListener('abort', slot.onAbort, { once: true });
  }

  #hasRoom(): boolean {
    // Where only one command may be under way, one whose reply is late still is.
    const { inFlight, tombstones } = this.counters;
    return inFlight + (this.#inFlightLimit === 1 ? tombstones : 0) < this.#inFlightLimit;
  }

  #submit(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    if (this.#hasRoom() && this.#queue.peek() === undefined) {
      this.#dispatch(slot, head, body, fds);
      return;
    }
    slot.state = 'queued';
    slot.message = { slot, posted: false, head: Buffer.from(head), body, fds };
    this.counters.queued++;
    this.#queue.push(slot.message);
  }

  #dispatch(slot: Slot, head: Buffer, body: Uint8Array | null, fds: readonly number[] | null): void {
    // Only reads: of a write the caller may look for what it does, without a turn of the loop.
    const gather =
      slot.command === Command.REGION_READ && !slot.synchronous && this.counters.inFlight >= GATHER_FROM;
    this.#giveId(slot, this.#slots.borrowId());
    writeHeaderId(head, 0, slot.id);
    if (gather) this.#main.sendSoon(slot, head);
    else this.#main.send(slot, head, head.byteLength, body, fds, false);
  }

  /** The slot's message is sent with this id. */
  #giveId(slot: Slot, id: number): void {
    this.#slots.adopt(slot, id);
    slot.state = 'sent';
    this.counters.inFlight++;
  }

  /** Sends what waits, as far as there is room. */
  #pump(): void {
    for (let message = this.#queue.peek(); message !== undefined; message = this.#queue.peek()) {
      if (!message.posted && !this.#hasRoom()) return;
      const writes = this.#multiWrites > 1 ? takeWrites(this.#queue, this.#multiWrites) : [];
      if (writes.length > 0) {
        this.#dispatchWrites(writes);
        continue;
      }
      this.#queue.shift();
      this.counters.queued--;
      const { slot, head, body, fds } = message;
      if (slot === undefined) {
        this.#main.send(undefined, head, head.byteLength, body, null, true);
      } else {
        slot.message = undefined;
        this.#dispatch(slot, head, body, fds);
      }
    }
  }

  /** Sends writes that waited as one message, whose reply answers each of them. */
  #dispatchWrites(writes: readonly QueuedMessage[]): void {
    const payload = encodeWrites(writes);
    // The writes have their own deadlines; the message is given up when the last of them is.
    const carrier = this.#slots.take(Infinity);
    // Nobody waits for it but through the writes: it is not among those that time out, nor those that `close` rejects.
    this.#slots.unlink(carrier);
    carrier.command = Command.REGION_WRITE_MULTI;
    carrier.decode = (_slot, bytes, start, end) => decodeDone(writes.length, bytes, start, end);
    const slots = writes.map(({ slot }) => slot!);
    const batch: WriteBatch = { slots, carrier, waiting: slots.length };
    for (const slot of slots) {
      slot.state = 'batched';
      slot.message = undefined;
      slot.batch = batch;
    }
    this.counters.queued -= writes.length;
    carrier.resolve = (done: number) => this.#answerWrites(batch, done, undefined);
    carrier.reject = (error: unknown) => this.#answerWrites(batch, 0, error);
    this.#dispatch(carrier, this.#encodeCall(carrier.command, payload, null), payload, null);
  }

  /** The first `done` writes have been done; the others failed, of `error` where all of them did. */
  #answerWrites(batch: WriteBatch, done: number, error: unknown): void {
    for (const [i, slot] of batch.slots.entries()) {
      if (slot.batch !== batch) continue;
      this.#slots.unlink(slot);
      this.#answer(slot, i < done ? undefined : (error ?? notDone()), undefined);
    }
  }

  /** Blocks until every earlier call has been sent and there is room for one more. */
  #waitForTurn(slot: Slot): void {
    this.#main.hurry();
    this.#twin?.hurry();
    this.#main.outbox.sendGathered();
    while (!slot.settled && (!this.#hasRoom() || this.#queue.peek() !== undefined)) this.#turn(slot);
  }

  /** Blocks until a synchronous call that was sent is answered. Its slot is free when this returns or throws. */
  #block(slot: Slot): unknown {
    while (!slot.settled) this.#turn(slot);
    const { error, value } = slot;
    // A tombstone is released by its late reply; `close` forgets ids, so anything else goes back now.
    if (slot.state !== 'tombstone') this.#slots.release(slot);
    if (error !== undefined) throw error;
    return value;
  }

  /** One slice of a blocking wait: sends what is stuck, receives what comes, ends the call when its time is over. */
  #turn(slot: Slot): void {
    const left = leftMs(slot);
    if (left <= 0) {
      this.#giveUp(slot, timeoutError(slot));
      return;
    }
    const wait = Math.min(SLICE_MS, left);
    const main = this.#main;
    const twin = this.#twin;
    main.hurry();
    twin?.hurry();
    if (slot.settled) return;
    const mainWaits = !main.outbox.isEmpty;
    const twinWaits = twin !== undefined && !twin.outbox.isEmpty;
    // One wait watches one socket for room: where both are full they take short turns.
    if (twinWaits) twin.transport.flushSync(mainWaits ? 1 : wait, main.transport);
    if (slot.settled) return;
    if (mainWaits) main.transport.flushSync(twinWaits ? 1 : wait, twin?.transport);
    else if (!twinWaits) main.transport.receiveSync(wait, twin?.transport);
  }

  #onReply(
    channel: Channel,
    bytes: Buffer,
    start: number,
    end: number,
    fds: number[] | undefined,
    landed: boolean,
  ): void {
    const id = headerId(bytes, start);
    const slot = this.#slots.get(id);
    if (slot === undefined || slot.state !== 'sent') {
      if (fds !== undefined) closeFds(fds);
      this.#onStrayReply(channel, id, slot);
      return;
    }
    const command = headerCommand(bytes, start);
    if (command !== slot.command) {
      if (fds !== undefined) closeFds(fds);
      throw new ProtocolError(
        `a reply to ${commandName(slot.command)} says that it is one to ${commandName(command)}`,
      );
    }
    this.counters.inFlight--;
    this.#slots.unlink(slot);
    const own = fds ?? NO_FDS;
    try {
      if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) {
        this.#answer(slot, new RemoteError(commandName(command), headerErrno(bytes, start)), undefined);
      } else {
        slot.landed = landed;
        this.#answer(slot, undefined, slot.decode(slot, bytes, start + HEADER_SIZE, end, own));
      }
    } catch (error) {
      this.#answer(slot, error, undefined);
    }
    for (const fd of own) if (fd >= 0) closeFds([fd]);
    this.#pump();
  }

  /** A reply that nobody waits for: late, or never asked for. Neither is worth the connection. */
  #onStrayReply(channel: Channel, id: number, slot: Slot | undefined): void {
    channel.weigh(STRAY_WEIGHT);
    if (slot !== undefined) {
      this.counters.late++;
      this.counters.tombstones--;
      this.#slots.release(slot);
      this.#pump();
    } else if (id >= POSTED_ID_BASE) this.counters.postedErrors++;
    else this.counters.unknown++;
  }

  #onRequest(
    channel: Channel,
    bytes: Buffer,
    start: number,
    end: number,
    landing: Landing | undefined,
  ): void {
    channel.weigh(REQUEST_WEIGHT);
    const request = new ServerRequest(channel, this.counters, bytes, start, end);
    if (this.#handler === undefined) {
      request.refuse(EINVAL);
      return;
    }
    this.#serving++;
    try {
      this.#handler.serve(request, landing);
    } finally {
      this.#serving--;
    }
  }

  readonly #onDeadline = (slot: Slot): void => {
    this.#giveUp(slot, timeoutError(slot));
  };

  /** The caller waits no longer: takes the message back if it has not gone, else keeps its id until the reply comes. */
  #giveUp(slot: Slot, reason: unknown): void {
    const { batch } = slot;
    if (batch !== undefined) {
      this.#slots.unlink(slot);
      this.#answer(slot, reason, undefined);
      if (--batch.waiting === 0) this.#giveUp(batch.carrier, reason);
      return;
    }
    this.#slots.unlink(slot);
    if (slot.state === 'sent' && !this.#main.outbox.takeBack(slot)) {
      slot.state = 'tombstone';
      slot.target = undefined;
      this.counters.inFlight--;
      this.counters.tombstones++;
      slot.onAbandoned?.();
      this.#answerOnly(slot, reason, undefined);
      if (this.counters.tombstones > MAX_TOMBSTONES) {
        this.close(new TimeoutError(`more than ${MAX_TOMBSTONES} commands without a reply`, slot.timeoutMs));
      }
      return;
    }
    if (slot.state === 'sent') this.counters.inFlight--;
    if (slot.message !== undefined) {
      slot.message.slot = undefined;
      slot.message = undefined;
      this.counters.queued--;
    }
    this.#answer(slot, reason, undefined);
    this.#pump();
  }

  /** Answers the caller; the slot is free, but for a synchronous caller, who looks into it first. */
  #answer(slot: Slot, error: unknown, value: unknown): void {
    this.#answerOnly(slot, error, value);
    if (!slot.synchronous) this.#slots.release(slot);
  }

  #answerOnly(slot: Slot, error: unknown, value: unknown): void {
    const { resolve, reject } = slot;
    forgetCaller(slot);
    if (slot.synchronous) {
      slot.settled = true;
      slot.error = error;
      slot.value = value;
    } else if (error !== undefined) reject(error);
    else resolve(value as never);
  }

  #setReferenced(on: boolean): void {
    this.#main.setReferenced(on);
    this.#twin?.setReferenced(on);
    this.#slots.setReferenced(on);
  }
}

function aim(
  slot: Slot,
  region: number,
  offset: number,
  count: number,
  target: Uint8Array | undefined,
): void {
  slot.region = region;
  slot.offset = offset;
  slot.count = count;
  slot.target = target;
}

/** Whole milliseconds until the call is given up. */
function leftMs(slot: Slot): number {
  return Math.ceil(slot.deadline - performance.now());
}

function timeoutError(slot: Slot): TimeoutError {
  return new TimeoutError(commandName(slot.command), slot.timeoutMs);
}

function closedError(what: string, reason: VfioUserError): ClosedError {
  return new ClosedError(`${what}: ${reason.message}`, { cause: reason });
}

/** @throws RangeError for what is no limit of the commands in flight. */
export function checkInFlight(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_IN_FLIGHT) {
    throw new RangeError(`inFlight must be an integer from 1 to ${MAX_IN_FLIGHT}, not ${limit}`);
  }
  return limit;
}
