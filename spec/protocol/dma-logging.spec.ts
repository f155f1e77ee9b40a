import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeDeviceFeature } from '../../lib/protocol/device-feature.js';
import { dirtyBitmapSize } from '../../lib/protocol/dirty-bitmap.js';
import {
  checkDmaLoggingStopReply,
  decodeDmaLogging,
  decodeDmaLoggingReport,
  decodeDmaLoggingReportReply,
  decodeDmaLoggingStartReply,
  encodeDmaLoggingReport,
  encodeDmaLoggingReportReply,
  encodeDmaLoggingStart,
  encodeDmaLoggingStartReply,
  encodeDmaLoggingStop,
  type DmaLogging,
  type DmaLoggingReport,
} from '../../lib/protocol/dma-logging.js';
import {
  deviceFeatureReply,
  deviceFeatureRequest,
  loggingControl,
  loggingReport,
  payloadOf,
  type Wire,
} from '../support/wire.js';
import {
  addressRanges,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  pageSizes,
  type Decoder,
} from '../support/wire-placed.js';

const GET = 0x10000;
const SET = 0x20000;
const TOP = 2n ** 64n;

describe('DMA_LOGGING_START', () => {
  const reply = (data: Wire, flags = SET | 6): Buffer => payloadOf(deviceFeatureReply({ flags, data }));
  const logging: DmaLogging = {
    pageSize: 4096,
    ranges: [
      { iova: 0x10000n, length: 0x20000n },
      { iova: TOP - 0x1000n, length: 0x1000n },
    ],
  };
  const onWire = loggingControl(4096, [[0x10000, 0x20000], [TOP - 0x1000n, 0x1000]]); // prettier-ignore

  test('the request is page size and ranges', () => {
    const bytes = payloadOf(deviceFeatureRequest({ flags: SET | 6, data: onWire }));
    expect(encodeDmaLoggingStart(logging)).toEqual(bytes);
    expect(decodeDmaLogging(decode(decodeDeviceFeature, bytes).data)).toEqual(logging);
  });

  test('no ranges mean everything', () => {
    const everything = { pageSize: 0x20_0000, ranges: [] };
    expect(encodeDmaLoggingStart(everything)).toEqual(
      payloadOf(deviceFeatureRequest({ flags: SET | 6, data: loggingControl(0x20_0000) })),
    );
  });

  test('the reply may have another page size', () => {
    expect(encodeDmaLoggingStartReply(logging)).toEqual(reply(onWire));
    expect(decode(decodeDmaLoggingStartReply, reply(loggingControl(65536)))).toEqual({
      pageSize: 65536,
      ranges: [],
    });
  });

  test('a round trip keeps every field', () => {
    const ranges = fc.array(
      addressRanges().map(({ address, size }) => ({ iova: address, length: size })),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(pageSizes(), ranges, (pageSize, ranges) => {
        const bytes = encodeDmaLoggingStartReply({ pageSize, ranges });
        expect(decode(decodeDmaLoggingStartReply, bytes)).toEqual({ pageSize, ranges });
      }),
    );
  });

  test.each<[string, Wire, RegExp]>([
    [
      'a page size of 0',
      loggingControl(0),
      /DMA_LOGGING_START reply: page_size is 0, it must be a power of two/,
    ],
    ['a page size of 4097', loggingControl(4097), /page_size is 4097/],
    ['a page size above 2^53', loggingControl(2n ** 63n), /page_size is 0x8/],
    ['a range too few', loggingControl(4096, [[0, 1]], 2), /the data with 2 ranges is exactly 48/],
    ['a range too many', loggingControl(4096, [[0, 1]], 0), /the data with 0 ranges is exactly 16/],
    ['65537 ranges', loggingControl(4096, [[0, 1]], 65537), /num_ranges is 65537, more than the 65536/],
    ['the largest number', loggingControl(4096, [[0, 1]], 0xffffffff), /num_ranges is 4294967295/],
    ['a range past the end', loggingControl(4096, [[TOP - 1n, 2]]), /run past the 64-bit address space/],
  ])('%s is refused', (_name, data, words) => {
    expectRefused(decodeDmaLoggingStartReply, reply(data), words);
  });

  test('another reply, and a cut one, is refused', () => {
    expectRefused(decodeDmaLoggingStartReply, reply(onWire, SET | 7), /flags say SET DMA_LOGGING_STOP/);
    expectEveryCutRefused(decodeDmaLoggingStartReply, reply(onWire));
    expectOnlyProtocolErrors(decodeDmaLoggingStartReply, reply(onWire));
  });

  test('misuse', () => {
    expect(() => encodeDmaLoggingStart({ pageSize: 0, ranges: [] })).toThrow(RangeError);
    expect(() => encodeDmaLoggingStart({ pageSize: 4095, ranges: [] })).toThrow(RangeError);
    expect(() => encodeDmaLoggingStart({ pageSize: 4096, ranges: [{ iova: -1n, length: 1n }] })).toThrow(
      RangeError,
    );
    expect(() => encodeDmaLoggingStart({ pageSize: 4096, ranges: [{ iova: 1n, length: TOP }] })).toThrow(
      RangeError,
    );
  });
});

