/**
 * The ways in which servers tell what their device has written through memory that they map: DMA_LOGGING (specification:
 * VFIO_USER_DEVICE_FEATURE) and its predecessor, DIRTY_PAGES. A bitmap is asked for a whole mapping where it fits a
 * message: libvfio-user gives no other.
 */
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
import { PAGE_SIZE, addressOf, type PageRange } from './dma-table.js';
import type { Features } from './features.js';
import type { Session } from './session.js';

export interface DirtyLog {
  readonly method: 'logging' | 'legacy';
  /** In bytes: what one bit of a bitmap stands for. */
  readonly pageSize: number;
  /** The bitmap of `range`, in pages of `pageSize`; the server begins anew. */
  report(range: PageRange, options: CallOptions | undefined): Promise<Buffer>;
  stop(options: CallOptions | undefined): Promise<void>;
}

/** How much of a reply is not bitmap, generously. */
const REPLY_OVERHEAD = 64;

/**
 * Starts the log that the server has: none is assumed, and none asked of a server that may lose step. Undefined where it
 * has none.
 * @throws RemoteError where it has one and does not start it; TimeoutError, ClosedError, ProtocolError; the signal's
 * reason.
 */
export async function startLog(
  session: Session,
  features: Features,
  ranges: readonly PageRange[],
  pageSize: number,
  options: CallOptions | undefined,
): Promise<DirtyLog | undefined> {
  if (!session.mayTryOptional) return undefined;
  const hasStart = await features.probe(Feature.DMA_LOGGING_START, { set: true }, options);
  if (hasStart && (await features.probe(Feature.DMA_LOGGING_REPORT, { get: true }, options))) {
    return FeatureLog.start(session, features, ranges, pageSize, options);
  }
  return LegacyLog.start(session, options);
}

class FeatureLog implements DirtyLog {
  readonly method = 'logging';
  readonly pageSize: number;
  readonly #session: Session;
  readonly #features: Features;

  private constructor(session: Session, features: Features, pageSize: number) {
    this.#session = session;
    this.#features = features;
    this.pageSize = pageSize;
  }

  static async start(
    session: Session,
    features: Features,
    ranges: readonly PageRange[],
    pageSize: number,
    options: CallOptions | undefined,
  ): Promise<FeatureLog> {
    const wanted = ranges.map(({ page, pages }) => ({
      iova: addressOf(page),
      length: BigInt(pages) * BigInt(PAGE_SIZE),
    }));
    const payload = encodeDmaLoggingStart({ pageSize, ranges: wanted });
    const chosen = await features.request(payload, options, (_slot, bytes, start, end) =>
      decodeDmaLoggingStartReply(bytes, start, end),
    );
    return new FeatureLog(session, features, chosen.pageSize);
  }

  async report({ page, pages }: PageRange, options: CallOptions | undefined): Promise<Buffer> {
    const { pageSize } = this;
    // In whole words of the bitmap, so that the parts lie behind one another.
    const most = Math.max(8, Math.floor((this.#session.maxDataXferSize - REPLY_OVERHEAD) / 8) * 8);
    const step = BigInt(most) * 8n * BigInt(pageSize);
    const parts: Buffer[] = [];
    const size = BigInt(pages) * BigInt(PAGE_SIZE);
    for (let done = 0n; done < size; done += step) {
      const length = size - done < step ? size - done : step;
      const asked = { iova: addressOf(page) + done, length, pageSize };
      parts.push(
        await this.#features.request(encodeDmaLoggingReport(asked), options, (_slot, bytes, start, end) =>
          decodeDmaLoggingReportReply(bytes, start, end, asked),
        ),
      );
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  stop(options: CallOptions | undefined): Promise<void> {
    return this.#features.request(encodeDmaLoggingStop(this.pageSize), options, (_slot, bytes, start, end) =>
      checkDmaLoggingStopReply(bytes, start, end),
    );
  }
}

class LegacyLog implements DirtyLog {
  readonly method = 'legacy';
  readonly pageSize: number;
  readonly #session: Session;

  private constructor(session: Session) {
    this.#session = session;
    this.pageSize = legacyPageSize(session);
  }

  /** There is no way to ask but to start. */
  static async start(session: Session, options: CallOptions | undefined): Promise<LegacyLog | undefined> {
    const log = new LegacyLog(session);
    try {
      await log.#control(DIRTY_PAGES_FLAG_START, options);
      return log;
    } catch (error) {
      if (error instanceof RemoteError) return undefined;
      throw error;
    }
  }

  report({ page, pages }: PageRange, options: CallOptions | undefined): Promise<Buffer> {
    const iova = addressOf(page);
    const size = BigInt(pages) * BigInt(PAGE_SIZE);
    const bitmap = { pgsize: this.pageSize, size: dirtyBitmapSize(size, this.pageSize) };
    const payload = encodeDirtyPages({ flags: DIRTY_PAGES_FLAG_GET_BITMAP, range: { iova, size, bitmap } });
    return this.#session.connection.call(
      Command.DIRTY_PAGES,
      payload,
      null,
      (_slot, bytes, start, end) => {
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
    return this.#session.connection.call(Command.DIRTY_PAGES, payload, null, () => undefined, options);
  }
}

/** Servers of that time track in the page size that they named in VERSION's migration capability, and take no other. */
export function legacyPageSize({ negotiated }: Session): number {
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
