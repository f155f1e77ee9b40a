/**
 * The proxy between two sides that say anything, in chunks of any size, with fds, full sockets and ends at any time.
 * What one side says comes to the other the same, in whole messages, with as many fds to each as came for it; after a
 * header that makes no sense the connection ends, or all that follows is passed as it is. Nothing is left at the end.
 *
 * The input: a byte that chooses settings, then steps: a byte that says what and what that takes.
 */
import { closeFds, native } from '../../lib/native.js';
import { ClosedError, type VfioUserError } from '../../lib/errors.js';
import type { Peer, PeerHandler } from '../../lib/proxy/peer.js';
import { settingsOf, type Settings } from '../../lib/proxy/proxy-options.js';
import { ProxySession } from '../../lib/proxy/proxy-session.js';
import { PendingClient } from '../../lib/proxy/pending-client.js';
import { openTap } from '../../lib/trace/index.js';
import { nothingLeft, openFds, turn } from '../engine/leak-check.js';
import { Script } from '../engine/script.js';
import { promise, type Target } from '../engine/target.js';
import { commandOf, version } from './client-messages.js';

const HEADER = 16;
const MOST_STEPS = 150;
const PATIENCE_MS = 500;
const EPIPE = 32;
/** Small, so that inputs reach it. */
const MOST_BYTES = 4096;

const tap = await openTap({ trace: false, capture: false });

/** A side of the proxy, and all that it has said and been told. */
class Side implements Peer {
  readonly passesFds: boolean;
  readonly canLook = false;
  turn = 0;
  readonly name: string;
  readonly said: Buffer[] = [];
  readonly told: Buffer[] = [];
  /** Of each `trySend` that took something: where it began, what it was for, and how many fds it had. */
  readonly sends: { at: number; end: number; fds: number }[] = [];
  /** Of each chunk: where it ended, and how many fds came with it. */
  readonly chunks: { end: number; fds: number }[] = [];
  room = Infinity;
  isClosed = false;
  isBroken = false;
  hasEnded = false;
  isTold = false;
  #isReading = false;
  #saidBytes = 0;
  #toldBytes = 0;
  /** From when the proxy has it. */
  #handler: PeerHandler | undefined;
  #held: { bytes: Buffer; fds: number[] }[] = [];

  constructor(name: string, passesFds: boolean) {
    this.name = name;
    this.passesFds = passesFds;
  }

  readonly open = (handler: PeerHandler): Peer => {
    this.#handler = handler;
    return this;
  };

  say(bytes: Buffer, fds: number[]): void {
    if (this.#handler === undefined || this.isClosed || this.hasEnded || bytes.length === 0) {
      closeFds(fds);
      return;
    }
    this.#held.push({ bytes, fds });
  }

