/** What a packet of a capture is, whichever format the capture has: the layout of its data is at the top of pcapng.ts. */
import { Command, HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK, HEADER_SIZE } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { CaptureError } from './capture-error.js';
import type { Direction, TracedEvent, TracedInterrupt } from './traced-message.js';
import {
  DIRECTION_INBOUND,
  DIRECTION_MASK,
  DISSECTOR,
  INTERRUPT_DISSECTOR,
  INTERRUPT_SIZE,
  PDU_TAG_DISSECTOR,
  PDU_TAG_END,
} from './pcapng.js';

/** A packet as its file has it. */
export interface Packet {
  /** The name of its socket. */
  socket: string;
  /** Nanoseconds since 1970; 0n where the file does not say. */
  time: bigint;
  /** As much as was captured. */
  data: Buffer;
  /** Bytes that there were. */
  size: number;
  /** Where in the file it stands. */
  offset: number;
  /** pcapng's packet flags; 0 where there are none. */
  flags: number;
  fds: readonly number[];
  note: string | undefined;
}

const OURS: ReadonlySet<string> = new Set([DISSECTOR, INTERRUPT_DISSECTOR]);

/** The message or the interrupt that a packet is, undefined where it is of another protocol. @throws CaptureError */
export function eventOf(packet: Packet): TracedEvent | undefined {
  const { socket, time, data, size, offset, flags, fds, note } = packet;
  const found = messageStart(data);
  if (found === undefined) return undefined;
  const { dissector, start } = found;
  const bytes = data.subarray(start);
  if (dissector === INTERRUPT_DISSECTOR) return interruptOf(socket, time, bytes, offset);
  return {
    socket,
    direction: directionOf(flags, bytes),
    time,
    bytes,
    size: Math.max(bytes.length, size - start),
    fds,
    ...(note !== undefined && { note }),
  };
}

/** Where the flags do not say it: clients ask and hear replies, but for what servers ask of a client's memory. */
function directionOf(flags: number, bytes: Buffer): Direction {
  const direction = flags & DIRECTION_MASK;
  if (direction !== 0) return direction === DIRECTION_INBOUND ? 'received' : 'sent';
  if (bytes.length < HEADER_SIZE) return 'sent';
  const isReply = (headerFlags(bytes, 0) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY;
  const command = headerCommand(bytes, 0);
  const isServers = command === Command.DMA_READ || command === Command.DMA_WRITE;
  return isReply === isServers ? 'sent' : 'received';
}

function interruptOf(socket: string, time: bigint, bytes: Buffer, offset: number): TracedInterrupt {
  if (bytes.length !== INTERRUPT_SIZE) {
    throw new CaptureError(`an interrupt of ${bytes.length} bytes, not ${INTERRUPT_SIZE}`, offset);
  }
  const count = bytes.readBigUInt64LE(8);
  if (count === 0n || count > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new CaptureError(`an interrupt with a count of ${count}`, offset);
  }
  return {
    socket,
    time,
    index: bytes.readUInt32LE(0),
    subindex: bytes.readUInt32LE(4),
    count: Number(count),
  };
}

interface MessageStart {
  dissector: string;
  start: number;
}

/** Where the message begins in a packet of tags and message; undefined where the tags are another dissector's. */
function messageStart(data: Buffer): MessageStart | undefined {
  let dissector = '';
  for (let at = 0; at + 4 <= data.length;) {
    const tag = data.readUInt16BE(at);
    const value = at + 4;
    const next = value + data.readUInt16BE(at + 2);
    if (tag === PDU_TAG_END) return OURS.has(dissector) ? { dissector, start: value } : undefined;
    if (next > data.length) return undefined;
    if (tag === PDU_TAG_DISSECTOR) dissector = nameOf(data.subarray(value, next));
    at = next;
  }
  return undefined;
}

/** The name is padded with NULs. */
function nameOf(name: Buffer): string {
  const nul = name.indexOf(0);
  return name.toString('latin1', 0, nul === -1 ? name.length : nul);
}
