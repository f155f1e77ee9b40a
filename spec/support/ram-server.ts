/** Servers with the emulator's RAM device that a spec starts, kills and starts again at one path. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { EmulatorOptions, RamOptions } from '../../lib/emulator/index.js';

const SCRIPT = fileURLToPath(new URL('ram-process.mjs', import.meta.url));

export interface RamServerOptions {
  device?: 'ram' | 'other' | 'subsystem';
  ram?: RamOptions;
  serve?: EmulatorOptions;
  /** What every dword of the shared BAR is. */
  fill?: number;
  greet?: boolean;
  clients?: 'one' | 'many';
  /** Each command is carried out so much later, in milliseconds. */
  delayMs?: number;
}

export class RamServer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ready: Promise<unknown>;

  /** Loads; listens only once told to. */
  constructor(path: string, options: RamServerOptions = {}) {
    this.#child = fork(SCRIPT, [path, JSON.stringify(options)], { execArgv: [] });
    this.#ready = this.#said('ready');
    this.#ready.catch(() => undefined);
  }

  async listen(): Promise<void> {
    await this.#ready;
    this.#child.send('listen');
    await this.#said('listening');
  }

  /** The end of a server that crashes: nothing is closed in order, its socket file stays. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }

  async #said(word: string): Promise<void> {
    const exited = once(this.#child, 'exit').then(() => ['the server has exited']);
    const [said] = (await Promise.race([once(this.#child, 'message'), exited])) as [unknown];
    if (said !== word) throw new Error(`the server said ${String(said)}, not ${word}`);
  }
}

/** A server that listens. */
export async function startRamServer(path: string, options?: RamServerOptions): Promise<RamServer> {
  const server = new RamServer(path, options);
  await server.listen();
  return server;
}
