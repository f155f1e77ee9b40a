/**
 * Serves the server's DMA_READ and DMA_WRITE from the DMA table (specification: VFIO_USER_DMA_READ,
 * VFIO_USER_DMA_WRITE). Everything in a request is checked before a byte of memory is touched:
 *
 * | what is wrong | answer |
 * |---|---|
 * | the payload is not the structure, and for a write its data, exactly; the count is 0 | EINVAL |
 * | the count is above the `max_data_xfer_size` that we advertised | E2BIG |
 * | part of the range is not mapped, the end of the address space included | EFAULT |
 * | it is mapped, not for this direction | EACCES |
 * | it is mapped from a file that this process cannot map | ENOTSUP |
 * | a file that was mapped by the caller has lost the bytes meanwhile | EFAULT |
 * | the caller's own handler failed | EIO, or the errno of its DmaHandlerError |
 * | more requests wait for asynchronous handlers than memory allows | EBUSY |
 * | any other command | ENOTSUP |
 *
 * libvfio-user hands the errno to its device; ENOMSG and ECONNRESET, which make it drop the client, are not among them.
 *
 * A range may run over neighbouring mappings. Memory of our own is sent from, and received into, where it lies; memory
 * of a caller's file is copied by the kernel, because the file may be truncated by anyone at any time. A request that
 * touches an asynchronous handler is answered when the handler is done; others are served meanwhile.
 */
import type { RequestHandler, ServerRequest } from '../connection/index.js';
import { readUInt32 } from '../protocol/bytes.js';
import { Command, DEFAULT_MAX_DATA_XFER_SIZE, HEADER_SIZE } from '../protocol/constants.js';
import { DMA_ACCESS_SIZE } from '../protocol/dma-access.js';
import { headerCommand, headerSize } from '../protocol/header.js';
import { borrowSlab, returnSlab, type Landing } from '../transport/index.js';
import type { DirtyBitmap } from './dirty-bitmap.js';
import { DmaBacklog } from './dma-backlog.js';
import { PAGE_SIZE, readPage, readPageOffset, type IovaMap } from './iova-map.js';
import type { DmaRegion } from './dma-region.js';

/** Linux's numbers, whatever the platform: they go over the wire. */
export const DmaErrno = { E2BIG: 7, EACCES: 13, EFAULT: 14, EBUSY: 16, EINVAL: 22, ENOTSUP: 95 } as const;

/** The part of a request that lies in one region; `at` is where it lies in the request's data. */
interface Segment {
  region: DmaRegion;
  offset: number;
  at: number;
  length: number;
}

/** A DMA_WRITE whose data goes where it belongs while it is received. */
class DmaLanding implements Landing {
  target: Uint8Array | undefined;
  readonly region: DmaRegion;

  constructor(target: Uint8Array, region: DmaRegion) {
    this.target = target;
    this.region = region;
  }
}

export class DmaServer implements RequestHandler {
  /** Where the pages that DMA_WRITE wrote are marked, while somebody wants to know. */
  dirty: DirtyBitmap | undefined;
  readonly #table: IovaMap<DmaRegion>;
  readonly #settle: () => void;
  /** At most one a socket. */
  readonly #landings = new Set<DmaLanding>();
  readonly #backlog = new DmaBacklog();

  // What the last request that `#resolve` accepted asks for.
  #region!: DmaRegion;
  #offset = 0;
  #count = 0;
  #isAsync = false;

  /** `settle` is called before memory changes: answers that wait are to carry what was there when they were made. */
  constructor(table: IovaMap<DmaRegion>, settle: () => void) {
    this.#table = table;
    this.#settle = settle;
  }

