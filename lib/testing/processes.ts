/** Servers as processes. What this process started does not outlive it, as far as it can help it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { RigError } from './rig-error.js';

/** How long a server may take to end after SIGTERM. */
const PATIENCE_MS = 2_000;
/** What of its output an error has. */
const LAST_WORDS = 500;

/** Process groups, and directories, of rigs that are open. */
const groups = new Set<number>();
const directories = new Set<string>();
let isListening = false;

/** What is left when this process ends without having closed its rigs. */
function cleanUp(): void {
  for (const group of groups) kill(group, 'SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
}

function watchExit(): void {
  if (isListening) return;
  isListening = true;
  process.on('exit', cleanUp);
}

/** A directory that goes with the process; the function says that it has gone. */
export function guardDirectory(directory: string): () => void {
  watchExit();
  directories.add(directory);
  return () => void directories.delete(directory);
}

function kill(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // It has ended.
  }
}

export interface ProcessOptions {
  readonly command: readonly string[];
  readonly socket: string;
  /** Where its output goes. */
  readonly log: string;
  readonly env: Readonly<Record<string, string>> | undefined;
  readonly cwd: string | undefined;
}

/** A server that was started. */
export class ServerProcess {
  /** How it ended, in words. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #options: ProcessOptions;
  #isOver = false;
  #isStopped = false;

  /** @throws RigError where there is no such program. */
  constructor(options: ProcessOptions) {
    this.#options = options;
    const [program = '', ...words] = options.command.map((word) =>
      word.replaceAll('{socket}', options.socket),
    );
    const log = openSync(options.log, 'a');
    try {
      // A group of its own: it may start processes itself.
      this.#child = spawn(program, words, {
        detached: true,
        stdio: ['ignore', log, log],
        ...(options.cwd !== undefined && { cwd: options.cwd }),
        env: { ...process.env, ...options.env },
      });
    } finally {
      closeSync(log);
    }
    watchExit();
    if (this.#child.pid !== undefined) groups.add(this.#child.pid);
    this.ended = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve(error.message));
      this.#child.once('exit', (code, signal) => {
        this.#isOver = true;
        resolve(signal === null ? `exit status ${code}` : signal);
      });
    });
  }

  /** Rejects when it ends by itself. */
  async untilItEnds(): Promise<never> {
    const how = await this.ended;
    throw await this.#failure(`the server ended: ${how}`);
  }

  /** Why it ended, where it did so by itself. */
  async problem(): Promise<RigError | undefined> {
    if (!this.#isOver || this.#isStopped) return undefined;
    return this.#failure(`the server ended by itself: ${await this.ended}`);
  }

  /** Ends it, and all that it started; the socket's file may stay. Idempotent. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const { pid } = this.#child;
    this.#isStopped = true;
    if (pid === undefined) return;
    if (!this.#isOver) {
      kill(pid, signal);
      const timer = setTimeout(() => kill(pid, 'SIGKILL'), PATIENCE_MS);
      if (!this.#isOver) await once(this.#child, 'exit');
      clearTimeout(timer);
    }
    // The group, also where its first process has ended.
    kill(pid, 'SIGKILL');
    groups.delete(pid);
  }

  async #failure(what: string): Promise<RigError> {
    const said = await readFile(this.#options.log, 'utf8').catch(() => '');
    const words = said.trim().slice(-LAST_WORDS);
    const command = this.#options.command.join(' ');
    return new RigError(`${what} (${command})${words === '' ? '' : `; it said: ${words}`}`);
  }
}
