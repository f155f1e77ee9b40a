/**
 * A connection, and a server that says anything: calls of all kinds, right and wrong answers, requests, bytes that are
 * none of these, in chunks, with the socket full at times. Every call settles once, with its value or an error of the
 * library; a right answer is never taken for another call's; nothing is thrown into the loop.
 *
 * The input: steps, a byte that says what and what that takes.
 */
import { Connection, type RegionAccess, type RequestHandler } from '../../lib/connection/index.js';
import { readOf, readToOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { VfioUserError } from '../../lib/errors.js';
import { Command } from '../../lib/protocol/constants.js';
import { Pipe } from '../engine/pipe.js';
import { promise, type Target } from '../engine/target.js';

const HEADER = 16;
const REPLY = 1;
const MOST_STEPS = 200;

interface Call {
  number: number;
  abort: AbortController;
  outcomes: unknown[];
}

class Run {
  readonly #input: Buffer;
  #at = 0;
  readonly #calls: Call[] = [];
  readonly #connection: Connection;
  #pipe!: Pipe;

  constructor(input: Buffer) {
    this.#input = input;
    this.#connection = new Connection((handler) => (this.#pipe = new Pipe(handler)));
    this.#connection.requestHandler = this.#handler();
  }

  async go(): Promise<void> {
    for (let i = 0; i < MOST_STEPS && this.#at < this.#input.length; i++) {
      this.#step();
      if (this.#byte() % 4 === 0) await Promise.resolve();
    }
    this.#connection.close();
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#pipe.fault !== undefined)
      throw new Error('thrown into the transport', { cause: this.#pipe.fault });
    const { inFlight, queued, tombstones } = this.#connection.counters;
    promise(inFlight === 0 && queued === 0 && tombstones === 0, 'nothing waits on a closed connection');
    for (const { number, outcomes } of this.#calls) {
      promise(outcomes.length === 1, `call ${number} settles once`);
      const [outcome] = outcomes;
      const isRight =
        outcome === undefined ||
        typeof outcome === 'number' ||
        outcome instanceof VfioUserError ||
        (outcome instanceof Error && outcome.message === 'aborted');
      if (!isRight) throw new Error(`call ${number} ended in`, { cause: outcome });
    }
  }

  #handler(): RequestHandler {
    const memory = Buffer.alloc(64);
    return {
      serve: (request, landing) => {
        if (landing !== undefined || request.end - request.start < 16) request.refuse(22);
        else request.echo(16, request.command === 11 ? memory : null, true);
      },
      findLanding: (bytes, start) => {
        const rest = bytes.readUInt32LE(start + 4) - 32;
        return rest > 0 && rest < 100 ? { target: Buffer.alloc(rest) } : undefined;
      },
    };
  }

  #byte(): number {
    return this.#input[this.#at++] ?? 0;
  }

  #bytes(most: number): Buffer {
    const length = Math.min(this.#byte(), most);
    const bytes = Buffer.from(this.#input.subarray(this.#at, this.#at + length));
    this.#at += length;
    return bytes;
  }

  #step(): void {
    switch (this.#byte() % 11) {
      case 0:
      case 1:
        this.#access();
        break;
      case 2:
        this.#call();
        break;
      case 3:
        if (this.#connection.endReason === undefined) this.#connection.post(writeOf(0, 0, Buffer.alloc(4)));
        break;
      case 4:
      case 5:
        this.#answer();
        break;
      case 6:
        this.#pipe.receive(this.#message(this.#byte(), this.#byte(), this.#byte()));
        break;
      case 7:
        this.#pipe.receive(this.#bytes(64));
        break;
      case 8:
        this.#calls[this.#byte() % Math.max(1, this.#calls.length)]?.abort.abort(new Error('aborted'));
        break;
      case 9:
        this.#pipe.makeRoom(this.#byte() % 2 === 0 ? Infinity : this.#byte());
        break;
      case 10:
        this.#connection.inFlightLimit = 1 + (this.#byte() % 8);
        break;
    }
  }

  #access(): void {
    const kind = this.#byte();
    const call = this.#open();
    const isRead = kind % 2 === 0;
    const target = isRead && kind % 4 === 0 ? Buffer.alloc(64) : undefined;
    const at = call.number * 64;
    const access: RegionAccess<unknown> = !isRead
      ? writeOf(0, at, Buffer.alloc(4, call.number))
      : target === undefined
        ? readOf(0, at, 4, takeUInt32)
        : readToOf(0, at, target);
    const options = { signal: call.abort.signal, timeoutMs: Infinity };
    this.#settle(call, this.#connection.access(access, options));
  }

  #call(): void {
    const call = this.#open();
    const options = { signal: call.abort.signal, timeoutMs: Infinity };
    const payload = this.#bytes(48);
    const decode = (bytes: Buffer, start: number, end: number): number => {
      promise(start >= 0 && end <= bytes.length && start <= end, 'a payload lies in its buffer');
      return end - start;
    };
    this.#settle(call, this.#connection.call(Command.DEVICE_GET_INFO, payload, null, decode, options));
  }

  #open(): Call {
    const call: Call = { number: this.#calls.length, abort: new AbortController(), outcomes: [] };
    this.#calls.push(call);
    return call;
  }

  #settle(call: Call, settling: Promise<unknown>): void {
    settling.then(
      (value) => call.outcomes.push(value),
      (error: unknown) => call.outcomes.push(error),
    );
  }

  /** Answers a command that came, more or less rightly. */
  #answer(): void {
    const commands = this.#pipe.sent.filter((bytes) => bytes.length >= HEADER);
    const command = commands[this.#byte() % Math.max(1, commands.length)];
    if (command === undefined) return;
    const how = this.#byte();
    const echo = command.subarray(HEADER, Math.min(command.length, HEADER + 16));
    const data = how % 8 === 0 ? this.#bytes(80) : Buffer.alloc(how % 4 === 0 ? 64 : 4);
    const isRead = command.readUInt16LE(2) === Command.REGION_READ.valueOf();
    const payload = isRead ? Buffer.concat([echo, data]) : echo;
    const bytes = Buffer.concat([command.subarray(0, HEADER), payload]);
    bytes.writeUInt32LE(bytes.length, 4);
    bytes.writeUInt32LE(how % 16 === 15 ? 0x21 : REPLY, 8);
    const middle = how % 32 > 16 ? this.#byte() % bytes.length : bytes.length;
    this.#pipe.receive(bytes.subarray(0, middle));
    if (middle < bytes.length) this.#pipe.receive(bytes.subarray(middle));
  }

  #message(id: number, command: number, flags: number): Buffer {
    const payload = this.#bytes(255);
    const bytes = Buffer.concat([Buffer.alloc(HEADER), payload]);
    bytes.writeUInt16LE(id, 0);
    bytes.writeUInt16LE(command % 20, 2);
    bytes.writeUInt32LE(bytes.length, 4);
    bytes.writeUInt32LE(flags, 8);
    return bytes;
  }
}

export const connection: Target = {
  name: 'connection',
  run: (input) => new Run(input).go(),
};
