/**
 * A recording as a server, and a client that follows it, more or less: requests left out, changed, repeated, in another
 * order, answers right and wrong, halves, floods, a full socket, its end at any time. Every request with a reply due is
 * answered once, in order; what is kept for the client stays within the limits; the report adds up, and says `complete`
 * of a client that did all that is recorded and nothing else.
 *
 * The input: a byte that chooses settings, then steps: a byte that says what and what that takes.
 */
import { ClientListener } from '../../lib/emulator/client-listener.js';
import { ClosedError } from '../../lib/errors.js';
import { exchangesOf, type NumberedEvent } from '../../lib/replay/exchange.js';
import { captureLimits } from '../../lib/replay/capture-limits.js';
import { settingsOf, type ReplaySettings } from '../../lib/replay/replay-options.js';
import type { Recording } from '../../lib/replay/recording.js';
import { formatReport, type ReplayReport } from '../../lib/replay/report.js';
import { HIGH_WATER, MAX_QUEUED, ReplaySession } from '../../lib/replay/replay-session.js';
import { nothingLeft, openFds, turn } from '../engine/leak-check.js';
import { Script } from '../engine/script.js';
import { promise, type Target } from '../engine/target.js';
import { commandOf, message, version, versionOf } from './client-messages.js';
import { ClientSide } from './client-side.js';
import { answerTo, errorTo } from './ledger.js';

const MOST_STEPS = 120;
const ANSWER_MS = 20;
const EIO = 5;
const REPLY = 1;
/** Of 1 MiB each. */
const FLOOD_MESSAGES = 8;
/** What the recorded client's memory held. */
const MEMORY = Buffer.from('recorded');

const read = (id: number, at: number): Buffer => message(id, 9, 0, access(at, 4));
const write = (id: number, at: number, flags = 0): Buffer =>
  message(id, 10, flags, Buffer.concat([access(at, 4), Buffer.from([1, 0, 0, 0])]));

function access(at: number, count: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(at, 0);
  bytes.writeUInt32LE(count, 12);
  return bytes;
}

function dma(command: number, address: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(address, 0);
  head.writeUInt32LE(MEMORY.length, 8);
  return Buffer.concat([head, command === 0 ? Buffer.alloc(0) : data]);
}

/** What the recorded client sent, what the server did about it; `>` is from the client. */
const CONVERSATION: readonly (readonly ['>' | '<', Buffer] | readonly ['!'])[] = [
  ['>', version({ max_msg_fds: 8 })],
  ['<', message(1, 1, REPLY, version({ max_msg_fds: 8 }).subarray(16))],
  ['>', message(2, 4, 0, Buffer.from('10000000000000000000000000000000', 'hex'))],
  ['<', message(2, 4, REPLY, Buffer.from('10000000030000000900000005000000', 'hex'))],
  ['>', read(3, 0)],
  ['>', read(4, 4)],
  ['<', message(3, 9, REPLY, Buffer.concat([access(0, 4), MEMORY.subarray(0, 4)]))],
  ['<', message(4, 9, REPLY, Buffer.concat([access(4, 4), MEMORY.subarray(4)]))],
  ['>', write(5, 8)],
  ['<', message(77, 11, 0, dma(0, 0x1000, MEMORY))],
  ['>', message(77, 11, REPLY, dma(1, 0x1000, MEMORY))],
  ['<', message(78, 12, 0, dma(1, 0x2000, MEMORY))],
  ['>', message(78, 12, REPLY, dma(0, 0x2000, MEMORY))],
  ['<', message(5, 10, REPLY, access(8, 4))],
  ['!'],
  ['>', write(6, 12, 0x10)],
  ['>', read(7, 0)],
  ['<', message(7, 9, REPLY, Buffer.concat([access(0, 4), MEMORY.subarray(0, 4)]))],
  ['>', message(8, 13, 0, Buffer.alloc(0))],
  ['<', errorTo(message(8, 13, 0, Buffer.alloc(0)), EIO)],
];
/** The client's requests, in order. */
const REQUESTS = CONVERSATION.flatMap(([way, bytes]) =>
  way === '>' && (bytes.readUInt32LE(8) & 0xf) === 0 ? [bytes] : [],
);

function recordingOf(): Recording {
  const events = CONVERSATION.map(([way, bytes], i): NumberedEvent => {
    const socket = 'fuzz';
    const time = BigInt(i);
    const event =
      way === '!'
        ? { socket, time, index: 2, subindex: 0, count: 1 }
        : { socket, time, bytes, size: bytes.length, fds: [], direction: direction(way) };
    return { number: i + 1, event, isTwin: false };
  });
  const exchanges = exchangesOf(events);
  return { name: 'fuzz', exchanges, limits: captureLimits(exchanges) };
}

function direction(way: '>' | '<'): 'sent' | 'received' {
  return way === '>' ? 'sent' : 'received';
}

