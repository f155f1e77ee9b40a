/**
 * The ways in which servers tell what their device has written through memory that they map: DMA_LOGGING (specification:
 * VFIO_USER_DEVICE_FEATURE) and its predecessor, DIRTY_PAGES. A bitmap is asked for a whole mapping where it fits a
 * message: libvfio-user gives no other.
 */
import { constants } from 'node:os';
import type { CallOptions } from '../connection/index.js';
import { ProtocolError, RemoteError } from '../errors.js';
import {
  Command,
  DIRTY_PAGES_FLAG_GET_BITMAP,
  DIRTY_PAGES_FLAG_START,
  DIRTY_PAGES_FLAG_STOP,
  Feature,
} from '../protocol/constants.js';
import { dirtyBitmapSize, hasBitsBeyond, pageCount } from '../protocol/dirty-bitmap.js';
import { decodeDirtyPagesReply, encodeDirtyPages } from '../protocol/dirty-pages.js';
import {
  checkDmaLoggingStopReply,
  decodeDmaLoggingReportReply,
  decodeDmaLoggingStartReply,
  encodeDmaLoggingReport,
  encodeDmaLoggingStart,
  encodeDmaLoggingStop,
} from '../protocol/dma-logging.js';
import { PAGE_SIZE, addressOf, type PageRange } from './iova-map.js';
import type { Features } from './features.js';
import type { DeviceContext } from './device-context.js';

const { errno } = constants;

export interface DirtyLog {
  readonly method: 'logging' | 'legacy';
  /** In bytes: what one bit of a bitmap stands for. */
  readonly pageSize: number;
  /** What reports of `range` are made of. */
  chunks(range: PageRange): Iterable<PageRange>;
  /** How many pages of ours one report may be of: those whose bitmap fits a message. */
  readonly mostPages: number;
  /** The bitmap of a chunk, in pages of `pageSize`; the server begins anew, also where its answer does not arrive. */
  report(chunk: PageRange, options: CallOptions | undefined): Promise<Buffer>;
  stop(options: CallOptions | undefined): Promise<void>;
}

/** What is answered like this was not done, and is perhaps not known. After other errors nobody knows. */
const REFUSALS: readonly number[] = [errno.EINVAL, errno.ENOENT, errno.ENOTSUP, errno.ENOTTY, errno.ENOSYS];
/** How much of a reply is not bitmap, generously. */
const REPLY_OVERHEAD = 64;

/**
 * Starts the log that the server has: none is assumed, and none asked of a server that may lose step. Undefined where it
 * has none. One that may have been started before, by a message whose answer never came, is stopped first.
 * @throws RemoteError where it has one and does not start it; TimeoutError, ClosedError, ProtocolError; the signal's
 * reason.
 */
export async function startLog(
  context: DeviceContext,
  features: Features,
  ranges: readonly PageRange[],
  pageSize: number,
  mayBeStarted: boolean,
  options: CallOptions | undefined,
): Promise<DirtyLog | undefined> {
  if (!context.mayTryOptional) return undefined;
  const hasStart = await features.probe(Feature.DMA_LOGGING_START, { set: true }, options);
  if (hasStart && (await features.probe(Feature.DMA_LOGGING_REPORT, { get: true }, options))) {
    const log = new FeatureLog(context, features, pageSize);
    if (mayBeStarted) await stopped(log, options);
    return log.start(ranges, options);
  }
  const log = new LegacyLog(context);
  if (mayBeStarted) await stopped(log, options);
  return (await log.start(options)) ? log : undefined;
}

/** A server that has no log to stop says so. */
async function stopped(log: DirtyLog, options: CallOptions | undefined): Promise<void> {
  try {
    await log.stop(options);
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
  }
}

class FeatureLog implements DirtyLog {
  readonly method = 'logging';
  readonly pageSize: number;
  readonly #context: DeviceContext;
  readonly #features: Features;

  constructor(context: DeviceContext, features: Features, pageSize: number) {
    this.#context = context;
    this.#features = features;
    this.pageSize = pageSize;
  }

  /** The log that it has become: the server may choose another page size. */
  async start(ranges: readonly PageRange[], options: CallOptions | undefined): Promise<FeatureLog> {
    const wanted = ranges.map(({ page, pages }) => ({
      iova: addressOf(page),
      length: BigInt(pages) * BigInt(PAGE_SIZE),
    }));
    const payload = encodeDmaLoggingStart({ pageSize: this.pageSize, ranges: wanted });
    const chosen = await this.#features.request(payload, options, (bytes, start, end) =>
      decodeDmaLoggingStartReply(bytes, start, end),
    );
    return new FeatureLog(this.#context, this.#features, chosen.pageSize);
  }

