/** A proxy: clients come in, each is connected to the server, and all that they say passes through. */
import { resolve } from 'node:path';
import { forbidCloning } from '../cloning.js';
import { ClosedError, VfioUserError } from '../errors.js';
import { openTap, type TraceTap } from '../trace/index.js';
import { DeviceFaults, type FaultReport } from '../faults/index.js';
import { AdmissionQueue } from '../admission-queue.js';
import { addTo, newWayCounters } from './counters.js';
import { openListener, type Listener } from './listener.js';
import type { OpenPeer } from './peer.js';
import type { ListenAddress, ProxyCounters, ProxyOptions, ServerAddress, Settings } from './proxy-options.js';
import { settingsOf } from './proxy-options.js';
import { proxyMetrics } from './metrics.js';
import { ProxySession } from './proxy-session.js';
import { connectUpstream, serverName } from './connect-upstream.js';
import { PendingClient } from './pending-client.js';

/**
 * Listens, and passes on what clients and server say to each other: messages with the fds that belong to them, and the
 * twin socket. Each client gets a connection of its own to the server, which need not be there yet, when its first message
 * has come: one who says nothing keeps no place, and does not bother the server.
 *
 * Between two Unix sockets nothing is changed, but for the process that the server sees its client as (SO_PEERCRED).
 * Where a side takes no fds they end here, and messages go without.
 *
 * @throws TypeError and RangeError for options that make no sense; TransportError where the socket cannot be had; what
 * opening the capture file throws.
 */
export async function proxy(options: ProxyOptions): Promise<ProxyServer> {
  const settings = settingsOf(options);
  const name = serverName(options.connect);
  if (addressOf(options.listen) === addressOf(options.connect)) {
    throw new TypeError(`a proxy cannot listen where its server is: ${name}`);
  }
  const holder: { server?: ProxyServer } = {};
  // The listener goes first: a socket that is taken must not cost the capture of whoever has it.
  const listener = await openListener(options.listen, {
    hasRoom: () => holder.server?.hasRoom ?? false,
    onArrival: (open) => holder.server!.admit(open),
    onTrouble: (error) => settings.onEvent({ type: 'notice', text: error.message }),
  });
  let tap: TraceTap;
  try {
    tap = await openTap({ trace: options.trace, capture: options.capture, registers: options.registers });
  } catch (error) {
    listener.close();
    throw error;
  }
  holder.server = new ProxyServer({ listener, tap, settings, connect: options.connect, name });
  listener.resume();
  return holder.server;
}

/** The path of a Unix socket; of everything else something that is nowhere twice. */
function addressOf(address: ListenAddress | ServerAddress): string | symbol {
  const path = typeof address === 'object' && address !== null && 'path' in address ? address.path : address;
  if (typeof path !== 'string') return Symbol();
  if (path.startsWith('@')) return `\0${path.slice(1)}`;
  return path.startsWith('\0') ? path : resolve(path);
}

interface Parts {
  listener: Listener;
  tap: TraceTap;
  settings: Settings;
  connect: ServerAddress;
  name: string;
}

/**
 * A proxy that runs; made by `proxy`. It runs on the event loop of the thread that made it: a client or server in the same
 * thread must not block it with synchronous calls.
 *
 * @example
 * ```ts
 * await using server = await proxy({ listen: '/tmp/front.sock', connect: '/run/dev.sock', trace: true });
 * ```
 */
export class ProxyServer implements AsyncDisposable {
  /** Where it listens, as people write it: a path, `@name`, `127.0.0.1:4420`. */
  readonly address: string;
  readonly #parts: Parts;
  readonly #room: AdmissionQueue<PendingClient>;
  /** By the number of their name, undefined while the server is being connected to. */
  readonly #sessions = new Map<number, ProxySession | undefined>();
  readonly #closing = new AbortController();
  /** Of the sessions that are over. */
  readonly #toServer = newWayCounters();
  readonly #toClient = newWayCounters();
  readonly #faults: DeviceFaults | undefined;
  /** By a fault the server is not there: until when. */
  #awayUntil = 0;
  #clients = 0;
  #refused = 0;
  #interrupts = 0;

