/** Where the blocks of a namespace, or a disk, are kept. Offsets and lengths are in bytes, and within the store. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { byteArray, integer, wrongType } from '../fields.js';
import { check, native } from '../native.js';
import { ENOSYS, EOPNOTSUPP } from '../system-numbers.js';

/**
 * Where a namespace keeps its blocks. The controller reads and writes within `size`, and several ranges at once.
 */
export interface BlockStore {
  /** In bytes. */
  readonly size: number;
  /** `length` bytes from `offset` on. The controller copies them at once and keeps no reference. */
  read(offset: number, length: number): Buffer | Promise<Buffer>;
  /** `data` may be reused when the promise settles. */
  write(offset: number, data: Uint8Array): void | Promise<void>;
  /** The bytes read as zeroes from now on, and take no room where that can be: TRIM and Write Zeroes. */
  clear(offset: number, length: number): void | Promise<void>;
  /** Flush: what was written is kept, also where the power fails. */
  flush(): void | Promise<void>;
  /** Gives back what the store holds. Called when the device is closed. */
  close(): void | Promise<void>;
}

const CHUNK = 1 << 20;

/** The controller stays within the store; others may not. */
function checkRange(store: BlockStore, caller: string, offset: number, length: number): void {
  integer(`${caller}: offset`, offset, 0, store.size);
  integer(`${caller}: length`, length, 0, store.size - offset);
}

function checkData(store: BlockStore, caller: string, offset: number, data: Uint8Array): void {
  byteArray(`${caller}: data`, data);
  checkRange(store, caller, offset, data.byteLength);
}

/**
 * Blocks in memory, allocated a MiB at a time where something is written. Nothing is kept once it is closed.
 *
 * @example
 * ```ts
 * const device = new NvmeDevice({ namespaces: [{ store: new MemoryStore(64 << 20) }] });
 * ```
 */
export class MemoryStore implements BlockStore {
  /** In bytes. */
  readonly size: number;
  readonly #chunks = new Map<number, Buffer>();
  #isClosed = false;

  /** @throws RangeError. */
  constructor(size: number) {
    this.size = integer('MemoryStore: size', size, 1, Number.MAX_SAFE_INTEGER);
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** See `BlockStore.read`. @throws TypeError and RangeError for what is not in the store. */
  read(offset: number, length: number): Buffer {
    checkRange(this, 'MemoryStore.read', offset, length);
    const at = offset % CHUNK;
    const chunk = this.#chunks.get(Math.floor(offset / CHUNK));
    // Most are in one chunk, and need no copy: who asks copies at once.
    if (at + length <= CHUNK) return chunk?.subarray(at, at + length) ?? Buffer.alloc(length);
    const into = Buffer.alloc(length);
    this.#each(offset, length, (index, begin, end, done) => {
      this.#chunks.get(index)?.copy(into, done, begin, end);
    });
    return into;
  }

  /** See `BlockStore.write`. @throws TypeError and RangeError for what is not in the store. */
  write(offset: number, data: Uint8Array): void {
    checkData(this, 'MemoryStore.write', offset, data);
    this.#each(offset, data.byteLength, (index, begin, end, done) => {
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) this.#chunks.set(index, (chunk = Buffer.alloc(CHUNK)));
      chunk.set(data.subarray(done, done + end - begin), begin);
    });
  }

  /** See `BlockStore.clear`. Whole MiBs are given back. @throws TypeError and RangeError for what is not in the store. */
  clear(offset: number, length: number): void {
    checkRange(this, 'MemoryStore.clear', offset, length);
    const end = offset + length;
    // Of a large store little may be there: what is there is looked at.
    const first = Math.floor(offset / CHUNK);
    const last = Math.ceil(end / CHUNK);
    const isFew = last - first <= this.#chunks.size;
    const indexes = isFew ? Array.from({ length: last - first }, (_, i) => first + i) : this.#chunks.keys();
    for (const index of indexes) {
      const from = Math.max(offset - index * CHUNK, 0);
      const to = Math.min(end - index * CHUNK, CHUNK);
      if (from >= to) continue;
      if (to - from === CHUNK) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, from, to);
    }
  }

  /** Does nothing: memory keeps nothing anyway. */
  flush(): void {}

  /** Gives the memory back. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#chunks.clear();
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  #each(
    offset: number,
    length: number,
    visit: (index: number, begin: number, end: number, done: number) => void,
  ): void {
    for (let done = 0; done < length;) {
      const begin = (offset + done) % CHUNK;
      const end = Math.min(CHUNK, begin + length - done);
      visit(Math.floor((offset + done) / CHUNK), begin, end, done);
      done += end - begin;
    }
  }
}

/**
 * Blocks in a file.
 *
 * @example
 * ```ts
 * const store = await FileStore.open('/var/tmp/disk.img', 1 << 30);
 * const device = new NvmeDevice({ namespaces: [{ store }] });
 * ```
 */
