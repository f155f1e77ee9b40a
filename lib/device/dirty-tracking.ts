/**
 * Which memory the device has written: what the server tells of memory that it maps, and what this process has seen
 * itself of writes by message, in one report.
 *
 * | the server has | what is used | what a report has of memory that it maps |
 * |---|---|---|
 * | DMA_LOGGING | its START, REPORT and STOP | all |
 * | DIRTY_PAGES (before 2022) | its START, GET_BITMAP and STOP; DMA_UNMAP with a bitmap | all |
 * | neither, but DMA_UNMAP with a bitmap | that | what has been unmapped since |
 * | none of them | nothing | refused, unless no memory is shared at all |
 *
 * Memory that is unmapped is reported once more. A report clears the server's log, so what was asked for and did not arrive
 * counts as written: its answer was late, broken, or the call was given up. After a reconnect nobody knows what the
 * server's predecessor wrote last: all that it could write is reported.
 */
import { forbidCloning } from '../cloning.js';
import { Exclusive, forUndoing, type CallOptions } from '../connection/index.js';
import { ProtocolError, RemoteError, UnsupportedError } from '../errors.js';
import { outOfRange, UINT64_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { dirtyBitmapSize, isPageSize } from '../protocol/dirty-bitmap.js';
import type { DmaUnmapReply } from '../protocol/dma-map.js';
import { arenaMemory } from './arena.js';
import {
  checkBitmap,
  isRefusal,
  legacyPageSize,
  mostPages,
  startLog,
  type DirtyLog,
} from './dirty-log-backends.js';
import { DirtyBitmap, runsOf, type DirtyRange } from './dirty-bitmap.js';
import type { DmaServer } from './dma-server.js';
import { END_PAGE, PAGE_SIZE, pageOf, type IovaMap, type PageRange } from './iova-map.js';
import type { DmaRegion } from './dma-region.js';
import { hex, type DmaMapManager, type UnmapBitmap, type UnmapWatcher } from './dma-map-manager.js';
import { Features } from './features.js';
import { yieldingForEach } from './yielding-for-each.js';
import type { DeviceContext } from './device-context.js';

export type { DirtyRange } from './dirty-bitmap.js';

/** Options of `DirtyPages.start`. */
export interface DirtyOptions extends CallOptions {
  /** What to watch, rounded out to pages; all memory by default. */
  ranges?: readonly DirtyRange[] | undefined;
  /** The page size to track at: a power of two from 4,096 to 1 GiB; the server may use another. Default 4,096. */
  pageSize?: number | undefined;
}

const RANGE = new option.OptionTable<DirtyRange>(
  { iova: option.bigInteger(0n, UINT64_MAX), length: option.wholeNumber(1) },
  ['iova', 'length'],
);
const DIRTY_OPTIONS = new option.OptionTable<DirtyOptions>({
  ...option.CALL_CHECKS,
  ranges: option.listOf('ranges', option.options(RANGE)),
  pageSize: checkPageSize,
});

/** Where reports come from: `messages` is this process alone, where no memory is shared. */
export type DirtyMethod = 'logging' | 'legacy' | 'unmap' | 'messages';

interface DirtyParts {
  context: DeviceContext;
  table: IovaMap<DmaRegion>;
  server: DmaServer;
  manager: DmaMapManager;
  /** No memory is ever shared with the server. */
  isSecure: boolean;
}

/** What was asked for when it was started. */
interface Watch {
  readonly ranges: readonly PageRange[] | undefined;
  readonly pageSize: number;
  readonly method: DirtyMethod;
  readonly log: DirtyLog | undefined;
  readonly set: DirtyBitmap;
}

const MAX_PAGE_SIZE = 1 << 30;
/** Of DMA_UNMAP's reply, before its bitmap. */
const UNMAP_REPLY_BYTES = 40;

/**
 * Which memory the device has written: `device.dma.dirty` (specification: VFIO_USER_DEVICE_FEATURE, DMA_LOGGING). Iterating
 * gives one report, range by range.
 *
 * @example
 * ```ts
 * await device.dma.dirty.start();
 * for (const { iova, length } of await device.dma.dirty.report()) console.log(iova, length);
 * await device.dma.dirty.stop();
 * ```
 */
export class DirtyPages implements AsyncIterable<DirtyRange> {
  readonly #parts: DirtyParts;
  #features: Features;
  readonly #exclusive = new Exclusive();
  #watch: Watch | undefined;
  /** DMA_UNMAP with a bitmap is refused. */
  #unmapRefused = false;
  /** A START, or a STOP, was sent and not answered: the server may be logging. */
  #mayBeLogging = false;

  /** @internal */
  constructor(parts: DirtyParts) {
    this.#parts = parts;
    this.#features = new Features(parts.context, true);
    forbidCloning(this, 'a DirtyPages');
  }

  /** What is used; undefined until it is started. */
  get method(): DirtyMethod | undefined {
    return this.#watch?.method;
  }

  /** In bytes: how finely the server tracks; undefined until it is started, and where the server does not. */
  get serverPageSize(): number | undefined {
    return this.#watch?.log?.pageSize;
  }

  /**
   * Begins to watch. What was written before is not reported.
   * @throws UnsupportedError where the server cannot tell what it writes to memory that it maps (opened with `secureDma`,
   * nothing is hidden from this process), or not of a mapping that is there, whose bitmap is longer than a message: with the
   * page size that works; RangeError for ranges and page sizes that make no sense; TypeError where it has
   * been started; RemoteError, TimeoutError, ProtocolError, ClosedError; the signal's reason.
   */
  async start(options: DirtyOptions = {}): Promise<void> {
    DIRTY_OPTIONS.check('DirtyPages.start', options);
    const { ranges, pageSize = PAGE_SIZE, timeoutMs, signal } = options;
    const watched = ranges === undefined ? undefined : inOrder(ranges, pageSize / PAGE_SIZE);
    await this.#exclusive.run('DirtyPages.start', { timeoutMs, signal }, async (call) => {
      if (this.#watch !== undefined) throw new TypeError('dirty pages are being watched already');
      this.#refuseWhileSetUp();
      const watch = await this.#begin(watched, pageSize, new DirtyBitmap(pageSize), call);
      try {
        await this.#checkLongest(watch, call);
      } catch (error) {
        await this.#endLog(forUndoing(call, this.#parts.manager.timeoutMs)).catch(() => undefined);
        throw error;
      }
    });
  }

  /**
   * What has been written since the last report, or the start: ranges in order, none of which touch, in whole pages.
   * Where it fails, what it had is in the next report, and so is all that it had asked for and was not told.
   * @throws TypeError unless started; RemoteError, TimeoutError, ProtocolError, ClosedError; the signal's reason.
   */
  async report(options?: CallOptions): Promise<DirtyRange[]> {
    option.CALL_OPTIONS.check('DirtyPages.report', options);
    return this.#exclusive.run('DirtyPages.report', options, async (call) => {
      const watch = this.#started();
      this.#refuseWhileSetUp();
      const asked: Promise<void>[] = [];
      for (const region of this.#parts.table) {
        if (region.state === 'mapped' && isHidden(region)) asked.push(this.#fetch(watch, region, call));
      }
      for (const result of await Promise.allSettled(asked))
        if (result.status === 'rejected') throw result.reason;
      const ranges: DirtyRange[] = [];
      await yieldingForEach(watch.set.takeEach(watch.ranges), (range) => ranges.push(range));
      return ranges;
    });
  }

  /** One report, range by range. */
  async *[Symbol.asyncIterator](): AsyncGenerator<DirtyRange, void, undefined> {
    yield* await this.report();
  }

  /**
   * Ends watching, idempotent; what has not been reported is forgotten.
   * @throws RemoteError, TimeoutError, ProtocolError, the signal's reason, after which it has ended all the same, unless it was
   * still waiting for another call's end.
   */
  async stop(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('DirtyPages.stop', options);
    return this.#exclusive.run('DirtyPages.stop', options, (call) => this.#endLog(call));
  }

  async #endLog(options: CallOptions | undefined): Promise<void> {
    const log = this.#watch?.log;
    this.#end();
    if (log === undefined || this.#parts.context.connection.endReason !== undefined) return;
    await log.stop(options);
    this.#mayBeLogging = false;
  }

  /** @internal The server has come back: it is told to watch again. */
  async restore(options: CallOptions | undefined): Promise<void> {
    this.#unmapRefused = false;
    this.#features = new Features(this.#parts.context, true);
    await this.#exclusive.run('watching again', options, async (call) => {
      this.#mayBeLogging = false;
      const before = this.#watch;
      if (before === undefined) return;
      await this.#begin(before.ranges, before.pageSize, before.set, call);
      for (const region of this.#parts.table) if (isHidden(region)) this.#markAll(region);
    });
  }

  async #begin(
    ranges: readonly PageRange[] | undefined,
    pageSize: number,
    set: DirtyBitmap,
    options: CallOptions | undefined,
  ): Promise<Watch> {
    const { context, manager, server, isSecure } = this.#parts;
    let log: DirtyLog | undefined;
    let method: DirtyMethod = 'messages';
    if (manager.canShare && !isSecure) {
      const mayBeStarted = this.#mayBeLogging;
      this.#mayBeLogging = true;
      log = await startLog(context, this.#features, ranges ?? [], pageSize, mayBeStarted, options);
      this.#mayBeLogging = log !== undefined;
      method = log?.method ?? (await this.#askUnmap(options));
    }
    const watch = { ranges, pageSize, method, log, set };
    this.#watch = watch;
    server.dirty = set;
    manager.watcher = method === 'messages' ? undefined : this.#watcher;
    return watch;
  }

  /**
   * A mapping whose bitmap does not fit a message has to be reported in chunks, and libvfio-user knows whole mappings only.
   * Better to hear of that now than with the first report: the longest is asked for a chunk, which is taken as any.
   */
  async #checkLongest(watch: Watch, options: CallOptions | undefined): Promise<void> {
    const { log, ranges, set } = watch;
    if (log === undefined) return;
    let longest: DmaRegion | undefined;
    for (const region of this.#parts.table) {
      const isWatched = region.state === 'mapped' && isHidden(region) && partsOf(region, ranges).length > 0;
      if (isWatched && region.pages > (longest?.pages ?? log.mostPages)) longest = region;
    }
    if (longest === undefined) return;
    if (log.method === 'legacy') throw this.#tooLong(watch, log, longest);
    try {
      await fetchChunks(log, set, { page: longest.page, pages: log.mostPages }, options);
    } catch (error) {
      if (!isRefusal(error) || longest.state !== 'mapped') throw error;
      throw this.#tooLong(watch, log, longest, error);
    }
  }

  /** What to do about a mapping that the server reports as a whole, or not at all. */
  #tooLong({ pageSize }: Watch, log: DirtyLog, region: DmaRegion, cause?: unknown): UnsupportedError {
    const { context } = this.#parts;
    let wanted = log.pageSize;
    while (wanted <= MAX_PAGE_SIZE && mostPages(context, wanted) < region.pages) wanted *= 2;
    // A server that has chosen smaller pages than it was asked for would do so again.
    const canBeAsked = log.method === 'logging' && wanted <= MAX_PAGE_SIZE && wanted > pageSize;
    const remedy = canBeAsked ? `start with a pageSize of ${wanted}, or map it` : 'map it';
    return new UnsupportedError(
      `the server reports whole mappings only, and the bitmap of the ${region.size} bytes at ${hex(region.iova)}, in pages of ` +
        `${log.pageSize}, is longer than a message of ${context.maxDataXferSize} bytes: ${remedy} in parts of at most ` +
        `${log.mostPages * PAGE_SIZE} bytes`,
      cause === undefined ? {} : { cause },
    );
  }

  #end(): void {
    this.#watch = undefined;
    this.#parts.server.dirty = undefined;
    this.#parts.manager.watcher = undefined;
  }

  /** A server that has come back is told to watch before it is asked. */
  #refuseWhileSetUp(): void {
    const { unavailable } = this.#parts.context;
    if (unavailable !== undefined) throw unavailable;
  }

  #started(): Watch {
    if (this.#watch === undefined) throw new TypeError('dirty pages are not being watched: call start first');
    return this.#watch;
  }

  /** Whether DMA_UNMAP brings a bitmap is seen by unmapping a page that nobody uses. */
  async #askUnmap(options: CallOptions | undefined): Promise<'unmap'> {
    const { context, manager } = this.#parts;
    let isThere = false;
    if (context.mayTryOptional) {
      const page = manager.choosePage(manager.granule / PAGE_SIZE, 64);
      const memory = arenaMemory(manager.granule, false);
      const access = { readable: true, writable: true, shared: true };
      const region = await manager.map(page, manager.granule / PAGE_SIZE, access, memory, 0, options);
      manager.watcher = {
        ...this.#watcher,
        bitmapFor: (asked) => this.#unmapBitmap(asked),
        collect: () => undefined,
        onUnmapped: (_window, bitmap) => {
          isThere = bitmap !== undefined;
        },
        onBitmapRefused: () => Promise.resolve(),
      };
      try {
        await manager.unmap(region, options);
      } catch (error) {
        // Of a page that was not asked for nothing may be left.
        await manager.unmap(region, forUndoing(options, manager.timeoutMs)).catch(() => undefined);
        throw error;
      } finally {
        manager.watcher = undefined;
      }
    }
    if (isThere) return 'unmap';
    throw new UnsupportedError(
      'the server does not tell which memory it wrote; with secureDma all that it writes is seen here',
    );
  }

  /** Asks for what the server knows of a region, and marks it. */
  async #fetch(watch: Watch, region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    const { log, set, ranges } = watch;
    if (log === undefined) return;
    for (const part of partsOf(region, ranges)) {
      try {
        await fetchChunks(log, set, part, options);
      } catch (error) {
        if (!(error instanceof RemoteError)) throw error;
        // It was unmapped meanwhile, and what it had is collected there.
        if (region.state !== 'mapped') return;
        if (isRefusal(error) && region.pages > log.mostPages) throw this.#tooLong(watch, log, region, error);
        if (part.pages === region.pages) throw error;
        // libvfio-user knows whole mappings only.
        await fetchChunks(log, set, region, options);
      }
    }
  }

  /** Nobody knows what the device has written to it. */
  #markAll({ page, pages }: PageRange): void {
    this.#watch?.set.mark(page, pages);
  }

  #unmapBitmap({ size }: DmaRegion): UnmapBitmap {
    const pgsize = this.#watch?.log?.pageSize ?? legacyPageSize(this.#parts.context);
    return { pgsize, size: dirtyBitmapSize(BigInt(size), pgsize) };
  }

  /** What happens to memory that is unmapped while it is watched. */
  readonly #watcher: UnmapWatcher = {
    bitmapFor: (region) => {
      const bitmap = this.#unmapBitmap(region);
      const fits = UNMAP_REPLY_BYTES + bitmap.size <= this.#parts.context.maxDataXferSize;
      return fits && !this.#unmapRefused ? bitmap : undefined;
    },
    collect: (region, options) => {
      const watch = this.#watch;
      // A server that logs need not know DMA_UNMAP's bitmap. Where it does, that is what was written since.
      if (watch?.method !== 'logging' && this.#watcher.bitmapFor(region) !== undefined) return undefined;
      if (watch?.log === undefined) this.#markAll(region);
      return watch?.log && this.#fetch(watch, region, options);
    },
    onUnmapped: (region, bitmap) => this.#takeBitmap(region, bitmap),
    onBitmapRefused: async (region, error, options) => {
      if (!isRefusal(error)) {
        // It may have been done all the same, and then what it had to tell is gone.
        this.#markAll(region);
        return;
      }
      this.#unmapRefused = true;
      await this.#watcher.collect(region, options);
    },
    onLost: (region) => this.#markAll(region),
  };

  async #takeBitmap(region: DmaRegion, bitmap: DmaUnmapReply['bitmap']): Promise<void> {
    const watch = this.#watch;
    if (watch === undefined) return;
    // A server that knows the flag and brings no bitmap: nobody knows.
    if (bitmap === undefined) {
      this.#markAll(region);
      return;
    }
    const { pgsize } = this.#unmapBitmap(region);
    if (bitmap.pgsize !== pgsize) {
      throw new ProtocolError(`DMA_UNMAP reply: a bitmap of pages of ${bitmap.pgsize}, not ${pgsize}, bytes`);
    }
    const data = checkBitmap('DMA_UNMAP reply', bitmap.data, BigInt(region.size), pgsize);
    await markBitmap(watch.set, region, data, pgsize);
  }
}