  end(): void {
    if (this.isClosed || this.hasEnded || this.#held.length > 0 || !this.#isReading) return;
    this.hasEnded = true;
    this.#handler!.onEnd();
  }

  fail(error: VfioUserError): void {
    if (this.#handler === undefined || this.isClosed) return;
    this.close();
    this.#handler.onFailure(error);
  }

  makeRoom(room: number): void {
    this.room = room;
    if (!this.isClosed) this.#handler?.onWritable();
  }

  trySend(bytes: Buffer, start: number, end: number, fds: readonly number[]): number {
    if (this.isClosed) return 0;
    if (this.isBroken) return -EPIPE;
    promise(!this.isTold, 'nothing is sent after the end');
    const took = Math.min(end - start, this.room);
    this.room -= took;
    if (took === 0) return 0;
    this.sends.push({ at: this.#toldBytes, end: this.#toldBytes + end - start, fds: fds.length });
    this.told.push(Buffer.from(bytes.subarray(start, start + took)));
    this.#toldBytes += took;
    return took;
  }

  setReading(on: boolean): void {
    this.#isReading = on;
  }

  receiveNow(): boolean {
    return false;
  }

  endSending(): void {
    this.isTold = true;
  }

  isGone(): boolean {
    return this.isClosed || this.isBroken;
  }

  close(): void {
    this.isClosed = true;
    for (const { fds } of this.#held.splice(0)) closeFds(fds);
  }

  /** Whether nothing that it has said is still to be read. */
  get isRead(): boolean {
    return this.#held.length === 0;
  }

  /** As the loop does it, hands over what it has said and the proxy reads. */
  bring(): void {
    while (this.#isReading && !this.isClosed) {
      const next = this.#held.shift();
      if (next === undefined) return;
      const { bytes, fds } = next;
      this.turn++;
      this.said.push(bytes);
      this.#saidBytes += bytes.length;
      this.chunks.push({ end: this.#saidBytes, fds: fds.length });
      const lent = Buffer.from(bytes);
      this.#handler!.onChunk(lent, 0, lent.length, fds);
      // The memory was lent.
      lent.fill(0xee);
      this.#handler!.onTurn();
    }
  }
}

/** Where the messages of a stream begin, and where one begins that is none; Infinity where all are. */
function cut(stream: Buffer): { starts: number[]; broken: number; whole: number } {
  const starts: number[] = [];
  let at = 0;
  while (at + HEADER <= stream.length) {
    const size = stream.readUInt32LE(at + 4);
    if (size < HEADER || size > MOST_BYTES) return { starts, broken: at, whole: at };
    if (at + size > stream.length) break;
    starts.push(at);
    at += size;
  }
  return { starts: at < stream.length ? [...starts, at] : starts, broken: Infinity, whole: at };
}

class Run {
  readonly #script: Script;
  readonly #settings: Settings;
  readonly #client: Side;
  readonly #server: Side;
  readonly #pending: PendingClient;
  readonly #waits: boolean;
  #session: ProxySession | undefined;
  #inside: Promise<void> | undefined;
  /** An end is on its way: not all that was said need arrive. */
  #isDisturbed = false;

  constructor(script: Script) {
    this.#script = script;
    const how = script.byte();
    this.#settings = settingsOf({
      listen: '@fuzz',
      connect: '@fuzzed',
      malformed: (how & 1) === 0 ? 'close' : 'pass',
      interrupts: (how & 2) !== 0,
      maxMessageBytes: MOST_BYTES,
      maxEventFds: 2,
    });
    this.#client = new Side('the client', (how & 4) === 0);
    this.#server = new Side('the server', (how & 8) === 0);
    this.#waits = (how & 16) !== 0;
    this.#pending = new PendingClient(this.#client.open, this.#settings, {
      onSpoken: () => {
        this.#inside = this.#pending.enter();
      },
      onPlace: () => this.#serve(),
      onGone: () => {
        this.#isDisturbed = true;
      },
    });
  }

  async go(): Promise<void> {
    this.#pending.listen();
    for (let i = 0; i < MOST_STEPS && !this.#script.isOver; i++) {
      const step = this.#script.byte();
      const side = (step & 16) === 0 ? this.#client : this.#server;
      this.#step(step % 16, side);
      if (step < 224) this.#bring();
      if (step >= 192) await turn();
      this.#look();
    }
    await this.#settle();
    this.#session?.close(new ClosedError());
    this.#pending.end(new ClosedError());
    this.#client.close();
    this.#server.close();
    await this.#inside;
    this.#session?.close(new ClosedError());
    this.#look();
  }

  /** As the proxy does it when the client has a place. */
  async #serve(): Promise<void> {
    if (this.#waits) await turn();
    await new Promise<void>((resolve) => {
      const open = { client: this.#pending.open, server: this.#server.open };
      const settings = this.#settings;
      const parts = { client: 1, name: 'fuzz', settings, tap, faults: undefined, onOver: () => resolve() };
      this.#session = new ProxySession(open, parts);
      this.#session.start();
      this.#pending.replay();
    });
  }

  #bring(): void {
    this.#client.bring();
    this.#server.bring();
  }

  #step(step: number, side: Side): void {
    switch (step) {
      case 0:
        this.#say(side, version({ max_msg_fds: 8, twin_socket: { supported: true, fd_index: 0 } }));
        break;
      case 1:
        this.#say(side, this.#script.bytes(64));
        break;
      case 2:
        this.#say(side, Buffer.concat([this.#message(side), this.#message(side), this.#message(side)]));
        break;
      case 3: {
        const message = this.#message(side);
        this.#say(side, Buffer.concat(Array.from({ length: this.#script.byte() }, () => message)));
        break;
      }
      case 4:
      case 5:
        side.makeRoom(this.#script.byte() % 2 === 0 ? Infinity : this.#script.byte());
        break;
      case 6:
        this.#end(side, this.#script.byte());
        break;
      default:
        this.#say(side, this.#message(side));
    }
  }

  #message(side: Side): Buffer {
    const bytes = commandOf(this.#script, this.#script.byte());
    if (side === this.#server && this.#script.byte() < 192) bytes[8]! |= 1;
    return bytes;
  }

  /** In chunks, each with fds or without. */
  #say(side: Side, bytes: Buffer): void {
    const how = this.#script.byte();
    for (let at = 0; at < bytes.length;) {
      const length = how % 4 === 0 ? bytes.length : 1 + this.#script.byte();
      const count = side.passesFds && how >= 128 ? this.#script.byte() % 3 : 0;
      const fds = Array.from({ length: count }, () => native().eventfd(0));
      side.say(bytes.subarray(at, at + length), fds);
      at += length;
    }
  }

  #end(side: Side, how: number): void {
    if (how % 4 === 0) return;
    if (how % 4 === 1) side.end();
    else this.#isDisturbed = true;
    if (how % 4 === 2) side.fail(new ClosedError());
    if (how % 4 === 3) side.isBroken = true;
  }

  #look(): void {
    this.#compare(this.#client, this.#server);
    this.#compare(this.#server, this.#client);
  }

  /** What `from` has said beside what `to` was told. */
  #compare(from: Side, to: Side): void {
    const said = Buffer.concat(from.said);
    const told = Buffer.concat(to.told);
    const { starts, broken } = cut(said);
    promise(said.subarray(0, told.length).equals(told), 'what comes out is what went in');
    const passes = this.#settings.passesUncut;
    promise(passes || told.length <= broken, 'nothing comes after a header that makes no sense');
    for (const { at, end, fds } of to.sends) {
      if (at >= broken) return;
      const next = starts.find((start) => start > at) ?? Math.min(broken, said.length);
      promise(end === next, `bytes ${at} to ${end} are one message, which ends at ${next}`);
      const isBeginning = starts.includes(at);
      const expected = isBeginning && to.passesFds ? fdsOf(from, at, next) : 0;
      promise(fds === expected, `the message at ${at} has ${fds} fds, ${expected} came for it`);
    }
  }

