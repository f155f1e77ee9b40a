/**
 * `ssh://USER@HOST/PATH`: a Unix socket of another machine, by the system's ssh.
 *
 * ssh forwards a socket of ours, in a directory that only we can enter, to the one over there (`-L`): nothing has to be
 * installed there but sshd, and the user's own configuration, keys and agent count. (`-W` would need no socket, and takes
 * paths since OpenSSH 9.4 only.) The process and the directory go with the stream.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { TimeoutError, VfioUserError } from '../errors.js';
import type { SshAddress } from './address.js';

/** What is kept of what ssh says. */
const MOST_SAID = 4096;
/** Between looks for the socket that ssh makes when it is through. */
const PAUSE_MS = 20;
/** ssh says why nothing came before it closes, or a moment later. */
const LAST_WORDS_MS = 500;

/** No terminal, no passwords, nothing but this one way: what fails, fails. */
const OPTIONS = [
  'BatchMode=yes',
  'ExitOnForwardFailure=yes',
  'ControlMaster=no',
  'ControlPath=none',
  'ForwardAgent=no',
  'ForwardX11=no',
  'PermitLocalCommand=no',
  'RequestTTY=no',
  'StreamLocalBindMask=0177',
  'ServerAliveInterval=15',
];

/**
 * A stream to the socket; ssh ends with it.
 * @throws VfioUserError `ERR_VFIO_USER_SSH` with what ssh said; TimeoutError; the signal's reason.
 */
export async function openSsh(
  address: SshAddress,
  name: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Duplex> {
  signal?.throwIfAborted();
  const tunnel = new Tunnel(address, name);
  const deadline = performance.now() + timeoutMs;
  try {
    for (;;) {
      const socket = await tunnel.tryConnect();
      if (socket !== undefined) return new TunnelStream(socket, tunnel);
      if (tunnel.failure !== undefined) throw tunnel.failure;
      if (performance.now() > deadline) throw new TimeoutError(`connect to ${name}`, timeoutMs);
      await sleep(PAUSE_MS, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
  } catch (error) {
    tunnel.close();
    throw error;
  }
}

/** The arguments: what an address says comes where it can be no option. */
function argumentsFor({ user, host, port, path: remote }: SshAddress, local: string): string[] {
  return [
    '-N',
    '-T',
    ...OPTIONS.flatMap((one) => ['-o', one]),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    '-L',
    `${local}:${remote}`,
    '--',
    host,
  ];
}

/** ssh, and the directory of its socket. */
class Tunnel {
  readonly #name: string;
  readonly #directory: string;
  readonly #socket: string;
  readonly #ssh: ChildProcess;
  readonly #onExit = (): void => this.close();
  #said = '';
  #failure: VfioUserError | undefined;
  #isClosed = false;

  constructor(address: SshAddress, name: string) {
    this.#name = name;
    this.#directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-ssh-'));
    this.#socket = path.join(this.#directory, 's');
    try {
      this.#ssh = spawn('ssh', argumentsFor(address, this.#socket), {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: process.env,
      });
    } catch (error) {
      this.#removeDirectory();
      throw error;
    }
    this.#ssh.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-MOST_SAID);
    });
    this.#ssh.once('error', (cause) => {
      const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
      this.#fail(missing ? 'there is no ssh on this machine' : cause.message, cause);
    });
    this.#ssh.once('close', (status, signalName) => {
      process.off('exit', this.#onExit);
      this.#removeDirectory();
      this.#fail(this.lastWords ?? `ssh ended with ${String(status ?? signalName)}`);
    });
    // A process that ends in order takes it along.
    process.on('exit', this.#onExit);
  }

  /** Why there is no way any more. */
  get failure(): VfioUserError | undefined {
    return this.#failure;
  }

  /** What ssh said last that is not merely a warning. */
  get lastWords(): string | undefined {
    const lines = this.#said
      .split(/[\r\n]+/)
      .map((line) => line.trim())
      .filter((line) => line !== '' && !/^Warning: Permanently added/.test(line));
    return lines.length === 0 ? undefined : lines.slice(-3).join('; ');
  }

  errorOf(what: string, cause?: unknown): VfioUserError {
    return new VfioUserError('ERR_VFIO_USER_SSH', `${this.#name}: ${what}`, { cause });
  }

  /** Undefined while ssh has not made its socket. */
  tryConnect(): Promise<Socket | undefined> {
    return new Promise((resolve) => {
      const socket = connect({ path: this.#socket });
      const onError = (): void => resolve(undefined);
      socket.once('error', onError);
      socket.once('connect', () => {
        socket.off('error', onError);
        resolve(socket);
      });
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    process.off('exit', this.#onExit);
    this.#ssh.kill();
    this.#ssh.unref();
    // At once: the process may end before ssh does.
    this.#removeDirectory();
  }

  #fail(what: string, cause?: unknown): void {
    this.#failure ??= this.errorOf(what, cause);
  }

  #removeDirectory(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** The bytes; where none have ever come, its end says why. */
class TunnelStream extends Duplex {
  readonly #socket: Socket;
  readonly #tunnel: Tunnel;
  #hasReceived = false;
  #isEnding = false;

  constructor(socket: Socket, tunnel: Tunnel) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.#tunnel = tunnel;
    socket.on('data', (bytes: Buffer) => {
      this.#hasReceived = true;
      if (!this.push(bytes)) socket.pause();
    });
    socket.on('error', (error) => (this.#hasReceived ? this.destroy(error) : this.#onEnd()));
    socket.on('end', () => this.#onEnd());
    socket.on('close', () => this.#onEnd());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // What nothing was received after is the end's to explain.
    this.#socket.write(chunk, (error) => done(this.#hasReceived ? error : null));
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    this.#tunnel.close();
    done(error);
  }

  #onEnd(): void {
    if (this.destroyed || this.readableEnded) return;
    if (this.#hasReceived) {
      this.push(null);
      return;
    }
    if (this.#isEnding) return;
    this.#isEnding = true;
    const begun = performance.now();
    const timer = setInterval(() => {
      const { failure, lastWords } = this.#tunnel;
      const isLate = performance.now() - begun > LAST_WORDS_MS;
      if (failure === undefined && lastWords === undefined && !isLate) return;
      clearInterval(timer);
      const what = lastWords ?? 'the connection was closed before anything came';
      this.destroy(failure ?? this.#tunnel.errorOf(what));
    }, PAUSE_MS);
  }
}
