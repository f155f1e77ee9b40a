/** What a connection counts. Nothing is decided by it. */
import type { SpinState } from '../transport/index.js';

/** What a connection has done until a moment, and what waits then. */
export interface Counters {
  /** Messages sent, replies to the server's requests included. */
  readonly sent: number;
  /** Messages received. */
  readonly received: number;
  /** Bytes of the messages sent, headers included. */
  readonly bytesSent: number;
  /** Bytes of the messages received, headers included. */
  readonly bytesReceived: number;
  /** Commands that wait for their replies. */
  readonly inFlight: number;
  /** Messages that wait for room in flight. */
  readonly queued: number;
  /** Replies that came after their call had been given up. */
  readonly late: number;
  /** Calls that were given up and whose replies have not come. */
  readonly tombstones: number;
  /** Replies that no call waited for; dropped. */
  readonly unknown: number;
  /** Error replies to posted writes, whose callers cannot be told. */
  readonly postedErrors: number;
  /** The server's requests that were answered with success. */
  readonly served: number;
  /** The server's requests that were answered with an error. */
  readonly refused: number;
}

/** What a device's connection has done until a moment, as `Device.counters` gives it: a snapshot. */
export interface DeviceCounters extends Counters {
  /** How long waits spun then. */
  readonly spin: SpinState;
}

/** The part of `Counters` that only grows. */
export class Statistics {
  sent = 0;
  received = 0;
  bytesSent = 0;
  bytesReceived = 0;
  late = 0;
  unknown = 0;
  postedErrors = 0;
  served = 0;
  refused = 0;

  countSent(bytes: number): void {
    this.sent++;
    this.bytesSent += bytes;
  }

  countReceived(bytes: number): void {
    this.received++;
    this.bytesReceived += bytes;
  }
}
