/**
 * The client of a fuzzed server: whole commands, halves, floods, right and wrong answers to what the server asks, and a
 * socket that takes as much as it is told. It checks what every server promises: each command with a reply due is answered
 * once, in order; nothing is thrown into the transport; what is kept for a client stays within the server's limits.
 */
import { ClosedError, TransportError } from '../../lib/errors.js';
import { MAX_MESSAGE_SIZE, type TransportHandler } from '../../lib/transport/index.js';
import { turn } from '../engine/leak-check.js';
import { Pipe } from '../engine/pipe.js';
import type { Script } from '../engine/script.js';
import { promise } from '../engine/target.js';
import { message } from './client-messages.js';
import { answerTo, errorTo, Ledger, type Request } from './ledger.js';

const MOST_FLOODS = 3;
/** Without a reply. A busy machine has turned the loop often by then. */
const PATIENCE_MS = 500;
const EIO = 5;
const EPIPE = 32;
const REGION_WRITE = 10;
/** A server checks its limits before it takes the next message: it may hold one more, and what that costs. */
const SLACK = 2 * MAX_MESSAGE_SIZE + 4096;

/** Bytes that a server holds for a client. */
export interface Kept {
  /** Of commands that have not been carried out. */
  commands: number;
  /** Of replies that have not been sent. */
  replies: number;
}

export interface ClientSideOptions {
  /** Where the client's next steps come from. */
  readonly script: Script;
  readonly passesFds?: boolean;
  /** How many messages of 1 MiB a long flood has. */
  readonly floodMessages: number;
  /** The most that the server may hold. */
  readonly limits: Kept;
  /** What it holds now; undefined before there is a session. */
  readonly kept: () => Kept | undefined;
  /** What a flood repeats where the client has said nothing yet. */
  readonly first: Buffer;
}

export class ClientSide {
  readonly ledger = new Ledger();
  readonly #options: ClientSideOptions;
  readonly #script: Script;
  #pipe: Pipe | undefined;
  #last: Buffer;
  #rest: Buffer | undefined;
  #floods = 0;

  constructor(options: ClientSideOptions) {
    this.#options = options;
    this.#script = options.script;
    this.#last = options.first;
  }

  /** The transport that the server opens; its other end is this client. */
  readonly open = (handler: TransportHandler): Pipe => {
    this.#pipe = new Pipe(this.ledger.watch(handler), this.#options.passesFds);
    return this.#pipe;
  };

  get pipe(): Pipe {
    if (this.#pipe === undefined) throw new Error('the client is not connected');
    return this.#pipe;
  }

  send(bytes: Buffer, fds: number[] = []): void {
    this.#last = bytes;
    this.pipe.receive(bytes, fds.length === 0 ? undefined : fds);
  }

  /** Any bytes. */
  sendGarbage(): void {
    this.pipe.receive(this.#script.bytes(64));
  }

  /** One half of a command now; the other is the next one's beginning, or never comes. */
  sendHalf(bytes: Buffer): void {
    if (this.#rest !== undefined) this.pipe.receive(this.#rest);
    const middle = this.#script.byte() % bytes.length;
    this.#rest = bytes.subarray(middle);
    if (middle > 0) this.pipe.receive(bytes.subarray(0, middle));
  }

  /** The last command many times over, or long ones. */
  flood(): void {
    const count = this.#script.byte();
    if (++this.#floods > MOST_FLOODS) return;
    const isLong = count > 250;
    if (isLong) this.#last = message(7, REGION_WRITE, 0, Buffer.alloc(1 << 20));
    const length = isLong ? this.#options.floodMessages : count * 2;
    this.pipe.receive(Buffer.concat(Array.from({ length }, () => this.#last)));
  }

  /**
   * Answers one of the server's requests, twice at times. `data` is what the client's memory holds.
   * @returns whether the answer was right, or nothing had been asked.
   */
  answer(data: () => Uint8Array): boolean {
    const { requests } = this.ledger;
    const [request] = requests.splice(this.#script.byte() % Math.max(1, requests.length), 1);
    const how = this.#script.byte();
    if (request === undefined) return true;
    const isRight = how < 192;
    const bytes = answerTo(request, isRight ? 0 : how % 8, data());
    this.pipe.receive(bytes);
    if (how === 255) this.pipe.receive(bytes);
    return isRight;
  }

  /** The socket takes so many bytes more. */
  makeRoom(): void {
    this.pipe.makeRoom(this.#script.byte() % 2 === 0 ? Infinity : this.#script.byte());
  }

  /** It closes its end. */
  leave(): void {
    this.pipe.end(new ClosedError());
  }

  /** It reads no more, which sending finds. */
  stopReading(): void {
    this.pipe.broken = new TransportError('sendmsg', EPIPE, 'fuzzer');
  }

  /** What is promised at any time. */
  check(): void {
    const { fault } = this.pipe;
    if (fault !== undefined) throw new Error('thrown into the transport', { cause: fault });
    this.ledger.read(this.pipe.sent);
    const { limits, kept } = this.#options;
    const { commands, replies } = kept() ?? { commands: 0, replies: 0 };
    promise(commands <= limits.commands + SLACK, `${commands} bytes of commands wait`);
    promise(replies <= limits.replies + SLACK, `${replies} bytes wait to be taken`);
  }

  /**
   * The client takes all that comes, and answers each request, with an error unless `answer` says otherwise: it is
   * answered, too. `check` is called after each turn of the loop.
   */
  async settle(
    check: () => void,
    answer = (request: Request): Buffer => errorTo(request, EIO),
  ): Promise<void> {
    if (this.pipe.ended) return;
    this.pipe.makeRoom(Infinity);
    let end = performance.now() + PATIENCE_MS;
    for (let replies = -1; !this.#isSettled && performance.now() < end;) {
      if (replies !== this.ledger.replies) end = performance.now() + PATIENCE_MS;
      replies = this.ledger.replies;
      for (const request of this.ledger.requests.splice(0)) this.pipe.receive(answer(request));
      await turn();
      check();
    }
    promise(
      this.#isSettled,
      `every command with a reply due is answered, and what comes is read: ${this.#state()}`,
    );
  }

  get #isSettled(): boolean {
    if (this.pipe.ended) return true;
    return this.ledger.isSettled && this.ledger.requests.length === 0 && this.pipe.isReading;
  }

  #state(): string {
    const { waiting, requests } = this.ledger;
    const due = waiting.filter(({ isDue }) => isDue).map(({ command, id }) => `${command} #${id}`);
    const { isReading } = this.pipe;
    const { length } = due;
    const kept = this.#options.kept();
    return JSON.stringify({ length, due: due.slice(0, 3), requests: requests.length, isReading, kept });
  }
}
