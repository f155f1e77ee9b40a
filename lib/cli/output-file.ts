/**
 * Where a verb's bytes go: a file that is whole or is not there, or stdout. What was there under the name stays until the
 * new file is whole. What is no regular file (a device, a pipe) is written as it is.
 */
import { close, constants, fstatSync, fsync, open, writeFile } from 'node:fs';
import { promisify } from 'node:util';
import { VfioUserError } from '../errors.js';
import { ReplacementFile, targetOf, type Target } from '../files/index.js';
import { UsageError } from './errors.js';
import { STDOUT, print } from './output.js';
import { interruptible } from './stop-signals.js';
import { byteCount } from './format-text.js';

/** The name that says stdout, or stdin. */
export const STANDARD_STREAM = '-';

const openFile = promisify(open);
const writeWhole = promisify(writeFile);
const syncFile = promisify(fsync);
const closeFile = promisify(close);

/**
 * Does `work`, which writes the file, and gives it its name; `-`, and no name, is stdout. The signal aborts when the process
 * is told to stop.
 * @throws what `work` throws, with what has become of the bytes before it; what the file system says. `keep` as in
 * `OutputFile.abandon`.
 */
export async function writeOutput(
  name: string | undefined,
  work: (file: OutputFile, signal: AbortSignal) => Promise<void>,
  keep?: boolean,
): Promise<void> {
  const file = await OutputFile.create(name);
  try {
    await interruptible((signal) => work(file, signal));
    await file.finish();
  } catch (error) {
    throw await file.abandon(error, keep);
  }
}

export class OutputFile {
  readonly #name: string;
  /** Undefined for stdout. */
  #fd: number | undefined;
  /** Undefined where bytes go to their destination at once. */
  readonly #replacement: ReplacementFile | undefined;
  #bytes = 0;

  private constructor(name: string, fd?: number, replacement?: ReplacementFile) {
    this.#name = name;
    this.#fd = fd;
    this.#replacement = replacement;
  }

  /** Opens it; `-`, and no name, is stdout. @throws UsageError for an empty name; what the file system says. */
  static async create(name: string = STANDARD_STREAM): Promise<OutputFile> {
    if (name === '') throw new UsageError('the file has no name');
    if (name === STANDARD_STREAM) return new OutputFile('stdout');
    const target = targetOf(name);
    if (isStdout(target)) return new OutputFile('stdout');
    if (target.stats?.isFile() === false) {
      return new OutputFile(name, await openFile(target.path, constants.O_WRONLY));
    }
    const replacement = ReplacementFile.open(target);
    return new OutputFile(name, replacement.fd, replacement);
  }

  get bytes(): number {
    return this.#bytes;
  }

  async write(data: string | Uint8Array): Promise<void> {
    if (this.#fd === undefined) await print(data);
    else await writeWhole(this.#fd, data).catch((error: unknown) => this.#fail(error));
    this.#bytes += Buffer.byteLength(data);
  }

  /** Everything has been written: the file gets its name, and is there after a crash of the machine, too. */
  async finish(): Promise<void> {
    const replacement = this.#replacement;
    if (replacement !== undefined) {
      await syncFile(replacement.fd).catch((error: unknown) => this.#fail(error));
      replacement.commit();
    }
    await this.#close();
  }

  /**
   * `error` with what has become of the bytes before it; nothing is added where there are none, or no file. `keep` says
   * whether they stay as NAME.partial; undefined where the user has no say.
   */
  async abandon(error: unknown, keep?: boolean): Promise<unknown> {
    const replacement = this.#replacement;
    // A disk that is full has taken a part of what was written last.
    if (replacement !== undefined && this.#fd !== undefined) this.#bytes = fstatSync(this.#fd).size;
    // What went wrong first is what is told.
    await this.#close().catch(() => undefined);
    if (replacement === undefined) return error;
    if (keep === true && this.#bytes > 0) return withFate(error, keepPartial(replacement, this.#bytes));
    replacement.discard();
    if (this.#bytes === 0) return error;
    const hint = keep === undefined ? '' : ' (--keep-partial keeps it)';
    return withFate(error, `what had been written was removed${hint}`);
  }

  /** With the name: of an open file the system's words say none. */
  #fail(error: unknown): never {
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new VfioUserError(code, `${this.#name}: ${message}`, { cause: error });
  }

  async #close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await closeFile(fd);
  }
}

/** What another name says (`/dev/stdout`) is the same stream, and cannot always be opened once more. */
function isStdout({ stats }: Target): boolean {
  const stdout = fstatSync(STDOUT);
  return stats?.ino === stdout.ino && stats.dev === stdout.dev;
}

/** A link of that name is replaced, and not followed. */
function keepPartial(replacement: ReplacementFile, bytes: number): string {
  const name = `${replacement.path}.partial`;
  try {
    replacement.moveTo(name);
    return `${name} has the first ${byteCount(bytes)}`;
  } catch (error) {
    replacement.discard();
    return `what had been written could not be kept: ${(error as Error).message}`;
  }
}

/** The error, with more words. */
export function withFate(error: unknown, fate: string): unknown {
  if (!(error instanceof Error)) return error;
  if (error instanceof UsageError) return new UsageError(`${error.message}; ${fate}`, { cause: error });
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name;
  return new VfioUserError(code, `${error.message}; ${fate}`, { cause: error });
}
