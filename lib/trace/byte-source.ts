/** The bytes of a capture, from a file or a stream, decompressed where they are gzip, in pieces of any length. */
import { open } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { createGunzip, type Gunzip } from 'node:zlib';
import { CaptureError } from './capture-error.js';

/** Small enough that what gzip makes of it, at most some thousand times as much, is bounded. */
const CHUNK = 1 << 14;
const GZIP_MAGIC = 0x1f8b;
const MAGIC_SIZE = 2;

/** Where a capture comes from: the path of a file, or its bytes as they come, from a pipe for example. */
export type CaptureSource = string | AsyncIterable<Uint8Array>;

/** Hands out views of what it has read, which stay as they are. */
export class ByteSource {
  readonly #chunks: AsyncGenerator<Buffer, void, undefined>;
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #offset = 0;

  constructor(source: CaptureSource) {
    const chunks = typeof source === 'string' ? fileChunks(source) : streamChunks(source);
    this.#chunks = decompressed(chunks);
  }

  /** Where the next byte is among all of them. */
  get offset(): number {
    return this.#offset;
  }

  /** Bytes that are here: at the end those that are left over. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /**
   * Reads until `count` bytes are here, and shows them; undefined where there are not so many.
   * @throws CaptureError for what is no whole gzip file, and what reading throws.
   */
  async peek(count: number): Promise<Buffer | undefined> {
    if (this.left < count && !(await this.#fill(count))) return undefined;
    return this.#bytes.subarray(this.#at, this.#at + count);
  }

  /** The next `count` bytes, which `peek` has shown. */
  take(count: number): Buffer {
    const taken = this.#bytes.subarray(this.#at, this.#at + count);
    this.#at += count;
    this.#offset += count;
    return taken;
  }

  /** Ends the reading. */
  async close(): Promise<void> {
    await this.#chunks.return();
  }

  async #fill(count: number): Promise<boolean> {
    const parts = [this.#bytes.subarray(this.#at)];
    let have = parts[0]!.length;
    while (have < count) {
      const { value, done } = await this.#chunks.next();
      if (done === true) break;
      parts.push(value);
      have += value.length;
      // Pieces of a stream or of what was compressed may all be here: each is worked on in a turn of its own.
      await setImmediate();
    }
    this.#bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    this.#at = 0;
    return have >= count;
  }
}

async function* fileChunks(path: string): AsyncGenerator<Buffer, void, undefined> {
  const file = await open(path, 'r');
  try {
    for (;;) {
      const bytes = Buffer.allocUnsafeSlow(CHUNK);
      const { bytesRead } = await file.read(bytes, 0, CHUNK);
      if (bytesRead === 0) return;
      yield bytes.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

async function* streamChunks(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
  }
}

async function* decompressed(
  chunks: AsyncGenerator<Buffer, void, undefined>,
): AsyncGenerator<Buffer, void, undefined> {
  try {
    let first: Buffer = Buffer.alloc(0);
    for (let next; first.length < MAGIC_SIZE; first = Buffer.concat([first, next.value])) {
      next = await chunks.next();
      if (next.done === true) break;
    }
    const isGzip = first.length >= MAGIC_SIZE && first.readUInt16BE(0) === GZIP_MAGIC;
    if (isGzip) return yield* gunzip(first, chunks);
    yield first;
    yield* chunks;
  } finally {
    await chunks.return();
  }
}

/** What was whole before the compressed bytes stop making sense comes first. */
async function* gunzip(
  first: Buffer,
  chunks: AsyncGenerator<Buffer, void, undefined>,
): AsyncGenerator<Buffer, void, undefined> {
  const unzip = createGunzip();
  const made: Buffer[] = [];
  let failure: Error | undefined;
  unzip.on('data', (bytes: Buffer) => made.push(bytes));
  unzip.on('error', (error) => (failure ??= error));
  // After all that it has made was told, or where it fails.
  const closed = new Promise<void>((resolve) => unzip.once('close', resolve));
  try {
    for (let chunk: Buffer | void = first; chunk !== undefined; chunk = (await chunks.next()).value) {
      await writeTo(unzip, chunk);
      yield* made.splice(0);
      if (failure !== undefined) break;
    }
    unzip.end();
    await closed;
    yield* made.splice(0);
  } finally {
    unzip.destroy();
  }
  if (failure !== undefined)
    throw new CaptureError(`the compressed file is damaged, or ends early: ${failure.message}`, undefined, {
      cause: failure,
    });
}

/** The callback of a write that fails does not come. */
function writeTo(unzip: Gunzip, chunk: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      unzip.off('close', done);
      resolve();
    };
    unzip.once('close', done);
    unzip.write(chunk, done);
  });
}