  /** @internal */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#room = new AdmissionQueue(parts.settings.maxClients, () => parts.listener.resume());
    this.address = parts.listener.address;
    const { plan, onEvent } = parts.settings;
    if (plan?.isOfDevice === true) {
      this.#faults = new DeviceFaults(plan, {
        onServerEnd: (reason, backAfterMs) => this.#endServer(reason, backAfterMs),
        onFault: ({ number, fault, what }) =>
          onEvent({ type: 'fault', fault: `fault ${number}: ${fault}`, message: what }),
      });
    }
    forbidCloning(this, 'a ProxyServer');
  }

  /** What has become of the faults; undefined where there are none. */
  faultReport(): FaultReport | undefined {
    return this.#parts.settings.plan?.report();
  }

  /** @internal */
  get hasRoom(): boolean {
    return this.#room.hasRoom();
  }

  /** What went through so far. */
  get counters(): ProxyCounters {
    const toServer = { ...this.#toServer };
    const toClient = { ...this.#toClient };
    let interrupts = this.#interrupts;
    for (const session of this.#sessions.values()) {
      if (session === undefined) continue;
      addTo(toServer, session.toServer);
      addTo(toClient, session.toClient);
      interrupts += session.interrupts;
    }
    const faults = this.#parts.settings.plan?.fired ?? 0;
    const open = this.#room.size;
    return { clients: this.#clients, open, refused: this.#refused, toServer, toClient, faults, interrupts };
  }

  /**
   * What went through until now, for Prometheus and its like: OpenMetrics 1.0 text, which ends with `# EOF`. The counters
   * of `counters`.
   */
  metrics(): string {
    return proxyMetrics(this.address, this.counters);
  }

  /** Lets the process end although the proxy waits for clients. Those that are there keep it. */
  unref(): this {
    this.#parts.listener.unref();
    return this;
  }

  /** Undoes `unref`. */
  ref(): this {
    this.#parts.listener.ref();
    return this;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Ends all connections, stops listening, removes the socket file and ends the capture. Idempotent. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const reason = new ClosedError('the proxy was closed');
    this.#closing.abort(reason);
    this.#room.close(reason);
    for (const session of [...this.#sessions.values()]) session?.close(reason);
    this.#parts.listener.close();
    this.#parts.tap.close();
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The server is gone for all its clients, as far as they can see. */
  #endServer(reason: string, backAfterMs: number | undefined): void {
    this.#awayUntil = performance.now() + (backAfterMs ?? Infinity);
    // A session may be passing on a message just now.
    setImmediate(() => {
      for (const session of [...this.#sessions.values()]) session?.close(new ClosedError(reason));
      this.#faults?.renew();
    });
  }

  /** @internal */
  admit(open: OpenPeer): void {
    const client = ++this.#clients;
    const { settings } = this.#parts;
    const pending: PendingClient = new PendingClient(open, settings, {
      onSpoken: () => this.#room.onSpoken(pending),
      onPlace: () => this.#serve(pending, client),
      onGone: (error) => {
        this.#room.forget(pending);
        this.#tellEnded(client, error);
      },
    });
    this.#room.add(pending);
    settings.onEvent({ type: 'connected', client });
    pending.listen();
  }

  /** From when a client has its place until it has left it. */
  async #serve(pending: PendingClient, client: number): Promise<void> {
    // The lowest number that is free: a capture describes as many sockets as there were at once, not as ever came.
    let number = 1;
    while (this.#sessions.has(number)) number++;
    this.#sessions.set(number, undefined);
    const { connect, settings, tap, name } = this.#parts;
    try {
      this.#refuseWhileAway();
      const server = await connectUpstream(connect, settings, this.#closing.signal);
      await new Promise<void>((resolve) => {
        const onOver = (over: ProxySession): void => {
          this.#countOver(over);
          resolve();
        };
        const socket = number === 1 ? name : `${name}#${number}`;
        const session = new ProxySession(
          { client: pending.open, server },
          { client, name: socket, settings, tap, faults: this.#faults, onOver },
        );
        this.#sessions.set(number, session);
        this.#start(session, pending);
      });
    } catch (error) {
      this.#refused++;
      this.#tellEnded(client, error);
    } finally {
      this.#sessions.delete(number);
    }
  }

  /** What a peer throws as it begins to read, a stream of the caller's for one, ends the session. */
  #start(session: ProxySession, pending: PendingClient): void {
    try {
      this.#closing.signal.throwIfAborted();
      // It may have ended while it was connected to.
      this.#refuseWhileAway();
      session.start();
      pending.replay();
    } catch (error) {
      session.close(
        error instanceof VfioUserError ? error : new ClosedError(messageOf(error), { cause: error }),
      );
    }
  }

  #refuseWhileAway(): void {
    if (performance.now() < this.#awayUntil) throw new ClosedError('by a fault the server is not there');
  }

  #tellEnded(client: number, error: unknown): void {
    const reason = messageOf(error);
    const code = error instanceof VfioUserError ? error.code : 'ERR_VFIO_USER_CLOSED';
    this.#parts.settings.onEvent({ type: 'ended', client, reason, code });
  }

  #countOver(session: ProxySession): void {
    addTo(this.#toServer, session.toServer);
    addTo(this.#toClient, session.toClient);
    this.#interrupts += session.interrupts;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
