/**
 * Traffic as objects and as lines of text; captures written and read.
 *
 * ```ts
 * const device = await connect('/tmp/edu.sock', { trace: true, capture: 'edu.pcapng' });
 * for await (const message of new CaptureReader('edu.pcapng')) console.log(describe(message.bytes).command);
 * ```
 * @packageDocumentation
 */
export { VfioUserError } from '../errors.js';
export type { MessageTap } from '../transport/message-tap.js';
export type { OutgoingMessage } from '../transport/transport.js';
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
  type TraceRegisters,
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
