/**
 * The features DMA_LOGGING_START, DMA_LOGGING_STOP and DMA_LOGGING_REPORT: which pages the device has written.
 *
 * ```
 *  START, STOP: data of SET     | page_size u64 | num_ranges u32 | reserved u32 | ranges: iova u64, length u64 |
 *  REPORT: data of GET          | iova u64 | length u64 | page_size u64 |  in the reply the bitmap follows
 * ```
 *
 * The reply to START has the page size that the server chose. The specification's text gives START and STOP one
 * layout, the kernel's STOP has no data; servers take both, so STOP is sent with the structure and no range.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer } from '../fields.js';
import {
  ADDRESS_SPACE_END,
  atLeast,
  checkBuffer,
  checkObject,
  checkObjects,
  copy,
  exactly,
  readSize,
  writeRange,
  writeSize,
  writeUInt32Within,
} from './bytes.js';
import { DEVICE_FEATURE_GET, DEVICE_FEATURE_SET, Feature } from './constants.js';
import {
  decodeDeviceFeatureReply,
  DEVICE_FEATURE_SIZE,
  encodeDeviceFeature,
  encodeDeviceFeatureReply,
} from './device-feature.js';
import { dirtyBitmapSize, hasBitsBeyond, isPageSize, pageCount, requirePageSize } from './dirty-bitmap.js';

const CONTROL_BYTES = 16;
const RANGE_BYTES = 16;
const REPORT_BYTES = 24;
/** More ranges than DMA mappings there can be. */
const MAX_RANGES = 65536;

/** Memory to log. */
export interface DmaLoggingRange {
  /** An address of the device. */
  iova: bigint;
  /** Bytes. */
  length: bigint;
}

/** DMA_LOGGING_START (specification: VFIO_USER_DEVICE_FEATURE). */
export interface DmaLogging {
  /** The page size to track at, in bytes: a wish in the request, in the reply what the server does. */
  pageSize: number;
  /** The memory to watch; all of it where there are none. */
  ranges: DmaLoggingRange[];
}

/** DMA_LOGGING_REPORT (specification: VFIO_USER_DEVICE_FEATURE). */
export interface DmaLoggingReport extends DmaLoggingRange {
  /** The page size that a bit of the bitmap stands for, in bytes. */
  pageSize: number;
}

/**
 * The payload of the request that starts logging.
 *
 * @throws RangeError where the page size is not a power of two or a range does not lie in the 64-bit address space;
 * TypeError.
 */
export function encodeDmaLoggingStart(logging: DmaLogging): Buffer {
  const data = controlData('DMA_LOGGING_START', logging);
  return encodeDeviceFeature({ feature: Feature.DMA_LOGGING_START, flags: DEVICE_FEATURE_SET, data });
}

/** The payload of the request that stops logging. Throws a RangeError where the page size is not a power of two. */
export function encodeDmaLoggingStop(pageSize = 4096): Buffer {
  const data = controlData('DMA_LOGGING_STOP', { pageSize, ranges: [] });
  return encodeDeviceFeature({ feature: Feature.DMA_LOGGING_STOP, flags: DEVICE_FEATURE_SET, data });
}

/** The payload of the reply to start. */
export function encodeDmaLoggingStartReply(logging: DmaLogging): Buffer {
  const data = controlData('DMA_LOGGING_START reply', logging);
  return encodeDeviceFeatureReply({ feature: Feature.DMA_LOGGING_START, flags: DEVICE_FEATURE_SET, data });
}

function controlData(message: string, logging: DmaLogging): Buffer {
  checkObject('logging', logging);
  const { pageSize, ranges } = logging;
  checkObjects('logging.ranges', ranges);
  requirePageSize(`${message}: pageSize`, pageSize);
  integer(`${message}: ranges.length`, ranges.length, 0, MAX_RANGES);
  const data = Buffer.alloc(CONTROL_BYTES + ranges.length * RANGE_BYTES);
  writeSize(data, 0, pageSize, `${message}: pageSize`);
  writeUInt32Within(data, 8, ranges.length, `${message}: ranges.length`, 0, MAX_RANGES);
  ranges.forEach(({ iova, length }, i) => {
    const range = `${message}: ranges[${i}]`;
    writeRange(data, CONTROL_BYTES + i * RANGE_BYTES, iova, length, `${range}.iova`, `${range}.length`);
  });
  return data;
}

/**
 * Reads the data of a request to start logging.
 *
 * @throws ProtocolError where there are more than 65536 ranges or the data is not exactly as many, the page size is
 * not a power of two, or a range does not lie in the 64-bit address space.
 */
export function decodeDmaLogging(data: Buffer, message = 'DEVICE_FEATURE DMA_LOGGING_START'): DmaLogging {
  checkBuffer('data', data);
  atLeast(message, 'the control structure', data, 0, data.length, CONTROL_BYTES);
  const pageSize = readPageSize(message, data, 0);
  const count = data.readUInt32LE(8);
  if (count > MAX_RANGES) {
    throw new ProtocolError(
      `${message}: num_ranges is ${count}, more than the ${MAX_RANGES} that are accepted`,
    );
  }
  exactly(
    message,
    `the data with ${count} ranges`,
    data,
    0,
    data.length,
    CONTROL_BYTES + count * RANGE_BYTES,
  );
  const ranges: DmaLoggingRange[] = [];
  for (let at = CONTROL_BYTES; at < data.length; at += RANGE_BYTES) ranges.push(readRange(message, data, at));
  return { pageSize, ranges };
}

/**
 * Reads the reply to start.
 *
 * @throws ProtocolError where it is not a reply to that request, or its data is broken as in a request.
 */