/** Each chunk is marked as it comes; one that was asked for and does not come is marked whole. */
async function fetchChunks(
  log: DirtyLog,
  set: DirtyBitmap,
  range: PageRange,
  options: CallOptions | undefined,
): Promise<void> {
  for (const chunk of log.chunks(range)) {
    options?.signal?.throwIfAborted();
    let bitmap: Buffer;
    try {
      bitmap = await log.report(chunk, options);
    } catch (error) {
      if (!isRefusal(error)) set.mark(chunk.page, chunk.pages);
      throw error;
    }
    await markBitmap(set, chunk, bitmap, log.pageSize);
  }
}

/** What the server can write without our seeing it. */
function isHidden({ access }: DmaRegion): boolean {
  return access.shared && access.writable;
}

/** The parts of a region that are watched. */
function partsOf(region: PageRange, ranges: readonly PageRange[] | undefined): PageRange[] {
  if (ranges === undefined) return [region];
  return ranges.flatMap((range) => {
    const page = Math.max(range.page, region.page);
    const pages = Math.min(range.page + range.pages, region.page + region.pages) - page;
    return pages > 0 ? [{ page, pages }] : [];
  });
}

/** Marks what a bitmap of `range` says; a page of the server's may be more, or less, than one of ours. */
async function markBitmap(
  set: DirtyBitmap,
  range: PageRange,
  bitmap: Buffer,
  pageSize: number,
): Promise<void> {
  const step = pageSize / PAGE_SIZE;
  await yieldingForEach(runsOf(bitmap), ({ from, to }) => {
    const first = Math.floor(from * step);
    const end = Math.min(range.pages, Math.ceil(to * step));
    if (first < end) set.mark(range.page + first, end - first);
  });
}

