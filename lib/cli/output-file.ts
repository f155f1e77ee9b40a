/**
 * A file that is whole or is not there: bytes go to `NAME.partial`, which gets its name at the end. What was there under
 * the name stays until then. What is no regular file (a device, a pipe) is written as it is.
 */
import { rename, stat, unlink } from 'node:fs/promises';
import { VfioUserError } from '../errors.js';
import { Output } from './output.js';
import { byteCount } from './text.js';

/** The name that says stdout, or stdin. */
export const STANDARD_STREAM = '-';

export class OutputFile {
  readonly #name: string | undefined;
  /** Undefined where bytes go to their destination at once. */
  readonly #partial: string | undefined;
  readonly #output: Output;
  #bytes = 0;

  private constructor(name: string | undefined, partial: string | undefined) {
    this.#name = name;
    this.#partial = partial;
    this.#output = new Output(partial ?? name);
  }

  /** `-`, and no name at all, is stdout. Nothing is made before the first bytes come. */
  static async create(name: string | undefined): Promise<OutputFile> {
    if (name === undefined || name === STANDARD_STREAM) return new OutputFile(undefined, undefined);
    const isSpecial = await stat(name).then(
      (stats) => !stats.isFile(),
      () => false,
    );
    return new OutputFile(name, isSpecial ? undefined : `${name}.partial`);
  }

  get bytes(): number {
    return this.#bytes;
  }

  async write(data: string | Uint8Array): Promise<void> {
    await this.#output.write(data);
    this.#bytes += Buffer.byteLength(data);
  }

  /** Everything has been written: the file gets its name. */
  async finish(): Promise<void> {
    // A file of no bytes is a file, too.
    if (this.#bytes === 0 && this.#name !== undefined) await this.#output.write(Buffer.alloc(0));
    await this.#output.close();
    if (this.#partial !== undefined) await rename(this.#partial, this.#name!);
  }

  /** `error` with what has become of the bytes before it; nothing is added where there are none, or no file. */
  async abandon(error: unknown, keep: boolean): Promise<unknown> {
    await this.#output.close();
    if (this.#partial === undefined || this.#bytes === 0) return error;
    if (keep) {
      return withFate(error, `${this.#partial} has the first ${byteCount(this.#bytes)}`);
    }
    await unlink(this.#partial);
    return withFate(error, `what had been written was removed (--keep-partial keeps it)`);
  }
}

/** The error, with more words. */
export function withFate(error: unknown, fate: string): unknown {
  if (!(error instanceof Error)) return error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name;
  return new VfioUserError(code, `${error.message}; ${fate}`, { cause: error });
}
