/** The command line in a guest, for specs of this folder: as the library there, it is of compiled files. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** What is run: nothing but a guest has it. */
export const MAIN = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url));
/** The library, for programs of the specs'. */
export const LIBRARY = new URL('../../lib/index.js', import.meta.url).href;
/** Nobody and nogroup of Debian: nothing is theirs. */
export const NOBODY = { uid: 65_534, gid: 65_534 };

/** An edu device, an NVMe controller, an e1000e of the guest's; empty outside of one. */
export const FUNCTIONS = (process.env['VFIO_USER_TEST_FUNCTIONS'] ?? '')
  .split(' ')
  .filter((one) => one !== '');

interface As {
  uid?: number;
  gid?: number;
  stdio?: StdioOptions;
}

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

export function start(args: readonly string[], { stdio = 'pipe', ...who }: As = {}): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], { stdio, ...who });
}

/** A program of JavaScript, with `connect` and ARGUMENT in it. */
export function script(text: string, argument: string, who: As = {}): ChildProcess {
  const program = `import { connect } from ${JSON.stringify(LIBRARY)};\nconst ARGUMENT = ${JSON.stringify(argument)};\n${text}`;
  return spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'pipe', ...who });
}

export async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout, stderr };
}

export function vfioUser(...args: string[]): Promise<Outcome> {
  return outcomeOf(start(args));
}

export function vfioUserAs(who: As, ...args: string[]): Promise<Outcome> {
  return outcomeOf(start(args, who));
}