export function decodeDmaLoggingStartReply(bytes: Buffer, start: number, end: number): DmaLogging {
  const { data } = decodeDeviceFeatureReply(bytes, start, end, Feature.DMA_LOGGING_START, DEVICE_FEATURE_SET);
  return decodeDmaLogging(data, 'DEVICE_FEATURE DMA_LOGGING_START reply');
}

/**
 * Reads the reply to stop, which says nothing more than that it is one.
 *
 * @throws ProtocolError where it is not a reply to that request.
 */
export function checkDmaLoggingStopReply(bytes: Buffer, start: number, end: number): void {
  decodeDeviceFeatureReply(bytes, start, end, Feature.DMA_LOGGING_STOP, DEVICE_FEATURE_SET);
}

/**
 * The payload of the request for a bitmap. Its argsz has room for the bitmap; see `dirtyBitmapSize`.
 *
 * @throws RangeError where the page size is not a power of two, the range does not lie in the 64-bit address space,
 * or the bitmap does not fit 32 bits.
 */
export function encodeDmaLoggingReport(report: DmaLoggingReport): Buffer {
  checkObject('report', report);
  const data = reportData('DMA_LOGGING_REPORT', report, 0);
  const argsz = DEVICE_FEATURE_SIZE + REPORT_BYTES + dirtyBitmapSize(report.length, report.pageSize);
  return encodeDeviceFeature({ feature: Feature.DMA_LOGGING_REPORT, flags: DEVICE_FEATURE_GET, data, argsz });
}

/**
 * The payload of its reply.
 *
 * @throws RangeError where a value does not fit, or the bitmap's size is not what the range needs.
 */
export function encodeDmaLoggingReportReply(report: DmaLoggingReport, bitmap: Uint8Array): Buffer {
  checkObject('report', report);
  const message = 'DMA_LOGGING_REPORT reply';
  const size = dirtyBitmapSize(report.length, report.pageSize);
  integer(`${message}: bitmap.length`, byteArray(`${message}: bitmap`, bitmap).length, size, size);
  const data = reportData(message, report, size);
  data.set(bitmap, REPORT_BYTES);
  return encodeDeviceFeatureReply({ feature: Feature.DMA_LOGGING_REPORT, flags: DEVICE_FEATURE_GET, data });
}

function reportData(message: string, report: DmaLoggingReport, bitmapSize: number): Buffer {
  const { iova, length, pageSize } = report;
  requirePageSize(`${message}: pageSize`, pageSize);
  const data = Buffer.alloc(REPORT_BYTES + bitmapSize);
  writeRange(data, 0, iova, length, `${message}: iova`, `${message}: length`);
  writeSize(data, 16, pageSize, `${message}: pageSize`);
  return data;
}

/**
 * Reads the data of a request for a bitmap.
 *
 * @throws ProtocolError unless it is exactly 24 bytes, the page size a power of two and the range inside the 64-bit
 * address space.
 */
export function decodeDmaLoggingReport(data: Buffer): DmaLoggingReport {
  checkBuffer('data', data);
  const message = 'DEVICE_FEATURE DMA_LOGGING_REPORT';
  exactly(message, 'the report structure', data, 0, data.length, REPORT_BYTES);
  return readReport(message, data);
}

/**
 * Reads the reply to that request. The bitmap is a copy; `dirtyPages` walks it.
 *
 * @throws ProtocolError where range or page size are not those of the request, the bitmap has not exactly the size
 * that they need, or bits outside the range are set.
 */
export function decodeDmaLoggingReportReply(
  bytes: Buffer,
  start: number,
  end: number,
  asked: DmaLoggingReport,
): Buffer {
  checkObject('asked', asked);
  const message = 'DEVICE_FEATURE DMA_LOGGING_REPORT reply';
  const { data } = decodeDeviceFeatureReply(
    bytes,
    start,
    end,
    Feature.DMA_LOGGING_REPORT,
    DEVICE_FEATURE_GET,
  );
  atLeast(message, 'the report structure', data, 0, data.length, REPORT_BYTES);
  const got = readReport(message, data);
  if (got.iova !== asked.iova || got.length !== asked.length || got.pageSize !== asked.pageSize) {
    throw new ProtocolError(`${message}: it is about ${shown(got)}, ${shown(asked)} was asked for`);
  }
  exactly(
    message,
    'the bitmap',
    data,
    REPORT_BYTES,
    data.length,
    dirtyBitmapSize(asked.length, asked.pageSize),
  );
  const bitmap = copy(data, REPORT_BYTES, data.length);
  if (hasBitsBeyond(bitmap, pageCount(asked.length, asked.pageSize))) {
    throw new ProtocolError(`${message}: the bitmap has bits outside the range, they must be zero`);
  }
  return bitmap;
}

function readReport(message: string, data: Buffer): DmaLoggingReport {
  return { ...readRange(message, data, 0), pageSize: readPageSize(message, data, 16) };
}

function readRange(message: string, data: Buffer, at: number): DmaLoggingRange {
  const range = { iova: data.readBigUInt64LE(at), length: data.readBigUInt64LE(at + 8) };
  if (range.iova + range.length <= ADDRESS_SPACE_END) return range;
  throw new ProtocolError(
    `${message}: ${range.length} bytes at 0x${range.iova.toString(16)} run past the 64-bit address space`,
  );
}

function readPageSize(message: string, data: Buffer, at: number): number {
  const pageSize = readSize(message, 'page_size', data, at);
  if (isPageSize(pageSize)) return pageSize;
  throw new ProtocolError(`${message}: page_size is ${pageSize}, it must be a power of two`);
}

function shown({ iova, length, pageSize }: DmaLoggingReport): string {
  return `${length} bytes at 0x${iova.toString(16)} in pages of ${pageSize}`;
}
