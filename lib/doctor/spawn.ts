/** Servers as child processes: one command line, with the socket's path in it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { wrongType } from '../fields.js';
import type { StartServer, StartedServer } from './server-source.js';

const PLACE = '{socket}';
/** How long a server may take to end after SIGTERM. */
const PATIENCE_MS = 1_000;

/**
 * Starts `command` by the shell for every probe, with `{socket}` in it replaced by the path of a socket that does not exist
 * yet. What the server prints is thrown away.
 * @throws TypeError where the command has no `{socket}`.
 */
export function spawner(command: string): StartServer {
  if (typeof command !== 'string') throw wrongType('spawner: command', 'a command line', command);
  if (!command.includes(PLACE))
    throw new TypeError(`the command has no ${PLACE} where the socket's path goes`);
  return async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'vfio-user-doctor-'));
    const socket = path.join(directory, 'socket');
    const line = command.replaceAll(PLACE, `'${socket.replaceAll("'", `'\\''`)}'`);
    // A process group of its own: the shell may have started more than one process.
    const child = spawn(line, { shell: true, detached: true, stdio: 'ignore' });
    return startedServer(child, socket, directory);
  };
}

function startedServer(child: ChildProcess, socket: string, directory: string): StartedServer {
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ?? shellStatus(code ?? 0)));
  });
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    if (child.pid !== undefined) {
      // The group, also where its first process has ended.
      kill(child.pid, 'SIGTERM');
      if (child.exitCode === null && child.signalCode === null) {
        const timer = setTimeout(() => kill(child.pid!, 'SIGKILL'), PATIENCE_MS);
        await once(child, 'exit');
        clearTimeout(timer);
      }
      kill(child.pid, 'SIGKILL');
    }
    await rm(directory, { recursive: true, force: true });
  };
  return { endpoint: { path: socket }, exited, stop: () => (stopping ??= stop()) };
}

/** A shell says 128 and the signal's number of a command that a signal ended. */
function shellStatus(code: number): string {
  const signals: Readonly<Record<number, string>> = {
    132: 'SIGILL',
    134: 'SIGABRT',
    135: 'SIGBUS',
    136: 'SIGFPE',
    139: 'SIGSEGV',
  };
  return signals[code] ?? `exit ${code}`;
}

function kill(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // It has ended.
  }
}
