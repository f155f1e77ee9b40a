/** Recordings as servers. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { forbidCloning } from '../cloning.js';
import { ClientListener } from '../emulator/client-listener.js';
import { ClosedError, type VfioUserError } from '../errors.js';
import * as option from '../options.js';
import { listenAt, type ListeningSocket, type Transport, type TransportHandler } from '../transport/index.js';
import { settingsOf, type ReplayOptions, type ReplaySettings } from './replay-options.js';
import { readRecording, type Recording } from './recording.js';
import { ReplayError } from './replay-error.js';
import { formatReport, type ReplayReport } from './report.js';
import { ReplaySession } from './replay-session.js';

const BACKLOG = 16;
const MODE = 0o600;
/** Clients may come and go for as long as they like. */
const MOST_REPORTS = 1_000;

/**
 * Serves a recording on a Unix socket. `files` is a capture, or the files of one that was rotated, the oldest first.
 *
 * ```ts
 * await using server = await replay('fixtures/boot.pcapng');
 * await using device = await connect(server.path);
 * …
 * await device.close();
 * await server.assertComplete();
 * ```
 * @throws CaptureError for a file that is no capture, was cut, or contradicts itself; TypeError and RangeError for
 * options that make no sense and for a connection that the capture does not have; TransportError where the socket
 * cannot be had; what reading files throws.
 */
export async function replay(
  files: string | readonly string[],
  options: ReplayOptions = {},
): Promise<ReplayServer> {
  const settings = settingsOf(options);
  const list = typeof files === 'string' ? [files] : files;
  const problem = option.listOf('paths', option.path)(list, 'replay', 'files');
  if (problem !== undefined) throw problem;
  if (list.length === 0) throw new TypeError('replay needs the path of a capture');
  const recording = await readRecording(list, settings.connection);
  const directory = options.path === undefined ? await mkdtemp(join(tmpdir(), 'vfio-user-')) : undefined;
  const path = options.path ?? join(directory!, 'replay.sock');
  const discard = async () => {
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  };
  try {
    const socket = await listenAt(path, BACKLOG, MODE);
    return new ReplayServer(recording, settings, path, socket, discard);
  } catch (error) {
    await discard();
    throw error;
  }
}

/**
 * A recording being served; made by `replay`. Clients are served one after the other, each from the recording's
 * beginning. It runs on the loop of the thread that made it: a client in the same thread must not block it with
 * synchronous calls.
 *
 * @example
 * ```ts
 * await using server = await replay('fixtures/boot.pcapng');
 * await using device = await connect(server.path);
 * ```
 */
export class ReplayServer implements AsyncDisposable {
  /** Where it listens. */
  readonly path: string;
  /** The reason, when the server has ended. */
  readonly closed: Promise<VfioUserError>;
  readonly #recording: Recording;
  readonly #settings: ReplaySettings;
  readonly #socket: ListeningSocket;
  readonly #listener: ClientListener;
  readonly #discard: () => Promise<void>;
  readonly #reports: ReplayReport[] = [];
  /** Clients that have left. */
  #left = 0;
  #session: ReplaySession | undefined;
  #waiting: (() => void)[] = [];
  #isReferenced = true;
  #isClosed = false;
  #resolveClosed!: (reason: VfioUserError) => void;

  /** @internal */
  constructor(
    recording: Recording,
    settings: ReplaySettings,
    path: string,
    socket: ListeningSocket,
    discard: () => Promise<void>,
  ) {
    this.#recording = recording;
    this.#settings = settings;
    this.path = path;
    this.#socket = socket;
    this.#discard = discard;
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    const { versionTimeoutMs, messageTimeoutMs } = settings;
    this.#listener = new ClientListener({
      places: 1,
      versionTimeoutMs,
      messageTimeoutMs,
      admit: (open) => this.#begin(open),
      // It goes on in a moment, by itself.
      onTrouble: () => undefined,
    });
    this.#listener.listen(socket.fd, path);
    forbidCloning(this, 'a ReplayServer');
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** How the sessions of the clients went that have left, in order: of the last 1,000. */
  get reports(): readonly ReplayReport[] {
    return [...this.#reports];
  }

  /** How the session of the client goes that is here; undefined while none is. */
  get progress(): ReplayReport | undefined {
    return this.#session?.report;
  }

  /**
   * How the last client's session went. Waits until it has left, and for a client where none has come.
   * @throws ClosedError where the server is closed and none has come.
   */
  async report(): Promise<ReplayReport> {
    for (;;) {
      const last = this.#reports.at(-1);
      if (this.#session === undefined && last !== undefined) return last;
      await this.#change();
    }
  }

  /**
   * How the session of the next client goes that leaves.
   * @throws ClosedError when the server is closed before.
   */
  async nextReport(): Promise<ReplayReport> {
    const left = this.#left;
    while (this.#left === left) await this.#change();
    return this.#reports.at(left - this.#left)!;
  }

  /**
   * Waits as `report` does.
   * @throws ReplayError unless the client did all that is recorded and nothing else; its message says what it did.
   */
  async assertComplete(): Promise<void> {
    const report = await this.report();
    if (report.outcome !== 'complete') throw new ReplayError(formatReport(report), report);
  }

  /** Lets the process end although the server runs. */
  unref(): this {
    this.#isReferenced = false;
    this.#listener.unref();
    this.#session?.unref();
    return this;
  }

  /** Undoes `unref`. */
  ref(): this {
    this.#isReferenced = true;
    this.#listener.ref();
    this.#session?.ref();
    return this;
  }

  /** Ends the connection, stops listening and removes the socket file. Idempotent. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      const reason = new ClosedError('the server was closed');
      // Before the socket is closed: until then nobody takes the file for a stale one.
      this.#socket.removeFile();
      this.#session?.close(reason);
      this.#listener.close();
      this.#wake();
      await this.#discard();
      this.#resolveClosed(reason);
    }
    await this.closed;
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #begin(open: (handler: TransportHandler) => Transport): { closed: Promise<VfioUserError> } {
    const session = new ReplaySession(this.#recording, this.#settings, open);
    if (!this.#isReferenced) session.unref();
    this.#session = session;
    const closed = session.ended.then((report) => {
      this.#session = undefined;
      this.#left++;
      this.#reports.push(report);
      if (this.#reports.length > MOST_REPORTS) this.#reports.shift();
      this.#wake();
      return report.reason ?? new ClosedError();
    });
    return { closed };
  }

  /** @throws ClosedError where nothing changes any more. */
  async #change(): Promise<void> {
    if (this.#isClosed && this.#session === undefined) {
      throw new ClosedError('the replay was closed before a client came');
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
