/** Views of memory that the server shares. */
import { forbidCloning } from '../cloning.js';
import { TransportError, UnsupportedError } from '../errors.js';
import { bigInteger, byteArray, integer, notInteger, UINT32_MAX } from '../fields.js';
import { F_SEAL_SHRINK, check, native, type FdInfo, type NativeMapping } from '../native.js';
import type { MmapArea } from '../protocol/region-info.js';
import { REGION_FLAG_READ, REGION_FLAG_WRITE } from '../protocol/constants.js';
import type { RegionDescription } from './region-description.js';
import type { DeviceContext } from './device-context.js';
import { HardwareRegisters } from './hardware-registers.js';

const PAGE_SIZE = 4096;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
/**
 * The most bytes behind one ArrayBuffer that the addon makes: Node.js 20 has no larger ones. The ordered accessors of a
 * larger area go through an array for each so many bytes, whose index then is the offset's lower 32 bits.
 */
const MAX_WINDOW = 2 ** 32;

/**
 * On x86-64 a load is a load: the processor keeps its order with others, and with stores before it that are locked, as
 * those of `Atomics.store` are. `Atomics.load` makes the same instruction, and a call of some ten nanoseconds around it.
 */
const LOADS_ARE_ORDERED = process.arch === 'x64';

/**
 * A view of memory that the server shares: no message, no round trip, no check by anyone. `Region.map` makes
 * it.
 *
 * A server may truncate a file that is not sealed, and a raw view then kills this process with SIGBUS: the
 * `mmap` option of `connect` decides which files are mapped at all, and `copyOut` and `copyIn` end in an error
 * instead. After `close()`, or when the device is closed, typed arrays are detached: their length is 0, reads
 * give undefined, stores vanish.
 *
 * Of hardware (`pci:…`, or a server of it) these are the device's registers: `loadUInt…`, `storeUInt…`, `copyOut` and
 * `copyIn` (by words) are accesses of exactly that width. Raw views make accesses of whatever width and number the engine
 * chooses, and Atomics on them read what they store. While the device does not answer (memory decoding off, no power, being
 * reset) accessors throw a VfioUserError `EIO`, and raw views show empty memory in which stores are lost.
 *
 * @example
 * ```ts
 * using area = device.bar(1).map();
 * area.storeUInt32(0, 1);
 * console.log(area.loadUInt32(4), area.bytes.subarray(0, 16));
 * ```
 */
export class MappedArea {
  /** Where the area begins in its region. */
  readonly offset: number;
  /** In bytes. */
  readonly size: number;
  readonly #context: DeviceContext;
  readonly #mapping: NativeMapping;
  /** Where the area begins in the mapping, which begins on a page. */
  readonly #lead: number;
  /** What is mapped are registers; undefined where it is memory of a server's. */
  readonly #hardware: HardwareRegisters | undefined;
  /** Asking the mapping would take longer than the access. */
  #isClosed = false;
  #onClose: ((area: MappedArea) => void) | undefined;
  #bytes: Buffer | undefined;
  #words: Uint32Array | undefined;
  #quads: BigUint64Array | undefined;
  #halves: Uint16Array | undefined;
  readonly #wordSpans: Uint32Array[] = [];
  readonly #quadSpans: BigUint64Array[] = [];

  /** @internal */
  constructor(context: DeviceContext, parts: AreaParts) {
    this.#context = context;
    this.#mapping = parts.mapping;
    this.#lead = parts.lead;
    this.#hardware = parts.hardware;
    this.offset = parts.offset;
    this.size = parts.size;
    context.addResource(this);
    forbidCloning(this, 'a MappedArea');
  }

