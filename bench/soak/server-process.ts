/** A server that is started, killed, stopped and started again at one path. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { SoakServerOptions } from './server.js';

const SCRIPT = fileURLToPath(new URL('server.js', import.meta.url));

export class ServerProcess {
  readonly name: string;
  readonly path: string;
  /** How often it was killed, and stopped for a while. */
  kills = 0;
  stops = 0;
  readonly #options: SoakServerOptions;
  #child: ChildProcess | undefined;

  constructor(name: string, options: SoakServerOptions) {
    this.name = name;
    this.path = options.path;
    this.#options = options;
  }

  /** Until it listens. One that is calm makes no faults. */
  async start(calm = false): Promise<void> {
    const seed = this.#options.seed + this.kills;
    const child = fork(SCRIPT, [JSON.stringify({ ...this.#options, seed, calm })], { execArgv: [] });
    this.#child = child;
    const [said] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as [unknown];
    if (said !== 'listening') throw new Error(`the server ${this.name} did not start: ${String(said)}`);
  }

  /** As it ends that crashes: nothing is closed in order. */
  async kill(): Promise<void> {
    this.kills++;
    await this.close();
  }

  /** It does nothing for a while, and goes on. */
  async stall(ms: number): Promise<void> {
    this.stops++;
    this.#child?.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.#child?.kill('SIGCONT');
  }

  async close(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    if (child.connected) child.disconnect();
  }
}
