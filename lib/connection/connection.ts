/**
 * One connection to a server: calls wait for their replies by message id, the server's requests are served, and
 * everything ends together.
 *
 * ```
 *   open ──── close(), end of stream, broken framing, too many tombstones ────▶ closed
 * ```
 * Each call that waits when the connection ends is rejected once with a ClosedError, whose `cause` is the reason that
 * `closed` settles with. The way of a call is drawn in pending-request.ts.
 *
 * The uncontended way, from `access` through `Channel.send` to `sendmsg`, awaits nothing and allocates nothing but the
 * caller's promise.
 */
import { Mutex } from 'async-mutex';
import type { VfioUserError } from '../errors.js';
import { ClosedError, ProtocolError, RemoteError, UnsupportedError } from '../errors.js';
import { EINVAL, closeFds } from '../native.js';
import {
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import { headerCommand, headerErrno, headerFlags, headerId, writeHeaderId } from '../protocol/header.js';
import {
  LANDING_PREFIX,
  withSpin,
  type Landing,
  type MessageTap,
  type SpinState,
  type Transport,
  type TransportHandler,
} from '../transport/index.js';
import { BlockingCalls } from './blocking-calls.js';
import {
  DEFAULT_TIMEOUT_MS,
  timeoutOf,
  type CallOptions,
  type SyncCallOptions,
  type TrackedCallOptions,
} from './call-options.js';
import { Channel, REQUEST_WEIGHT, STRAY_WEIGHT, type ChannelHandler } from './channel.js';
import { newCounters, type Counters } from './counters.js';
import { FLAGS_COMMAND, FLAGS_POSTED } from './header-flags.js';
import { Flow, checkInFlight, encodeHead } from './request-scheduler.js';
import type { OutboxOwner } from './send-queue.js';
import { ServerRequest, type RequestHandler } from './server-request.js';
import { checkMemory, decodeAccess, encodeAccess, type RegionAccess } from './region-access-codec.js';
import { POSTED_ID_BASE } from './pending-requests.js';
import { Slot, type Decoder } from './pending-request.js';

const DEFAULT_IN_FLIGHT = 128;

/** Opens the transport with the handler that it will talk to. */
export type OpenTransport = (handler: TransportHandler) => Transport;

export interface ConnectionOptions {
  /** The deadline of messages of calls that say nothing, from when each is sent. In milliseconds; default 5,000. */
  timeoutMs?: number | undefined;
  /** How many commands may wait for their replies at once. Default 128. */
  inFlight?: number | undefined;
  /** The most that a wait on a Unix socket may spin, in microseconds; 0 never spins. Default 50. */
  spinUs?: number | undefined;
  /** Hears of every message on this connection's sockets. */
  tap?: MessageTap | undefined;
}

const NO_FDS: number[] = [];

const NOTHING: ReadonlySet<number> = new Set();

export class Connection implements ChannelHandler {
  readonly #flow: Flow;
  readonly counters: Counters = newCounters();
  /** The deadline of messages of calls that say nothing. */
  readonly timeoutMs: number;
  readonly #blocking: BlockingCalls;
  readonly #tap: MessageTap | undefined;
  readonly #spinUs: number | undefined;
  /** Settles, never rejects, with the reason when the connection ends. */
  readonly closed: Promise<VfioUserError>;
  /** Guards what must not interleave on this socket: the handshake, transactions, read-modify-write. */
  readonly mutex = new Mutex();
  #handler: RequestHandler | undefined;
  #postedId = POSTED_ID_BASE;
  #settleClosed!: (reason: VfioUserError) => void;
  /** Commands that this server is not sent: `call` refuses them. */
  forbidden: ReadonlySet<number> = NOTHING;

  constructor(open: OpenTransport, options: ConnectionOptions = {}) {
    this.timeoutMs = timeoutOf(options, DEFAULT_TIMEOUT_MS);
    const inFlight = checkInFlight(options.inFlight ?? DEFAULT_IN_FLIGHT);
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    this.#tap = options.tap;
    const { counters } = this;
    this.#spinUs = options.spinUs;
    const { timeoutMs } = this;
    const main = new Channel({ open: withSpin(open, this.#spinUs), handler: this, counters, tap: this.#tap });
    this.#flow = new Flow({ main, counters, inFlight, timeoutMs, onOverdue: (reason) => this.close(reason) });
    this.#blocking = new BlockingCalls(this.#flow, this.#tap, timeoutMs);
  }

  /** Why the connection ended; undefined while it is open. */
  get endReason(): VfioUserError | undefined {
    return this.#flow.endReason;
  }

  get passesFds(): boolean {
    return this.#flow.main.transport.passesFds;
  }

  /** Whether synchronous calls work on this kind of transport. */
  get canBlock(): boolean {
    return this.#flow.main.transport.canBlock;
  }

  get peer(): string {
    return this.#flow.main.transport.peer;
  }

  get hasTwin(): boolean {
    return this.#flow.twin !== undefined;
  }

  /** How long waits spin now. */
  get spin(): SpinState {
    return this.#flow.main.transport.spin;
  }

  /** How many commands may wait for their replies at once; 1 where the server loses step otherwise. */
  get inFlightLimit(): number {
    return this.#flow.inFlightLimit;
  }

  set inFlightLimit(limit: number) {
    this.#flow.inFlightLimit = limit;
  }

  /** Who serves the server's DMA_READ and DMA_WRITE. Without one they are refused. */
  set requestHandler(handler: RequestHandler | undefined) {
    this.#handler = handler;
  }

  /** Refuses synchronous calls with this explanation, until set to undefined. */
  set whyNotSync(reason: string | undefined) {
    this.#blocking.whyNotSync = reason;
  }

  /** Whoever follows the traffic hears of an interrupt: its eventfd had `count`. */
  tellInterrupt(index: number, subindex: number, count: number): void {
    if (this.#tap?.active === true) this.#tap.interrupt(this.peer, index, subindex, count);
  }

  /** The server's commands come on this socket as well from now on (VERSION's twin_socket). */
  attachTwin(open: OpenTransport): void {
    this.#flow.refuseWhenClosed('twin_socket');
    if (this.#flow.twin !== undefined) throw new ProtocolError('a second twin socket');
    this.#blocking.disturb();
    this.#flow.twin = new Channel({
      open: withSpin(open, this.#spinUs),
      handler: this,
      counters: this.counters,
      tap: this.#tap,
      socket: `${this.peer} (twin)`,
    });
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
      const slot = this.#flow.open(command, options, false);
      slot.decode = decode;
      slot.resolve = resolve;
      slot.reject = reject;
      slot.onAbandoned = options?.onAbandoned;
      this.#flow.submit(slot, head, payload, fds);
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
    return this.#blocking.call(command, head, payload, fds, decode, options);
  }

  /**
   * REGION_READ and REGION_WRITE, the hot path.
   * @throws ClosedError, RemoteError, TimeoutError, ProtocolError; TypeError where the memory of the access is taken away or
   * resized meanwhile; the signal's reason.
   */
  access<T>(access: RegionAccess<T>, options: CallOptions | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      checkMemory(access);
      const head = this.#flow.accessHead;
      encodeAccess(head, access, FLAGS_COMMAND);
      const slot = this.#flow.open(access.command, options, false);
      slot.resolve = resolve;
      slot.reject = reject;
      slot.aim(access);
      this.#flow.submit(slot, head, access.body, null);
    });
  }

  /** `access`, blocking: the lowest latency. */
  accessSync<T>(access: RegionAccess<T>, options: SyncCallOptions | undefined): T {
    return this.#blocking.access(access, options);
  }

  /** REGION_WRITE with No_reply, in its turn among the calls. An error of it is only counted. */
  post(access: RegionAccess<void>): void {
    const { queue, main, accessHead: head } = this.#flow;
    this.#flow.refuseWhenClosed(access.command);
    encodeAccess(head, access, FLAGS_POSTED);
    writeHeaderId(head, 0, this.#postedId);
    this.#postedId = this.#postedId === 0xffff ? POSTED_ID_BASE : this.#postedId + 1;
    if (queue.first === undefined) {
      main.send(undefined, head, head.length, access.body, null, false);
    } else {
      this.#flow.enqueue({
        slot: undefined,
        head: Buffer.from(head),
        body: Buffer.from(access.body!),
        fds: null,
        previous: undefined,
        next: undefined,
      });
    }
  }

  /** Opening, a burst of calls, is over: a process may have thousands of connections that are idle now. */
  trim(): void {
    this.#flow.slots.trim();
  }

  /** Memory that answers were lent from is about to change or to go: what waits of them is copied. */
  copyLentBodies(): void {
    this.#flow.main.outbox?.copyBodies();
    this.#flow.twin?.outbox?.copyBodies();
  }

  /** Whether the loop stays alive for this connection's sake. */
  ref(): void {
    this.#flow.setReferenced(true);
  }

  unref(): void {
    this.#flow.setReferenced(false);
  }

  /** Ends the connection; idempotent. Every call that waits is rejected with a ClosedError whose cause is `reason`. */
  close(reason: VfioUserError = new ClosedError('the connection was closed by its owner')): void {
    if (this.#flow.endReason !== undefined) return;
    this.#flow.end(reason);
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
    if (flags !== HEADER_FLAG_REPLY || channel !== this.#flow.main) return undefined;
    const slot = this.#flow.slots.get(headerId(bytes, start));
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
      this.#onReply(channel, bytes, start, start + LANDING_PREFIX, fds, true);
    } else {
      if (fds !== undefined) closeFds(fds);
      this.#onRequest(channel, bytes, start, start + LANDING_PREFIX, landing);
    }
  }

  onSent(owner: OutboxOwner): void {
    this.#flow.onSent(owner);
  }

  onEnd(channel: Channel, reason: VfioUserError): void {
    if (channel === this.#flow.twin && reason instanceof ClosedError) {
      const error = new ClosedError('the server closed the connection (its twin socket first)', {
        cause: reason,
      });
      this.close(error);
    } else this.close(reason);
  }

  /** The header of a command, which may be sent to this server. */
  #encodeCall(command: number, payload: Uint8Array | null, fds: readonly number[] | null): Buffer {
    if (this.forbidden.has(command)) {
      throw new UnsupportedError(`${commandName(command)} must not be sent to this server (quirk doNotSend)`);
    }
    if (fds !== null && fds.length > 0 && !this.passesFds) {
      throw new UnsupportedError(
        `${commandName(command)}: no file descriptor can be passed over ${this.peer}`,
      );
    }
    return encodeHead(command, payload);
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
    const slot = this.#flow.slots.get(id);
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
    this.#flow.unlink(slot);
    this.#flow.onAnswered();
    const own = fds ?? NO_FDS;
    try {
      if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) {
        this.#flow.answer(slot, new RemoteError(commandName(command), headerErrno(bytes, start)), undefined);
      } else {
        const payload = start + HEADER_SIZE;
        const value =
          slot.access === undefined
            ? slot.decode(bytes, payload, end, own)
            : decodeAccess(slot.access, slot.target, landed, bytes, payload, end);
        this.#flow.answer(slot, undefined, value);
      }
    } catch (error) {
      this.#flow.answer(slot, error, undefined);
    }
    for (const fd of own) if (fd >= 0) closeFds([fd]);
    this.#flow.pump();
  }

  /** A reply that nobody waits for: late, or never asked for. Neither is worth the connection. */
  #onStrayReply(channel: Channel, id: number, slot: Slot | undefined): void {
    channel.weigh(STRAY_WEIGHT);
    if (slot !== undefined) {
      this.counters.late++;
      this.counters.tombstones--;
      this.#flow.slots.release(slot);
      this.#flow.onAnswered();
      this.#flow.pump();
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
    this.#flow.serving++;
    try {
      this.#handler.serve(request, landing);
    } finally {
      this.#flow.serving--;
    }
  }
}
