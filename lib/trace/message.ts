/** A message on its way, as a tap saw it or as a capture has it. */

/** `sent` by whoever traces or captures, `received` by them. Through a proxy the client is who sends. */
export type Direction = 'sent' | 'received';

export interface TracedMessage {
  /** The name of the socket that it went through. */
  readonly socket: string;
  readonly direction: Direction;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  /** The whole message from its header on; less than `size` where not all of it was there to be taken. */
  readonly bytes: Buffer;
  /** Bytes of the message on the wire. */
  readonly size: number;
  /** The numbers of its fds, as they were in the process that traced. */
  readonly fds: readonly number[];
}

/** Between `process.hrtime` and 1970. Taken once: times of one process keep their distances whatever the clock does. */
const EPOCH_OFFSET = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

/** Nanoseconds since 1970, by a clock that never goes back. */
export function now(): bigint {
  return process.hrtime.bigint() + EPOCH_OFFSET;
}
