/**
 * A range of DMA addresses that a DMA_MAP names, and the memory behind it.
 *
 * ```
 *              reply                  unmap               reply
 *   mapping ──────────▶ mapped ───────────────▶ unmapping ──────▶ closed
 *    │    │               ▲      error reply     │     │
 *    │    │               └──────────────────────┘     │ given up, though it was sent
 *    │    │ given up, though it was sent               ▼
 *    │    └────────────────────────────────────▶ quarantined ───▶ closed
 *    ▼ error reply, never sent                            the device's end
 *  closed
 * ```
 * A quarantined region is one of which nobody knows whether the server has it: its addresses are given to no other, and
 * its memory stays where it is, until the connection is gone. In every state but `closed` the device's end closes it.
 *
 * With `reconnect` a region outlives connections: `mapSentOn` is the one whose server was told of it last. A new server is
 * told late in setting up, and what is unmapped before then it never hears of.
 */
import type { Connection } from '../connection/index.js';
import { TransportError, type ClosedError } from '../errors.js';
import { holdFd, type HeldFd, type NativeMapping } from '../native.js';
import type { HandlerBacking } from './dma-handler.js';
import { PAGE_SIZE, addressOf, type PageRange } from './iova-map.js';
import { EBADF, EFAULT } from '../system-numbers.js';

export type DmaRegionState = 'mapping' | 'mapped' | 'unmapping' | 'quarantined' | 'closed';

/** What the device may do with the memory, and how it gets there. */
export interface DmaRegionAccess {
  /** DMA may read. */
  readonly readable: boolean;
  /** DMA may write. */
  readonly writable: boolean;
  /** The server is given the fd; else it asks by DMA_READ and DMA_WRITE. */
  readonly shared: boolean;
  /** The server reads and writes the file instead of mapping it. */
  readonly fileIo?: boolean;
}

export interface DmaRegionMemory {
  /** The region owns it; -1 where the caller's handler stands behind the addresses. */
  readonly fd: number;
  /** Our own view, which the region owns; undefined for a file that cannot be mapped. */
  readonly mapping: NativeMapping | undefined;
  /** The memory is ours and cannot shrink: a raw view of it never faults. */
  readonly sealed: boolean;
  readonly handler?: HandlerBacking;
}

/** The most bytes behind one ArrayBuffer. */
export const MAX_VIEW_BYTES = 2 ** 32;

export class DmaRegion implements PageRange {
  readonly page: number;
  readonly pages: number;
  readonly access: DmaRegionAccess;
  state: DmaRegionState = 'mapping';
  /** The connection whose server was sent its DMA_MAP: no other server knows of it. */
  mapSentOn: Connection | undefined;
  /** The DMA_UNMAP that is under way. */
  unmapping: Promise<void> | undefined;
  /** Where the memory begins in its file: what DMA_MAP says, now and when the server comes back. */
  readonly fileOffset: number;
  readonly #memory: DmaRegionMemory;
  readonly #held: HeldFd | undefined;
  #bytes: Buffer | undefined;
  readonly #onRelease = new Set<(reason: ClosedError) => void>();

  /** Owns what is in `memory` from here on. */
  constructor(
    page: number,
    pages: number,
    access: DmaRegionAccess,
    memory: DmaRegionMemory,
    fileOffset: number,
  ) {
    this.fileOffset = fileOffset;
    this.page = page;
    this.pages = pages;
    this.access = access;
    this.#memory = memory;
    this.#held = memory.fd < 0 ? undefined : holdFd(memory.fd);
  }

  get iova(): bigint {
    return addressOf(this.page);
  }

  /** In bytes. */
  get size(): number {
    return this.pages * PAGE_SIZE;
  }

  get isClosed(): boolean {
    return this.state === 'closed';
  }

  get fd(): number {
    return this.#held?.fd ?? -1;
  }

  /** It is memory of our own, for buffers; not a caller's. */
  get isArena(): boolean {
    return this.#memory.sealed;
  }