  serve(request: ServerRequest, landing: Landing | undefined): void {
    if (landing instanceof DmaLanding) this.#finishLanding(request, landing);
    else if (request.command === Command.DMA_READ) this.#read(request);
    else if (request.command === Command.DMA_WRITE) this.#write(request);
    else request.refuse(DmaErrno.ENOTSUP);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    if (headerCommand(bytes, start) !== Command.DMA_WRITE) return undefined;
    const size = headerSize(bytes, start) - HEADER_SIZE;
    if (this.#resolve(bytes, start + HEADER_SIZE, size, false) !== 0) return undefined;
    const memory = this.#rawBytes();
    if (memory === undefined) return undefined;
    const landing = new DmaLanding(memory.subarray(this.#offset, this.#offset + this.#count), this.#region);
    this.#settle();
    // Now and when it is complete: a report between the two must not lose it.
    this.#markDirty(this.#region, this.#offset, this.#count);
    this.#landings.add(landing);
    return landing;
  }

  /** The region's memory is about to go: what is still being received for it goes nowhere. */
  forget(region: DmaRegion): void {
    for (const landing of this.#landings) {
      if (landing.region !== region) continue;
      landing.target = undefined;
      this.#landings.delete(landing);
    }
  }

  #finishLanding(request: ServerRequest, landing: DmaLanding): void {
    this.#landings.delete(landing);
    if (landing.target === undefined) request.refuse(DmaErrno.EFAULT);
    else {
      const offset = landing.target.byteOffset - (landing.region.bytes?.byteOffset ?? 0);
      this.#markDirty(landing.region, offset, landing.target.length);
      request.echo(DMA_ACCESS_SIZE, null, true);
    }
  }

  #read(request: ServerRequest): void {
    const { bytes, start, end } = request;
    const errno = this.#resolve(bytes, start, end - start, true);
    if (errno !== 0) {
      request.refuse(errno);
      return;
    }
    if (this.#isAsync) {
      this.#serveLater(request, true);
      return;
    }
    const memory = this.#rawBytes();
    if (memory !== undefined) {
      request.echo(DMA_ACCESS_SIZE, memory.subarray(this.#offset, this.#offset + this.#count), true);
      return;
    }
    // Borrowed, as a handler may have another device serve a request meanwhile.
    const slab = borrowSlab();
    try {
      const isSmall = this.#count <= slab.length;
      const body = isSmall ? slab.subarray(0, this.#count) : Buffer.allocUnsafeSlow(this.#count);
      const failed = this.#forEachSegment((region, offset, at, length) =>
        region.copyOut(offset, body, at, length),
      );
      if (failed !== 0) request.refuse(failed);
      else request.echo(DMA_ACCESS_SIZE, body, !isSmall);
    } finally {
      returnSlab(slab);
    }
  }

  #write(request: ServerRequest): void {
    const { bytes, start, end } = request;
    const errno = this.#resolve(bytes, start, end - start, false);
    if (errno !== 0) {
      request.refuse(errno);
      return;
    }
    if (this.#isAsync) {
      this.#serveLater(request, false);
      return;
    }
    this.#settle();
    const data = start + DMA_ACCESS_SIZE;
    const memory = this.#rawBytes();
    let failed = 0;
    if (memory !== undefined) {
      bytes.copy(memory, this.#offset, data, end);
      this.#markDirty(this.#region, this.#offset, this.#count);
    } else {
      failed = this.#forEachSegment((region, offset, at, length) => {
        this.#markDirty(region, offset, length);
        return region.copyIn(offset, bytes, data + at, length);
      });
    }
    if (failed !== 0) request.refuse(failed);
    else request.echo(DMA_ACCESS_SIZE, null, true);
  }

  /** Answers when the asynchronous handlers in the range are done; what it needs of the request is copied. */
  #serveLater(request: ServerRequest, isRead: boolean): void {
    const { bytes, start, end } = request;
    const count = this.#count;
    if (!this.#backlog.hasRoom(count)) {
      request.refuse(DmaErrno.EBUSY);
      return;
    }
    const data = start + DMA_ACCESS_SIZE;
    const head = Buffer.from(bytes.subarray(start, data));
    const body = isRead ? Buffer.alloc(count) : Buffer.from(bytes.subarray(data, end));
    const segments: Segment[] = [];
    this.#forEachSegment((region, offset, at, length) => {
      segments.push({ region, offset, at, length });
      return 0;
    });
    this.#backlog.add(count, async () => {
      for (const segment of segments) {
        const errno = await this.#transferLater(segment, body, isRead);
        if (errno !== 0) {
          request.refuse(errno);
          return;
        }
      }
      request.reply(head, isRead ? body : null);
    });
  }

  async #transferLater(
    { region, offset, at, length }: Segment,
    body: Buffer,
    isRead: boolean,
  ): Promise<number> {
    if (isRead) return region.copyOutLater(offset, body, at, length);
    this.#settle();
    const errno = await region.copyInLater(offset, body, at, length);
    this.#markDirty(region, offset, length);
    return errno;
  }

  #markDirty(region: DmaRegion, offset: number, length: number): void {
    if (this.dirty === undefined || region.isClosed) return;
    const first = Math.floor(offset / PAGE_SIZE);
    this.dirty.mark(region.page + first, Math.ceil((offset + length) / PAGE_SIZE) - first);
  }

  /**
   * Checks the request whose payload of `size` bytes begins at `bytes[start]`; of a write no more than the structure
   * need be there. Returns 0 with `#region`, `#offset` and `#count` set, or the errno to refuse it with.
   */
  #resolve(bytes: Buffer, start: number, size: number, isRead: boolean): number {
    if (size < DMA_ACCESS_SIZE) return DmaErrno.EINVAL;
    const count = readUInt32(bytes, start + 8);
    if (readUInt32(bytes, start + 12) !== 0 || count > DEFAULT_MAX_DATA_XFER_SIZE) return DmaErrno.E2BIG;
    if (count === 0 || size !== DMA_ACCESS_SIZE + (isRead ? 0 : count)) return DmaErrno.EINVAL;
    const page = readPage(bytes, start);
    const region = this.#table.find(page);
    if (region === undefined) return DmaErrno.EFAULT;
    this.#region = region;
    this.#offset = (page - region.page) * PAGE_SIZE + readPageOffset(bytes, start);
    this.#count = count;
    return this.#checkRange(isRead);
  }

  /** Every region that the range runs over is there, and lets it. */
  #checkRange(isRead: boolean): number {
    const end = this.#offset + this.#count;
    let region = this.#region;
    let refusal = refusalOf(region, isRead);
    this.#isAsync = region.handler?.isAsync === true;
    for (let covered = region.size; covered < end; covered += region.size) {
      const next = this.#table.find(region.page + region.pages);
      if (next === undefined) return DmaErrno.EFAULT;
      region = next;
      this.#isAsync ||= region.handler?.isAsync === true;
      if (refusal === 0) refusal = refusalOf(region, isRead);
    }
    return refusal;
  }

  /** The memory of the region that the range lies in, where it lies in one and raw views may be taken. */
  #rawBytes(): Buffer | undefined {
    return this.#offset + this.#count <= this.#region.size ? this.#region.bytes : undefined;
  }

  /** Walks the range region by region: `at` is where the segment lies in the range. Stops at the first that fails. */
  #forEachSegment(copy: (region: DmaRegion, offset: number, at: number, length: number) => number): number {
    let region = this.#region;
    let offset = this.#offset;
    for (let at = 0; ;) {
      const length = Math.min(this.#count - at, region.size - offset);
      const errno = copy(region, offset, at, length);
      at += length;
      if (errno !== 0 || at === this.#count) return errno;
      const next = this.#table.find(region.page + region.pages);
      // A handler may have closed the device.
      if (next === undefined) return DmaErrno.EFAULT;
      region = next;
      offset = 0;
    }
  }
}

function refusalOf({ access, isReachable }: DmaRegion, isRead: boolean): number {
  if (!(isRead ? access.readable : access.writable)) return DmaErrno.EACCES;
  return isReachable ? 0 : DmaErrno.ENOTSUP;
}
