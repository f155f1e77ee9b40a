/**
 * One client's connection.
 *
 * ```
 *   greeting ──VERSION──▶ open ──────────────────────────────▶ closed
 *      └──anything else──▶ closing (the error is leaving) ──────▲
 * ```
 * Commands are carried out one by one in the order in which they come. One whose handler is synchronous is answered
 * from within the receive loop, in place; while a promise is pending, later commands wait in a queue. Replies to our
 * own commands never wait: a handler may be waiting for them. A client whose commands have used up its share of a turn
 * of the loop is not read any further until the loop has turned.
 */
import { ClosedError, ProtocolError, VfioUserError } from '../errors.js';
import { closeFds } from '../native.js';
import {
  Command,
  commandName,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
} from '../protocol/constants.js';
import { writeHeader, type Header } from '../protocol/header.js';
import { REGION_ACCESS_SIZE, writeRegionAccess } from '../protocol/region-access.js';
import type { Transport, TransportHandler } from '../transport/index.js';
import { TurnShare } from '../turn-share.js';
import { ClientState } from './client-state.js';
import { PendingCommands } from './pending-commands.js';
import { Commands, takesFds, type Message, type Reply } from './commands.js';
import { DeviceError, EINVAL, EIO } from './device-error.js';
import type { DeviceModel } from './device-model.js';
import type { Settings } from './emulator-options.js';
import { takeHeader, writeErrorReply } from './headers.js';
import { negotiate, negotiationReply, type Negotiated } from './negotiation.js';
import { OutputQueue } from './output-queue.js';
import { checkVerdict, type Verdict } from './faults.js';
import { isPromise } from './maybe-async.js';
import type { RegionTable } from './region-table.js';
import { ServerRequests } from './server-requests.js';
import { TwinSocket } from './twin-socket.js';

/** Bytes that may wait, to be sent or to be carried out, before we stop reading. */
export const HIGH_WATER = 4 << 20;
/** Bytes of commands that may wait while we must go on reading because a reply is due on the same socket. */
export const MAX_QUEUED = 16 << 20;
/** How long the last reply may take to leave, in milliseconds; a stream drops what it has not written. */
const LINGER_MS = 100;

export class EmulatorSession implements TransportHandler {
  /** The reason, when the connection has ended. */
  readonly closed: Promise<VfioUserError>;
  /** Header and access structure of the reply that is being sent: taken, or copied, before `send` returns. */
  readonly #replyHead = Buffer.alloc(HEADER_SIZE + REGION_ACCESS_SIZE);
  readonly #device: DeviceModel;
  readonly #regions: RegionTable;
  readonly #settings: Settings;
  readonly #transport: Transport;
  readonly #output: OutputQueue;
  #state: 'greeting' | 'open' | 'closing' | 'closed' = 'greeting';
  /** Why, while closing. */
  #reason: VfioUserError | undefined;
  #resolveClosed!: (reason: VfioUserError) => void;
  /** Commands that wait: for the one being carried out, or for the client to take its replies. */
  readonly #queue: PendingCommands;
  /** A command is being carried out, or held back. */
  #isBusy = false;
  /** Not until the first message, which was there before the session. */
  #isReading = false;
  readonly #share = new TurnShare(() => this.#goOn());
  /** More waits in the output than leaves in one turn, and the socket may take it. */
  #hasMoreToSend = false;
  #isReferenced = true;
  #timer: NodeJS.Timeout | undefined;
  /** From the negotiation on. */
  #twin: TwinSocket | undefined;
  #requests: ServerRequests | undefined;
  #client: ClientState | undefined;
  #commands: Commands | undefined;
  /** The last error reply, and what it is for: a client in this process is told more than an errno. */
  #refusal: { readonly id: number; readonly error: unknown } | undefined;