describe('DMA_LOGGING_STOP', () => {
  test('the request has the structure and no range', () => {
    const bytes = payloadOf(deviceFeatureRequest({ flags: SET | 7, data: loggingControl(4096) }));
    expect(encodeDmaLoggingStop()).toEqual(bytes);
    expect(encodeDmaLoggingStop(65536)).toHaveLength(24);
    expect(() => encodeDmaLoggingStop(5)).toThrow(RangeError);
  });

  test('the reply may have data or none', () => {
    decode(checkDmaLoggingStopReply, payloadOf(deviceFeatureReply({ flags: SET | 7 })));
    decode(
      checkDmaLoggingStopReply,
      payloadOf(deviceFeatureReply({ flags: SET | 7, data: loggingControl(4096) })),
    );
    const start = payloadOf(deviceFeatureReply({ flags: SET | 6 }));
    expectRefused(checkDmaLoggingStopReply, start, /flags say SET DMA_LOGGING_START/);
    expectEveryCutRefused(checkDmaLoggingStopReply, start);
  });
});

describe('DMA_LOGGING_REPORT', () => {
  const report: DmaLoggingReport = { iova: 0x10000n, length: 0x10000n, pageSize: 4096 };
  const bitmap = Buffer.of(0b1100_0001, 0b11, 0, 0, 0, 0, 0, 0);
  const onWire = (b: readonly number[] | Buffer = bitmap): Wire => loggingReport(0x10000, 0x10000, 4096, b);
  const reply = (data: Wire, flags = GET | 8): Buffer => payloadOf(deviceFeatureReply({ flags, data }));
  const asked: Decoder<Buffer> = (b, s, e) => decodeDmaLoggingReportReply(b, s, e, report);

  test('the request has room for the bitmap', () => {
    const bytes = payloadOf(deviceFeatureRequest({ flags: GET | 8, data: onWire([]), argsz: 8 + 24 + 8 }));
    expect(encodeDmaLoggingReport(report)).toEqual(bytes);
    expect(decodeDmaLoggingReport(decode(decodeDeviceFeature, bytes).data)).toEqual(report);
  });

  test('the reply is the bitmap', () => {
    expect(encodeDmaLoggingReportReply(report, bitmap)).toEqual(reply(onWire()));
    expect(decode(asked, reply(onWire()))).toEqual(bitmap);
  });

  test('a round trip keeps every page', () => {
    const pages = fc.tuple(
      fc.integer({ min: 0, max: 300 }),
      fc.uint8Array({ minLength: 48, maxLength: 48 }),
      pageSizes(),
    );
    fc.assert(
      fc.property(pages, ([count, random, pageSize]) => {
        const asked = { iova: 0n, length: BigInt(count) * BigInt(pageSize), pageSize };
        const sent = Buffer.from(random).subarray(0, dirtyBitmapSize(asked.length, pageSize));
        for (let bit = count; bit < sent.length * 8; bit++) {
          const at = bit >> 3;
          sent.writeUInt8((sent[at] ?? 0) & ~(1 << (bit & 7)), at);
        }
        const bytes = encodeDmaLoggingReportReply(asked, sent);
        expect(decode((b, s, e) => decodeDmaLoggingReportReply(b, s, e, asked), bytes)).toEqual(sent);
      }),
    );
  });

  test.each<[string, Wire, RegExp]>([
    ['another address', loggingReport(0x20000, 0x10000, 4096, bitmap), /it is about 65536 bytes at 0x20000/],
    [
      'another length',
      loggingReport(0x10000, 0xf000, 4096, bitmap),
      /61440 bytes .*, 65536 bytes at 0x10000/,
    ],
    [
      'another page size',
      loggingReport(0x10000, 0x10000, 8192, bitmap),
      /in pages of 8192, .* in pages of 4096/,
    ],
    ['a page size of 0', loggingReport(0x10000, 0x10000, 0, bitmap), /page_size is 0/],
    ['memory past the end', loggingReport(TOP - 1n, 2, 4096, bitmap), /run past the 64-bit address space/],
    ['no bitmap', onWire([]), /the payload is 0 bytes, the bitmap is exactly 8/],
    ['a byte too few', onWire(bitmap.subarray(0, 7)), /the payload is 7 bytes/],
    ['a byte too many', onWire(Buffer.concat([bitmap, Buffer.of(0)])), /the payload is 9 bytes/],
    ['a page behind the last', onWire([0, 0, 1, 0, 0, 0, 0, 0]), /the bitmap has bits outside the range/],
    [
      'the last bit of the word',
      onWire([0, 0, 0, 0, 0, 0, 0, 0x80]),
      /the bitmap has bits outside the range/,
    ],
  ])('%s is refused', (_name, data, words) => {
    expectRefused(asked, reply(data), words);
  });

  test('another reply, and a cut one, is refused', () => {
    expectRefused(asked, reply(onWire(), GET | 1), /flags say GET MIGRATION/);
    expectEveryCutRefused(asked, reply(onWire()));
    expectOnlyProtocolErrors(asked, reply(onWire()));
  });

  test('a request that is not 24 bytes is refused', () => {
    for (const length of [0, 23, 25, 32]) {
      const cut: Decoder<DmaLoggingReport> = (b, s, e) => decodeDmaLoggingReport(b.subarray(s, e));
      expectRefused(cut, Buffer.alloc(length), /DMA_LOGGING_REPORT: the payload is \d+ bytes/);
    }
  });

  test('misuse', () => {
    expect(() => encodeDmaLoggingReport({ ...report, pageSize: 3 })).toThrow(RangeError);
    expect(() => encodeDmaLoggingReport({ ...report, length: TOP })).toThrow(RangeError);
    expect(() => encodeDmaLoggingReport({ iova: 0n, length: TOP, pageSize: 1 })).toThrow(RangeError);
    expect(() => encodeDmaLoggingReportReply(report, Buffer.alloc(16))).toThrow(RangeError);
  });
});
