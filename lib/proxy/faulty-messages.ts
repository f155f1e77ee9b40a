/**
 * Faults of the device, where a proxy sees it: at the messages of a client. What a fault changes in an answer is remembered from
 * the request on, so that faults happen in the order in which things are asked for.
 */
import type { DeviceFaults, DmaOutcome, FaultClient } from '../faults/index.js';
import { ProtocolError } from '../errors.js';
import {
  Command,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  REGION_FLAG_CAPS,
  REGION_FLAG_MMAP,
} from '../protocol/constants.js';
import { DMA_ACCESS_SIZE, decodeDmaRead, decodeDmaWrite } from '../protocol/dma-access.js';
import { decodeDmaMap } from '../protocol/dma-map.js';
import { headerCommand, headerFlags, headerId, writeHeader } from '../protocol/header.js';
import {
  REGION_ACCESS_SIZE,
  decodeRegionRead,
  decodeRegionWrite,
  writeRegionAccess,
  type RegionAccess,
} from '../protocol/region-access.js';
import { REGION_INFO_SIZE } from '../protocol/region-capabilities.js';
import { REGION_IO_FDS_SIZE } from '../protocol/region-io-fds.js';
import {
  decodeRegionWriteMulti,
  decodeRegionWriteMultiReply,
  encodeRegionWriteMulti,
  encodeRegionWriteMultiReply,
} from '../protocol/region-write-multi.js';
import { ENODEV } from '../system-numbers.js';
import { errorReply, untouched, type FaultedMessage } from './apply-faults.js';

/** Requests whose answers are awaited: ids are 16 bits. The oldest is forgotten where a peer never answers. */
const MOST_AWAITED = 4_096;

const CONCERNED: ReadonlySet<number> = new Set([
  Command.DMA_MAP,
  Command.DEVICE_GET_REGION_INFO,
  Command.DEVICE_GET_REGION_IO_FDS,
  Command.REGION_READ,
  Command.REGION_WRITE,
  Command.REGION_WRITE_MULTI,
  Command.DMA_READ,
  Command.DMA_WRITE,
  Command.DEVICE_RESET,
]);

/** Interrupts of one signal that faults are asked for: a server can count as far as 64 bits go. */
const MOST_ASKED = 1_024;

/** Which way a message goes, and on which socket of the connection. */
export interface MessageWay {
  readonly direction: 'to-server' | 'to-client';
  readonly socket: string;
}

/** What is to be done with the answer to a request: its payload begins at HEADER_SIZE. */
type OnReply = (message: FaultedMessage) => void;

export class FaultyMessages implements FaultClient {
  readonly #faults: DeviceFaults;
  readonly #raise: (irq: number, vector: number) => void;
  readonly #maxMessageBytes: number;
  /** By id: what the client has asked the server, and what the server has asked the client. */
  readonly #ofClient = new Map<number, OnReply>();
  readonly #ofServer = new Map<number, OnReply>();
  /** Which stall each way of each socket has waited for: what follows there waits behind it. */
  readonly #waited = new Map<string, number>();

  constructor(faults: DeviceFaults, maxMessageBytes: number, raise: (irq: number, vector: number) => void) {
    this.#faults = faults;
    this.#maxMessageBytes = maxMessageBytes;
    this.#raise = raise;
  }

  signal(irq: number, vector: number): void {
    this.#raise(irq, vector);
  }

  /** The client may be answered from now on. */
  open(): void {
    this.#faults.attach(this);
  }

  close(): void {
    this.#faults.detach(this);
  }

  /** What an interrupt of the server's becomes: `pass` lets it through, so often. */
  interrupt(irq: number, vector: number, count: number, pass: (count: number) => void): void {
    const asked = Math.min(count, MOST_ASKED);
    let now = 0;
    let last = 0;
    for (let i = 0; i < asked; i++) {
      const { signals, delayMs } = this.#faults.interrupt(irq, vector);
      last = delayMs === 0 ? signals : 0;
      now += last;
      if (delayMs > 0 && signals > 0) this.#faults.later(this, delayMs, () => pass(signals));
    }
    // What is more goes as the last one does.
    if (last > 0) now += count - asked;
    if (now > 0) pass(now);
  }

