/** Kills servers, starts them again, and stops them for a while, one at a time. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from './random.js';
import type { ServerProcess } from './server-process.js';

const LONGEST_ABSENCE_MS = 600;
const LONGEST_STALL_MS = 1_200;

export class Chaos {
  readonly #servers: readonly ServerProcess[];
  readonly #random: Random;
  readonly #everyMs: number;
  readonly #stop = new AbortController();

  constructor(servers: readonly ServerProcess[], random: Random, everyMs: number) {
    this.#servers = servers;
    this.#random = random;
    this.#everyMs = everyMs;
  }

  /** Until `stop`: all servers run then. */
  async run(): Promise<void> {
    for (;;) {
      const pause = this.#random.between(this.#everyMs / 2, (this.#everyMs * 3) / 2);
      await sleep(pause, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      if (this.#stop.signal.aborted) return;
      const server = this.#servers[this.#random.between(0, this.#servers.length - 1)]!;
      if (this.#random.oneIn(5)) await server.stall(this.#random.between(50, LONGEST_STALL_MS));
      else {
        await server.kill();
        await sleep(this.#random.between(0, LONGEST_ABSENCE_MS));
        await server.start();
      }
    }
  }

  stop(): void {
    this.#stop.abort();
  }
}
