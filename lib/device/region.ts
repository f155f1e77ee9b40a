/** A region of the device, accessed by message. */
import { forbidCloning } from '../cloning.js';
import {
  partOf,
  pause,
  timeoutOf,
  withDeadline,
  type CallOptions,
  type RegionAccess,
  type SyncCallOptions,
} from '../connection/index.js';
import { TimeoutError } from '../errors.js';
import { notInteger, outOfRange } from '../fields.js';
import * as option from '../options.js';
import { Command, REGION_FLAG_MMAP, REGION_FLAG_READ, REGION_FLAG_WRITE } from '../protocol/constants.js';
import type { MmapArea } from '../protocol/region-info.js';
import { AccessSplitter, chunks, type Chunk } from './split-access.js';
import { getIoFds, type IoFds } from './io-fds.js';
import { restoreArea, mapArea, type MappedArea } from './mapped-area.js';
import type { MemorySpace } from './memory-space.js';
import {
  WAIT_OPTIONS,
  encodeValue,
  readOf,
  readToOf,
  requireBytes,
  requireValue,
  takeUInt16,
  takeUInt32,
  takeUInt64,
  takeUInt8,
  valueOf,
  waitTarget,
  writeOf,
  type WaitForOptions,
  type Width,
} from './region-access.js';
import type { RegionDescription } from './region-description.js';
import type { DeviceContext } from './device-context.js';

/** Between two reads of `waitFor`: none at first, since most registers answer at once. */
const FIRST_PAUSE_MS = 0.05;
const LONGEST_PAUSE_MS = 10;

export type { WaitForOptions } from './region-access.js';

/**
 * A region of the device, accessed by message (specification: VFIO_USER_REGION_READ, VFIO_USER_REGION_WRITE).
 * Offsets and lengths are in bytes, values little-endian. What the region's flags or size refuse is a
 * RangeError before anything is sent. Methods that end in `Sync` block the thread until the answer has come.
 *
 * @example
 * ```ts
 * const bar = device.bar(0);
 * const id = await bar.readUInt32(0x00);
 * await bar.writeUInt32(0x20, 1);
 * await bar.waitFor(0x24, 0x1, 0x1, { timeoutMs: 100 });
 * ```
 */
export class Region {
  /** The region's number: `PciRegion` for a PCI device. */
  readonly index: number;
  /** In bytes; 0 for a region that the device does not have. */
  readonly size: number;
  /** VFIO_REGION_INFO_FLAG_* bits. */
  readonly flags: number;
  readonly #context: DeviceContext;
  /** How accesses have to be cut; undefined where the server takes any. */
  readonly #splitter: AccessSplitter | undefined;
  /** The areas that can be mapped; empty where none can. */
  readonly areas: readonly MmapArea[];
  /** Made with the first: a process may have thousands of regions. */
  #mapped: Set<MappedArea> | undefined;
  #description: RegionDescription;
  /** Of config space: what is written here may turn the device's memory off, or on. */
  #memorySpace: MemorySpace | undefined;

  /** @internal */
  constructor(context: DeviceContext, description: RegionDescription) {
    this.#context = context;
    this.#description = description;
    this.index = description.info.index;
    this.size = description.info.size;
    this.flags = description.info.flags;
    this.areas = description.areas;
    const widths = context.options.accessWidths?.get(this.index);
    this.#splitter = widths === undefined ? undefined : new AccessSplitter(widths);
    forbidCloning(this, 'a Region');
  }

  /** @internal This is config space, whose writes `space` hears of. */
  tellOfWrites(space: MemorySpace): void {
    this.#memorySpace = space;
  }

  /** @internal @throws TypeError, RangeError where so many bytes cannot be written there. */
  requireWritable(caller: string, offset: number, length: number): void {
    this.#require(caller, offset, length, this.writable, 'write');
  }

  /** @internal @throws ClosedError where its users are refused just now, and the options are not the library's own. */
  requireAvailable(options: CallOptions | undefined): void {
    this.#context.requireAvailable(options);
  }