  /** What happens to a message; undefined where nothing does. */
  meet(
    { direction, socket }: MessageWay,
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[],
  ): FaultedMessage | undefined {
    const { stalls } = this.#faults;
    const way = `${direction} ${socket}`;
    const stallMs = (this.#waited.get(way) ?? 0) === stalls ? 0 : this.#faults.stallMs;
    const command = headerCommand(bytes, start);
    if (stallMs === 0 && !CONCERNED.has(command)) return undefined;
    const message = untouched(Buffer.from(bytes.subarray(start, end)), fds);
    if (stallMs > 0) this.#delay(way, message, stallMs);
    const isReply = (headerFlags(bytes, start) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY;
    try {
      if (isReply) this.#reply(direction, message);
      else if (direction === 'to-server') this.#clientAsks(message, command, way);
      else this.#serverAsks(message, command);
    } catch (error) {
      // What is wrong with a message is its receiver's to say.
      if (!(error instanceof ProtocolError)) throw error;
    }
    return message;
  }

  #delay(way: string, message: FaultedMessage, ms: number): void {
    if (ms === 0) return;
    message.delayMs = Math.max(message.delayMs, Math.ceil(ms));
    this.#waited.set(way, this.#faults.stalls);
  }

  #reply(direction: 'to-server' | 'to-client', message: FaultedMessage): void {
    const { bytes } = message;
    const waiting = direction === 'to-client' ? this.#ofClient : this.#ofServer;
    const id = headerId(bytes, 0);
    const onReply = waiting.get(id);
    if (onReply === undefined) return;
    waiting.delete(id);
    if ((headerFlags(bytes, 0) & HEADER_FLAG_ERROR) === 0) onReply(message);
  }

