/** The servers that clients are measured on, each in a process of its own, ended when its workload is done. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnSync } from 'node:child_process';

/** build/tools/bench, from where this runs. */
const HERE = path.dirname(fileURLToPath(import.meta.url));
export const ROOT = path.resolve(HERE, '../../..');
export const CLI = path.join(ROOT, 'dist/cli/main.js');
const OUTPUT = path.join(ROOT, 'build/bench');
const SOURCES = path.join(ROOT, 'bench/reference');

const START_TIMEOUT_MS = 10_000;

/** A reference program, compiled where it is missing or older than its source. */
export function reference(name: 'floor' | 'target'): string {
  const binary = path.join(OUTPUT, name);
  const sources = [path.join(SOURCES, `${name}.c`), path.join(SOURCES, 'wire.h')];
  const built = existsSync(binary) ? statSync(binary).mtimeMs : 0;
  if (sources.every((source) => statSync(source).mtimeMs <= built)) return binary;
  mkdirSync(OUTPUT, { recursive: true });
  const compiler = process.env['CC'] ?? 'cc';
  const result = spawnSync(compiler, ['-O2', '-o', binary, sources[0]!], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${compiler} cannot compile ${sources[0]}: ${result.stderr}`);
  return binary;
}

/** A server that runs: where it listens, and how it ends. */
export interface Server {
  socket: string;
  /** What it prints, from now on. */
  nextLine(): Promise<string>;
  close(): Promise<void>;
}

/** Starts the program, which is given the socket's path in place of `{socket}`, and waits until it listens. */
export async function startServer(command: string, args: readonly string[]): Promise<Server> {
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-bench-'));
  const socket = path.join(directory, 's');
  const child = spawn(
    command,
    args.map((arg) => arg.replace('{socket}', socket)),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const lines = lineReader(child);
  try {
    await untilThere(socket, child);
  } catch (error) {
    child.kill();
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    socket,
    nextLine: lines,
    close: async () => {
      child.kill();
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function untilThere(socket: string, child: ChildProcess): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    if (performance.now() > deadline) throw new Error(`${child.spawnfile} does not listen on ${socket}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function lineReader(child: ChildProcess): () => Promise<string> {
  const lines: string[] = [];
  let wake: (() => void) | undefined;
  let rest = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
    wake?.();
  });
  return async () => {
    while (lines.length === 0) {
      if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
      await new Promise<void>((resolve) => (wake = resolve));
    }
    return lines.shift()!;
  };
}