  /** @internal Nothing narrower may be accessed, in bytes. */
  get leastWidth(): Width {
    return this.#splitter?.least ?? 1;
  }

  /** Whether it can be read (VFIO_REGION_INFO_FLAG_READ). */
  get readable(): boolean {
    return (this.flags & REGION_FLAG_READ) !== 0;
  }

  /** Whether it can be written (VFIO_REGION_INFO_FLAG_WRITE). */
  get writable(): boolean {
    return (this.flags & REGION_FLAG_WRITE) !== 0;
  }

  /** Whether `map` works: the server has shared a file for at least one area. */
  get mappable(): boolean {
    return (this.flags & REGION_FLAG_MMAP) !== 0 && this.areas.length > 0;
  }

  /** Reads `length` bytes from `offset` into a new Buffer, in as many messages as the peer's limits make it. */
  async read(offset: number, length: number, options?: CallOptions): Promise<Buffer> {
    const problem =
      optionsProblem('Region.read', options) ??
      this.#problem('Region.read', offset, length, this.readable, 'read');
    if (problem !== undefined) throw problem;
    const bytes = Buffer.allocUnsafeSlow(length);
    await this.#readInto(offset, bytes, options);
    return bytes;
  }

  /**
   * Reads as many bytes as `target` has into it. It is the library's until the promise settles.
   * @throws RangeError for what the region does not have; TypeError where the memory of `target` is transferred or resized
   * before it is read; RemoteError, TimeoutError, ClosedError; the signal's reason. After an error any part of `target` may
   * have been written.
   */
  readInto(offset: number, target: Uint8Array, options?: CallOptions): Promise<void> {
    const problem =
      optionsProblem('Region.readInto', options) ??
      this.#transferProblem('Region.readInto', 'target', offset, target, this.readable, 'read');
    return problem === undefined ? this.#readInto(offset, target, options) : Promise.reject(problem);
  }

