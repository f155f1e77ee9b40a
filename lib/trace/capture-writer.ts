/**
 * Writes messages to a pcapng file as they go. Each message is one `writev` of whole blocks: the file can be read, and
 * followed, at any time, and what was written survives a crash of the process.
 *
 * ```
 *   dev.pcapng ── full: renamed to ──▶ dev.pcapng.1 ──▶ dev.pcapng.2 ──▶ … ──▶ removed
 * ```
 * Each file stands for itself: it begins with a section header and describes the sockets that occur in it.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  open as openCallback,
  openSync,
  renameSync,
  rmSync,
  writevSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { integer } from '../fields.js';
import { isMessage, type TracedEvent } from './message.js';
import { interfaceDescription, interruptParts, packetParts, sectionHeader } from './pcapng.js';

export interface CaptureOptions {
  /** The file; what it held before is gone. A FIFO that Wireshark reads will do where nothing is rotated. */
  path: string;
  /** A file that would grow beyond this many bytes is renamed to `path.1` and a new one begun. Default: never. */
  rotateBytes?: number | undefined;
  /** How many renamed files are kept, `path.1` the newest. Default 9. */
  rotateFiles?: number | undefined;
}

const LEAST_ROTATE_BYTES = 4096;
const DEFAULT_ROTATE_FILES = 9;
const MOST_ROTATE_FILES = 9_999;
/** What goes through a device's sockets is the memory of its user: nobody else's to read. */
const MODE = 0o600;

const openFile = promisify(openCallback);

export class CaptureWriter {
  readonly #path: string;
  readonly #rotateBytes: number;
  readonly #rotateFiles: number;
  readonly #interfaces = new Map<string, number>();
  #fd: number;
  /** Bytes of the file, whole blocks all of them. */
  #size = 0;
  #hasPackets = false;

  /**
   * Opens the file. A FIFO waits for its reader.
   * @throws TypeError and RangeError for options that make no sense, and what `fs.open` and `fs.writev` throw.
   */
  static async open(options: CaptureOptions): Promise<CaptureWriter> {
    const { path, rotateBytes, rotateFiles = DEFAULT_ROTATE_FILES } = options;
    if (typeof path !== 'string' || path === '') throw new TypeError('a capture needs the path of a file');
    if (rotateBytes !== undefined)
      integer('rotateBytes', rotateBytes, LEAST_ROTATE_BYTES, Number.MAX_SAFE_INTEGER);
    integer('rotateFiles', rotateFiles, 0, MOST_ROTATE_FILES);
    const fd = await openFile(path, 'w', MODE);
    if (rotateBytes !== undefined && !fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new TypeError(`${path} is not a regular file: it cannot be rotated`);
    }
    try {
      return new CaptureWriter(fd, path, rotateBytes ?? Infinity, rotateFiles);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private constructor(fd: number, path: string, rotateBytes: number, rotateFiles: number) {
    this.#fd = fd;
    this.#path = path;
    this.#rotateBytes = rotateBytes;
    this.#rotateFiles = rotateFiles;
    this.#append([sectionHeader()]);
  }

  /** @throws what the file system throws; the file then ends with the last whole block. Nothing once closed. */
  write(event: TracedEvent): void {
    if (this.#fd < 0) return;
    let blocks = this.#blocks(event);
    if (this.#hasPackets && this.#size + sizeOf(blocks) > this.#rotateBytes) {
      this.#rotate();
      blocks = this.#blocks(event);
    }
    this.#append(blocks);
    this.#hasPackets = true;
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }

  /** The event's packet, and before it the description of a socket that is new to the file. */
  #blocks(event: TracedEvent): Buffer[] {
    const { socket } = event;
    const known = this.#interfaces.get(socket);
    if (known !== undefined) return eventParts(known, event);
    const id = this.#interfaces.size;
    this.#interfaces.set(socket, id);
    return [interfaceDescription(socket), ...eventParts(id, event)];
  }

  #append(parts: readonly Buffer[]): void {
    const total = sizeOf(parts);
    try {
      let left = parts;
      for (let done = 0; done < total;) {
        const count = writevSync(this.#fd, left);
        done += count;
        left = done === total ? [] : [Buffer.concat(left).subarray(count)];
      }
    } catch (error) {
      this.#dropPartialBlock();
      throw error;
    }
    this.#size += total;
  }

  #dropPartialBlock(): void {
    try {
      ftruncateSync(this.#fd, this.#size);
    } catch {
      // A FIFO, or a file system that is gone: there is nothing more to be done, and the first error says why.
    }
  }

  #rotate(): void {
    this.close();
    const numbered = (n: number) => (n === 0 ? this.#path : `${this.#path}.${n}`);
    let last = 1;
    while (last < this.#rotateFiles && existsSync(numbered(last))) last++;
    if (this.#rotateFiles === 0) rmSync(this.#path);
    else for (let n = last; n > 0; n--) renameSync(numbered(n - 1), numbered(n));
    this.#fd = openSync(this.#path, 'w', MODE);
    this.#interfaces.clear();
    this.#size = 0;
    this.#hasPackets = false;
    this.#append([sectionHeader()]);
  }
}

function eventParts(interfaceId: number, event: TracedEvent): Buffer[] {
  return isMessage(event) ? packetParts(interfaceId, event) : interruptParts(interfaceId, event);
}

function sizeOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}
