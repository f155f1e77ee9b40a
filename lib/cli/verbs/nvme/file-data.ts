/** Data of commands, in files and standard streams. */
import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { UsageError } from '../../errors.js';
import { writeOutput } from '../../output-file.js';
import { interruptible } from '../../stop-signals.js';
import { fileName } from '../block/block-io.js';

/**
 * `bytes` bytes of a file, or of stdin, exactly.
 * @throws UsageError for fewer or more.
 */
export async function readInput(option: string, file: string | undefined, bytes: number): Promise<Buffer> {
  const name = fileName(file);
  const source: Readable = name === undefined ? process.stdin : createReadStream(name);
  return interruptible(async (signal) => {
    const parts: Buffer[] = [];
    let held = 0;
    const stop = () => source.destroy();
    signal.addEventListener('abort', stop);
    try {
      for await (const part of source as AsyncIterable<Buffer>) {
        parts.push(part);
        held += part.length;
        if (held > bytes) break;
      }
      signal.throwIfAborted();
    } finally {
      signal.removeEventListener('abort', stop);
      source.destroy();
    }
    if (held === bytes) return Buffer.concat(parts);
    const what = name ?? 'stdin';
    throw new UsageError(
      `${option}: ${what} has ${held > bytes ? `more than ${bytes}` : held} bytes; the command takes ${bytes}`,
    );
  });
}

/** Puts the bytes into a file, or on stdout. */
export async function writeData(file: string | undefined, bytes: Uint8Array): Promise<void> {
  await writeOutput(fileName(file), async (output) => output.write(Buffer.from(bytes)), false);
}
