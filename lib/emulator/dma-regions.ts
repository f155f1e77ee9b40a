/**
 * What the client has mapped for us ("VFIO_USER_DMA_MAP"): windows of DMA addresses that do not overlap, in order.
 *
 * A window whose fd the client shared is our mapping of it; the file itself may still shrink, so it is only reached by
 * copies that survive that. A window stays in use until the accesses that have begun are over: unmapping waits.
 */
import { check, native, type NativeMapping } from '../native.js';
import { TransportError } from '../errors.js';
import {
  DMA_MAP_FLAG_FILE_IO,
  DMA_MAP_FLAG_MMAP,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  DMA_UNMAP_FLAG_ALL,
} from '../protocol/constants.js';
import type { Hardware } from './device-model.js';
import type { DmaMap, DmaUnmap } from '../protocol/dma-map.js';
import {
  DeviceError,
  DmaError,
  EACCES,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOSPC,
  ENOTSUP,
} from './device-error.js';

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/** A mapping of the client. */
export interface DmaRegion {
  readonly address: bigint;
  readonly size: bigint;
  readonly flags: number;
  /** The shared memory; undefined where messages are the way. */
  readonly memory: NativeMapping | undefined;
  /** Accesses that have begun and not ended. */
  uses: number;
  /** Called when `uses` becomes 0. */
  onIdle: (() => void) | undefined;
}

/** A part of an access that lies in one window. */
export interface DmaSegment {
  window: DmaRegion;
  address: bigint;
  /** Bytes from the window's start. */
  offset: number;
  length: number;
}

export class DmaRegions {
  readonly #maxMaps: number;
  readonly #pageSize: bigint;
  readonly #hardware: Hardware | undefined;
  /** By address. */
  readonly #windows: DmaRegion[] = [];

  constructor(maxMaps: number, pgsizes: bigint, hardware?: Hardware) {
    this.#hardware = hardware;
    this.#maxMaps = maxMaps;
    this.#pageSize = pgsizes & -pgsizes;
  }

  get size(): number {
    return this.#windows.length;
  }