  #await(waiting: Map<number, OnReply>, message: FaultedMessage, onReply: OnReply): void {
    const [oldest] = waiting.size >= MOST_AWAITED ? waiting.keys() : [];
    if (oldest !== undefined) waiting.delete(oldest);
    waiting.set(headerId(message.bytes, 0), onReply);
  }

  #clientAsks(message: FaultedMessage, command: number, way: string): void {
    const { bytes } = message;
    // An id that is used again: what was remembered of it was never answered.
    this.#ofClient.delete(headerId(bytes, 0));
    switch (command) {
      case Command.REGION_READ:
        return this.#read(message, way, decodeRegionRead(bytes, HEADER_SIZE, bytes.length));
      case Command.REGION_WRITE:
        return this.#write(message, way, decodeRegionWrite(bytes, HEADER_SIZE, bytes.length));
      case Command.REGION_WRITE_MULTI:
        return this.#writeMulti(message, way);
      case Command.DEVICE_GET_REGION_INFO:
        return this.#await(this.#ofClient, message, (reply) => this.#hideMemory(reply));
      case Command.DEVICE_GET_REGION_IO_FDS:
        return this.#await(this.#ofClient, message, (reply) => this.#hideIoFds(reply));
      case Command.DMA_MAP:
        return this.#keepMemory(message);
      case Command.DEVICE_RESET:
        if (!this.#faults.isRemoved) return;
        message.isDropped = true;
        message.answer = errorReply(bytes, ENODEV);
        return note(message, 'the device was removed');
      default:
    }
  }

  #read(message: FaultedMessage, way: string, access: RegionAccess): void {
    const { region, offset, count } = access;
    const outcome = this.#faults.access('read', region, offset, count);
    note(message, outcome.note);
    if (outcome.isOver) message.disconnectAfter = 0;
    this.#delay(way, message, outcome.stallMs);
    if (outcome.isCut && count <= this.#maxMessageBytes) {
      this.#answer(message, access, Buffer.alloc(count, 0xff));
    } else if (outcome.change !== undefined) {
      const { change } = outcome;
      this.#await(this.#ofClient, message, (reply) => {
        change(reply.bytes.subarray(HEADER_SIZE + REGION_ACCESS_SIZE));
        note(reply, outcome.note);
      });
    }
  }

  #write(message: FaultedMessage, way: string, access: RegionAccess): void {
    const outcome = this.#faults.access('write', access.region, access.offset, access.count);
    note(message, outcome.note);
    if (outcome.isOver) message.disconnectAfter = 0;
    this.#delay(way, message, outcome.stallMs);
    if (outcome.isCut) this.#answer(message, access, undefined);
  }

  /** In the place of the server: what was read, or that it was written. */
  #answer(message: FaultedMessage, { offset, region, count }: RegionAccess, data: Buffer | undefined): void {
    message.isDropped = true;
    note(message, message.note === '' ? 'the link is down' : undefined);
    const head = Buffer.alloc(HEADER_SIZE + REGION_ACCESS_SIZE);
    writeRegionAccess(head, HEADER_SIZE, offset, region, count);
    message.answer = goodReply(message.bytes, data === undefined ? head : Buffer.concat([head, data]));
  }

  /** Some of its writes may be lost: the server hears of the others, and the client of all. */
  #writeMulti(message: FaultedMessage, way: string): void {
    const { bytes } = message;
    const writes = decodeRegionWriteMulti(bytes, HEADER_SIZE, bytes.length);
    const kept: number[] = [];
    for (const [i, { region, offset, data }] of writes.entries()) {
      const outcome = this.#faults.access('write', region, offset, data.length);
      note(message, outcome.note);
      if (outcome.isOver) message.disconnectAfter = 0;
      this.#delay(way, message, outcome.stallMs);
      if (!outcome.isCut) kept.push(i);
    }
    if (kept.length === writes.length) return;
    const withCount = (count: number): Buffer =>
      Buffer.concat([Buffer.alloc(HEADER_SIZE), encodeRegionWriteMultiReply({ count })]);
    if (kept.length === 0) {
      message.isDropped = true;
      message.answer = goodReply(bytes, withCount(writes.length));
      return;
    }
    const payload = encodeRegionWriteMulti(writes.filter((_, i) => kept.includes(i)));
    message.bytes = resized(bytes, Buffer.concat([bytes.subarray(0, HEADER_SIZE), payload]));
    this.#await(this.#ofClient, message, (reply) => {
      const { count } = decodeRegionWriteMultiReply(reply.bytes, HEADER_SIZE, reply.bytes.length);
      const done = kept[count] ?? writes.length;
      reply.bytes.set(encodeRegionWriteMultiReply({ count: done }), HEADER_SIZE);
    });
  }

  /** Accesses to mapped memory are seen by nobody: a region that faults are for is not mapped. */
  #hideMemory(reply: FaultedMessage): void {
    const { bytes } = reply;
    if (bytes.length < HEADER_SIZE + REGION_INFO_SIZE) return;
    const flags = bytes.readUInt32LE(HEADER_SIZE + 4);
    if (!this.#faults.plan.watches(bytes.readUInt32LE(HEADER_SIZE + 8)) || (flags & REGION_FLAG_MMAP) === 0)
      return;
    reply.bytes = resized(bytes, Buffer.from(bytes.subarray(0, HEADER_SIZE + REGION_INFO_SIZE)));
    reply.bytes.writeUInt32LE(REGION_INFO_SIZE, HEADER_SIZE);
    reply.bytes.writeUInt32LE((flags & ~(REGION_FLAG_MMAP | REGION_FLAG_CAPS)) >>> 0, HEADER_SIZE + 4);
    reply.bytes.writeUInt32LE(0, HEADER_SIZE + 12);
    withhold(reply);
  }

  #hideIoFds(reply: FaultedMessage): void {
    const { bytes } = reply;
    if (bytes.length < HEADER_SIZE + REGION_IO_FDS_SIZE) return;
    if (!this.#faults.plan.watches(bytes.readUInt32LE(HEADER_SIZE + 8))) return;
    reply.bytes = resized(bytes, Buffer.from(bytes.subarray(0, HEADER_SIZE + REGION_IO_FDS_SIZE)));
    reply.bytes.writeUInt32LE(REGION_IO_FDS_SIZE, HEADER_SIZE);
    reply.bytes.writeUInt32LE(0, HEADER_SIZE + 12);
    withhold(reply);
  }

  /** DMA to memory that is shared is seen by nobody. */
  #keepMemory(message: FaultedMessage): void {
    const { bytes, fds } = message;
    const { address, size } = decodeDmaMap(bytes, HEADER_SIZE, bytes.length);
    if (fds.length === 0 || !this.#faults.plan.watchesDma(address, BigInt(size))) return;
    withhold(message);
    note(message, 'DMA is watched: the memory is not shared');
  }

  #serverAsks(message: FaultedMessage, command: number): void {
    const { bytes } = message;
    if (command !== Command.DMA_READ && command !== Command.DMA_WRITE) return;
    this.#ofServer.delete(headerId(bytes, 0));
    const isRead = command === Command.DMA_READ;
    const decode = isRead ? decodeDmaRead : decodeDmaWrite;
    const { address, count } = decode(bytes, HEADER_SIZE, bytes.length);
    const outcome = this.#faults.dma(isRead ? 'read' : 'write', address, count);
    note(message, outcome.note);
    if (outcome.errno !== undefined) {
      message.isDropped = true;
      message.answer = errorReply(bytes, outcome.errno);
      return;
    }
    message.delayMs += outcome.delayMs;
    if (!isRead) outcome.corrupt?.(bytes.subarray(HEADER_SIZE + DMA_ACCESS_SIZE));
    this.#changeDma(message, address, isRead, outcome);
  }

  /** The server is answered as though it had asked what it meant to. */
  #changeDma(
    message: FaultedMessage,
    meant: bigint,
    isRead: boolean,
    { address, corrupt }: DmaOutcome,
  ): void {
    if (address === meant && (!isRead || corrupt === undefined)) return;
    message.bytes.writeBigUInt64LE(address, HEADER_SIZE);
    this.#await(this.#ofServer, message, ({ bytes }) => {
      if (bytes.length < HEADER_SIZE + DMA_ACCESS_SIZE) return;
      bytes.writeBigUInt64LE(meant, HEADER_SIZE);
      if (isRead) corrupt?.(bytes.subarray(HEADER_SIZE + DMA_ACCESS_SIZE));
    });
  }
}

function note(message: FaultedMessage, text: string | undefined): void {
  if (text !== undefined) message.note = message.note === '' ? text : `${message.note}; ${text}`;
}

/** The message goes without its fds. */
function withhold(message: FaultedMessage): void {
  message.withheld = [...message.withheld, ...message.fds];
  message.fds = [];
}

/** A good answer to a request, whose header goes into the first bytes; undefined where none is wanted. */
function goodReply(request: Buffer, reply: Buffer): Buffer | undefined {
  if ((headerFlags(request, 0) & HEADER_FLAG_NO_REPLY) !== 0) return undefined;
  const [id, command] = [headerId(request, 0), headerCommand(request, 0)];
  writeHeader(reply, 0, id, command, reply.length, HEADER_FLAG_REPLY, 0);
  return reply;
}

/** The same header, with the size that the message has now. */
function resized(of: Buffer, bytes: Buffer): Buffer {
  writeHeader(bytes, 0, headerId(of, 0), headerCommand(of, 0), bytes.length, headerFlags(of, 0), 0);
  return bytes;
}
