/** What went through, for summaries. */

/** One way. */
export interface WayCounters {
  /** Whole messages. */
  messages: number;
  /** Bytes, those of headers included. */
  bytes: number;
  /** File descriptors that were passed on. */
  fds: number;
  /** Those that ended here, since the other side takes none. */
  droppedFds: number;
}

export function newWayCounters(): WayCounters {
  return { messages: 0, bytes: 0, fds: 0, droppedFds: 0 };
}

export function addTo(sum: WayCounters, more: WayCounters): void {
  sum.messages += more.messages;
  sum.bytes += more.bytes;
  sum.fds += more.fds;
  sum.droppedFds += more.droppedFds;
}