export class FileStore implements BlockStore {
  /** In bytes. */
  readonly size: number;
  readonly #file: FileHandle;
  #isClosed = false;

  /**
   * Opens `path`. With `size` the file is made where there is none, and made larger where it is smaller; without it the
   * file's own size counts.
   * @throws RangeError for an empty file without `size`; what the file system says.
   */
  static async open(path: string, size?: number): Promise<FileStore> {
    if (typeof path !== 'string' || path === '') {
      throw wrongType('FileStore.open: path', 'the path of a file', path);
    }
    if (size !== undefined) integer('FileStore.open: size', size, 1, Number.MAX_SAFE_INTEGER);
    const file = await open(path, constants.O_RDWR | (size === undefined ? 0 : constants.O_CREAT));
    try {
      const { size: found } = await file.stat();
      const wanted = size ?? found;
      if (wanted === 0)
        throw new RangeError(`FileStore.open: ${path} is empty: size must say how large it is to be`);
      if (found < wanted) await file.truncate(wanted);
      return new FileStore(file, wanted);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.size = size;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * See `BlockStore.read`.
   * @throws TypeError and RangeError for what is not in the store, RangeError where the file has become shorter; what the
   * file system says.
   */
  async read(offset: number, length: number): Promise<Buffer> {
    checkRange(this, 'FileStore.read', offset, length);
    const into = Buffer.alloc(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.#file.read(into, done, length - done, offset + done);
      // The file was cut meanwhile.
      if (bytesRead === 0) throw new RangeError(`the file ends before ${offset + length}`);
      done += bytesRead;
    }
    return into;
  }

  /**
   * See `BlockStore.write`.
   * @throws TypeError and RangeError for what is not in the store; what the file system says.
   */
  async write(offset: number, data: Uint8Array): Promise<void> {
    checkData(this, 'FileStore.write', offset, data);
    for (let done = 0; done < data.byteLength;) {
      const { bytesWritten } = await this.#file.write(data, done, data.byteLength - done, offset + done);
      done += bytesWritten;
    }
  }

  /**
   * Gives the room back; where the file system cannot do that, zeroes are written over what is not zero.
   * @throws TypeError and RangeError for what is not in the store; what the file system says.
   */
  async clear(offset: number, length: number): Promise<void> {
    checkRange(this, 'FileStore.clear', offset, length);
    if (length === 0) return;
    const result = native().punchHole(this.#file.fd, offset, length);
    if (result === -EOPNOTSUPP || result === -ENOSYS) await this.#overwrite(offset, length);
    else check(result, 'fallocate');
  }

  async #overwrite(offset: number, length: number): Promise<void> {
    const zeroes = Buffer.alloc(Math.min(CHUNK, length));
    for (let done = 0; done < length; done += CHUNK) {
      const part = zeroes.subarray(0, Math.min(CHUNK, length - done));
      // A hole stays one.
      if (!part.equals(await this.read(offset + done, part.length))) await this.write(offset + done, part);
    }
  }

  /** fdatasync(2). @throws what the file system says. */
  flush(): Promise<void> {
    return this.#file.datasync();
  }

  /** Closes the file. Idempotent. */
  close(): Promise<void> {
    this.#isClosed = true;
    return this.#file.close();
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
