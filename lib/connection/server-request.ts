/** Commands that the server sends to us, and the way to answer them. */
import { EINVAL } from '../system-numbers.js';
import {
  HEADER_FLAG_ERROR,
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_SIZE,
} from '../protocol/constants.js';
import { headerCommand, headerFlags, headerId, writeHeader } from '../protocol/header.js';
import type { Landing } from '../transport/index.js';
import { REQUEST_COST, type Channel } from './channel.js';
import type { Statistics } from './counters.js';

const FLAGS_REPLY = HEADER_FLAG_REPLY;
const FLAGS_ERROR_REPLY = HEADER_FLAG_REPLY | HEADER_FLAG_ERROR;

/** Serves what the server asks. It answers through the request: with data at once, with an errno also later. */
export interface RequestHandler {
  /** With a landing, `findLanding`'s, the payload stops at LANDING_PREFIX and the rest is there. */
  serve(request: ServerRequest, landing: Landing | undefined): void;
  /**
   * Not all of a command has come; its first LANDING_PREFIX bytes stand at `start`. Memory for exactly the bytes behind
   * them, or undefined to have it served whole.
   */
  findLanding?(bytes: Buffer, start: number): Landing | undefined;
}

export class ServerRequest {
  readonly command: number;
  readonly id: number;
  /** The payload is `bytes[start, end)`, valid until `serve` returns. */
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  readonly #channel: Channel;
  readonly #statistics: Statistics;
  /** A reply is still due; a command with No_reply wants none. */
  #isOwed: boolean;

  constructor(channel: Channel, statistics: Statistics, bytes: Buffer, start: number, end: number) {
    this.#channel = channel;
    this.#statistics = statistics;
    this.command = headerCommand(bytes, start);
    this.id = headerId(bytes, start);
    this.bytes = bytes;
    this.start = start + HEADER_SIZE;
    this.end = end;
    this.#isOwed = (headerFlags(bytes, start) & HEADER_FLAG_NO_REPLY) === 0;
  }

  /**
   * Answers with the first `length` bytes of the payload (at most 48), as they came, and then `body`; for use within
   * `serve`. What cannot go out at once of a `stable` body is sent from its memory later (see
   * `Connection.copyLentBodies`), of any other from a copy. Later answers are ignored.
   */
  echo(length: number, body: Uint8Array | null, stable: boolean): void {
    this.#answer(this.bytes, this.start, length, body, stable);
  }

  /** `echo` of a copy of the payload's beginning, so that it works after `serve` has returned. */
  reply(prefix: Buffer, body: Uint8Array | null): void {
    this.#answer(prefix, 0, prefix.length, body, true);
  }

  /** Answers with an errno: a bare header, since servers leave a payload of an error reply undrained. */
  refuse(errno: number): void {
    this.#statistics.refused++;
    if (!this.#isOwed) return;
    this.#isOwed = false;
    const head = this.#channel.replyHead;
    writeHeader(head, 0, this.id, this.command, HEADER_SIZE, FLAGS_ERROR_REPLY, errno);
    this.#channel.send(undefined, { head, headLength: HEADER_SIZE, body: null, fds: null }, true);
  }

  #answer(from: Buffer, at: number, length: number, body: Uint8Array | null, stable: boolean): void {
    this.#statistics.served++;
    if (!this.#isOwed) return;
    this.#isOwed = false;
    const head = this.#channel.replyHead;
    const size = HEADER_SIZE + length + (body === null ? 0 : body.length);
    writeHeader(head, 0, this.id, this.command, size, FLAGS_REPLY, 0);
    from.copy(head, HEADER_SIZE, at, at + length);
    this.#channel.send(undefined, { head, headLength: HEADER_SIZE + length, body, fds: null }, stable);
  }
}

/** Has the server's requests served. */
export class ServerRequests {
  readonly #statistics: Statistics;
  /** How deep we are in handlers: one that blocks serves others. */
  #depth = 0;
  /** Without one every request is refused. */
  handler: RequestHandler | undefined;

  constructor(statistics: Statistics) {
    this.#statistics = statistics;
  }

  /** A request is being served by the code that is running. */
  get isServing(): boolean {
    return this.#depth > 0;
  }

  /** See `RequestHandler.findLanding`. */
  findLanding(bytes: Buffer, start: number): Landing | undefined {
    return this.handler?.findLanding?.(bytes, start);
  }

  /** A request has come on `channel`, in `bytes[start, end)`; see `RequestHandler.serve`. */
  serve(channel: Channel, bytes: Buffer, start: number, end: number, landing: Landing | undefined): void {
    channel.chargeUnsolicited(REQUEST_COST);
    const request = new ServerRequest(channel, this.#statistics, bytes, start, end);
    if (this.handler === undefined) {
      request.refuse(EINVAL);
      return;
    }
    this.#depth++;
    try {
      this.handler.serve(request, landing);
    } finally {
      this.#depth--;
    }
  }
}
