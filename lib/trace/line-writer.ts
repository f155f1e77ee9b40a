/**
 * Lines for a stream, whose reader may be slower than what is traced. Waiting for it would slow down what one only looks
 * at, and keeping all would take memory without end: what is too much is left out, and counted.
 */
import type { Writable } from 'node:stream';

/** Bytes that may wait in the stream. */
const MOST_WAITING = 4 << 20;

export class LineWriter {
  readonly #stream: Pick<Writable, 'write'> & Partial<Pick<Writable, 'writableLength'>>;
  #left = 0;

  constructor(stream: Writable) {
    this.#stream = stream;
  }

  /** Writes a line, or leaves it out: once some are, all are until half of what waits has gone. */
  write(line: string): void {
    const waiting = this.#stream.writableLength ?? 0;
    if (waiting > (this.#left === 0 ? MOST_WAITING : MOST_WAITING / 2)) {
      this.#left++;
      return;
    }
    this.#tell();
    this.#stream.write(`${line}\n`);
  }

  /** No more lines come. The stream is its owner's. */
  close(): void {
    this.#tell();
  }

  /** In the place of the lines that are missing. */
  #tell(): void {
    if (this.#left === 0) return;
    const what = this.#left === 1 ? '1 line is' : `${this.#left} lines are`;
    this.#left = 0;
    this.#stream.write(`… ${what} missing here: they came faster than they were read\n`);
  }
}
