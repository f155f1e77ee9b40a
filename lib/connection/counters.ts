import type { SpinState } from '../transport/index.js';

/** What a connection has done so far. */
export interface Counters {
  /** Messages sent, replies to the server's requests included. */
  sent: number;
  /** Messages received. */
  received: number;
  bytesSent: number;
  bytesReceived: number;
  /** Commands that wait for their replies. */
  inFlight: number;
  /** Calls that wait for room in flight. */
  queued: number;
  /** Replies that came after their call had been given up. */
  late: number;
  /** Calls given up whose replies have not come. */
  tombstones: number;
  /** Replies that no call waited for; dropped. */
  unknown: number;
  /** Error replies to posted writes, whose callers cannot be told. */
  postedErrors: number;
  /** The server's requests that were answered with success. */
  served: number;
  /** The server's requests that were answered with an error. */
  refused: number;
}

/** What a device's connection has done until a moment. */
export interface DeviceCounters extends Readonly<Counters> {
  /** How long waits spun then. */
  readonly spin: SpinState;
}

export function countSent(counters: Counters, bytes: number): void {
  counters.sent++;
  counters.bytesSent += bytes;
}

export function countReceived(counters: Counters, bytes: number): void {
  counters.received++;
  counters.bytesReceived += bytes;
}

/** A message and its answer. */
export function countRoundTrip(counters: Counters, sent: number, received: number): void {
  counters.sent++;
  counters.received++;
  counters.bytesSent += sent;
  counters.bytesReceived += received;
}

export function newCounters(): Counters {
  return {
    sent: 0,
    received: 0,
    bytesSent: 0,
    bytesReceived: 0,
    inFlight: 0,
    queued: 0,
    late: 0,
    tombstones: 0,
    unknown: 0,
    postedErrors: 0,
    served: 0,
    refused: 0,
  };
}
