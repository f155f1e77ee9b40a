/**
 * Every decoder of the codec, the input's first byte says which. A payload is decoded or refused with a ProtocolError,
 * the same whatever bytes stand around it; and what was decoded is still the same after it was encoded and decoded again.
 */
import { isDeepStrictEqual } from 'node:util';
import { ProtocolError } from '../../lib/errors.js';
import * as protocol from '../../lib/protocol/index.js';
import { promise, type Target } from '../engine/target.js';

type Decoder = (bytes: Buffer, start: number, end: number) => unknown;

const ofData =
  (decode: (data: Buffer) => unknown): Decoder =>
  (bytes, start, end) =>
    decode(bytes.subarray(start, end));

/** In this order for good: the corpus counts on it. */
const DECODERS: readonly Decoder[] = [
  protocol.decodeVersion,
  protocol.decodeDeviceInfo,
  (bytes, start, end) => protocol.decodeRegionInfo(bytes, start, end, 0),
  (bytes, start, end) => protocol.decodeIrqInfo(bytes, start, end, 0),
  (bytes, start, end) => protocol.decodeRegionIoFds(bytes, start, end, 0),
  protocol.decodeDmaUnmapReply,
  protocol.decodeDirtyPagesReply,
  protocol.decodeDmaLoggingStartReply,
  (bytes, start, end) => {
    const asked = { iova: 0n, length: 1n << 20n, pageSize: 4096 };
    return protocol.decodeDmaLoggingReportReply(bytes, start, end, asked);
  },
  (bytes, start, end) => protocol.decodeDeviceFeatureReply(bytes, start, end, 2, 0x10000),
  (bytes, start, end) => protocol.decodeMigStateReply(bytes, start, end, protocol.DEVICE_FEATURE_GET),
  protocol.decodeMigrationReply,
  (bytes, start, end) => protocol.decodeMigDataReadReply(bytes, start, end, 64),
  protocol.decodeRegionRead,
  protocol.decodeRegionWrite,
  protocol.decodeRegionWriteMultiReply,
  protocol.decodeDmaAccess,
  protocol.decodeDmaRead,
  protocol.decodeDmaWrite,
  (bytes, start, end) => protocol.checkRegionReadReply(bytes, start, end, 0, 0, 4),
  (bytes, start, end) => protocol.checkRegionWriteReply(bytes, start, end, 0, 0, 4),
  protocol.checkDmaLoggingStopReply,
  protocol.decodeGetInfo,
  protocol.decodeGetRegionInfo,
  protocol.decodeGetIrqInfo,
  protocol.decodeGetRegionIoFds,
  protocol.decodeSetIrqs,
  protocol.decodeDmaMap,
  protocol.decodeDmaUnmap,
  protocol.decodeDirtyPages,
  protocol.decodeRegionWriteMulti,
  protocol.decodeMigDataRead,
  protocol.decodeMigDataWrite,
  protocol.decodeDeviceFeature,
  ofData((data) => protocol.decodeMigState(data)),
  ofData((data) => protocol.decodeDmaLogging(data)),
  ofData((data) => protocol.decodeDmaLoggingReport(data)),
  (bytes, start, end) => (end - start < protocol.HEADER_SIZE ? [] : protocol.decodeHeader(bytes, start)),
];

/** What these decode comes out again as it went in. */
const ENCODERS = new Map<Decoder, (value: never) => Buffer>([
  [protocol.decodeDeviceInfo, protocol.encodeDeviceInfo],
  [protocol.decodeDmaMap, protocol.encodeDmaMap],
  [protocol.decodeSetIrqs, protocol.encodeSetIrqs],
]);

/** The payload in the middle of other bytes, which are overwritten before the result is looked at. */
function decodeWithin(decoder: Decoder, payload: Buffer, around: number): unknown {
  const bytes = Buffer.alloc(payload.length + 64, around);
  payload.copy(bytes, 5);
  try {
    return decoder(bytes, 5, 5 + payload.length);
  } catch (error) {
    if (error instanceof ProtocolError) return { refused: error.message };
    throw error;
  } finally {
    bytes.fill(0xdd);
  }
}

export const codec: Target = {
  name: 'codec',
  run(input) {
    const decoder = DECODERS[(input[0] ?? 0) % DECODERS.length]!;
    const payload = input.subarray(1);
    const first = decodeWithin(decoder, payload, 0x00);
    const second = decodeWithin(decoder, payload, 0xff);
    promise(isDeepStrictEqual(first, second), 'a decoder looks at bytes outside of the payload');
    const encode = ENCODERS.get(decoder);
    if (encode === undefined || typeof first !== 'object' || first === null || 'refused' in first) return;
    const again = decodeWithin(decoder, encode(first as never), 0x00);
    promise(isDeepStrictEqual(again, first), 'what was decoded is another thing once encoded');
  },
};