  get mostPages(): number {
    return mostPages(this.#context, this.pageSize);
  }

  *chunks({ page, pages }: PageRange): Generator<PageRange, void, undefined> {
    const most = this.mostPages;
    for (let done = 0; done < pages; done += most) {
      yield { page: page + done, pages: Math.min(most, pages - done) };
    }
  }

  report({ page, pages }: PageRange, options: CallOptions | undefined): Promise<Buffer> {
    const length = BigInt(pages) * BigInt(PAGE_SIZE);
    const asked = { iova: addressOf(page), length, pageSize: this.pageSize };
    return this.#features.request(encodeDmaLoggingReport(asked), options, (bytes, start, end) =>
      decodeDmaLoggingReportReply(bytes, start, end, asked),
    );
  }

  stop(options: CallOptions | undefined): Promise<void> {
    return this.#features.request(encodeDmaLoggingStop(this.pageSize), options, (bytes, start, end) =>
      checkDmaLoggingStopReply(bytes, start, end),
    );
  }
}

class LegacyLog implements DirtyLog {
  readonly method = 'legacy';
  readonly pageSize: number;
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.pageSize = legacyPageSize(context);
  }

  /** There is no way to ask whether there is one but to start it. */
  async start(options: CallOptions | undefined): Promise<boolean> {
    try {
      await this.#control(DIRTY_PAGES_FLAG_START, options);
      return true;
    } catch (error) {
      // Another error is of a server that knows the command: it may have begun, and would not be asked.
      if (isRefusal(error)) return false;
      throw error;
    }
  }

  get mostPages(): number {
    return mostPages(this.#context, this.pageSize);
  }

  /** Servers of that time give bitmaps of whole mappings. */
  chunks(range: PageRange): PageRange[] {
    return [range];
  }

  report({ page, pages }: PageRange, options: CallOptions | undefined): Promise<Buffer> {
    const iova = addressOf(page);
    const size = BigInt(pages) * BigInt(PAGE_SIZE);
    const bitmap = { pgsize: this.pageSize, size: dirtyBitmapSize(size, this.pageSize) };
    const payload = encodeDirtyPages({ flags: DIRTY_PAGES_FLAG_GET_BITMAP, range: { iova, size, bitmap } });
    return this.#context.connection.call(
      Command.DIRTY_PAGES,
      payload,
      null,
      (bytes, start, end) => {
        const reply = decodeDirtyPagesReply(bytes, start, end);
        if (reply.range?.iova !== iova || reply.range.size !== size || reply.bitmap === undefined) {
          throw new ProtocolError('DIRTY_PAGES reply: it is not about the range that was asked for');
        }
        return checkBitmap('DIRTY_PAGES reply', reply.bitmap, size, this.pageSize);
      },
      options,
    );
  }

  stop(options: CallOptions | undefined): Promise<void> {
    return this.#control(DIRTY_PAGES_FLAG_STOP, options);
  }

  #control(flags: number, options: CallOptions | undefined): Promise<void> {
    const payload = encodeDirtyPages({ flags });
    return this.#context.connection.call(Command.DIRTY_PAGES, payload, null, () => undefined, options);
  }
}

export function isRefusal(error: unknown): boolean {
  return error instanceof RemoteError && REFUSALS.includes(error.errno);
}

/** The pages of ours whose bitmap, in pages of `pageSize`, fits a message. */
export function mostPages({ maxDataXferSize }: DeviceContext, pageSize: number): number {
  // Whole words of the bitmap, so that chunks begin where a page of the server's does.
  const bitmapBytes = Math.max(8, Math.floor((maxDataXferSize - REPLY_OVERHEAD) / 8) * 8);
  return Math.max(1, Math.floor((bitmapBytes * 8 * pageSize) / PAGE_SIZE));
}

/** Servers of that time track in the page size that they named in VERSION's migration capability, and take no other. */
export function legacyPageSize({ negotiated }: DeviceContext): number {
  return negotiated.capabilities.migration?.pgsize ?? PAGE_SIZE;
}

/** @throws ProtocolError unless the bitmap is exactly what `size` bytes of memory need. */
export function checkBitmap(message: string, bitmap: Buffer, size: bigint, pageSize: number): Buffer {
  const expected = dirtyBitmapSize(size, pageSize);
  if (bitmap.byteLength !== expected) {
    throw new ProtocolError(
      `${message}: the bitmap is ${bitmap.byteLength} bytes, ${expected} were asked for`,
    );
  }
  if (hasBitsBeyond(bitmap, pageCount(size, pageSize))) {
    throw new ProtocolError(`${message}: the bitmap has bits outside the range, they must be zero`);
  }
  return bitmap;
}