  #readInto(offset: number, target: Uint8Array, options: CallOptions | undefined): Promise<void> {
    const { length } = target;
    if (length === 0) return Promise.resolve();
    const chunks = this.#chunksOf(offset, length, this.#context.maxDataXferSize);
    if (chunks === undefined) return this.#access(readToOf(this.index, offset, target), options);
    return this.#inChunks(chunks, options, (at, count, call) => {
      const part = partOf(target, length, at, count, Command.REGION_READ);
      return this.#access(readToOf(this.index, offset + at, part), call);
    });
  }

  /**
   * Writes `data` at `offset`. It must not change until the promise settles. A long write that fails may have written
   * any of its chunks; chunks are sent in order.
   * @throws RangeError for what the region does not have; TypeError where the memory of `data` is transferred or resized
   * before it is sent; RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  write(offset: number, data: Uint8Array, options?: CallOptions): Promise<void> {
    const problem =
      optionsProblem('Region.write', options) ??
      this.#transferProblem('Region.write', 'data', offset, data, this.writable, 'write');
    return problem === undefined ? this.#write(offset, data, options) : Promise.reject(problem);
  }

  #write(offset: number, data: Uint8Array, options: CallOptions | undefined): Promise<void> {
    const space = this.#memorySpace;
    if (space === undefined) return this.#put(offset, data, options);
    space.beforeWrite(offset, data);
    return this.#put(offset, data, options).then(() => space.known(offset, data));
  }

  #put(offset: number, data: Uint8Array, options: CallOptions | undefined): Promise<void> {
    const { length } = data;
    if (length === 0) return Promise.resolve();
    const chunks = this.#chunksOf(offset, length, this.#writeChunk());
    if (chunks === undefined) return this.#access(writeOf(this.index, offset, data), options);
    return this.#inChunks(chunks, options, (at, count, call) => {
      const part = partOf(data, length, at, count, Command.REGION_WRITE);
      return this.#access(writeOf(this.index, offset + at, part), call);
    });
  }

  /**
   * Reads a byte at `offset`.
   * @throws RangeError, RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  readUInt8(offset: number, options?: CallOptions): Promise<number> {
    return this.#readValue('Region.readUInt8', offset, 1, takeUInt8, options);
  }

  /**
   * Reads a 16-bit value at `offset`.
   * @throws RangeError, RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  readUInt16(offset: number, options?: CallOptions): Promise<number> {
    return this.#readValue('Region.readUInt16', offset, 2, takeUInt16, options);
  }

  /**
   * Reads a 32-bit value at `offset`.
   * @throws RangeError, RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  readUInt32(offset: number, options?: CallOptions): Promise<number> {
    return this.#readValue('Region.readUInt32', offset, 4, takeUInt32, options);
  }

  /**
   * Reads a 64-bit value at `offset`, as a bigint.
   * @throws RangeError, RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  readUInt64(offset: number, options?: CallOptions): Promise<bigint> {
    return this.#readValue('Region.readUInt64', offset, 8, takeUInt64, options);
  }

  /**
   * Writes a byte, 0 to 255, at `offset`.
   * @throws TypeError, RangeError for a value or an offset that does not fit; RemoteError, TimeoutError,
   * ClosedError; the signal's reason.
   */
  writeUInt8(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#writeValue('Region.writeUInt8', offset, value, 1, options);
  }

  /**
   * Writes a 16-bit value, 0 to 65,535, at `offset`.
   * @throws TypeError, RangeError for a value or an offset that does not fit; RemoteError, TimeoutError,
   * ClosedError; the signal's reason.
   */
  writeUInt16(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#writeValue('Region.writeUInt16', offset, value, 2, options);
  }

  /**
   * Writes a 32-bit value, 0 to 4,294,967,295, at `offset`.
   * @throws TypeError, RangeError for a value or an offset that does not fit; RemoteError, TimeoutError,
   * ClosedError; the signal's reason.
   */
  writeUInt32(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#writeValue('Region.writeUInt32', offset, value, 4, options);
  }

  /**
   * Writes a 64-bit value, a bigint from 0 to 2^64 - 1, at `offset`.
   * @throws TypeError, RangeError for a value or an offset that does not fit; RemoteError, TimeoutError,
   * ClosedError; the signal's reason.
   */
  writeUInt64(offset: number, value: bigint, options?: CallOptions): Promise<void> {
    return this.#writeValue('Region.writeUInt64', offset, value, 8, options);
  }

  /** `read`, blocking. */
  readSync(offset: number, length: number, options?: SyncCallOptions): Buffer {
    this.#requireSync('Region.readSync', options, offset, length, this.readable, 'read');
    const bytes = Buffer.allocUnsafeSlow(length);
    this.#readIntoSync(offset, bytes, options);
    return bytes;
  }

  /** `readInto`, blocking. */
  readIntoSync(offset: number, target: Uint8Array, options?: SyncCallOptions): void {
    const length = requireBytes('Region.readIntoSync', 'target', target);
    this.#requireSync('Region.readIntoSync', options, offset, length, this.readable, 'read');
    this.#readIntoSync(offset, target, options);
  }

  #readIntoSync(offset: number, target: Uint8Array, options: SyncCallOptions | undefined): void {
    const { length } = target;
    if (length === 0) return;
    const chunks = this.#chunksOf(offset, length, this.#context.maxDataXferSize);
    if (chunks === undefined) {
      this.#accessSync(readToOf(this.index, offset, target), options);
      return;
    }
    const call = withDeadline(options);
    for (const { at, count } of chunks) {
      const part = partOf(target, length, at, count, Command.REGION_READ);
      this.#accessSync(readToOf(this.index, offset + at, part), call);
    }
  }

  /** `write`, blocking. */
  writeSync(offset: number, data: Uint8Array, options?: SyncCallOptions): void {
    const length = requireBytes('Region.writeSync', 'data', data);
    this.#requireSync('Region.writeSync', options, offset, length, this.writable, 'write');
    this.#writeSync(offset, data, options);
  }

  #writeSync(offset: number, data: Uint8Array, options: SyncCallOptions | undefined): void {
    this.#memorySpace?.beforeWrite(offset, data);
    this.#putSync(offset, data, options);
    this.#memorySpace?.known(offset, data);
  }

  #putSync(offset: number, data: Uint8Array, options: SyncCallOptions | undefined): void {
    const { length } = data;
    if (length === 0) return;
    const chunks = this.#chunksOf(offset, length, this.#writeChunk());
    if (chunks === undefined) {
      this.#accessSync(writeOf(this.index, offset, data), options);
      return;
    }
    const call = withDeadline(options);
    for (const { at, count } of chunks) {
      const part = partOf(data, length, at, count, Command.REGION_WRITE);
      this.#accessSync(writeOf(this.index, offset + at, part), call);
    }
  }

  /**
   * `readUInt8`, blocking. @throws RangeError, RemoteError, TimeoutError, ClosedError; UnsupportedError where
   * no call may block.
   */
  readUInt8Sync(offset: number, options?: SyncCallOptions): number {
    return this.#readValueSync('Region.readUInt8Sync', offset, 1, takeUInt8, options);
  }

  /**
   * `readUInt16`, blocking. @throws RangeError, RemoteError, TimeoutError, ClosedError; UnsupportedError where
   * no call may block.
   */
  readUInt16Sync(offset: number, options?: SyncCallOptions): number {
    return this.#readValueSync('Region.readUInt16Sync', offset, 2, takeUInt16, options);
  }

  /**
   * `readUInt32`, blocking. @throws RangeError, RemoteError, TimeoutError, ClosedError; UnsupportedError where
   * no call may block.
   */
  readUInt32Sync(offset: number, options?: SyncCallOptions): number {
    return this.#readValueSync('Region.readUInt32Sync', offset, 4, takeUInt32, options);
  }

  /**
   * `readUInt64`, blocking. @throws RangeError, RemoteError, TimeoutError, ClosedError; UnsupportedError where
   * no call may block.
   */
  readUInt64Sync(offset: number, options?: SyncCallOptions): bigint {
    return this.#readValueSync('Region.readUInt64Sync', offset, 8, takeUInt64, options);
  }

  /** `writeUInt8`, blocking. Errors as of `readUInt8Sync`, and TypeError for a value of another type. */
  writeUInt8Sync(offset: number, value: number, options?: SyncCallOptions): void {
    this.#writeValueSync('Region.writeUInt8Sync', offset, value, 1, options);
  }

  /** `writeUInt16`, blocking. Errors as of `readUInt16Sync`, and TypeError for a value of another type. */
  writeUInt16Sync(offset: number, value: number, options?: SyncCallOptions): void {
    this.#writeValueSync('Region.writeUInt16Sync', offset, value, 2, options);
  }

  /** `writeUInt32`, blocking. Errors as of `readUInt32Sync`, and TypeError for a value of another type. */
  writeUInt32Sync(offset: number, value: number, options?: SyncCallOptions): void {
    this.#writeValueSync('Region.writeUInt32Sync', offset, value, 4, options);
  }

  /** `writeUInt64`, blocking. Errors as of `readUInt64Sync`, and TypeError for a value of another type. */
  writeUInt64Sync(offset: number, value: bigint, options?: SyncCallOptions): void {
    this.#writeValueSync('Region.writeUInt64Sync', offset, value, 8, options);
  }

  /**
   * Writes without asking for a reply (No_reply): nothing is waited for, and the server's errors are only counted. In its
   * turn among all other writes. `data` may be used again at once. `device.fence()` tells when all has been done.
   * @throws RangeError as `write` does, ClosedError.
   */
  post(offset: number, data: Uint8Array): void {
    const length = requireBytes('Region.post', 'data', data);
    this.#require('Region.post', offset, length, this.writable, 'write');
    this.#post(offset, data);
  }

  #post(offset: number, data: Uint8Array): void {
    const { length } = data;
    if (length === 0) return;
    // Whether it has turned anything on again is known when it is read.
    this.#memorySpace?.beforeWrite(offset, data);
    const chunks = this.#chunksOf(offset, length, this.#writeChunk()) ?? [{ at: 0, count: length }];
    for (const { at, count } of chunks) {
      const part = partOf(data, length, at, count, Command.REGION_WRITE);
      this.#context.userConnection.post(writeOf(this.index, offset + at, part));
    }
  }

  /** `post` of a 32-bit value: a doorbell. */
  postUInt32(offset: number, value: number): void {
    const bytes = requireValue('Region.postUInt32', value, 4);
    this.#require('Region.postUInt32', offset, 4, this.writable, 'write');
    this.#post(offset, bytes);
  }

  /**
   * Reads until `(register & mask) === value`, and gives the register's value. A bigint mask reads 64 bits.
   * @throws TimeoutError when it does not come true within `timeoutMs`, which bounds the whole wait; it says the last value.
   */
  waitFor(offset: number, mask: number, value: number, options?: WaitForOptions): Promise<number>;
  /** Reads 64 bits until `(register & mask) === value`, and gives the register's value. Errors as of the other form. */
  waitFor(offset: number, mask: bigint, value: bigint, options?: WaitForOptions): Promise<bigint>;
  async waitFor(
    offset: number,
    mask: number | bigint,
    value: number | bigint,
    options: WaitForOptions = {},
  ): Promise<number | bigint> {
    WAIT_OPTIONS.check('Region.waitFor', options);
    const { width = typeof mask === 'bigint' ? 8 : 4 } = options;
    const { bits, wanted } = waitTarget('Region.waitFor', mask, value, width);
    this.#require('Region.waitFor', offset, width, this.readable, 'read');
    const timeoutMs = timeoutOf(options, this.#context.connection.timeoutMs);
    const deadline = performance.now() + timeoutMs;
    const longest = options.intervalMs ?? LONGEST_PAUSE_MS;
    let last: number | bigint | undefined;
    const late = (): TimeoutError => this.#waitTimeout(offset, bits, wanted, timeoutMs, last);
    for (let ms = FIRST_PAUSE_MS; ; ms = Math.min(longest, ms * 2)) {
      const left = deadline - performance.now();
      if (left <= 0) throw late();
      const reading = this.#readWidth(offset, width, { timeoutMs: left, signal: options.signal });
      const seen = await reading.catch((error: unknown) => {
        // The read had what was left of the time: what is over is the wait.
        throw error instanceof TimeoutError ? late() : error;
      });
      if ((BigInt(seen) & bits) === wanted) return seen;
      last = seen;
      if (ms >= 1) await pause(Math.min(ms, left), options.signal);
    }
  }

  /**
   * A view of the server's own memory behind `[offset, offset + length)`, which must lie within one mappable area;
   * without arguments, the first area. Explicit, and without any message from then on.
   * @throws RangeError for what cannot be mapped, UnsupportedError where the `mmap` option or the file forbids it.
   */
  map(offset?: number, length?: number): MappedArea {
    const area = mapArea(this.#context, this.#description, offset, length);
    const mapped = (this.#mapped ??= new Set());
    mapped.add(area);
    area.onClose(() => mapped.delete(area));
    return area;
  }

  /**
   * The fds by which parts of this region can be written without a message (doorbells); empty where there are none.
   * @throws UnsupportedError on a server that answered minor 0 (option `tryOptional`); ProtocolError.
   */
  ioFds(options?: CallOptions): Promise<IoFds> {
    return getIoFds(this.#context, this, options);
  }

  /** @internal The server has come back, with other fds: what was mapped shows those files from now on. */
  restore(description: RegionDescription): void {
    this.#context.removeResource(this.#description);
    this.#description.close();
    this.#description = description;
    for (const area of this.#mapped ?? []) restoreArea(description, area);
  }

  #writeChunk(): number {
    return Math.min(this.#context.maxDataXferSize, this.#context.options.writeChunkBytes);
  }

  #readWidth(offset: number, width: Width, options: CallOptions): Promise<number | bigint> {
    if (width === 8) return this.readUInt64(offset, options);
    if (width === 4) return this.readUInt32(offset, options);
    return width === 2 ? this.readUInt16(offset, options) : this.readUInt8(offset, options);
  }

  #readValue<T>(
    caller: string,
    offset: number,
    width: Width,
    take: RegionAccess<T>['take'],
    options: CallOptions | undefined,
  ): Promise<T> {
    const problem =
      optionsProblem(caller, options) ?? this.#problem(caller, offset, width, this.readable, 'read');
    if (problem !== undefined) return Promise.reject(problem);
    if (this.#splitter !== undefined && !this.#splitter.isOne(offset, width)) {
      const bytes = Buffer.allocUnsafeSlow(width);
      return this.#readInto(offset, bytes, options).then(() => valueOf(bytes) as T);
    }
    return this.#access(readOf(this.index, offset, width, take), options);
  }

  #readValueSync<T>(
    caller: string,
    offset: number,
    width: Width,
    take: RegionAccess<T>['take'],
    options: SyncCallOptions | undefined,
  ): T {
    this.#requireSync(caller, options, offset, width, this.readable, 'read');
    if (this.#splitter !== undefined && !this.#splitter.isOne(offset, width)) {
      const bytes = Buffer.allocUnsafeSlow(width);
      this.#readIntoSync(offset, bytes, options);
      return valueOf(bytes) as T;
    }
    return this.#accessSync(readOf(this.index, offset, width, take), options);
  }

  #writeValue(
    caller: string,
    offset: number,
    value: number | bigint,
    width: Width,
    options: CallOptions | undefined,
  ): Promise<void> {
    const bytes = encodeValue(caller, value, width);
    if (bytes instanceof Error) return Promise.reject(bytes);
    const problem =
      optionsProblem(caller, options) ?? this.#problem(caller, offset, width, this.writable, 'write');
    if (problem !== undefined) return Promise.reject(problem);
    if (this.#splitter !== undefined || this.#memorySpace !== undefined)
      return this.#write(offset, bytes, options);
    return this.#access(writeOf(this.index, offset, bytes), options);
  }

  #writeValueSync(
    caller: string,
    offset: number,
    value: number | bigint,
    width: Width,
    options: SyncCallOptions | undefined,
  ): void {
    const bytes = requireValue(caller, value, width);
    this.#requireSync(caller, options, offset, width, this.writable, 'write');
    this.#writeSync(offset, bytes, options);
  }

  #access<T>(access: RegionAccess<T>, options: CallOptions | undefined): Promise<T> {
    const problem = this.#context.problemOf(options);
    if (problem !== undefined) return Promise.reject(problem);
    return this.#context.connection.access(access, options);
  }

  #accessSync<T>(access: RegionAccess<T>, options: SyncCallOptions | undefined): T {
    return this.#context.userConnection.accessSync(access, options);
  }

  /** The messages that an access takes, for the server's widths or of at most `chunk` bytes; undefined where one will do. */
  #chunksOf(offset: number, length: number, chunk: number): Iterable<Chunk> | undefined {
    const splitter = this.#splitter;
    if (splitter !== undefined && !splitter.isOne(offset, length)) return splitter.split(offset, length);
    return length <= chunk ? undefined : chunks(length, chunk);
  }

  /**
   * A few chunks are under way at a time, and each is made when there is room for it. The first failure fails the whole;
   * chunks that are under way then are waited for, so that the buffer is free.
   */
  async #inChunks(
    chunks: Iterable<Chunk>,
    options: CallOptions | undefined,
    transfer: (at: number, count: number, call: CallOptions | undefined) => Promise<void>,
  ): Promise<void> {
    const call = withDeadline(options);
    const rest = chunks[Symbol.iterator]();
    const failures: unknown[] = [];
    const takeTurns = async (): Promise<void> => {
      for (let next = rest.next(); !next.done && failures.length === 0; next = rest.next()) {
        try {
          await transfer(next.value.at, next.value.count, call);
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: this.#context.options.chunksInFlight }, takeTurns));
    if (failures.length > 0) throw failures[0];
  }

  /** For the faces that throw; those that give a promise reject. */
  #require(caller: string, offset: number, length: number, allowed: boolean, verb: 'read' | 'write'): void {
    const problem = this.#problem(caller, offset, length, allowed, verb);
    if (problem !== undefined) throw problem;
  }

  #requireSync(
    caller: string,
    options: SyncCallOptions | undefined,
    offset: number,
    length: number,
    allowed: boolean,
    verb: 'read' | 'write',
  ): void {
    const problem =
      syncOptionsProblem(caller, options) ?? this.#problem(caller, offset, length, allowed, verb);
    if (problem !== undefined) throw problem;
  }

  /** What is wrong with a transfer of all of `bytes`; undefined where nothing is. */
  #transferProblem(
    caller: string,
    name: string,
    offset: number,
    bytes: Uint8Array,
    allowed: boolean,
    verb: 'read' | 'write',
  ): Error | undefined {
    try {
      return this.#problem(caller, offset, requireBytes(caller, name, bytes), allowed, verb);
    } catch (error) {
      return error as Error;
    }
  }

  /** What the region's size or flags refuse; undefined where nothing. */
  #problem(
    caller: string,
    offset: number,
    length: number,
    allowed: boolean,
    verb: 'read' | 'write',
  ): Error | undefined {
    const isWithin =
      Number.isSafeInteger(offset) &&
      offset >= 0 &&
      Number.isSafeInteger(length) &&
      length >= 0 &&
      offset + length <= this.size;
    if (!allowed || !isWithin) return this.#refusal(caller, offset, length, allowed, verb);
    return this.#splitter?.problem(this.index, offset, length);
  }

  #refusal(caller: string, offset: number, length: number, allowed: boolean, verb: 'read' | 'write'): Error {
    for (const [name, value] of Object.entries({ offset, length })) {
      if (!Number.isSafeInteger(value) || value < 0)
        return notInteger(`${caller}: ${name}`, value, 0, this.size);
    }
    return outOfRange(`${caller}: ${this.#refusalReason(offset, length, allowed, verb)}`);
  }

  #refusalReason(offset: number, length: number, allowed: boolean, verb: 'read' | 'write'): string {
    const what = `region ${this.index}`;
    if (this.size === 0) return `${what} does not exist on this device`;
    if (!allowed) return `${what} cannot be ${verb === 'read' ? 'read' : 'written'}: its flags forbid it`;
    return `${what}: [${offset}, ${offset + length}) is out of bounds (size ${this.size})`;
  }

  #waitTimeout(
    offset: number,
    mask: bigint,
    value: bigint,
    timeoutMs: number,
    last: number | bigint | undefined,
  ): TimeoutError {
    const hex = (number: number | bigint): string => `0x${number.toString(16)}`;
    const what = `region ${this.index} at ${hex(offset)} & ${hex(mask)} == ${hex(value)}`;
    const missing = last === undefined ? 'no answer' : `not so, the last value was ${hex(last)},`;
    return new TimeoutError(what, timeoutMs, undefined, missing);
  }
}

/** What is wrong with the options. Most accesses have none: then this is one comparison. */
function optionsProblem(caller: string, options: CallOptions | undefined): Error | undefined {
  return options === undefined ? undefined : option.CALL_OPTIONS.problem(caller, options);
}

/** As `optionsProblem`, for a call that blocks: nobody can abort it. */
function syncOptionsProblem(caller: string, options: SyncCallOptions | undefined): Error | undefined {
  return options === undefined ? undefined : option.SYNC_CALL_OPTIONS.problem(caller, options);
}