  /** Whether the area is closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The area's memory, at most its first 4 GiB; see `window`. Registers want `u32`, `u64` or the ordered accessors. */
  get bytes(): Buffer {
    return (this.#bytes ??= Buffer.from(this.window(0, Math.min(this.size, MAX_WINDOW))));
  }

  /**
   * The area as 32-bit words: plain access, the fastest, in no promised order.
   * @throws UnsupportedError where the area does not begin on a word's boundary, or is longer than 4 GiB: it does not
   * fit one array then; `loadUInt32`, `storeUInt32` and `window` reach all of it.
   */
  get u32(): Uint32Array {
    return (this.#words ??= new Uint32Array(this.#wordBuffer(4), 0, Math.floor(this.size / 4)));
  }

  /** The area as 64-bit words. @throws UnsupportedError as `u32` does. */
  get u64(): BigUint64Array {
    return (this.#quads ??= new BigUint64Array(this.#wordBuffer(8), 0, Math.floor(this.size / 8)));
  }

  /**
   * `[offset, offset + length)` of the area, at most 4 GiB, as an ArrayBuffer of its own over the same memory: a typed
   * array over it reaches what lies beyond the area's first 4 GiB.
   * @throws RangeError for what is not within the area, or longer
   */
  window(offset: number, length: number): ArrayBuffer {
    this.#check(offset, length, 1);
    if (length > MAX_WINDOW)
      throw new RangeError(`a window of ${length} bytes: it has at most ${MAX_WINDOW}`);
    const view = this.#mapping.view(this.#lead + offset, length);
    if (typeof view === 'number')
      throw new TransportError('mmap', -view, 'raw views need a readable and writable area');
    return view;
  }

  /** One ordered 8-bit load. */
  loadUInt8(offset: number): number {
    if (!this.#has(offset, 1)) this.#check(offset, 1, 1);
    if (this.#hardware !== undefined) return this.#hardware.load(this.#lead + offset, 1) as number;
    return Atomics.load(this.#narrow(offset, 1), 0);
  }

  /** One ordered 16-bit load. */
  loadUInt16(offset: number): number {
    if (!this.#has(offset, 2)) this.#check(offset, 2, 2);
    if (this.#hardware !== undefined) return this.#hardware.load(this.#lead + offset, 2) as number;
    return Atomics.load(this.#narrow(offset, 2), 0);
  }

  /** One ordered 8-bit store; errors as of `storeUInt32`. */
  storeUInt8(offset: number, value: number): void {
    if (!this.#has(offset, 1)) this.#check(offset, 1, 1);
    integer('value', value, 0, 0xff);
    if (this.#hardware !== undefined) this.#hardware.store(this.#lead + offset, 1, value);
    else Atomics.store(this.#narrow(offset, 1), 0, value);
  }

  /** One ordered 16-bit store; errors as of `storeUInt32`. */
  storeUInt16(offset: number, value: number): void {
    if (!this.#has(offset, 2)) this.#check(offset, 2, 2);
    integer('value', value, 0, 0xffff);
    if (this.#hardware !== undefined) this.#hardware.store(this.#lead + offset, 2, value);
    else Atomics.store(this.#narrow(offset, 2), 0, value);
  }

  /** One ordered 32-bit load. */
  loadUInt32(offset: number): number {
    if (!this.#has(offset, 4)) this.#check(offset, 4, 4);
    if (this.#hardware !== undefined) return this.#hardware.load(this.#lead + offset, 4) as number;
    const words = this.size <= MAX_WINDOW ? this.u32 : this.#wordSpan(offset);
    return LOADS_ARE_ORDERED ? words[offset >>> 2]! : Atomics.load(words, offset >>> 2);
  }

  /**
   * One ordered 32-bit store, after all earlier stores of this thread.
   * @throws RangeError for an offset that is not within the area or not aligned; TypeError, RangeError for a value that is
   * not 32 bits; UnsupportedError where the area is closed.
   */
  storeUInt32(offset: number, value: number): void {
    if (!this.#has(offset, 4)) this.#check(offset, 4, 4);
    // A typed array would store it modulo 2^32.
    if (typeof value !== 'number' || value !== value >>> 0) throw notInteger('value', value, 0, UINT32_MAX);
    if (this.#hardware !== undefined) this.#hardware.store(this.#lead + offset, 4, value);
    else Atomics.store(this.size <= MAX_WINDOW ? this.u32 : this.#wordSpan(offset), offset >>> 2, value);
  }

  /** One ordered 64-bit load. */
  loadUInt64(offset: number): bigint {
    if (!this.#has(offset, 8)) this.#check(offset, 8, 8);
    if (this.#hardware !== undefined) return this.#hardware.load(this.#lead + offset, 8) as bigint;
    return Atomics.load(this.size <= MAX_WINDOW ? this.u64 : this.#quadSpan(offset), offset >>> 3);
  }

  /** One ordered 64-bit store; errors as of `storeUInt32`. */
  storeUInt64(offset: number, value: bigint): void {
    if (!this.#has(offset, 8)) this.#check(offset, 8, 8);
    bigInteger('value', value);
    if (this.#hardware !== undefined) this.#hardware.store(this.#lead + offset, 8, value);
    else Atomics.store(this.size <= MAX_WINDOW ? this.u64 : this.#quadSpan(offset), offset >>> 3, value);
  }

  /** Copies out of the area. @throws TransportError EFAULT where the server's file has lost the page. */
  copyOut(offset: number, target: Uint8Array): void {
    this.#check(offset, byteArray('target', target).length, 1);
    if (this.#hardware !== undefined) return this.#hardware.copyOut(this.#lead + offset, target);
    check(this.#mapping.copyOut(this.#lead + offset, target, 0, target.length), 'copyOut');
  }

  /** Copies into the area. @throws TransportError EFAULT where the server's file has lost the page. */
  copyIn(offset: number, data: Uint8Array): void {
    this.#check(offset, byteArray('data', data).length, 1);
    if (this.#hardware !== undefined) return this.#hardware.copyIn(this.#lead + offset, data);
    check(this.#mapping.copyIn(this.#lead + offset, data, 0, data.length), 'copyIn');
  }

  /** @internal Called once, when the area is closed. */
  onClose(listener: (area: MappedArea) => void): void {
    this.#onClose = listener;
  }

  /**
   * @internal The server has come back with another file: the same addresses, and so every view, show that one from now
   * on. False, and the area is closed, where the file cannot be mapped as the first one was.
   */
  restoreFile({ fd, offset, size }: Pick<FilePart, 'fd' | 'offset' | 'size'>): boolean {
    const fits =
      size === this.size && offset % PAGE_SIZE === this.#lead && mayMap(this.#context, fd, offset, size);
    if (fits && this.#remap(fd, offset - this.#lead) === 0) return true;
    this.close();
    return false;
  }

  #remap(fd: number, offset: number): number {
    return this.#hardware?.restore({ fd, offset }) ?? this.#mapping.remap(fd, offset);
  }

  /** Unmaps; idempotent. Every view is detached. */
  close(): void {
    this.#isClosed = true;
    this.#hardware?.close();
    this.#context.removeResource(this);
    this.#onClose?.(this);
    this.#onClose = undefined;
    this.#bytes = undefined;
    this.#words = undefined;
    this.#quads = undefined;
    this.#halves = undefined;
    this.#wordSpans.length = 0;
    this.#quadSpans.length = 0;
    this.#mapping.close();
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The area's memory for an array of all its words. */
  #wordBuffer(width: number): ArrayBufferLike {
    this.#checkAlignment(width);
    if (this.size <= MAX_WINDOW) return this.bytes.buffer;
    throw new UnsupportedError(
      `the area has ${this.size} bytes, and one array at most ${MAX_WINDOW}: use loadUInt${8 * width} and storeUInt${8 * width}, or window(offset, length) for a part of it`,
    );
  }

  /** An array whose first element is at `offset`. */
  #narrow(offset: number, width: 1 | 2): Uint8Array | Uint16Array {
    const { bytes } = this;
    if (width === 1 && offset < bytes.length) return bytes.subarray(offset);
    if (width === 1) return new Uint8Array(this.window(offset, 1));
    this.#checkAlignment(2);
    if (offset >= MAX_WINDOW) return new Uint16Array(this.window(offset, 2));
    this.#halves ??= new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 1);
    return this.#halves.subarray(offset / 2);
  }

  #wordSpan(offset: number): Uint32Array {
    const index = Math.floor(offset / MAX_WINDOW);
    return (this.#wordSpans[index] ??= new Uint32Array(this.#span(index, 4)));
  }

  #quadSpan(offset: number): BigUint64Array {
    const index = Math.floor(offset / MAX_WINDOW);
    return (this.#quadSpans[index] ??= new BigUint64Array(this.#span(index, 8)));
  }

  /** The whole words of a span. */
  #span(index: number, width: number): ArrayBuffer {
    this.#checkAlignment(width);
    const length = Math.min(MAX_WINDOW, this.size - index * MAX_WINDOW);
    return this.window(index * MAX_WINDOW, length - (length % width));
  }

  /** Words that straddle their boundaries are not accessed at once, and on some machines not at all. */
  #checkAlignment(width: number): void {
    if (this.#lead % width === 0) return;
    throw new UnsupportedError(`the area's memory does not begin on a boundary of ${width} bytes`);
  }

  /** Whether a word lies in the area: `#check` without its words, for those who count nanoseconds. */
  #has(offset: number, width: number): boolean {
    return (
      typeof offset === 'number' &&
      offset >= 0 &&
      offset % width === 0 &&
      offset + width <= this.size &&
      !this.#isClosed
    );
  }

  #check(offset: number, length: number, alignment: number): void {
    if (this.#isClosed) throw new UnsupportedError('the mapped area is closed');
    integer('offset', offset, 0, this.size);
    integer('length', length, 0, Number.MAX_SAFE_INTEGER);
    if (offset % alignment !== 0 || offset + length > this.size) {
      throw new RangeError(
        offset % alignment === 0
          ? `mapped area: [${offset}, ${offset + length}) is out of bounds (size ${this.size})`
          : `mapped area: offset must be a multiple of ${alignment}, got ${offset}`,
      );
    }
  }
}

/** Maps `[offset, offset + length)` of a region; see `Region.map`. */
export function mapArea(
  context: DeviceContext,
  description: RegionDescription,
  offset?: number,
  length?: number,
): MappedArea {
  const { info, areas, unmappableReason } = description;
  if (offset !== undefined) integer('Region.map: offset', offset, 0, Number.MAX_SAFE_INTEGER);
  if (length !== undefined) integer('Region.map: length', length, 1, Number.MAX_SAFE_INTEGER);
  if (unmappableReason !== undefined) throw new UnsupportedError(unmappableReason);
  const area = findArea(info.index, areas, offset, length);
  const begin = offset ?? area.offset;
  const size = length ?? area.offset + area.size - begin;
  const file = fileBehind(description, area, begin);
  if (file === undefined) throw new RangeError(`region ${info.index} has no file descriptor to map`);
  const readable = (info.flags & REGION_FLAG_READ) !== 0;
  const writable = (info.flags & REGION_FLAG_WRITE) !== 0;
  const what = `region ${info.index}, ${size} bytes from offset ${begin}`;
  return mapFile(context, what, { ...file, size, readable, writable }, begin);
}

/** Maps what an area of the same place has behind it now; the area is closed where that cannot be. */
export function restoreArea(description: RegionDescription, mapped: MappedArea): boolean {
  const { offset, size } = mapped;
  const area = description.areas.find((a) => a.offset <= offset && offset + size <= a.offset + a.size);
  const file = area === undefined ? undefined : fileBehind(description, area, offset);
  if (file !== undefined) return mapped.restoreFile({ ...file, size });
  mapped.close();
  return false;
}

/** An area with an fd of its own says where it begins there; all others lie in the region's fd as in the region. */
function fileBehind(
  description: RegionDescription,
  area: MmapArea,
  begin: number,
): Pick<FilePart, 'fd' | 'offset'> | undefined {
  const fd = description.fdOf(area);
  if (fd === undefined) return undefined;
  const { fdOffset } = area;
  return {
    fd,
    offset: fdOffset === undefined ? description.info.offset + begin : fdOffset + (begin - area.offset),
  };
}

/** What a MappedArea is made of. */
interface AreaParts {
  readonly mapping: NativeMapping;
  /** Where the area begins in the mapping, which begins on a page. */
  readonly lead: number;
  readonly hardware: HardwareRegisters | undefined;
  /** Where the area begins in its region. */
  readonly offset: number;
  readonly size: number;
}

/** A part of one of the server's files. The fd stays whose it is. */
export interface FilePart {
  fd: number;
  /** In the file; any, not only at the beginning of a page. */
  offset: number;
  size: number;
  readable: boolean;
  writable: boolean;
}

/** Maps a part of a server's file, if the policy allows it; `areaOffset` is what the area says of itself. */
export function mapFile(
  context: DeviceContext,
  what: string,
  part: FilePart,
  areaOffset: number,
): MappedArea {
  const { fd, offset, size, readable, writable } = part;
  checkFile(context, fd, offset, size);
  const lead = offset % PAGE_SIZE;
  const mapping = native().map(fd, offset - lead, lead + size, readable, writable);
  if (typeof mapping === 'number') throw new TransportError('mmap', -mapping, what);
  const hardware = isRegularFile(fd)
    ? undefined
    : new HardwareRegisters(mapping, { fd, offset: offset - lead }, context.memorySpace);
  return new MappedArea(context, { mapping, lead, hardware, offset: areaOffset, size });
}

/** What a server shares is memory in a file; what the kernel's VFIO shares is the device. */
function isRegularFile(fd: number): boolean {
  const info = native().fdInfo(fd);
  return typeof info === 'number' || (info.mode & S_IFMT) === S_IFREG;
}

function findArea(index: number, areas: readonly MmapArea[], offset?: number, length?: number): MmapArea {
  const first = areas[0];
  if (first === undefined) throw new RangeError(`region ${index} has no mappable area`);
  if (offset === undefined) return first;
  const end = offset + (length ?? 1);
  const area = areas.find((a) => a.offset <= offset && end <= a.offset + a.size);
  if (area !== undefined) return area;
  const list = areas.map((a) => `0x${a.offset.toString(16)}+0x${a.size.toString(16)}`).join(', ');
  throw new RangeError(
    `region ${index} can be mapped at ${list}, not at 0x${offset.toString(16)} for ${length} bytes`,
  );
}

function mayMap(context: DeviceContext, fd: number, offset: number, size: number): boolean {
  try {
    checkFile(context, fd, offset, size);
    return true;
  } catch {
    return false;
  }
}

/** A file that is shorter than what the server said, or may become so, is mapped only as far as the policy allows. */
function checkFile(context: DeviceContext, fd: number, offset: number, size: number): void {
  const policy = context.options.mmap;
  if (policy === 'never') throw new UnsupportedError("the device was opened with mmap: 'never'");
  const info = check(native().fdInfo(fd), 'fstat') as FdInfo;
  const regular = (info.mode & S_IFMT) === S_IFREG;
  if (regular && offset + size > info.size) {
    throw new UnsupportedError(
      `the server's file has ${info.size} bytes; the area ends at ${offset + size}: mapping it would kill this process`,
    );
  }
  if (policy === 'sealed' && !(info.seals >= 0 && (info.seals & F_SEAL_SHRINK) !== 0)) {
    throw new UnsupportedError("the server's file may shrink, and the device was opened with mmap: 'sealed'");
  }
}
