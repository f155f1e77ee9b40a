/**
 * One connection to a server: calls wait for their replies by message id, the server's requests are served, and
 * everything ends together.
 *
 * ```
 *   open ──── close(), end of stream, broken framing, too many tombstones ────▶ closed
 * ```
 * Each call that waits when the connection ends is rejected once with a ClosedError, whose `cause` is the reason that
 * `closed` settles with. The states of a call are drawn in pending-request.ts.
 *
 * An uncontended call goes from `access` through `Channel.send` to `sendmsg` without awaiting anything.
 */
import { Mutex } from 'async-mutex';
import type { VfioUserError } from '../errors.js';
import { ClosedError, ProtocolError, RemoteError, UnsupportedError, errnoName } from '../errors.js';
import { closeFds } from '../native.js';
import {
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
import { Channel, STRAY_COST, type ChannelHandler } from './channel.js';
import { Statistics, type Counters } from './counters.js';
import { PendingRequest, type Decoder } from './pending-request.js';
import { POSTED_ID_BASE, PendingRequests } from './pending-requests.js';
import {
  AccessEncoder,
  FLAGS_COMMAND,
  FLAGS_POSTED,
  checkMemory,
  type RegionAccess,
} from './region-access-codec.js';
import { RequestObserver } from './request-observer.js';
import { RequestScheduler, checkInFlight } from './request-scheduler.js';
import type { EncodedMessage, SendQueueOwner } from './send-queue.js';
import { ServerRequests, type RequestHandler } from './server-request.js';
import { Sockets } from './sockets.js';

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
  /** Hears of every message on this connection's sockets, while it is active. */
  tap?: MessageTap | undefined;
  /** Hears of every request, where it is active. */
  observer?: RequestObserver | undefined;
}

const NO_FDS: number[] = [];

const NOTHING: ReadonlySet<number> = new Set();

export class Connection implements ChannelHandler {
  readonly #sockets: Sockets;
  readonly #scheduler: RequestScheduler;
  readonly #statistics = new Statistics();
  readonly #serverRequests = new ServerRequests(this.#statistics);
  readonly #encoder = new AccessEncoder();
  readonly #blocking: BlockingCalls;
  /** The deadline of messages of calls that say nothing, in milliseconds. */
  readonly timeoutMs: number;
  readonly #tap: MessageTap | undefined;
  readonly #observer: RequestObserver;
  readonly #spinUs: number | undefined;
  /** Settles, never rejects, with the reason when the connection ends. */
  readonly closed: Promise<VfioUserError>;
  /** Guards what must not interleave on this socket: the handshake, transactions, read-modify-write. */
  readonly mutex = new Mutex();
  #postedId = POSTED_ID_BASE;
  #settleClosed!: (reason: VfioUserError) => void;
  /** Commands that this server is not sent: `call` refuses them. */
  forbidden: ReadonlySet<number> = NOTHING;

