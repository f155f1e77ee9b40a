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
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  open as openCallback,
  realpathSync,
  renameSync,
  statSync,
  writevSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { VfioUserError } from '../errors.js';
import { ReplacementFile, targetOf, type Target } from '../files/index.js';
import * as option from '../options.js';
import { isMessage, type TracedEvent } from './traced-message.js';
import { interfaceDescription, interruptParts, packetParts, sectionHeader } from './pcapng.js';

/** Where a capture goes. */
export interface CaptureOptions {
  /**
   * The file: a new one, for its owner alone, takes the place of what had the name. Only one capture of a thread can have
   * it at a time. A FIFO that Wireshark reads will do where nothing is rotated; nothing is left out, so who reads it
   * slowly slows down what is captured.
   */
  path: string;
  /**
   * A file that would grow beyond this many bytes, 4,096 or more, is renamed to `path.1` and a new one begun. Default: never.
   */
  rotateBytes?: number | undefined;
  /** How many renamed files are kept, 0 to 9,999, `path.1` the newest. Default 9. */
  rotateFiles?: number | undefined;
}

/** @internal What `CaptureOptions` may be. */
export const CAPTURE_OPTIONS = new option.OptionTable<CaptureOptions>(
  {
    path: option.path,
    rotateBytes: option.wholeNumber(4096),
    rotateFiles: option.wholeNumber(0, 9_999),
  },
  ['path'],
);

const DEFAULT_ROTATE_FILES = 9;

/** A capture has its user's memory in it: no one else may read it. */
const PRIVATE = { isPrivate: true } as const;

const openFile = promisify(openCallback);

/** The files that this thread captures to: two captures in one file cannot be read. */
const taken = new Set<string>();

/**
 * Writes messages and interrupts to a pcapng file, which Wireshark reads with the dissector in `tools/wireshark`. The file can
 * be read at any time while it is written.
 *
 * @example
 * ```ts
 * const writer = await CaptureWriter.open({ path: 'copy.pcapng' });
 * for await (const event of new CaptureReader('dev.pcapng').events()) writer.write(event);
 * writer.close();
 * ```
 */
export class CaptureWriter {
  /** The file itself, where a link was named: rotated files lie beside it. */
  readonly #path: string;
  readonly #rotateBytes: number;
  readonly #rotateFiles: number;
  readonly #interfaces = new Map<string, number>();
  /** In `taken`; undefined for a device, which anybody may write to. */
  #place: string | undefined;
  #fd = -1;
  /** The file, while it has not got its name. */
  #unnamed: ReplacementFile | undefined;
  /** Bytes of the file, whole blocks all of them. */
  #size = 0;
  #hasPackets = false;

  /**
   * Opens the file. A FIFO waits for its reader.
   * @throws TypeError and RangeError for options that make no sense; VfioUserError EBUSY where another capture of this
   * thread has the file; what `fs.open` and `fs.writev` throw.
   */
  static async open(options: CaptureOptions): Promise<CaptureWriter> {
    const writer = await CaptureWriter.prepare(options);
    writer.#takeName();
    return writer;
  }

  /** @internal As `open`, but what has the name keeps it until the first message, and for good where none comes. */
  static async prepare(options: CaptureOptions): Promise<CaptureWriter> {
    CAPTURE_OPTIONS.check('CaptureWriter.open', options);
    const { path, rotateBytes, rotateFiles = DEFAULT_ROTATE_FILES } = options;
    const target = targetOf(path);
    if (rotateBytes !== undefined && !isRegular(target)) {
      throw new TypeError(`${path} is not a regular file: it cannot be rotated`);
    }
    const writer = new CaptureWriter(target, rotateBytes ?? Infinity, rotateFiles);
    try {
      if (isRegular(target)) writer.#beginFile(target);
      else {
        writer.#fd = await openFile(target.path, constants.O_WRONLY);
        writer.#append([sectionHeader()]);
      }
      return writer;
    } catch (error) {
      writer.close();
      throw error;
    }
  }

  private constructor(target: Target, rotateBytes: number, rotateFiles: number) {
    this.#path = target.path;
    this.#rotateBytes = rotateBytes;
    this.#rotateFiles = rotateFiles;
    this.#place = placeOf(target);
    if (this.#place === undefined) return;
    if (taken.has(this.#place)) {
      throw new VfioUserError('EBUSY', `another capture goes to ${this.#path}: each needs a file of its own`);
    }
    taken.add(this.#place);
  }

  /**
   * Writes one message or interrupt before it returns.
   * @throws what the file system throws; the file then ends with the last whole block. Nothing once closed.
   */
  write(event: TracedEvent): void {
    if (this.#fd < 0) return;
    this.#takeName();
    let blocks = this.#blocks(event);
    if (this.#hasPackets && this.#size + sizeOf(blocks) > this.#rotateBytes) {
      this.#rotate();
      blocks = this.#blocks(event);
    }
    this.#append(blocks);
    this.#hasPackets = true;
  }

  /** @internal Somebody has removed or replaced the file: what was captured cannot be read. */
  get isLost(): boolean {
    return this.#fd >= 0 && this.#unnamed === undefined && fstatSync(this.#fd).nlink === 0;
  }

  /** Closes the file; idempotent. */
  close(): void {
    this.#closeFile();
    if (this.#place !== undefined) taken.delete(this.#place);
    this.#place = undefined;
  }

  #closeFile(): void {
    const fd = this.#fd;
    this.#fd = -1;
    this.#unnamed?.discard();
    this.#unnamed = undefined;
    if (fd >= 0) closeSync(fd);
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
    this.#requireName();
    this.#closeFile();
    const numbered = (n: number) => (n === 0 ? this.#path : `${this.#path}.${n}`);
    let last = 1;
    while (last < this.#rotateFiles && existsSync(numbered(last))) last++;
    // Where none is kept the new one replaces the old one.
    if (this.#rotateFiles > 0) for (let n = last; n > 0; n--) renameSync(numbered(n - 1), numbered(n));
    this.#beginFile({ path: this.#path, stats: undefined });
    this.#takeName();
  }

  #beginFile(target: Target): void {
    this.#unnamed = ReplacementFile.open(target, PRIVATE);
    this.#fd = this.#unnamed.fd;
    this.#interfaces.clear();
    this.#size = 0;
    this.#hasPackets = false;
    this.#append([sectionHeader()]);
  }

  #takeName(): void {
    this.#unnamed?.commit();
    this.#unnamed = undefined;
  }

  /** What another program has put there is not ours to rename. */
  #requireName(): void {
    const there = statSync(this.#path, { throwIfNoEntry: false });
    const own = fstatSync(this.#fd);
    if (there?.ino === own.ino && there.dev === own.dev) return;
    throw new VfioUserError('ESTALE', `${this.#path} was removed or replaced`);
  }
}

function isRegular({ stats }: Target): boolean {
  return stats === undefined || stats.isFile();
}

/** A device takes what anybody writes to it. */
function placeOf({ path, stats }: Target): string | undefined {
  if (stats?.isCharacterDevice() === true) return undefined;
  return stats?.isFIFO() === true ? realpathSync(path) : path;
}

function eventParts(interfaceId: number, event: TracedEvent): Buffer[] {
  return isMessage(event) ? packetParts(interfaceId, event) : interruptParts(interfaceId, event);
}

function sizeOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}
