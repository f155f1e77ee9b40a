/** What a server was asked and has answered: each command with a reply due once, in order. */
import type { TransportHandler } from '../../lib/transport/index.js';
import { promise } from '../engine/target.js';

const HEADER = 16;
const TYPE = 0xf;
const NO_REPLY = 0x10;

interface Asked {
  id: number;
  command: number;
  isDue: boolean;
}

/** A request of the server's. */
export type Request = Buffer;

export class Ledger {
  /** Commands without an answer. */
  readonly waiting: Asked[] = [];
  /** Requests of the server's that the client has not answered. */
  readonly requests: Request[] = [];
  replies = 0;
  #rest: Buffer = Buffer.alloc(0);
  #passed: Asked[] = [];

  /** Writes down what comes to `handler`. */
  watch(handler: TransportHandler): TransportHandler {
    return {
      onMessage: (bytes, start, end, fds) => {
        this.#came(bytes, start);
        handler.onMessage(bytes, start, end, fds);
      },
      findLanding: (bytes, start) => handler.findLanding(bytes, start),
      onLanded: (bytes, start, landing, fds) => handler.onLanded(bytes, start, landing, fds),
      onBegun: (begun) => handler.onBegun?.(begun),
      onWritable: () => handler.onWritable(),
      onEnd: (reason) => handler.onEnd(reason),
    };
  }

  /** The next command, in order, is about to be carried out. */
  next(isDropped: boolean): void {
    const asked = this.#passed.shift();
    if (asked !== undefined && isDropped) asked.isDue = false;
  }

  /** Reads what the server has sent. @throws Error where that is no right answer. */
  read(sent: Buffer[]): void {
    this.#rest = Buffer.concat([this.#rest, ...sent.splice(0)]);
    let at = 0;
    while (this.#rest.length - at >= HEADER) {
      const size = this.#rest.readUInt32LE(at + 4);
      promise(size >= HEADER, 'a server sends messages');
      if (this.#rest.length - at < size) break;
      this.#take(this.#rest.subarray(at, at + size));
      at += size;
    }
    this.#rest = this.#rest.subarray(at);
  }

  /** Whether nothing is due. */
  get isSettled(): boolean {
    return this.waiting.every(({ isDue }) => !isDue);
  }

  #came(bytes: Buffer, start: number): void {
    const flags = bytes.readUInt32LE(start + 8);
    if ((flags & TYPE) !== 0) return;
    const asked = {
      id: bytes.readUInt16LE(start),
      command: bytes.readUInt16LE(start + 2),
      isDue: (flags & NO_REPLY) === 0,
    };
    this.waiting.push(asked);
    this.#passed.push(asked);
  }

  #take(message: Buffer): void {
    const [id, command, flags] = [
      message.readUInt16LE(0),
      message.readUInt16LE(2),
      message.readUInt32LE(8),
    ] as const;
    if ((flags & TYPE) === 0) {
      this.requests.push(Buffer.from(message));
      return;
    }
    promise((flags & TYPE) === 1, 'a message is a command or a reply');
    while (this.waiting.length > 0 && !this.waiting[0]!.isDue) this.waiting.shift();
    const asked = this.waiting.shift();
    promise(asked !== undefined, `a reply to ${command} with id ${id} that nobody waits for`);
    const isRight = asked.id === id && asked.command === command;
    promise(isRight, `a reply to ${command} with id ${id}, not to ${asked.command} with id ${asked.id}`);
    if ((flags & 0x20) !== 0) {
      promise(message.length === HEADER, 'an error is a bare header');
      promise(message.readUInt32LE(12) > 0, 'an error has an errno');
    }
    this.replies++;
  }
}

/** A client's answer to a request of the server's; `how` says how wrong. */
export function answerTo(request: Request, how: number, data: Uint8Array): Buffer {
  const command = request.readUInt16LE(2);
  const isRead = command === 11;
  const count = isRead ? Math.min(request.readUInt32LE(HEADER + 8), 1 << 20) : 0;
  const bytes = Buffer.alloc(HEADER + 16 + count);
  request.copy(bytes, 0, 0, HEADER + Math.min(16, request.length - HEADER));
  if (count > 0 && data.length > 0) bytes.fill(data, HEADER + 16);
  bytes.writeUInt32LE(1, 8);
  if (how === 1 || how === 2) return errorTo(request, how === 1 ? 14 : 0);
  if (how === 3) bytes.writeUInt16LE((request.readUInt16LE(0) + 1) & 0xffff, 0);
  if (how === 4) bytes.writeUInt16LE(23 - command, 2);
  if (how === 5 && bytes.length >= HEADER + 12) bytes[HEADER + ((data[0] ?? 0) % 12)]! ^= 1;
  const end = how === 6 ? Math.min(bytes.length, HEADER + (data[0] ?? 0)) : bytes.length;
  const answer = bytes.subarray(0, end);
  answer.writeUInt32LE(answer.length, 4);
  return answer;
}

export function errorTo(request: Request, errno: number): Buffer {
  const bytes = Buffer.from(request.subarray(0, HEADER));
  bytes.writeUInt32LE(HEADER, 4);
  bytes.writeUInt32LE(0x21, 8);
  bytes.writeUInt32LE(errno, 12);
  return bytes;
}
