/** The servers that clients are measured on, each in a process of its own, ended when its workload is done. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CLI } from './paths.js';
import { pciTarget, reference } from './rivals.js';
import type { ServerKind } from './workload.js';

const START_TIMEOUT_MS = 10_000;

/** A server that runs: where it listens, and how it ends. */
export interface Server {
  socket: string;
  /** What it prints, from now on. */
  nextLine(): Promise<string>;
  close(): Promise<void>;
}

export async function serverFor(server: ServerKind): Promise<Server> {
  if (server.kind === 'running') {
    return {
      socket: server.socket,
      nextLine: () => Promise.reject(new Error('the server is not ours')),
      close: () => Promise.resolve(),
    };
  }
  if (server.kind === 'emulator') return startServer(process.execPath, [CLI, ...server.args]);
  const { dmaSize, dmaCount, isPci } = server;
  const dma = dmaSize === undefined ? [] : [String(dmaSize), String(dmaCount)];
  return startServer(isPci === true ? pciTarget() : reference('target'), ['{socket}', ...dma]);
}

/** Starts the program, which is given the socket's path in place of `{socket}`, and waits until it listens. */
async function startServer(command: string, args: readonly string[]): Promise<Server> {
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-bench-'));
  const socket = path.join(directory, 's');
  const child = spawn(
    command,
    args.map((arg) => arg.replace('{socket}', socket)),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  // Whatever ends this process ends its servers too.
  const kill = () => child.kill();
  process.once('exit', kill);
  const close = async () => {
    process.off('exit', kill);
    child.kill();
    await exited;
    rmSync(directory, { recursive: true, force: true });
  };
  const nextLine = lineReader(child);
  try {
    await untilThere(socket, child);
  } catch (error) {
    await close();
    throw error;
  }
  return { socket, nextLine, close };
}

async function untilThere(socket: string, child: ChildProcess): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(socket)) {
    if (hasEnded(child)) throw new Error(`${child.spawnfile} has ended before it listened`);
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
  child.once('close', () => wake?.());
  return async () => {
    while (lines.length === 0) {
      if (hasEnded(child)) throw new Error(`${child.spawnfile} has ended without a figure`);
      await new Promise<void>((resolve) => (wake = resolve));
    }
    return lines.shift()!;
  };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
