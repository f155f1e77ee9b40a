/** Servers: where clients come from. */
import type { Duplex } from 'node:stream';
import { forbidCloning } from '../cloning.js';
import { ClosedError, type VfioUserError } from '../errors.js';
import type { FaultPlan, FaultReport } from '../faults/index.js';
import { integer } from '../fields.js';
import * as option from '../options.js';
import {
  DuplexTransport,
  listenAt,
  listeningPath,
  openFd,
  shownPath,
  type ListeningSocket,
  type Transport,
  type TransportHandler,
} from '../transport/index.js';
import { checkDevice } from './device-check.js';
import type { DeviceModel } from './device-model.js';
import {
  EMULATOR_CHECKS,
  EMULATOR_OPTIONS,
  settingsOf,
  type EmulatorOptions,
  type Settings,
} from './emulator-options.js';
import { ClientListener } from './client-listener.js';
import { FaultSeam, planOf } from './fault-seam.js';
import { RegionTable } from './region-table.js';
import { EmulatorSession, tellOfClient } from './emulator-session.js';

/** Options of `serve`. */
export interface ServeOptions extends EmulatorOptions {
  /** Where to listen: a path, or an abstract name that begins with NUL. */
  path: string;
  /** Permission bits of the socket file; 0o600 by default. */
  mode?: number;
  /** Clients that may wait to be accepted; 16 by default. */
  backlog?: number;
  /**
   * `'one'`, by default: further clients are connected, and served when the one before them has gone.
   * `'many'`: all at once, each with its own interrupts and memory, on one device.
   */
  clients?: 'one' | 'many';
  /** With `'many'`: clients that are served at the same time; the others wait. 64 by default, 1,024 at most. */
  maxClients?: number;
}

const DEFAULT_MAX_CLIENTS = 64;
const MOST_CLIENTS = 1_024;
const MOST_FD = 0x7fff_ffff;
const SERVE_OPTIONS = new option.OptionTable<ServeOptions>(
  {
    ...EMULATOR_CHECKS,
    path: option.string,
    mode: option.wholeNumber(0, 0o7777),
    backlog: option.wholeNumber(0, MOST_FD),
    clients: option.oneOf('one', 'many'),
    maxClients: option.wholeNumber(1, MOST_CLIENTS),
  },
  ['path'],
);

/**
 * Serves a device on a Unix socket.
 *
 * @throws TransportError where the socket cannot be had: EADDRINUSE where somebody listens or the file is no socket;
 * TypeError or RangeError for a device that contradicts itself and for options that make no sense.
 */
export async function serve(device: DeviceModel, options: ServeOptions): Promise<EmulatorServer> {
  SERVE_OPTIONS.check('serve', options);
  const { path, mode = 0o600, backlog = 16, clients = 'one', maxClients = DEFAULT_MAX_CLIENTS } = options;
  const address = listeningPath('serve: path', path);
  const places = clients === 'one' ? 1 : maxClients;
  checkDevice(device);
  if (device.hardware !== undefined && places > 1) {
    throw new RangeError(
      "serve: clients must be 'one' for hardware, whose memory and interrupts are one client's",
    );
  }
  const settings = settingsOf(options, places, device.hardware);
  const plan = planOf('serve', options.faults, device);
  const socket = await listenAt(address, backlog, mode);
  return new EmulatorServer(device, plan, settings, { socket, path, places });
}

/**
 * Serves a device to the one client at the other end of a connected stream socket, and ends with it. The fd is the
 * server's from here on.
 *
 * @throws TransportError where the fd is no such socket; TypeError or RangeError for a device that contradicts itself and for
 * options that make no sense: then the fd is still the caller's.
 */
export function serveFd(device: DeviceModel, fd: number, options: EmulatorOptions = {}): EmulatorServer {
  EMULATOR_OPTIONS.check('serveFd', options);
  integer('serveFd: fd', fd, 0, MOST_FD);
  checkDevice(device);
  const settings = settingsOf(options, 1, device.hardware);
  const plan = planOf('serveFd', options.faults, device);
  return new EmulatorServer(device, plan, settings, { open: openFd(fd) });
}

/**
 * Serves a device to the one client at the other end of a stream of bytes, and ends with it. No fds pass: the client
 * maps no regions, has no eventfds, and its memory is reached by messages. The stream is the server's from here on.
 */
export function serveStream(
  device: DeviceModel,
  stream: Duplex,
  options: EmulatorOptions = {},
): EmulatorServer {
  EMULATOR_OPTIONS.check('serveStream', options);
  const problem = option.duplex(stream, 'serveStream', 'stream');
  if (problem !== undefined) throw problem;
  checkDevice(device);
  const settings = settingsOf(options, 1, device.hardware);
  const plan = planOf('serveStream', options.faults, device);
  const open = (handler: TransportHandler): Transport => new DuplexTransport(stream, 'the client', handler);
  return new EmulatorServer(device, plan, settings, { open });
}

