/** Where the examples find a device: at `--socket PATH`, or in a process of its own that they start and end. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export interface Target extends AsyncDisposable {
  /** The server's socket. */
  readonly path: string;
  /** What a person would call the server. */
  readonly name: string;
  /** We started it. */
  readonly isOurs: boolean;
}

/** The server that the command line names, or else an edu device of our own. */
export async function openTarget(): Promise<Target> {
  const { values } = parseArgs({ options: { socket: { type: 'string' } } });
  if (values.socket === undefined) return startEdu();
  return {
    path: values.socket,
    name: `the server at ${values.socket}`,
    isOurs: false,
    async [Symbol.asyncDispose]() {},
  };
}

async function startEdu(): Promise<Target> {
  const directory = await mkdtemp(join(tmpdir(), 'vfio-user-'));
  const path = join(directory, 'edu.sock');
  const child = fork(fileURLToPath(new URL('edu-server.js', import.meta.url)), [path]);
  const exited = once(child, 'exit');
  const remove = () => rm(directory, { recursive: true, force: true });
  const said = await Promise.race([once(child, 'message'), exited]);
  if (said[0] !== 'listening') {
    await remove();
    throw new Error('the emulator did not start');
  }
  return {
    path,
    name: `the embedded emulator (process ${child.pid})`,
    isOurs: true,
    async [Symbol.asyncDispose]() {
      // It closes its server then, and ends.
      if (child.connected) child.disconnect();
      await exited;
      await remove();
    },
  };
}
