/** What the loads of a soak share: the time, the record, and how a call is made. */
import { VfioUserError } from 'vfio-user';
import type { Random } from './random.js';
import { Recorder } from './recorder.js';
import { Watchdog } from './watchdog.js';

/** How much later than its deadline a call may end: the machine has other things to do. */
const GRACE_MS = 5_000;

export interface Load {
  readonly name: string;
  /** Runs until the soak ends. */
  run(): Promise<void>;
  /** With all servers up and no fault any more: everything that was acknowledged is there. */
  verify(): Promise<void>;
  close(): Promise<void>;
}

export class Soak {
  readonly recorder = new Recorder();
  readonly watchdog = new Watchdog();
  readonly random: Random;
  /** What must not happen, in words: mismatches, errors without a name of the library's. */
  readonly wrong: string[] = [];
  isEnding = false;

  constructor(random: Random) {
    this.random = random;
  }

  /** Makes a call, which has `limitMs` by its own account, and records how it went. */
  async call<T>(name: string, limitMs: number, make: () => Promise<T>): Promise<T> {
    const begin = performance.now();
    const value = await this.watchdog.watch(name, limitMs + GRACE_MS, make());
    this.recorder.succeed(name, (performance.now() - begin) * 1e3);
    return value;
  }

  /** The same for one that blocks. */
  callSync<T>(name: string, limitMs: number, make: () => T): T {
    const begin = performance.now();
    try {
      const value = make();
      this.recorder.succeed(name, (performance.now() - begin) * 1e3);
      return value;
    } finally {
      const ms = performance.now() - begin;
      if (ms > limitMs + GRACE_MS) this.watchdog.hung.push(`${name} took ${Math.round(ms)} ms`);
    }
  }

  /** Does something that may fail as calls do when servers fail. False where it did. */
  async attempt(name: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      this.onError(name, error);
      return false;
    }
  }

  onError(name: string, error: unknown): void {
    if (error instanceof VfioUserError) this.recorder.fail(name, `${error.name} ${error.code}`);
    else
      this.wrong.push(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
}
