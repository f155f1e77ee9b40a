/** One socket of a connection: a transport, what leaves through it, and what is counted of both. */
import type { VfioUserError } from '../errors.js';
import type { Landing, Transport, TransportHandler } from '../transport/index.js';
import type { Counters } from './counters.js';
import { Outbox } from './outbox.js';

/** Answers that wait in the outbox beyond this stop us reading: a server that asks and does not listen gets no more. */
const OUTBOX_HIGH_WATER = 4 << 20;

/** What a channel hands to its connection. */
export interface ChannelHandler {
  onMessage(channel: Channel, bytes: Buffer, start: number, end: number, fds: number[] | undefined): void;
  findLanding(channel: Channel, bytes: Buffer, start: number): Landing | undefined;
  onLanded(channel: Channel, bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void;
  onEnd(channel: Channel, reason: VfioUserError): void;
}

export class Channel implements TransportHandler {
  readonly transport: Transport;
  readonly outbox: Outbox;
  readonly #handler: ChannelHandler;
  readonly #counters: Counters;
  #reading = true;

  constructor(open: (handler: TransportHandler) => Transport, handler: ChannelHandler, counters: Counters) {
    this.#handler = handler;
    this.#counters = counters;
    this.transport = open(this);
    this.outbox = new Outbox(this.transport);
  }

  /** See `Outbox.send`. */
  send(
    owner: object | undefined,
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    fds: readonly number[] | null,
    stable: boolean,
  ): void {
    this.#counters.sent++;
    this.#counters.bytesSent += headLength + (body === null ? 0 : body.byteLength);
    this.outbox.send(owner, head, headLength, body, fds, stable);
    if (this.#reading && this.outbox.bytes > OUTBOX_HIGH_WATER) this.#setReading(false);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    this.#counters.received++;
    this.#counters.bytesReceived += end - start;
    this.#handler.onMessage(this, bytes, start, end, fds);
  }

  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.#handler.findLanding(this, bytes, start);
  }

  onLanded(bytes: Buffer, start: number, landing: Landing, fds: number[] | undefined): void {
    this.#counters.received++;
    this.#counters.bytesReceived += bytes.readUInt32LE(start + 4);
    this.#handler.onLanded(this, bytes, start, landing, fds);
  }

  onWritable(): void {
    this.outbox.flush();
    if (!this.#reading && this.outbox.bytes <= OUTBOX_HIGH_WATER) this.#setReading(true);
  }

  onEnd(reason: VfioUserError): void {
    this.#handler.onEnd(this, reason);
  }

  close(): void {
    this.outbox.clear();
    this.transport.close();
  }

  #setReading(on: boolean): void {
    this.#reading = on;
    this.transport.setReading(on);
  }
}