  /** Whether the memory can be reached from here at all. */
  get isReachable(): boolean {
    return this.#memory.mapping !== undefined || this.#memory.handler !== undefined;
  }

  /** What the caller put behind the addresses instead of memory. */
  get handler(): HandlerBacking | undefined {
    return this.#memory.handler;
  }

  /** All of it, where raw views may be taken: our own memory, of a size that one view can have. */
  get bytes(): Buffer | undefined {
    if (this.#bytes !== undefined) return this.#bytes;
    if (!this.#memory.sealed || this.isClosed || this.size > MAX_VIEW_BYTES) return undefined;
    return (this.#bytes = Buffer.from(this.view(0, this.size)));
  }

  /** A part of our own memory as an ArrayBuffer of its own; detached when the region is closed. */
  view(offset: number, length: number): ArrayBuffer {
    const view = this.#memory.mapping?.view(offset, length) ?? -EBADF;
    if (typeof view === 'number')
      throw new TransportError('mmap', -view, `a view of ${length} bytes of DMA memory`);
    return view;
  }

  /** Copies out of the memory. Returns 0, EFAULT where the file behind it no longer has the bytes, a handler's errno. */
  copyOut(offset: number, into: Buffer, at: number, length: number): number {
    const { mapping, handler } = this.#memory;
    if (this.isClosed) return EFAULT;
    if (handler !== undefined)
      return handler.readSync(this.#addressAt(offset), into.subarray(at, at + length));
    return (mapping?.copyOut(offset, into, at, length) ?? -EBADF) < 0 ? EFAULT : 0;
  }

  /** Copies into the memory; returns what `copyOut` does. */
  copyIn(offset: number, from: Buffer, at: number, length: number): number {
    const { mapping, handler } = this.#memory;
    if (this.isClosed) return EFAULT;
    if (handler !== undefined)
      return handler.writeSync(this.#addressAt(offset), from.subarray(at, at + length));
    return (mapping?.copyIn(offset, from, at, length) ?? -EBADF) < 0 ? EFAULT : 0;
  }

  /** `copyOut`, which waits for an asynchronous handler. */
  copyOutLater(offset: number, into: Buffer, at: number, length: number): Promise<number> | number {
    const { handler } = this.#memory;
    if (this.isClosed || handler?.isAsync !== true) return this.copyOut(offset, into, at, length);
    return handler.read(this.#addressAt(offset), into.subarray(at, at + length));
  }

  /** `copyIn`, which waits for an asynchronous handler. */
  copyInLater(offset: number, from: Buffer, at: number, length: number): Promise<number> | number {
    const { handler } = this.#memory;
    if (this.isClosed || handler?.isAsync !== true) return this.copyIn(offset, from, at, length);
    return handler.write(this.#addressAt(offset), from.subarray(at, at + length));
  }

  /**
   * Calls `listener` once, before the server or this process loses the memory. Returns what takes the listener back.
   */
  onRelease(listener: (reason: ClosedError) => void): () => void {
    this.#onRelease.add(listener);
    return () => void this.#onRelease.delete(listener);
  }

  /**
   * Tells everyone who looks at the memory that it is about to be taken away: they must have ended when this returns. A
   * listener that throws does not keep the others from hearing of it.
   */
  announceRelease(reason: ClosedError): void {
    const listeners = [...this.#onRelease];
    this.#onRelease.clear();
    for (const listener of listeners) {
      try {
        listener(reason);
      } catch (error) {
        process.nextTick(() => {
          throw error;
        });
      }
    }
  }

  /** Gives memory and fd back; idempotent. Every view is detached. Announced before, by whoever knows the reason. */
  close(): void {
    if (this.isClosed) return;
    this.state = 'closed';
    this.#bytes = undefined;
    this.#memory.mapping?.close();
    this.#held?.close();
  }

  #addressAt(offset: number): bigint {
    return this.iova + BigInt(offset);
  }
}
