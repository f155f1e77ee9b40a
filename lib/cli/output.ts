/** stdout: what is written there arrives, or the command line fails. */
import { fstatSync, writeFile } from 'node:fs';
import { promisify } from 'node:util';

/** Its file descriptor. */
export const STDOUT = 1;
const writeWhole = promisify(writeFile);

/** Why stdout takes no more, once it does not. */
let failure: Error | undefined;
/** A regular file: Node's stream for those takes a short write, of a disk that is full, for a whole one. */
let isFile: boolean | undefined;

/** From now on the first failed write is kept for `flush` and given to `onFailure`. */
export function watchStdout(onFailure: (reason: Error) => void): void {
  process.stdout.on('error', (error: Error) => {
    failure ??= error;
    onFailure(error);
  });
  // Nothing can be reported any more.
  process.stderr.on('error', () => {});
}

/** Writes to stdout, and waits while the reader does not keep up. */
export async function print(data: string | Uint8Array): Promise<void> {
  if (failure !== undefined) throw failure;
  if (data.length === 0) return;
  isFile ??= fstatSync(STDOUT).isFile();
  try {
    if (isFile) await writeWhole(STDOUT, data);
    else await writeStream(data);
  } catch (error) {
    failure ??= error as Error;
    throw error;
  }
}

/** Waits until all that was written to stdout has arrived. @throws why it has not. */
export async function flush(): Promise<void> {
  await writeStream('').catch(() => undefined);
  if (failure !== undefined) throw failure;
}

/** Whether the reader of stdout has gone (`| head`). */
export function isReaderGone(error: unknown): boolean {
  return error === failure && (error as NodeJS.ErrnoException | undefined)?.code === 'EPIPE';
}

function writeStream(data: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(data, (error) => (error ? reject(error) : resolve()));
  });
}
