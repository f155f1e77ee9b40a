/**
 * Seeing the traffic, `vfio-user/trace`: messages as objects and lines for people, captures written and read. Where to
 * start: `describe.ts` is what a message says, `trace-tap.ts` how a device's traffic gets here, `pcapng.ts` what a capture is.
 */
export { VfioUserError } from '../errors.js';
export type { MessageTap } from '../transport/message-tap.js';
export { CaptureError } from './capture-error.js';
export { CaptureReader } from './capture-reader.js';
export type { CaptureSource } from './byte-source.js';
export { CaptureWriter, type CaptureOptions } from './capture-writer.js';
export {
  DEFAULT_PREVIEW_BYTES,
  describe,
  type DescribeOptions,
  type Description,
  type FieldValue,
  type Fields,
  type Preview,
} from './describe.js';
export { LatencyTracker } from './latency.js';
export {
  LineFormatter,
  formatDescription,
  formatDuration,
  formatField,
  formatSeconds,
  type LineOptions,
} from './format-line.js';
export {
  isMessage,
  now,
  type Direction,
  type TracedEvent,
  type TracedInterrupt,
  type TracedMessage,
} from './traced-message.js';
export { CAPTURE_WARNING, MESSAGE_CHANNEL, type MessageEvent } from './sinks.js';
export { TraceTap, openTap, type TraceOptions } from './trace-tap.js';