function checkPageSize(value: unknown, caller: string, name: string): Error | undefined {
  if (typeof value !== 'number') return wrongType(`${caller}: ${name}`, 'a number', value);
  if (isPageSize(value) && value >= PAGE_SIZE && value <= MAX_PAGE_SIZE) return undefined;
  return outOfRange(
    `${caller}: ${name} must be a power of two from ${PAGE_SIZE} to ${MAX_PAGE_SIZE}, got ${value}`,
  );
}

/** Ranges in whole pages of `granule` of ours, in order, joined where they touch. @throws RangeError */
function inOrder(ranges: readonly DirtyRange[], granule: number): PageRange[] {
  if (ranges.length === 0)
    throw outOfRange('DirtyPages.start: ranges must have at least one range, not none');
  const rounded = ranges.map(({ iova, length }, i) => {
    if (iova + BigInt(length) > 1n << 64n) {
      throw outOfRange(
        `DirtyPages.start: ranges[${i}]: ${length} bytes at ${hex(iova)} run past the 64-bit address space`,
      );
    }
    const from = Math.floor(pageOf(iova) / granule) * granule;
    const to = Math.ceil((pageOf(iova + BigInt(length) - 1n) + 1) / granule) * granule;
    return { from, to: Math.min(to, END_PAGE) };
  });
  rounded.sort((a, b) => a.from - b.from);
  const joined: { from: number; to: number }[] = [];
  for (const range of rounded) {
    const last = joined.at(-1);
    if (last !== undefined && range.from <= last.to) last.to = Math.max(last.to, range.to);
    else joined.push({ ...range });
  }
  return joined.map(({ from, to }) => ({ page: from, pages: to - from }));
}
