import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { WITH_FDS, native } from '../../lib/native.js';
import type { NativeMapping, NativeSocket } from '../../lib/native.js';
import { sendBytes } from '../support/send-bytes.js';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));

/** The addon's file: processes and workers that a spec starts load the same one. */
export const addonPath: string =
  process.env['VFIO_USER_ADDON'] ?? (require('node-gyp-build') as { path(root: string): string }).path(root);

export interface Pair {
  left: NativeSocket;
  right: NativeSocket;
  close(): void;
}

/** Two connected sockets. */
export function makePair(onLeft = (_events: number) => {}, onRight = (_events: number) => {}): Pair {
  const fds = native().socketPair();
  if (typeof fds === 'number') throw new Error(`socketpair: ${fds}`);
  const left = new (native().Socket)(fds[0], onLeft);
  const right = new (native().Socket)(fds[1], onRight);
  return {
    left,
    right,
    close: () => {
      left.close();
      right.close();
    },
  };
}

/** Sends a whole small message. */
export function sendText(socket: NativeSocket, text: string, fds: number[] | null = null): number {
  return sendBytes(socket, Buffer.from(text), fds);
}

/** What one recv brings, as text, or its negative result; whether fds came says `takeFds`. */
export function recvText(socket: NativeSocket, length = 4096): string | number {
  const bytes = Buffer.alloc(length);
  const size = native().recv(socket.handle, bytes, 0, length);
  return size < 0 ? size : bytes.toString('utf8', 0, size % WITH_FDS);
}

export const O_CLOEXEC = 0o2000000;
export const O_NONBLOCK = 0o4000;

/** The status and descriptor flags of an fd. */
export function descriptorFlags(fd: number): number {
  const line = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  return parseInt(line?.[1] ?? '0', 8);
}

/** A mapping of a fresh memfd, and the memfd. */
export function mapMemfd(size: number, name = 'spec'): { fd: number; mapping: NativeMapping } {
  const fd = native().memfd(name, size, false);
  return { fd, mapping: mustMap(fd, size) };
}

export function mustMap(fd: number, size: number, readable = true, writable = true): NativeMapping {
  const mapping = native().map(fd, 0, size, readable, writable);
  if (typeof mapping === 'number') throw new Error(`mmap: ${mapping}`);
  return mapping;
}

export function mustView(mapping: NativeMapping, offset: number, length: number): ArrayBuffer {
  const view = mapping.view(offset, length);
  if (typeof view === 'number') throw new Error(`view: ${view}`);
  return view;
}

/** What an addon's error looks like: it comes from another realm, where `toThrow(TypeError)` does not reach. */
export function thrownName(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return (error as Error).name;
  }
  return 'nothing';
}

/**
 * Runs a script in a Node of its own, with the addon as `addon`, and gives what it handed to `report`. `limit` is an
 * argument of ulimit.
 */
export function runScript(script: string, limit = '-n 1024'): unknown {
  const prologue = `
    const addon = require(${JSON.stringify(addonPath)});
    const addonPath = ${JSON.stringify(addonPath)};
    const fs = require('node:fs');
    const report = (value) => fs.writeSync(1, '\\n@' + JSON.stringify(value) + '\\n');
    const countFds = () => fs.readdirSync('/proc/self/fd').length;
    /** Collects garbage and runs finalizers until a condition holds, for as long as that can take. */
    const collect = async (isDone) => {
      for (let i = 0; i < 20 && !isDone(); i++) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
  `;
  const node = [process.execPath, '--expose-gc', '-e', prologue + script];
  // A sanitizer is preloaded into every process, and the shell does not bear it.
  const { LD_PRELOAD: preload = '', ...env } = process.env;
  const { status, signal, stdout, stderr } = spawnSync(
    'sh',
    ['-c', `ulimit ${limit} && LD_PRELOAD='${preload}' exec "$0" "$@"`, ...node],
    { env, encoding: 'utf8' },
  );
  const line = stdout.split('\n').find((text) => text.startsWith('@'));
  if (status !== 0 || line === undefined) throw new Error(`script ended with ${status ?? signal}: ${stderr}`);
  return JSON.parse(line.slice(1));
}

/** Starts a script in a worker thread, with the addon as `addon` and `parentPort`. */
export function startWorker(script: string, workerData?: unknown): Worker {
  const prologue = `
    const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(${JSON.stringify(addonPath)});
  `;
  return new Worker(prologue + script, { eval: true, workerData });
}
