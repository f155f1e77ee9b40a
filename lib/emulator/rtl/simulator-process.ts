/** The simulator as a process that does not outlive this one, as far as this one can help it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long it may take to end by itself, and again after SIGTERM. */
const PATIENCE_MS = 2_000;
/** What of its output an error has, in bytes. */
const LAST_WORDS = 500;

export interface SimulatorCommand {
  /** The program and its arguments; `{socket}` in them is the socket's path. */
  readonly command: readonly string[];
  readonly socket: string;
  readonly env: Readonly<Record<string, string>> | undefined;
  readonly cwd: string | undefined;
  /** Where its output goes. */
  readonly log: string;
}

export class SimulatorProcess {
  /** How it ended, in words. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #log: string;
  readonly #onExit = (): void => this.#kill('SIGKILL');

  constructor({ command, socket, env, cwd, log }: SimulatorCommand) {
    this.#log = log;
    const [program = '', ...words] = command.map((word) => word.replaceAll('{socket}', socket));
    const output = openSync(log, 'a', 0o600);
    try {
      // A group of its own: a simulator is often started by a script.
      this.#child = spawn(program, words, {
        detached: true,
        stdio: ['ignore', output, output],
        ...(cwd !== undefined && { cwd }),
        env: { ...process.env, ...env, VFIO_USER_RTL_SOCKET: socket },
      });
    } finally {
      closeSync(output);
    }
    process.on('exit', this.#onExit);
    this.ended = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve(error.message));
      this.#child.once('exit', (code, signal) => resolve(signal ?? `exit status ${code}`));
    });
  }

  /** The end of what it said, for an error: `; it said: …`, or nothing. */
  async lastWords(): Promise<string> {
    try {
      await using file = await open(this.#log);
      const { size } = await file.stat();
      const bytes = Buffer.alloc(Math.min(size, LAST_WORDS));
      await file.read(bytes, 0, bytes.length, size - bytes.length);
      const words = bytes.toString().trim();
      return words === '' ? '' : `; it said: ${words}`;
    } catch {
      return '';
    }
  }

  /** How it ended, where it does so in this time. */
  async endedBy(ms: number): Promise<string | undefined> {
    const controller = new AbortController();
    const timeout = sleep(ms, undefined, { signal: controller.signal }).catch(() => undefined);
    const how = await Promise.race([this.ended, timeout]);
    controller.abort();
    return how;
  }

  /** Waits a moment for it to end by itself, where it was asked to, and ends it, with all that it started. Idempotent. */
  async stop(wasAsked: boolean): Promise<void> {
    if (!wasAsked || (await this.endedBy(PATIENCE_MS)) === undefined) {
      this.#kill('SIGTERM');
      if ((await this.endedBy(PATIENCE_MS)) === undefined) this.#kill('SIGKILL');
    }
    await this.ended;
    // The group, also where its first process has ended.
    this.#kill('SIGKILL');
    process.removeListener('exit', this.#onExit);
  }

  #kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // It has ended.
    }
  }
}
