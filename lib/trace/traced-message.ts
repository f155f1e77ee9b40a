/** A message on its way, as a tap saw it or as a capture has it. */

/** `sent` or `received` by the process that traces. In a proxy's trace the client sends. */
export type Direction = 'sent' | 'received';

/** A message as it went over a socket. */
export interface TracedMessage {
  /** The name of the socket that it went through. */
  readonly socket: string;
  /** Which way it went. */
  readonly direction: Direction;
  /** When, in nanoseconds since 1970. */
  readonly time: bigint;
  /** The whole message from its header on; less than `size` where not all of it was there to be taken. */
  readonly bytes: Buffer;
  /** Bytes of the message on the wire. */
  readonly size: number;
  /** The numbers of its fds, as they were in the process that traced. */
  readonly fds: readonly number[];
  /** A note on the message: a proxy's faults. */
  readonly note?: string;
}

/** An interrupt, seen at its eventfd. It is no message, so only the client's trace and capture have it. */
export interface TracedInterrupt {
  /** The name of the socket that the device is on. */
  readonly socket: string;
  /** When its count was read, in nanoseconds since 1970: a little later than the server signalled it. */
  readonly time: bigint;
  /** `PciIrq` numbers for a PCI device. */
  readonly index: number;
  /** The interrupt's number within the index. */
  readonly subindex: number;
  /** The eventfd's count: one may stand for several interrupts. */
  readonly count: number;
}

/** What a capture has. A message has `bytes`. */
export type TracedEvent = TracedMessage | TracedInterrupt;

/** Whether the event is a message, and not an interrupt. */
export function isMessage(event: TracedEvent): event is TracedMessage {
  return 'bytes' in event;
}

/** Between `process.hrtime` and 1970. Taken once: times of one process keep their distances whatever the clock does. */
const EPOCH_OFFSET = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

/** Nanoseconds since 1970, by a clock that never goes back. */
export function now(): bigint {
  return process.hrtime.bigint() + EPOCH_OFFSET;
}