  constructor(
    device: DeviceModel,
    regions: RegionTable,
    settings: Settings,
    open: (handler: TransportHandler) => Transport,
  ) {
    this.#device = device;
    this.#regions = regions;
    this.#settings = settings;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#transport = open(this);
    this.#output = new OutputQueue(this.#transport);
    this.#queue = new PendingCommands(MAX_QUEUED / settings.maxQueuedFds);
  }

  get isClosed(): boolean {
    return this.#state === 'closed';
  }

  /** Memory that waits for the client: commands that are not carried out yet, and what it has not taken. Bytes. */
  get kept(): { commands: number; replies: number } {
    return { commands: this.#queue.bytes, replies: this.#output.bytes };
  }

  /** A command waits for a promise of the device's, or for one before it that does. */
  get isBusy(): boolean {
    return this.#isBusy || this.#queue.length > 0;
  }

  refusalOf(id: number): unknown {
    return this.#refusal?.id === id ? this.#refusal.error : undefined;
  }

  ref(): void {
    this.#isReferenced = true;
    this.#transport.ref();
    this.#twin?.transport.ref();
  }

  unref(): void {
    this.#isReferenced = false;
    this.#transport.unref();
    this.#twin?.transport.unref();
  }

  close(reason: VfioUserError = new ClosedError('the server was closed')): void {
    this.#end(reason);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] = []): void {
    const header = this.#isOver ? undefined : takeHeader(bytes, start, fds);
    if (header === undefined || (header.flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY) {
      closeFds(fds);
      if (header !== undefined) this.#onReply(header, bytes, start, end);
      return;
    }
    const begun = performance.now();
    const { id, command, flags } = header;
    const payload = start + HEADER_SIZE;
    const message = { id, command, flags, bytes, start: payload, end, fds, fdCount: fds.length };
    if (this.#mayRun && this.#queue.length === 0) this.#run(message);
    else {
      // It may wait for long: it does not keep what it will not need.
      if (!takesFds(command)) closeFds(fds.splice(0));
      this.#queue.push(message);
    }
    if (this.#queue.bytes > MAX_QUEUED) {
      throw new ProtocolError(`the client sent too many commands: ${this.#queue.length} are waiting`);
    }
    this.#spend(begun);
    this.#throttle();
  }

  findLanding(): undefined {
    return undefined;
  }

  /** No landing was lent. */
  onLanded(): void {}

  onWritable(): void {
    this.#hasMoreToSend = !this.#output.flush();
    if (this.#hasMoreToSend) this.#share.useUp();
    if (this.#state === 'closing') this.#endWhenSent();
    else this.#runQueue();
  }

  onEnd(reason: VfioUserError): void {
    this.#end(reason instanceof ClosedError ? new ClosedError('the client closed the connection') : reason);
  }

  /** Whether nothing that comes counts any more. */
  get #isOver(): boolean {
    return this.#state === 'closing' || this.#state === 'closed';
  }

  #onReply({ command }: Header, bytes: Buffer, start: number, end: number): void {
    if (this.#requests === undefined || this.#twin !== undefined) {
      throw new ProtocolError(`a reply to ${commandName(command)}: nothing was asked on this socket`);
    }
    this.#requests.onReply(bytes, start, end);
  }

  /** Whether the next command can be carried out, as far as the one before it and the client's reading go. */
  get #mayRun(): boolean {
    return !this.#isBusy && !this.#share.isUsedUp && this.#output.bytes <= HIGH_WATER;
  }

  #runQueue(): void {
    while (this.#state === 'open' && this.#mayRun) {
      const message = this.#queue.shift();
      if (message === undefined) break;
      const begun = performance.now();
      this.#run(message);
      this.#spend(begun);
    }
    this.#throttle();
  }

  /** The loop has turned since the share of it was used up. */
  #goOn(): void {
    if (this.#hasMoreToSend) this.onWritable();
    else this.#runQueue();
  }

  /** A message whose turn has come. */
  #run(message: Message): void {
    const verdict = this.#verdictOn(message);
    if (verdict === 'pass') {
      this.#execute(message);
    } else if (typeof verdict === 'object' && 'delayMs' in verdict) {
      this.#delay(message, verdict.delayMs);
    } else {
      closeFds(message.fds);
      if (verdict === 'close') this.#end(new ClosedError('an intercept closed the connection'));
      else if (verdict !== 'drop') this.#refuse(message, new DeviceError(verdict.errno));
    }
  }