function settingsFor(how: number): ReplaySettings {
  const isMatching = (how & 1) !== 0;
  return settingsOf({
    mode: isMatching ? 'matching' : 'ordered',
    repeatLast: isMatching && (how & 2) !== 0,
    afterDifference: (['refuse', 'continue', 'close', 'continue'] as const)[(how >> 2) & 3],
    timing: (how & 16) === 0 ? 'fast' : 'recorded',
    ignore: (how & 32) === 0 ? [] : ['DMA_READ.data', 'REGION_WRITE.data'],
    mappings: (how & 64) === 0 ? 'withhold' : 'blank',
    answerTimeoutMs: ANSWER_MS,
  });
}

class Run {
  readonly #script: Script;
  readonly #listener: ClientListener;
  readonly #client: ClientSide;
  #session: ReplaySession | undefined;
  #at = 0;
  #id = 0;
  /** It has sent nothing but what is recorded, in order. */
  #isFaithful = true;

  constructor(script: Script) {
    this.#script = script;
    const settings = settingsFor(script.byte());
    const recording = recordingOf();
    this.#client = new ClientSide({
      script,
      floodMessages: FLOOD_MESSAGES,
      limits: { commands: MAX_QUEUED, replies: HIGH_WATER },
      kept: () => this.#session?.kept,
      first: REQUESTS[0]!,
    });
    this.#listener = new ClientListener({
      places: 1,
      versionTimeoutMs: settings.versionTimeoutMs,
      messageTimeoutMs: settings.messageTimeoutMs,
      admit: (open) => {
        const session = (this.#session = new ReplaySession(recording, settings, open));
        return { closed: session.ended.then(({ reason }) => reason ?? new ClosedError()) };
      },
      onTrouble: () => undefined,
    });
  }

  async go(): Promise<void> {
    const connection = this.#listener.admit(this.#client.open);
    for (let i = 0; i < MOST_STEPS && !this.#script.isOver; i++) {
      const step = this.#script.byte();
      this.#step(step % 16);
      if (step >= 128) await turn();
      this.#client.check();
    }
    await this.#client.settle(
      () => this.#client.check(),
      (request) => (this.#isFaithful ? answerTo(request, 0, MEMORY) : errorTo(request, EIO)),
    );
    const ended = this.#session?.ended;
    this.#client.leave();
    this.#listener.close();
    await connection.ended;
    if (ended !== undefined) this.#check(await ended);
  }

  #step(step: number): void {
    if (step > 5) this.#isFaithful &&= step >= 14;
    switch (step) {
      case 0:
      case 1:
      case 2:
      case 3:
        this.#follow();
        break;
      case 4:
      case 5:
        this.#isFaithful = this.#client.answer(() => MEMORY) && this.#isFaithful;
        break;
      case 6:
        this.#client.send(versionOf(this.#script));
        break;
      case 7:
        this.#client.sendGarbage();
        break;
      case 8:
        this.#client.sendHalf(this.#nextRequest());
        break;
      case 9:
        this.#client.flood();
        break;
      case 10:
        this.#at = this.#script.below(REQUESTS.length + 1);
        break;
      case 11:
        this.#changed();
        break;
      case 12:
        if (this.#script.below(4) === 0) this.#client.leave();
        break;
      case 13:
        this.#client.send(commandOf(this.#script, this.#id++));
        break;
      default:
        this.#client.makeRoom();
    }
  }

  #follow(): void {
    const request = REQUESTS[this.#at++];
    if (request !== undefined) this.#client.send(request);
  }

  /** The next request with some bytes changed. */
  #changed(): void {
    const request = Buffer.from(this.#nextRequest());
    const data = this.#script.bytes(8);
    data.copy(request, this.#script.byte() % request.length);
    this.#client.send(request);
  }

  #nextRequest(): Buffer {
    return REQUESTS[this.#at++ % REQUESTS.length]!;
  }

  #check(report: ReplayReport): void {
    const { outcome, played, requests, differenceCount, differences } = report;
    promise(played >= 0 && played <= requests, 'no more is played than is recorded');
    promise(differences.length <= 100 && differences.length <= differenceCount, 'differences are counted');
    promise((outcome === 'different') === differenceCount > 0, 'a difference is in the outcome');
    if (outcome === 'complete') promise(played === requests, 'complete is all of it');
    // On a busy machine a right answer may come late.
    if (differences.some(({ kind }) => kind === 'silence')) return;
    if (this.#isFaithful && outcome === 'different') {
      throw new Error('a client that follows the recording is no different', { cause: report });
    }
    if (this.#isFaithful && this.#at >= REQUESTS.length && outcome !== 'complete') {
      throw new Error('a client that did all that is recorded has completed it', { cause: report });
    }
    promise(formatReport(report).startsWith(outcome), 'a report has a text');
  }
}

export const replay: Target = {
  name: 'replay',
  async run(input) {
    const before = openFds();
    await new Run(new Script(input)).go();
    await nothingLeft(before);
  },
};
