/** A server in a process of its own that is killed while a command line waits for its answer. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { environment } from './cli.js';

const EMULATOR = fileURLToPath(new URL('../../dist/emulator/index.js', import.meta.url));

/** Says `listening`; the message after so many of that name is not answered, and `waiting` is said instead. */
const SCRIPT = `
  const [path, ram, command, answered, count] = process.argv.slice(1);
  const { RamDevice, serve } = await import(${JSON.stringify(EMULATOR)});
  let left = Number(answered);
  const isCounted = (payload) => count === '' || payload.readUInt32LE(12) === Number(count);
  const intercept = ({ name, payload }) => {
    if (name !== command || !isCounted(payload) || left-- > 0) return 'pass';
    console.log('waiting');
    return 'drop';
  };
  await serve(new RamDevice(JSON.parse(ram)), { path, intercept });
  console.log('listening');
`;

export interface DoomedOptions {
  path: string;
  /** Of the emulated RAM device. */
  ram: object;
  /** What is not answered any more, by the specification's name, after how many that are. */
  command: string;
  answered: number;
  /** Of accesses to regions: only those of so many bytes count. */
  size?: number;
}

export class DoomedServer {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! });
  }

  /** Resolves when it listens. */
  static async start({ path, ram, command, answered, size }: DoomedOptions): Promise<DoomedServer> {
    const given = [path, JSON.stringify(ram), command, String(answered), String(size ?? '')];
    const args = ['--input-type=module', '-e', SCRIPT, ...given];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'], env: environment() });
    const server = new DoomedServer(child);
    await once(server.#lines, 'line');
    return server;
  }

  /** Kills it when the client waits for the answer that does not come. */
  async killInTheMiddle(): Promise<void> {
    await once(this.#lines, 'line');
    this.kill();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