  /**
   * Adds a window. The fd is the table's in any case: a mapping does not need it any more.
   *
   * @throws DeviceError with the errno of the reply.
   */
  map(request: DmaMap, fd: number | undefined): void {
    try {
      this.#checkMap(request, fd);
      const at = this.#firstEndingAfter(request.address);
      const next = this.#windows[at];
      if (next !== undefined && next.address < request.address + request.size) {
        throw new DeviceError(EEXIST, 'the addresses overlap a mapping');
      }
      if (this.#windows.length >= this.#maxMaps) {
        throw new DeviceError(ENOSPC, `there are ${this.#maxMaps} mappings already`);
      }
      const memory = fd === undefined ? undefined : mapFile(request, fd);
      if (this.#hardware !== undefined) mapForHardware(this.#hardware, request, memory);
      const { address, size, flags } = request;
      this.#windows.splice(at, 0, { address, size, flags, memory, uses: 0, onIdle: undefined });
    } finally {
      if (fd !== undefined) native().closeFd(fd);
    }
  }

  /**
   * Takes windows away: nothing new begins there. The promise, where there is one, is kept when the accesses that had
   * begun are over.
   *
   * @throws DeviceError ENOENT where there is no such window.
   */
  unmap(request: DmaUnmap): void | Promise<void> {
    if ((request.flags & DMA_UNMAP_FLAG_ALL) !== 0) {
      if (this.#hardware !== undefined) this.#unmapAllFrom(this.#hardware);
      return releaseAll(this.#windows.splice(0));
    }
    const at = this.#firstEndingAfter(request.address);
    const window = this.#windows[at];
    if (window?.address !== request.address || window.size !== request.size) {
      throw new DeviceError(ENOENT, 'no mapping has this address and size');
    }
    this.#hardware?.unmapDma(window);
    return release(this.#windows.splice(at, 1));
  }

  /** Those that cannot be unmapped stay, and only those. */
  #unmapAllFrom(hardware: Hardware): void {
    for (let window = this.#windows[0]; window !== undefined; window = this.#windows[0]) {
      hardware.unmapDma(window);
      this.#windows.shift();
      void release([window]);
    }
  }

  /**
   * The windows that `length` bytes at `address` lie in.
   *
   * @throws DmaError EFAULT where they are not all mapped, EACCES where a mapping lacks one of the `needed` flags.
   */
  segments(address: bigint, length: number, needed: number): DmaSegment[] {
    const segments: DmaSegment[] = [];
    let at = this.#firstEndingAfter(address);
    for (let done = 0; done < length; at++) {
      const window = this.#windows[at];
      const from = address + BigInt(done);
      if (window === undefined || window.address > from) {
        throw new DmaError(EFAULT, `nothing is mapped at 0x${from.toString(16)}`);
      }
      if ((window.flags & needed) !== needed) {
        const verb = needed === DMA_MAP_FLAG_READ ? 'read' : 'written';
        throw new DmaError(EACCES, `the mapping at 0x${window.address.toString(16)} must not be ${verb}`);
      }
      const left = window.address + window.size - from;
      const part = left < length - done ? Number(left) : length - done;
      segments.push({ window, address: from, offset: Number(from - window.address), length: part });
      done += part;
    }
    return segments;
  }

  /** The window of exactly these addresses. */
  exact(address: bigint, size: bigint): DmaRegion | undefined {
    const window = this.#windows[this.#firstEndingAfter(address)];
    return window?.address === address && window.size === size ? window : undefined;
  }

  /** The windows that have something of these addresses. */
  *overlapping(address: bigint, length: bigint): Generator<DmaRegion, void, undefined> {
    for (let at = this.#firstEndingAfter(address); at < this.#windows.length; at++) {
      const window = this.#windows[at]!;
      if (window.address >= address + length) return;
      yield window;
    }
  }

  [Symbol.iterator](): Iterator<DmaRegion> {
    return this.#windows[Symbol.iterator]();
  }

  /** The client has gone: nothing of its memory is kept. */
  close(): void {
    const windows = this.#windows.splice(0);
    for (const window of windows) {
      try {
        this.#hardware?.unmapDma(window);
      } catch {
        // With the container everything is unmapped.
      }
    }
    void closeAll(windows);
  }

  #checkMap({ flags, offset, address, size }: DmaMap, fd: number | undefined): void {
    if ((flags & DMA_MAP_FLAG_FILE_IO) !== 0) throw new DeviceError(ENOTSUP, 'FILE_IO');
    if ((flags & (DMA_MAP_FLAG_READ | DMA_MAP_FLAG_WRITE)) === 0) {
      throw new DeviceError(EINVAL, 'the mapping has neither the READ nor the WRITE flag');
    }
    if (fd === undefined && ((flags & DMA_MAP_FLAG_MMAP) !== 0 || offset !== 0)) {
      throw new DeviceError(EINVAL, 'an offset or MMAP without an fd');
    }
    if (size === 0n || (address | size | BigInt(offset)) % this.#pageSize !== 0n) {
      throw new DeviceError(EINVAL, `address, size and offset must be multiples of ${this.#pageSize}`);
    }
  }

  /** Where the first window is that ends after `address`. */
  #firstEndingAfter(address: bigint): number {
    let low = 0;
    let high = this.#windows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { address: begin, size } = this.#windows[middle]!;
      if (begin + size > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** A device that is hardware reaches memory and nothing else. */
function mapForHardware(hardware: Hardware, request: DmaMap, memory: NativeMapping | undefined): void {
  if (memory === undefined) {
    throw new DeviceError(ENOTSUP, 'hardware reaches only memory that is shared: DMA_MAP without an fd');
  }
  try {
    hardware.mapDma(memory, request);
  } catch (error) {
    memory.close();
    throw error;
  }
}

/** Maps what the client shared, once it is sure that the file has that much. */
function mapFile({ flags, offset, size }: DmaMap, fd: number): NativeMapping {
  const info = native().fdInfo(fd);
  if (typeof info === 'number') throw new DeviceError(-info, 'fstat');
  if ((info.mode & S_IFMT) !== S_IFREG) throw new DeviceError(EINVAL, 'the fd is not a regular file');
  if (BigInt(offset) + size > BigInt(info.size)) {
    throw new DeviceError(
      EINVAL,
      `the mapping needs ${BigInt(offset) + size} bytes, the file has ${info.size}`,
    );
  }
  const readable = (flags & DMA_MAP_FLAG_READ) !== 0;
  const writable = (flags & DMA_MAP_FLAG_WRITE) !== 0;
  try {
    return check(native().map(fd, offset, Number(size), readable, writable), 'mmap') as NativeMapping;
  } catch (error) {
    throw error instanceof TransportError
      ? new DeviceError(error.errno, error.message, { cause: error })
      : error;
  }
}

/** Mappings that are given back in one turn of the loop: there may be tens of thousands. */
const CLOSED_A_TURN = 256;

async function closeAll(windows: readonly DmaRegion[]): Promise<void> {
  for (const [i, { memory }] of windows.entries()) {
    if (i % CLOSED_A_TURN === CLOSED_A_TURN - 1) await new Promise(setImmediate);
    memory?.close();
  }
}

/** `release`, of as many as there may be. */
function releaseAll(windows: readonly DmaRegion[]): void | Promise<void> {
  if (windows.length <= CLOSED_A_TURN) return release(windows);
  const busy = windows.filter(({ uses }) => uses > 0);
  const idle = windows.filter(({ uses }) => uses === 0);
  return Promise.all([release(busy), closeAll(idle)]).then(() => {});
}

/** Frees windows that the table has let go, those in use when their last access is over. */
function release(windows: readonly DmaRegion[]): void | Promise<void> {
  const busy: Promise<void>[] = [];
  for (const window of windows) {
    if (window.uses === 0) window.memory?.close();
    else busy.push(whenIdle(window).then(() => window.memory?.close()));
  }
  if (busy.length > 0) return Promise.all(busy).then(() => {});
}

function whenIdle(window: DmaRegion): Promise<void> {
  return new Promise((resolve) => {
    window.onIdle = resolve;
  });
}