  constructor(open: OpenTransport, options: ConnectionOptions = {}) {
    this.timeoutMs = timeoutOf(options, DEFAULT_TIMEOUT_MS);
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    this.#tap = options.tap;
    this.#observer = options.observer ?? new RequestObserver();
    this.#spinUs = options.spinUs;
    const inFlight = checkInFlight(options.inFlight ?? DEFAULT_IN_FLIGHT);
    const sockets = new Sockets(this.#channel(open));
    const requests = new PendingRequests();
    const scheduler = new RequestScheduler({
      sockets,
      requests,
      inFlight,
      timeoutMs: this.timeoutMs,
      onOverdue: (reason) => this.close(reason),
    });
    this.#sockets = sockets;
    this.#scheduler = scheduler;
    this.#blocking = new BlockingCalls({
      sockets,
      requests,
      scheduler,
      serverRequests: this.#serverRequests,
      encoder: this.#encoder,
      statistics: this.#statistics,
      tap: this.#tap,
      timeoutMs: this.timeoutMs,
    });
  }

  /** What it has done until now, and what waits. */
  get counters(): Counters {
    const { inFlight, queued, tombstones } = this.#scheduler;
    return { ...this.#statistics, inFlight, queued, tombstones };
  }

  /** Who hears of its requests. */
  get observer(): RequestObserver {
    return this.#observer;
  }

  /** Why the connection ended; undefined while it is open. */
  get endReason(): VfioUserError | undefined {
    return this.#scheduler.endReason;
  }

  get passesFds(): boolean {
    return this.#sockets.main.passesFds;
  }

  /** Whether synchronous calls work on this kind of transport. */
  get canBlock(): boolean {
    return this.#sockets.main.canBlock;
  }

  get peer(): string {
    return this.#sockets.main.peer;
  }

  get hasTwin(): boolean {
    return this.#sockets.hasTwin;
  }

  /** How long waits spin now. */
  get spin(): SpinState {
    return this.#sockets.main.spin;
  }

  /** How many commands may wait for their replies at once; 1 where the server loses step otherwise. */
  get inFlightLimit(): number {
    return this.#scheduler.inFlightLimit;
  }

  set inFlightLimit(limit: number) {
    this.#scheduler.inFlightLimit = limit;
  }

  /** Who serves the server's DMA_READ and DMA_WRITE. Without one they are refused. */
  set requestHandler(handler: RequestHandler | undefined) {
    this.#serverRequests.handler = handler;
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
    this.#scheduler.refuseWhenClosed('twin_socket');
    if (this.hasTwin) throw new ProtocolError('a second twin socket');
    this.#blocking.recheckFastPath();
    this.#sockets.attachTwin(this.#channel(open, `${this.peer} (twin)`));
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
    const observer = this.#observer;
    if (!observer.isActive) return this.#call(command, payload, fds, decode, options);
    return observer.async(this.peer, command, () => this.#call(command, payload, fds, decode, options));
  }

  #call<T>(
    command: number,
    payload: Uint8Array | null,
    fds: readonly number[] | null,
    decode: Decoder<T>,
    options: TrackedCallOptions | undefined,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const message = this.#encodeCall(command, payload, fds);
      const onAbandoned = options?.onAbandoned;
      const call = { command, isBlocking: false, reply: decode, resolve, reject, onAbandoned };
      this.#scheduler.submit(this.#scheduler.open(call, options), message);
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
    const observer = this.#observer;
    const call = () => this.#blocking.call(command, this.#encodeCall(command, payload, fds), decode, options);
    return observer.isActive ? observer.sync(this.peer, command, 'sync', call) : call();
  }

  /**
   * REGION_READ and REGION_WRITE, the hot path.
   * @throws ClosedError, RemoteError, TimeoutError, ProtocolError; TypeError where the memory of the access is taken away or
   * resized meanwhile; the signal's reason.
   */
  access<T>(access: RegionAccess<T>, options: CallOptions | undefined): Promise<T> {
    const observer = this.#observer;
    if (!observer.isActive) return this.#access(access, options);
    return observer.async(this.peer, access, () => this.#access(access, options));
  }

  #access<T>(access: RegionAccess<T>, options: CallOptions | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      checkMemory(access);
      const message = this.#encoder.encode(access, FLAGS_COMMAND);
      const { command } = access;
      const call = { command, isBlocking: false, reply: access, resolve, reject, onAbandoned: undefined };
      this.#scheduler.submit(this.#scheduler.open(call, options), message);
    });
  }

  /** `access`, blocking: the lowest latency. */
  accessSync<T>(access: RegionAccess<T>, options: SyncCallOptions | undefined): T {
    const observer = this.#observer;
    if (!observer.isActive) return this.#blocking.access(access, options);
    return observer.sync(this.peer, access, 'sync', () => this.#blocking.access(access, options));
  }

  /** REGION_WRITE with No_reply, in its turn among the calls. An error of it is only counted. */
  post(access: RegionAccess<void>): void {
    const observer = this.#observer;
    if (!observer.isActive) this.#post(access);
    else observer.sync(this.peer, access, 'posted', () => this.#post(access));
  }

  #post(access: RegionAccess<void>): void {
    this.#scheduler.refuseWhenClosed(access.command);
    const message = this.#encoder.encode(access, FLAGS_POSTED);
    writeHeaderId(message.head, 0, this.#postedId);
    this.#postedId = this.#postedId === 0xffff ? POSTED_ID_BASE : this.#postedId + 1;
    this.#scheduler.post(message);
  }

  /** Opening, a burst of calls, is over: a process may have thousands of connections that are idle now. */
  trim(): void {
    this.#scheduler.trim();
  }

  /** Memory that answers were lent from is about to change or to go: what waits of them is copied. */
  copyLentBodies(): void {
    this.#sockets.copyBodies();
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
    if (this.endReason !== undefined) return;
    this.#scheduler.end(reason);
    this.#settleClosed(reason);
  }

  onMessage(channel: Channel, bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    const type = headerFlags(bytes, start) & HEADER_FLAG_TYPE_MASK;
    if (type === HEADER_FLAG_REPLY) {
      this.#onReply(channel, bytes, start, end, fds, false);
    } else {
      if (fds !== undefined) closeFds(fds);
      if (type !== HEADER_FLAG_COMMAND) throw new ProtocolError(`a message of unknown type ${type}`);
      this.#serverRequests.serve(channel, bytes, start, end, undefined);
    }
  }

  findLanding(channel: Channel, bytes: Buffer, start: number): Landing | undefined {
    const flags = headerFlags(bytes, start);
    if ((flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_COMMAND)
      return this.#serverRequests.findLanding(bytes, start);
    // An error reply has no data; anything but a plain reply is assembled and looked at. And replies come on the main
    // socket: were a request lent to both, one message could end in memory of another's.
    if (flags !== HEADER_FLAG_REPLY || channel !== this.#sockets.main) return undefined;
    const request = this.#scheduler.find(headerId(bytes, start));
    return request?.call.command === headerCommand(bytes, start) ? request : undefined;
  }

  onLanded(
    channel: Channel,
    bytes: Buffer,
    start: number,
    landing: Landing,
    fds: number[] | undefined,
  ): void {
    if (landing instanceof PendingRequest) {
      this.#onReply(channel, bytes, start, start + LANDING_PREFIX, fds, true);
    } else {
      if (fds !== undefined) closeFds(fds);
      this.#serverRequests.serve(channel, bytes, start, start + LANDING_PREFIX, landing);
    }
  }

  onSent(owner: SendQueueOwner): void {
    this.#scheduler.onSent(owner);
  }

  onEnd(channel: Channel, reason: VfioUserError): void {
    if (this.#sockets.isTwin(channel) && reason instanceof ClosedError) {
      const error = new ClosedError('the server closed the connection (its twin socket first)', {
        cause: reason,
      });
      this.close(error);
    } else this.close(reason);
  }

  #channel(open: OpenTransport, socket?: string): Channel {
    return new Channel({
      open: withSpin(open, this.#spinUs),
      handler: this,
      statistics: this.#statistics,
      tap: this.#tap,
      socket,
    });
  }

  #setReferenced(on: boolean): void {
    this.#sockets.setReferenced(on);
    this.#scheduler.setReferenced(on);
  }

  /** A command that may be sent to this server, with id 0. */
  #encodeCall(command: number, payload: Uint8Array | null, fds: readonly number[] | null): EncodedMessage {
    if (this.forbidden.has(command)) {
      throw new UnsupportedError(`${commandName(command)} must not be sent to this server (quirk doNotSend)`);
    }
    if (fds !== null && fds.length > 0 && !this.passesFds) {
      throw new UnsupportedError(
        `${commandName(command)}: no file descriptor can be passed over ${this.peer}`,
      );
    }
    const head = Buffer.allocUnsafe(HEADER_SIZE);
    const size = HEADER_SIZE + (payload === null ? 0 : payload.length);
    writeHeader(head, 0, 0, command, size, FLAGS_COMMAND, 0);
    return { head, headLength: HEADER_SIZE, body: payload, fds };
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
    const request = this.#scheduler.find(id);
    if (request === undefined) {
      if (fds !== undefined) closeFds(fds);
      this.#onStrayReply(channel, id);
      return;
    }
    const command = headerCommand(bytes, start);
    const { call } = request;
    if (command !== call.command) {
      if (fds !== undefined) closeFds(fds);
      throw new ProtocolError(
        `a reply to ${commandName(call.command)} says that it is one to ${commandName(command)}`,
      );
    }
    this.#scheduler.onReply(request);
    const own = fds ?? NO_FDS;
    if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) {
      call.reject(
        refusal(commandName(command), headerErrno(bytes, start), channel.inProcess?.refusalOf?.(id)),
      );
    } else {
      try {
        call.resolve(request.decode(bytes, start + HEADER_SIZE, end, own, landed) as never);
      } catch (error) {
        call.reject(error);
      }
    }
    for (const fd of own) if (fd >= 0) closeFds([fd]);
    this.#scheduler.pump();
  }

  /** A reply that nobody waits for: late, or never asked for. Neither is worth the connection. */
  #onStrayReply(channel: Channel, id: number): void {
    channel.chargeUnsolicited(STRAY_COST);
    if (this.#scheduler.onLateReply(id)) this.#statistics.late++;
    else if (id >= POSTED_ID_BASE) this.#statistics.postedErrors++;
    else this.#statistics.unknown++;
  }
}

/** The error of an error reply. A device of this process says why. */
function refusal(command: string, errno: number, why: unknown): RemoteError {
  if (!(why instanceof Error)) return new RemoteError(command, errno);
  const detail = why.message === errnoName(errno) ? undefined : why.message;
  return new RemoteError(command, errno, { cause: why }, detail);
}
