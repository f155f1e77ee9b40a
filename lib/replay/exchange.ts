/**
 * A recorded connection as exchanges: what the client asked, and what the server did about it until it was asked again.
 *
 * ```
 *   in the capture          exchanges
 *   → REGION_WRITE          1  REGION_WRITE: DMA_READ, its answer, the reply, the interrupt
 *   ← DMA_READ
 *   → DMA_READ reply
 *   ← REGION_WRITE reply
 *   ← interrupt
 *   → REGION_READ           2  REGION_READ: the reply
 *   ← REGION_READ reply
 * ```
 * Servers carry commands out one by one. So what a server does while several requests wait belongs to the oldest of
 * them, and what it does while none waits to the last one.
 */
import {
  HEADER_FLAG_NO_REPLY,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import { decodeHeader, headerId, type Header } from '../protocol/header.js';
import {
  CaptureError,
  isMessage,
  type Direction,
  type TracedEvent,
  type TracedInterrupt,
} from '../trace/index.js';
import { MAX_MESSAGE_SIZE } from '../transport/index.js';

/** A message of the recording. */
export interface RecordedMessage {
  /** Which one it is, counted from 1 over all messages and interrupts, as `capture show` prints them. */
  number: number;
  /** Nanoseconds. */
  time: bigint;
  /** From its header on. */
  bytes: Buffer;
  /** How many fds came with it. */
  fds: number;
}

/** What the server does, or waits for. */
export type Step =
  | { kind: 'reply'; time: bigint; message: RecordedMessage }
  | { kind: 'request'; time: bigint; message: RecordedMessage; answer: RecordedMessage | undefined }
  | { kind: 'answer'; time: bigint; message: RecordedMessage; request: RequestStep }
  | { kind: 'interrupt'; time: bigint; number: number; interrupt: TracedInterrupt };

/** A message or an interrupt of a capture, in its place. */
export interface NumberedEvent {
  /** Counted from 1 over all files, as `capture show` prints their lines. */
  number: number;
  event: TracedEvent;
  /** It went over the socket of the server's own requests. */
  isTwin: boolean;
}

/** A request of the server's: `answer` is what the client replied. */
export type RequestStep = Extract<Step, { kind: 'request' }>;

export interface Exchange {
  request: RecordedMessage;
  steps: Step[];
  /** The server answered it. */
  isAnswered: boolean;
}

/** One way of a connection while its messages are sorted: by id, what has been asked and not been answered. */
type Asked<T> = Map<number, T>;

/**
 * Sorts a connection's events.
 * @throws CaptureError for messages that were not captured whole or contradict their headers, and for replies that
 * answer nothing.
 */
export function exchangesOf(events: readonly NumberedEvent[]): Exchange[] {
  return new Sorter(events).exchanges();
}

class Sorter {
  readonly #events: readonly NumberedEvent[];
  readonly #exchanges: Exchange[] = [];
  /** The exchange that each event begins, or ends. */
  readonly #exchangeAt = new Map<number, Exchange>();
  readonly #requestAt = new Map<number, RequestStep>();

  constructor(events: readonly NumberedEvent[]) {
    this.#events = events;
  }

  exchanges(): Exchange[] {
    this.#pair();
    this.#assign();
    return this.#exchanges;
  }

  /** Finds out which reply belongs to which request. */
  #pair(): void {
    const client = clientDirection(this.#events);
    const asked: Asked<Exchange> = new Map();
    const posted: Asked<Exchange> = new Map();
    const asks: Record<'main' | 'twin', Asked<RequestStep>> = { main: new Map(), twin: new Map() };
    for (const { number, event, isTwin } of this.#events) {
      if (!isMessage(event)) continue;
      const message = { number, time: event.time, bytes: event.bytes, fds: event.fds.length };
      const header = checkedHeader(message, event.size);
      const isReply = (header.flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY;
      const isClients = event.direction === client;
      const socket = asks[isTwin ? 'twin' : 'main'];
      if (!isReply && isClients) {
        const exchange = { request: message, steps: [], isAnswered: false };
        this.#exchanges.push(exchange);
        this.#exchangeAt.set(number, exchange);
        ((header.flags & HEADER_FLAG_NO_REPLY) === 0 ? asked : posted).set(header.id, exchange);
      } else if (!isReply) {
        const request: RequestStep = { kind: 'request', time: event.time, message, answer: undefined };
        this.#requestAt.set(number, request);
        socket.set(header.id, request);
      } else if (isClients) {
        const request = take(socket, message, 'the server');
        request.answer = message;
        this.#requestAt.set(number, request);
      } else {
        // Some servers answer errors even to what wants no reply.
        const exchange = take(asked.has(header.id) ? asked : posted, message, 'the client');
        exchange.isAnswered = true;
        this.#exchangeAt.set(number, exchange);
      }
    }
  }

  /** Gives each step to the exchange that it belongs to. */
  #assign(): void {
    /** In the order in which they were asked. */
    const waiting = new Set<Exchange>();
    const owners = new Map<RequestStep, Exchange>();
    let last: Exchange | undefined;
    for (const { number, event } of this.#events) {
      const exchange = this.#exchangeAt.get(number);
      const request = this.#requestAt.get(number);
      const time = event.time;
      if (exchange !== undefined && exchange.request.number === number) {
        last = exchange;
        if (exchange.isAnswered) waiting.add(exchange);
        continue;
      }
      const owner = exchange ?? waiting.values().next().value ?? last;
      // The first event is the client's VERSION, an exchange.
      if (owner === undefined) continue;
      if (!isMessage(event)) {
        owner.steps.push({ kind: 'interrupt', time, number, interrupt: event });
        continue;
      }
      const message = { number, time, bytes: event.bytes, fds: event.fds.length };
      if (exchange !== undefined) {
        exchange.steps.push({ kind: 'reply', time, message });
        waiting.delete(exchange);
      } else if (request?.message.number === number) {
        owner.steps.push(request);
        owners.set(request, owner);
      } else if (request !== undefined) {
        owners.get(request)?.steps.push({ kind: 'answer', time, message, request });
      }
    }
  }
}

/** Whoever sends VERSION, the connection's first message, is the client. */
function clientDirection(events: readonly NumberedEvent[]): Direction {
  for (const { event } of events) if (isMessage(event)) return event.direction;
  return 'sent';
}

function checkedHeader({ number, bytes }: RecordedMessage, size: number): Header {
  if (bytes.length < size) {
    throw new CaptureError(
      `message ${number} was not captured whole: ${bytes.length} of ${size} bytes. Record without a snap length ` +
        '(no editcap -s), and let reads that time out be answered',
    );
  }
  if (bytes.length < HEADER_SIZE) {
    throw new CaptureError(`message ${number} has ${bytes.length} bytes: a header has ${HEADER_SIZE}`);
  }
  if (bytes.length > MAX_MESSAGE_SIZE) {
    throw new CaptureError(`message ${number} has ${bytes.length} bytes: more than ${MAX_MESSAGE_SIZE}`);
  }
  let header: Header;
  try {
    header = decodeHeader(bytes, 0);
  } catch (cause) {
    throw new CaptureError(`message ${number}: ${(cause as Error).message}`, undefined, { cause });
  }
  if (header.size === bytes.length) return header;
  throw new CaptureError(
    `message ${number} (${commandName(header.command)}) has ${bytes.length} bytes, its header says ${header.size}`,
  );
}

function take<T>(asked: Asked<T>, { number, bytes }: RecordedMessage, who: string): T {
  const id = headerId(bytes, 0);
  const found = asked.get(id);
  if (found === undefined) {
    throw new CaptureError(
      `message ${number} is a reply with id ${id}, and ${who} asked nothing with that id before it`,
    );
  }
  asked.delete(id);
  return found;
}
