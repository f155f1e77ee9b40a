/** Where bytes and text go: stdout, or a file that is made when the first of them come. */
import { open, type FileHandle } from 'node:fs/promises';

/** Writes to stdout, and waits while the reader does not keep up. */
export async function print(data: string | Uint8Array): Promise<void> {
  if (data.length === 0) return;
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(data, (error) => (error ? reject(error) : resolve()));
  });
}

/** A file, or stdout where there is no name. */
export class Output {
  readonly #path: string | undefined;
  #file: FileHandle | undefined;

  constructor(path: string | undefined) {
    this.#path = path;
  }

  /** Goes on where the last write ended. */
  async write(data: string | Uint8Array): Promise<void> {
    if (this.#path === undefined) return print(data);
    // Not before there is something to write: an access that fails leaves the file that was there.
    this.#file ??= await open(this.#path, 'w');
    await this.#file.writeFile(data);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}