  /** Both sides take all. */
  async #settle(): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    this.#client.makeRoom(Infinity);
    this.#server.makeRoom(Infinity);
    do {
      this.#bring();
      await turn();
      this.#look();
    } while (!this.#isSettled() && performance.now() < end);
    promise(this.#isSettled(), `what was said is read, and arrives: ${this.#state()}`);
  }

  #state(): string {
    const sides = [this.#client, this.#server].map(({ said, told, isRead, hasEnded, isTold }) => ({
      said: Buffer.concat(said).length,
      told: Buffer.concat(told).length,
      isRead,
      hasEnded,
      isTold,
    }));
    return JSON.stringify({ sides, hasSession: this.#session !== undefined });
  }

  #isSettled(): boolean {
    const { client: one, server: other } = { client: this.#client, server: this.#server };
    if (this.#isDisturbed || one.isClosed || other.isClosed) return true;
    // Nobody is served who has not said a whole message.
    if (this.#session === undefined) return one.isRead;
    return this.#hasArrived(one, other) && this.#hasArrived(other, one);
  }

  #hasArrived(from: Side, to: Side): boolean {
    const said = Buffer.concat(from.said);
    const { broken, whole } = cut(said);
    const isAll = from.hasEnded || (broken < said.length && this.#settings.passesUncut);
    const told = to.told.reduce((sum, { length }) => sum + length, 0);
    return from.isRead && told >= (isAll ? said.length : whole) && to.isTold === from.hasEnded;
  }
}

/** Fds that came with the chunks whose last byte lies in the message. */
function fdsOf(from: Side, start: number, end: number): number {
  return from.chunks.reduce((sum, chunk) => sum + (chunk.end > start && chunk.end <= end ? chunk.fds : 0), 0);
}

export const proxy: Target = {
  name: 'proxy',
  async run(input) {
    const before = openFds();
    await new Run(new Script(input)).go();
    await nothingLeft(before);
  },
};
