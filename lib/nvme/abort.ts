/**
 * What is done about a command that does not complete: Abort first (NVM Express Base 2.0, section 5.1), then a controller
 * reset (3.7.2), which makes the controller let go of everything.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Mutex } from 'async-mutex';
import type { Region } from '../index.js';
import type { Admin } from './admin.js';
import { readStatus } from './enable.js';
import type { CommandQueue } from './command-queue.js';
import { ControllerStatus } from './registers.js';

/**
 * How long Abort may take, and after it the command, in milliseconds; less where the deadline of commands is less: those
 * that wait meanwhile have one, too.
 */
const MOST_GRACE_MS = 1_000;
const GRACE_PARTS = 4;
const PAUSE_MS = 2;

export interface AborterHost {
  readonly admin: Admin;
  readonly timeoutMs: number;
  readonly isLive: boolean;
}

export class Aborter {
  readonly #bar: Region;
  readonly #host: AborterHost;
  readonly #resetOrFail: () => Promise<void>;
  /** One command after the other: a controller has few Aborts at a time, and one reset helps all. */
  readonly #mutex = new Mutex();

  /** `resetOrFail` never rejects: a controller that cannot be reset has failed. */
  constructor(bar: Region, host: AborterHost, resetOrFail: () => Promise<void>) {
    this.#bar = bar;
    this.#host = host;
    this.#resetOrFail = resetOrFail;
  }

  /** Gets the slot of an overdue command back. Never rejects. */
  async rescue(queue: CommandQueue, slot: number, claim: number): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const isStuck = () => this.#host.isLive && queue.pair.isOut(slot, claim);
      if (!isStuck()) return;
      // Admin commands are not worth an Abort that has to go the same way.
      const worthTrying = queue.pair.id !== 0 && (await this.#isRunning());
      if (
        worthTrying &&
        (await this.#abort(queue, slot, claim)) &&
        (await this.#cameBack(queue, slot, claim))
      ) {
        return;
      }
      if (isStuck()) await this.#resetOrFail();
    });
  }

  /** The caller does not wait any more: tells the controller, whatever comes of it. */
  unwanted(queue: CommandQueue, slot: number, claim: number): void {
    if (queue.pair.id !== 0) void this.#abort(queue, slot, claim);
  }

  async #isRunning(): Promise<boolean> {
    try {
      const status = await readStatus(this.#bar);
      return (status & (ControllerStatus.CFS | ControllerStatus.RDY)) === ControllerStatus.RDY;
    } catch {
      return false;
    }
  }

  /** Whether the controller has answered; what it answered does not matter. */
  async #abort(queue: CommandQueue, slot: number, claim: number): Promise<boolean> {
    const { pair } = queue;
    if (!pair.isOut(slot, claim)) return true;
    try {
      await this.#host.admin.abort(pair.id, pair.commandIds[slot]!, { timeoutMs: this.#graceMs });
      return true;
    } catch {
      return false;
    }
  }

  async #cameBack(queue: CommandQueue, slot: number, claim: number): Promise<boolean> {
    const deadline = performance.now() + this.#graceMs;
    for (;;) {
      // The caller may be one that has to poll, and does not.
      queue.look();
      if (!queue.pair.isOut(slot, claim)) return true;
      if (performance.now() >= deadline || !this.#host.isLive) return false;
      await sleep(PAUSE_MS);
    }
  }

  get #graceMs(): number {
    return Math.max(1, Math.min(MOST_GRACE_MS, this.#host.timeoutMs / GRACE_PARTS));
  }
}
