/** Servers that others wrote, as child processes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { Scratch } from '../cli/cli.js';

/** A server takes a moment to listen, more on a busy machine. */
const START_TIMEOUT_MS = 20_000;

export class ServerProcess implements AsyncDisposable {
  readonly socket: string;
  readonly #child: ChildProcess;
  readonly #scratch: Scratch;
  #log = '';

  /** `argsFor` is given the socket's path. */
  constructor(program: string, argsFor: (socket: string) => readonly string[]) {
    this.#scratch = new Scratch();
    this.socket = this.#scratch.path('socket');
    // A sanitizer that is loaded into this process is for our addon: of QEMU's coroutines it would only complain.
    const env = { ...process.env, LD_PRELOAD: '' };
    this.#child = spawn(program, argsFor(this.socket), { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const keep = (chunk: Buffer) => {
      this.#log += chunk.toString();
    };
    this.#child.stdout!.on('data', keep);
    this.#child.stderr!.on('data', keep);
  }

  /** What it has said so far. */
  get log(): string {
    return this.#log;
  }

  /** No probing: some of these servers do not survive a connection that is closed at once. */
  connect(options: ConnectOptions = {}): Promise<Device> {
    return connect(this.socket, { waitForSocket: true, timeoutMs: START_TIMEOUT_MS, ...options });
  }

  /** Its exit status, for servers that end with their client; null for one that was killed. */
  async exited(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
    return this.#child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited();
    this.#scratch.remove();
  }
}
