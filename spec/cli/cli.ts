/** Runs the built command line, as a user does, for the specs of this folder. */
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The program. */
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** A command line that has not ended by then never will. */
const PATIENCE_MS = 30_000;

export interface Outcome {
  /** null where it had to be killed. */
  status: number | null;
  stdout: string;
  stderr: string;
  bytes: Buffer;
}

export function start(args: readonly string[], stdio: StdioOptions = 'pipe'): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], { stdio, env: environment() });
}

/** jest gives its workers a FORCE_COLOR where it is run on a terminal. */
export function environment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { FORCE_COLOR: _force, NO_COLOR: _no, VFIO_USER_TRACE: _trace, ...rest } = process.env;
  return { ...rest, ...more };
}

/** script(1) of util-linux makes a terminal. */
export const HAS_SCRIPT = /util-linux/.test(
  spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '',
);

/** On a terminal of its own, where stdout and stderr are one. */
export function startOnTerminal(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const command = [process.execPath, MAIN, ...args].join(' ');
  return spawn('script', ['-qec', command, '/dev/null'], {
    stdio: 'pipe',
    env: environment({ TERM: 'xterm', ...env }),
  });
}

/** Runs it to its end, with these lines for its stdin. */
export function vfioUserWith(input: string, ...args: string[]): Promise<Outcome> {
  const child = start(args);
  // It may have ended by then.
  child.stdin!.on('error', () => {});
  child.stdin!.end(input);
  return outcomeOf(child);
}

/** Runs it to its end. */
export async function vfioUser(...args: string[]): Promise<Outcome> {
  return outcomeOf(start(args, ['ignore', 'pipe', 'pipe']));
}

export async function outcomeOf(child: ChildProcess, patienceMs = PATIENCE_MS): Promise<Outcome> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout!.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr!.on('data', (chunk: Buffer) => err.push(chunk));
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs);
  const [status] = (await once(child, 'close')) as [number | null];
  clearTimeout(timer);
  const bytes = Buffer.concat(out);
  return { status, stdout: bytes.toString(), stderr: Buffer.concat(err).toString(), bytes };
}

/** A directory for sockets, which may not have long paths. */
export class Scratch {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));

  path(name: string): string {
    return path.join(this.directory, name);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
