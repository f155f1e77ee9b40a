/** Runs the built command line, as a user does, for the specs of this folder. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
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
  return spawn(process.execPath, [MAIN, ...args], { stdio });
}

/** Runs it to its end. */
export async function vfioUser(...args: string[]): Promise<Outcome> {
  return outcomeOf(start(args, ['ignore', 'pipe', 'pipe']));
}

export async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout!.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr!.on('data', (chunk: Buffer) => err.push(chunk));
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
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
