/**
 * What is done about a command that does not complete: Abort first (NVM Express Base 2.0, section 5.1), then a controller
 * reset (3.7.2), which makes the controller let go of everything.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Mutex } from 'async-mutex';
import type { Region } from '../index.js';
import type { AdminCommands } from './admin-commands.js';
import { readStatus } from './enable.js';
import type { OutstandingCommand } from '../commands/command-ring.js';
import { ControllerStatus } from './registers.js';

/**
 * How long Abort may take, and after it the command, in milliseconds; less where the deadline of commands is less: those
 * that wait meanwhile have one, too.
 */
const MOST_GRACE_MS = 1_000;
const GRACE_PARTS = 4;
const PAUSE_MS = 2;
const ADMIN_QUEUE = 0;

export interface AborterOptions {
  /** BAR 0. */
  bar: Region;
  admin: AdminCommands;
  /** The deadline of commands, milliseconds. */
  timeoutMs: number;
  isLive: () => boolean;
  /** Never rejects: a controller that cannot be reset has failed. */
  resetOrFail: () => Promise<void>;
}

export class Aborter {
  readonly #options: AborterOptions;
  readonly #graceMs: number;
  /** One command after the other: a controller has few Aborts at a time, and one reset helps all. */
  readonly #mutex = new Mutex();

  constructor(options: AborterOptions) {
    this.#options = options;
    this.#graceMs = Math.max(1, Math.min(MOST_GRACE_MS, options.timeoutMs / GRACE_PARTS));
  }

  /** Gets the slot of an overdue command back: by Abort, or by a reset. `poll` takes completions. Never rejects. */
  async getBack(command: OutstandingCommand, poll: () => void): Promise<void> {
    const { isLive, resetOrFail } = this.#options;
    await this.#mutex.runExclusive(async () => {
      if (!isLive() || !command.isOut()) return;
      // Admin commands are not worth an Abort that has to go the same way.
      const isWorthTrying = command.queueId !== ADMIN_QUEUE && (await this.#isRunning());
      if (isWorthTrying && (await this.#abort(command)) && (await this.#cameBack(command, poll))) return;
      if (isLive() && command.isOut()) await resetOrFail();
    });
  }

  /** The caller does not wait any more: tells the controller, whatever comes of it. */
  abort(command: OutstandingCommand): void {
    if (command.queueId !== ADMIN_QUEUE) void this.#abort(command);
  }

  async #isRunning(): Promise<boolean> {
    try {
      const status = await readStatus(this.#options.bar);
      return (status & (ControllerStatus.CFS | ControllerStatus.RDY)) === ControllerStatus.RDY;
    } catch {
      return false;
    }
  }

  /** Whether the controller has answered; what it answered does not matter. */
  async #abort(command: OutstandingCommand): Promise<boolean> {
    if (!command.isOut()) return true;
    try {
      const { queueId, commandId } = command;
      await this.#options.admin.abort(queueId, commandId, { timeoutMs: this.#graceMs });
      return true;
    } catch {
      return false;
    }
  }

  async #cameBack(command: OutstandingCommand, poll: () => void): Promise<boolean> {
    const deadline = performance.now() + this.#graceMs;
    for (;;) {
      // The caller may be one that has to poll, and does not.
      poll();
      if (!command.isOut()) return true;
      if (performance.now() >= deadline || !this.#options.isLive()) return false;
      await sleep(PAUSE_MS);
    }
  }
}