  /** What the intercept wants. A mistake of its own is reported to `onError` and answered EIO. */
  #verdictOn({ id, command, flags, bytes, start, end, fdCount }: Message): Verdict {
    const { intercept } = this.#settings;
    if (intercept === undefined) return 'pass';
    const name = commandName(command);
    try {
      const payload = bytes.subarray(start, end);
      return checkVerdict(intercept({ id, command, name, flags, payload, fdCount }) ?? 'pass');
    } catch (error) {
      this.#settings.onError(error);
      return { errno: EIO };
    }
  }

  #delay(message: Message, delayMs: number): void {
    this.#queue.pushFirst(message);
    this.#isBusy = true;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#isBusy = false;
      this.#execute(this.#queue.shift()!);
      this.#runQueue();
    }, delayMs);
  }

  #execute(message: Message): void {
    const { metrics } = this.#settings;
    const measured = metrics.begin();
    try {
      if (this.#state === 'greeting') {
        this.#greet(message);
        return;
      }
      const answer = this.#commands!.execute(message);
      if (isPromise(answer)) {
        void this.#finish(message, answer, measured);
        return;
      }
      this.#reply(message, answer);
      metrics.end(message.command, measured, false);
    } catch (error) {
      this.#refuse(message, error);
      metrics.end(message.command, measured, true);
    } finally {
      closeFds(message.fds);
    }
  }

  async #finish(message: Message, answer: Promise<Reply>, measured: number | undefined): Promise<void> {
    this.#isBusy = true;
    let isRefused = false;
    const respond = await answer.then(
      (reply) => () => this.#reply(message, reply),
      (error: unknown) => () => {
        isRefused = true;
        this.#refuse(message, error);
      },
    );
    const begun = performance.now();
    try {
      respond();
    } catch (error) {
      isRefused = true;
      this.#refuse(message, error);
    }
    this.#settings.metrics.end(message.command, measured, isRefused);
    this.#isBusy = false;
    this.#spend(begun);
    this.#runQueue();
  }

  /** A client in this thread takes of its own time: what it may take in a turn is not for us to say. */
  #spend(begun: number): void {
    if (this.#transport.inProcess !== undefined) return;
    this.#share.spend(performance.now() - begun, this.#transport.turn);
  }

  /** The first command: VERSION, or the connection ends. */
  #greet(message: Message): void {
    const { command, bytes, start, end } = message;
    try {
      if (command !== Command.VERSION) {
        throw new ProtocolError(`the client began with ${commandName(command)} instead of VERSION`);
      }
      this.#open(message, negotiate(bytes, start, end, this.#settings, this.#transport.passesFds));
    } catch (error) {
      this.#refuse(message, error);
      this.#closeAfterReply(
        error instanceof VfioUserError ? error : new ClosedError('no session', { cause: error }),
      );
    }
  }

  #open(message: Message, negotiated: Negotiated): void {
    const device = this.#device;
    const settings = this.#settings;
    const sharesFds = this.#transport.passesFds && settings.mmap === 'always';
    const twin = negotiated.twinSocket ? this.#makeTwin() : undefined;
    this.#requests = new ServerRequests(twin?.output ?? this.#output, settings.dmaTimeoutMs, () =>
      this.#throttle(),
    );
    this.#client = new ClientState(device, settings, this.#requests, negotiated.client.maxDataXferSize);
    this.#commands = new Commands(device, this.#regions, this.#client, settings, negotiated, sharesFds);
    this.#state = 'open';
    const fds = twin === undefined ? [] : [twin.clientFd];
    this.#reply(message, {
      payload: negotiationReply(negotiated, settings),
      fds,
      onSent: () => closeFds(fds),
    });
    if (this.#client.isConnected) this.#tellDevice(() => device.attach?.(this.#client!));
  }

  #makeTwin(): TwinSocket {
    this.#twin = new TwinSocket(
      (bytes, start, end) => this.#requests!.onReply(bytes, start, end),
      (reason) => this.onEnd(reason),
      this.#settings.messageTimeoutMs,
    );
    if (!this.#isReferenced) this.#twin.transport.unref();
    return this.#twin;
  }

  #reply(message: Message, { access, payload, fds, onSent }: Reply): void {
    if (this.#state === 'closed' || (message.flags & HEADER_FLAG_NO_REPLY) !== 0) {
      onSent?.();
      return;
    }
    const headLength = HEADER_SIZE + (access === undefined ? 0 : REGION_ACCESS_SIZE);
    const size = headLength + (payload?.byteLength ?? 0);
    const head = this.#replyHead;
    writeHeader(head, 0, message.id, message.command, size, HEADER_FLAG_REPLY, 0);
    if (access !== undefined)
      writeRegionAccess(head, HEADER_SIZE, access.offset, access.region, access.count);
    this.#output.send(head, headLength, payload, fds?.length === 0 ? null : fds, onSent);
  }

  /** An error reply: a bare header. */
  #refuse(message: Message, error: unknown): void {
    if (this.#state === 'closed') return;
    const errno = this.#errnoOf(error);
    if ((message.flags & HEADER_FLAG_NO_REPLY) !== 0) return;
    if (this.#transport.inProcess !== undefined) this.#refusal = { id: message.id, error };
    writeErrorReply(this.#replyHead, message.id, message.command, errno);
    this.#output.send(this.#replyHead, HEADER_SIZE, null);
  }

  #errnoOf(error: unknown): number {
    if (error instanceof DeviceError) return error.errno;
    if (error instanceof ProtocolError) return EINVAL;
    this.#settings.onError(error);
    return EIO;
  }

  /** Stops reading where the client asks for more than it takes, or than the device manages. */
  #throttle(): void {
    const waitsForReply = this.#twin === undefined && (this.#requests?.waiting ?? 0) > 0;
    const hasRoom = this.#output.bytes <= HIGH_WATER && (this.#queue.bytes <= HIGH_WATER || waitsForReply);
    this.#setReading(!this.#share.isUsedUp && hasRoom);
  }

  #setReading(on: boolean): void {
    if (this.#state === 'closed' || on === this.#isReading) return;
    this.#isReading = on;
    this.#transport.setReading(on);
  }

  #closeAfterReply(reason: VfioUserError): void {
    if (this.#state === 'closed') return;
    this.#state = 'closing';
    this.#reason = reason;
    this.#endWhenSent();
  }

  #endWhenSent(): void {
    const reason = this.#reason!;
    if (this.#transport.passesFds && this.#output.bytes === 0) this.#end(reason);
    else this.#timer ??= setTimeout(() => this.#end(reason), LINGER_MS);
  }

  #end(reason: VfioUserError): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    clearTimeout(this.#timer);
    this.#share.stop();
    this.#transport.close();
    this.#twin?.close();
    this.#output.clear();
    this.#queue.clear();
    const client = this.#client;
    if (client !== undefined) {
      client.end(reason);
      this.#tellDevice(() => this.#device.detach?.(client));
    }
    this.#resolveClosed(reason);
  }

  #tellDevice(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      this.#settings.onError(error);
    }
  }
}

/** Tells whoever watches the server of a client that has begun. */
export function tellOfClient(session: EmulatorSession, { onClient, onError }: Settings): void {
  try {
    onClient?.({
      closed: session.closed,
      get isClosed() {
        return session.isClosed;
      },
      close: () => session.close(),
    });
  } catch (error) {
    onError(error);
  }
}
