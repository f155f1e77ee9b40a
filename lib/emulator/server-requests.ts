/**
 * The commands that the server sends, DMA_READ and DMA_WRITE, and the client's replies to them.
 *
 * ```
 *   request ── the client has taken enough of what was sent ──▶ sent ── reply ──▶ settled
 *      └─ not in time: never sent                                └─ not in time: settled, its reply is overdue
 * ```
 * An id is reserved until its reply has come, also after a timeout: a late reply must not pass for
 * the answer to a later command.
 */
import { ProtocolError, type VfioUserError } from '../errors.js';
import {
  Command,
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_ERROR,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import {
  checkDmaReadReply,
  checkDmaWriteReply,
  DMA_ACCESS_SIZE,
  writeDmaAccess,
} from '../protocol/dma-access.js';
import { headerCommand, headerErrno, headerFlags, headerId, writeHeader } from '../protocol/header.js';
import { DmaError, EIO, ETIMEDOUT } from './device-error.js';
import type { OutputQueue } from './output-queue.js';

const HEAD_SIZE = HEADER_SIZE + DMA_ACCESS_SIZE;
const MAX_ID = 0xffff;
/** Replies that may be overdue before the client counts as broken. */
const MAX_OVERDUE = 1024;
/** Bytes that wait to be sent before commands wait, too: a client that reads nothing costs no more memory than that. */
const HIGH_WATER = 4 << 20;

interface Pending {
  command: number;
  address: bigint;
  count: number;
  /** Where a read's data goes. */
  into: Uint8Array | undefined;
  /** A write's data. */
  body: Uint8Array | null;
  /** Undefined until it is sent. */
  id: number | undefined;
  timer: NodeJS.Timeout;
  resolve(): void;
  reject(reason: Error): void;
}

export class ServerRequests {
  readonly #output: OutputQueue;
  readonly #timeoutMs: number;
  readonly #onRequest: () => void;
  /** By id; undefined where the time is over and the reply is still due. */
  readonly #pending = new Map<number, Pending | undefined>();
  /** Not sent yet, in order. */
  readonly #unsent = new Set<Pending>();
  readonly #head = Buffer.alloc(HEAD_SIZE);
  #overdue = 0;
  #lastId = 0;

  /** `onRequest` is called when a command has been given to `output`. */
  constructor(output: OutputQueue, timeoutMs: number, onRequest: () => void) {
    this.#output = output;
    this.#timeoutMs = timeoutMs;
    this.#onRequest = onRequest;
    output.onTaken = () => this.#sendUnsent();
  }

  /** Commands whose reply somebody waits for. */
  get waiting(): number {
    return this.#pending.size - this.#overdue;
  }

  /** DMA_READ of all of `into`. */
  dmaRead(address: bigint, into: Uint8Array): Promise<void> {
    return this.#request(Command.DMA_READ, address, into.byteLength, into, null);
  }

  /** DMA_WRITE of all of `data`. */
  dmaWrite(address: bigint, data: Uint8Array): Promise<void> {
    return this.#request(Command.DMA_WRITE, address, data.byteLength, undefined, data);
  }

  /**
   * A reply, `bytes[start, end)` with its header.
   *
   * @throws ProtocolError where it is not the reply to anything that was asked, or does not fit what was asked.
   */
  onReply(bytes: Buffer, start: number, end: number): void {
    const id = headerId(bytes, start);
    if (!this.#pending.has(id)) {
      throw new ProtocolError(
        `a reply to ${commandName(headerCommand(bytes, start))} with id ${id}: nothing was asked`,
      );
    }
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (pending === undefined) {
      this.#overdue--;
      return;
    }
    clearTimeout(pending.timer);
    try {
      takeReply(pending, bytes, start, end);
    } catch (error) {
      pending.reject(error as Error);
      if (error instanceof ProtocolError) throw error;
      return;
    }
    pending.resolve();
  }

  /** The client has gone: no answer will come. */
  end(reason: VfioUserError): void {
    for (const pending of [...this.#pending.values(), ...this.#unsent]) {
      clearTimeout(pending?.timer);
      pending?.reject(reason);
    }
    this.#unsent.clear();
    this.#pending.clear();
    this.#overdue = 0;
  }

  #request(
    command: number,
    address: bigint,
    count: number,
    into: Uint8Array | undefined,
    body: Uint8Array | null,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#onTimeout(pending), this.#timeoutMs);
      const pending: Pending = { command, address, count, into, body, id: undefined, timer, resolve, reject };
      this.#unsent.add(pending);
      this.#sendUnsent();
    });
  }

  #sendUnsent(): void {
    for (const pending of this.#unsent) {
      if (this.#output.bytes > HIGH_WATER) return;
      this.#unsent.delete(pending);
      this.#send(pending);
    }
  }

  #send(pending: Pending): void {
    const { command, address, count, body } = pending;
    try {
      pending.id = this.#nextId();
    } catch (error) {
      clearTimeout(pending.timer);
      pending.reject(error as Error);
      return;
    }
    this.#pending.set(pending.id, pending);
    const size = HEAD_SIZE + (body?.byteLength ?? 0);
    writeHeader(this.#head, 0, pending.id, command, size, HEADER_FLAG_COMMAND, 0);
    writeDmaAccess(this.#head, HEADER_SIZE, address, count);
    this.#output.send(this.#head, HEAD_SIZE, body);
    this.#onRequest();
  }

  #nextId(): number {
    if (this.#overdue > MAX_OVERDUE || this.#pending.size > MAX_ID) {
      throw new DmaError(
        ETIMEDOUT,
        `${this.#pending.size} replies of the client are due, ${this.#overdue} overdue`,
      );
    }
    do this.#lastId = (this.#lastId + 1) & MAX_ID;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }

  #onTimeout(pending: Pending): void {
    let why = 'no answer';
    if (pending.id === undefined) {
      this.#unsent.delete(pending);
      why = 'the client did not take what was sent before';
    } else {
      this.#pending.set(pending.id, undefined);
      this.#overdue++;
    }
    pending.reject(new DmaError(ETIMEDOUT, `${describe(pending)}: ${why} within ${this.#timeoutMs} ms`));
  }
}

function takeReply(pending: Pending, bytes: Buffer, start: number, end: number): void {
  const { command, address, count, into } = pending;
  const answered = headerCommand(bytes, start);
  if (answered !== command) {
    throw new ProtocolError(`${describe(pending)}: the reply is one to ${commandName(answered)}`);
  }
  if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) {
    const errno = headerErrno(bytes, start);
    throw new DmaError(errno === 0 ? EIO : errno, `${describe(pending)}: the client answered errno ${errno}`);
  }
  const payload = start + HEADER_SIZE;
  if (into === undefined) {
    checkDmaWriteReply(bytes, payload, end, address, count);
  } else {
    checkDmaReadReply(bytes, payload, end, address, count);
    into.set(bytes.subarray(payload + DMA_ACCESS_SIZE, end));
  }
}

function describe({ command, address, count }: Pending): string {
  return `${commandName(command)} of ${count} bytes at 0x${address.toString(16)}`;
}
