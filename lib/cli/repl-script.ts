/**
 * The lines of a stream through Node's REPL, as if they were typed: one is done, with what it awaits, before the next.
 * Values are printed and nothing else; the first error ends the script and is the caller's.
 */
import { createInterface } from 'node:readline';
import { Recoverable, start, type REPLEval, type REPLServer } from 'node:repl';
import { PassThrough, Writable, type Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { types } from 'node:util';
import type { Device } from '../index.js';
import { print } from './output.js';

export interface ScriptOptions {
  /** What the script finds. */
  names: Record<string, unknown>;
  /** How values are shown. */
  writer: (value: unknown) => string;
}

/** @throws what the script threw; why the device was lost under it. */
export async function runScript(input: Readable, device: Device, options: ScriptOptions): Promise<void> {
  const script = new Script(options);
  void device.closed.then((reason) => script.fail(reason));
  const lines = createInterface({ input, crlfDelay: Infinity });
  try {
    for await (const line of lines) {
      await script.run(line);
      if (script.hasEnded) break;
    }
    await script.finish();
  } finally {
    lines.close();
    script.close();
  }
}

class Script {
  readonly #server: REPLServer;
  readonly #output: Writable;
  #failure: { reason: unknown } | undefined;
  /** The statement goes on in the next line. */
  #isIncomplete = false;
  #isRunning = false;
  #closed = false;
  /** Ends the wait for a line that awaits something. */
  #settle: () => void = () => {};

  constructor({ names, writer }: ScriptOptions) {
    const output = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        // The REPL's words on the error.
        if (this.#failure !== undefined) done();
        else
          void print(chunk)
            .catch((error: unknown) => this.fail(error))
            .then(() => done());
      },
    });
    this.#output = output;
    // Lines are handed to it, one by one.
    const input = new PassThrough();
    const server = start({ prompt: '', input, output, terminal: false, ignoreUndefined: true, writer });
    this.#server = server;
    Object.assign(server.context, names);
    Object.assign(server, { eval: this.#evaluator(server.eval), displayPrompt: () => {} });
    // Where the REPL keeps what was thrown, before it prints it: errors take no other way that all of its versions have.
    Object.defineProperty(server, 'lastError', { set: (reason: unknown) => this.fail(reason) });
    server.once('exit', () => {
      this.#closed = true;
      this.#settle();
    });
  }

  get hasEnded(): boolean {
    return this.#closed || this.#failure !== undefined;
  }

  fail(reason: unknown): void {
    this.#failure ??= { reason: asError(reason) };
    this.#settle();
  }

  /** Resolves when the line is done, whatever came of it. */
  async run(line: string): Promise<void> {
    if (this.hasEnded) return;
    const settled = new Promise<void>((resolve) => (this.#settle = resolve));
    this.#server.emit('line', line);
    if (this.#isRunning && !this.hasEnded) await settled;
    // `.exit` ends the REPL on the next turn.
    await nextTurn();
  }

  /** There are no more lines: waits until what they printed is written. @throws the script's error. */
  async finish(): Promise<void> {
    await new Promise<void>((resolve) => this.#output.end(resolve));
    if (this.#failure !== undefined) throw this.#failure.reason;
    if (this.#isIncomplete) throw new SyntaxError('the script ends in the middle of a statement');
  }

  close(): void {
    this.#server.close();
  }

  #evaluator(evaluate: REPLEval): REPLEval {
    return (line, context, file, done) => {
      this.#isRunning = true;
      evaluate.call(this.#server, line, context, file, (error, value) => {
        this.#isRunning = false;
        this.#isIncomplete = error instanceof Recoverable;
        done(error, value);
        this.#settle();
      });
    };
  }
}

/** Errors of the script's own realm are none of this one. */
function asError(reason: unknown): unknown {
  if (!types.isNativeError(reason) || reason instanceof Error) return reason;
  const { name, message, stack } = reason as Error;
  return Object.assign(new Error(message), { name, stack });
}
