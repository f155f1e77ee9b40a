/**
 * Scripts in a Node of their own, with the built library: for what a test runner does not survive or does not let be seen.
 * A script is a module with `connect`, `serveFd`, `RamDevice`, `native`, `countFds` and `report` at hand.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

const DIST = new URL('../../dist/', import.meta.url);

/** Built file, as an import specifier or a path. */
export function built(name: string): string {
  return new URL(name, DIST).href;
}

const PROLOGUE = `
  import fs from 'node:fs';
  import { setTimeout as sleep } from 'node:timers/promises';
  import { connect, VfioUserError } from '${built('index.js')}';
  import { serveFd, RamDevice, RAM_IDENTIFICATION } from '${built('emulator/index.js')}';
  import { native } from '${built('native.js')}';
  const countFds = () => fs.readdirSync('/proc/self/fd').length - 1;
  const report = (value) => fs.writeSync(1, '@' + JSON.stringify(value) + '\\n');
  /** A device whose server runs on the same loop. */
  const open = async (options) => {
    const [ours, theirs] = native().socketPair();
    const model = new RamDevice();
    const server = serveFd(model, theirs);
    const device = await connect({ fd: ours }, options);
    return { device, server, model };
  };
  const collect = async (isDone) => {
    // What a WeakRef gave is held for the turn: looking comes after the collection.
    for (let i = 0, done = false; i < 100 && !done; i++) {
      await sleep(10);
      gc();
      done = isDone();
    }
  };
`;

export interface ChildOutcome {
  status: number | null;
  signal: NodeJS.Signals | null;
  /** What it handed to `report`, in order. */
  reports: unknown[];
  stderr: string;
}

const PATIENCE_MS = 60_000;

export interface ScriptOptions {
  args?: readonly string[];
  /** How many fds it may have. */
  fdLimit?: number;
  /** Loaded before everything else, behind what the sanitizers preload. */
  preload?: string;
  env?: Record<string, string>;
}

export function startScript(script: string, options: ScriptOptions = {}): ChildProcess {
  const { args = [], fdLimit = 1024, preload = '', env = {} } = options;
  const node = ['--expose-gc', '--input-type=module', '-e', PROLOGUE + script, '--', ...args];
  // A sanitizer is preloaded into every process, and the shell does not bear it.
  const { LD_PRELOAD: sanitizer = '', ...inherited } = process.env;
  const libraries = [sanitizer, preload].filter((name) => name !== '').join(':');
  return spawn(
    'sh',
    ['-c', `ulimit -n ${fdLimit} && LD_PRELOAD='${libraries}' exec "$0" "$@"`, process.execPath, ...node],
    { env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
}

/** Runs a script to its end. */
export async function runScript(script: string, options?: ScriptOptions): Promise<ChildOutcome> {
  return outcomeOf(startScript(script, options));
}

export async function outcomeOf(child: ChildProcess): Promise<ChildOutcome> {
  let stdout = '';
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  const lines = stdout.split('\n').filter((line) => line.startsWith('@'));
  return { status, signal, reports: lines.map((line) => JSON.parse(line.slice(1)) as unknown), stderr };
}