type Source =
  | { socket: ListeningSocket; path: string; places: number }
  | { open: (handler: TransportHandler) => Transport };

/**
 * A device being served; made by `serve`, `serveFd` and `serveStream`. It runs on the loop of the thread that made it:
 * a client in the same thread must not block it with synchronous calls.
 *
 * @example
 * ```ts
 * await using server = await serve(new EduDevice(), { path: '/tmp/edu.sock' });
 * await server.closed;
 * ```
 */
export class EmulatorServer implements AsyncDisposable {
  /** The device that is served. */
  readonly device: DeviceModel;
  /** Where it listens; undefined where it does not. */
  readonly path: string | undefined;
  /** The reason, when the server has ended: it was closed, or its only connection ended. */
  readonly closed: Promise<VfioUserError>;
  readonly #regions: RegionTable;
  readonly #settings: Settings;
  /** What is served: the device, or what stands before it where there are faults. */
  readonly #served: DeviceModel;
  readonly #plan: FaultPlan | undefined;
  readonly #seam: FaultSeam | undefined;
  readonly #listener: ClientListener;
  readonly #sessions = new Set<EmulatorSession>();
  #socket: ListeningSocket | undefined;
  #isReferenced = true;
  #isClosed = false;
  #resolveClosed!: (reason: VfioUserError) => void;

  /** @internal */
  constructor(device: DeviceModel, plan: FaultPlan | undefined, settings: Settings, source: Source) {
    forbidCloning(this, 'an EmulatorServer');
    this.device = device;
    this.#plan = plan;
    if (plan !== undefined) {
      const endServer = (reason: VfioUserError, forGood: boolean): void => this.#endByFault(reason, forGood);
      this.#seam = new FaultSeam(device, plan, settings, { endServer });
    }
    this.#served = this.#seam?.device ?? device;
    this.#regions = new RegionTable(this.#served.regions);
    this.#settings = this.#seam?.settings ?? settings;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const { versionTimeoutMs, messageTimeoutMs } = settings;
    this.#listener = new ClientListener({
      places: 'open' in source ? 1 : source.places,
      versionTimeoutMs,
      messageTimeoutMs,
      admit: (open) => this.#begin(open),
      onTrouble: (error) => settings.onError(error),
    });
    if ('open' in source) {
      // With its only connection the server ends.
      void this.#listener.admit(source.open).ended.then((reason) => this.#end(reason));
      return;
    }
    this.path = source.path;
    this.#socket = source.socket;
    this.#listener.listen(source.socket.fd, source.path);
  }

  /** Whether the server has ended. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Clients that are served at this moment, those that have not sent VERSION yet among them where there is a place. */
  get clientCount(): number {
    return this.#listener.count;
  }

  /** What has become of the faults; undefined where there are none. */
  faultReport(): FaultReport | undefined {
    return this.#plan?.report();
  }

  /**
   * What clients asked for until now, for Prometheus and its like: OpenMetrics 1.0 text, which ends with `# EOF`. Clients,
   * and how long commands took, in seconds by command. Measured from the first call of this on.
   */
  metrics(): string {
    return this.#settings.metrics.text(this.path === undefined ? '' : shownPath(this.path), this.clientCount);
  }

  /** Lets the process end although the server runs. */
  unref(): this {
    this.#isReferenced = false;
    this.#listener.unref();
    for (const session of this.#sessions) session.unref();
    return this;
  }

  /** Undoes `unref`. */
  ref(): this {
    this.#isReferenced = true;
    this.#listener.ref();
    for (const session of this.#sessions) session.ref();
    return this;
  }

  /** Ends all connections, stops listening and removes the socket file. The device stays as it is. Idempotent. */
  async close(): Promise<void> {
    this.#end(new ClosedError('the server was closed'));
    await this.closed;
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #begin(open: (handler: TransportHandler) => Transport): EmulatorSession {
    const session = new EmulatorSession(this.#served, this.#regions, this.#settings, open);
    if (!this.#isReferenced) session.unref();
    this.#sessions.add(session);
    void session.closed.then(() => this.#sessions.delete(session));
    if (this.#seam?.isAway === true) {
      session.close(new ClosedError('by a fault the server is not there'));
      return session;
    }
    tellOfClient(session, this.#settings);
    return session;
  }

  #endByFault(reason: VfioUserError, forGood: boolean): void {
    if (forGood) this.#end(reason);
    else for (const session of this.#sessions) session.close(reason);
  }

  #end(reason: VfioUserError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const session of this.#sessions) session.close(reason);
    // Before the socket is closed: until then no other server takes the file for a stale one.
    this.#socket?.removeFile();
    this.#listener.close();
    this.#resolveClosed(reason);
  }
}
