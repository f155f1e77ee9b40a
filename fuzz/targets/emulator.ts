/**
 * The emulator's session, and a client that says anything: VERSION right or wrong, commands of all kinds with wrong
 * fields, halves, floods, fds, answers to the server's requests, a full socket, its end at any time. Every command with
 * a reply due is answered once, in order, with a result or an errno, and no command makes the device fail; nothing is
 * thrown into the loop, what is kept for the client stays within the limits, and nothing is left when it has gone.
 *
 * The input: two bytes that choose device and settings, then steps: a byte that says what and what that takes.
 */
import { MemoryStore, NvmeDevice, RamDevice } from '../../lib/emulator/index.js';
import type { ClientState } from '../../lib/emulator/client-state.js';
import type { ClientContext, DeviceModel } from '../../lib/emulator/device-model.js';
import { settingsOf, type EmulatorOptions } from '../../lib/emulator/emulator-options.js';
import { ClientListener } from '../../lib/emulator/client-listener.js';
import { RegionTable } from '../../lib/emulator/region-table.js';
import { HIGH_WATER, MAX_QUEUED, EmulatorSession } from '../../lib/emulator/emulator-session.js';
import { ClosedError, TransportError } from '../../lib/errors.js';
import { closeFds, native } from '../../lib/native.js';
import { MAX_MESSAGE_SIZE, type TransportHandler } from '../../lib/transport/index.js';
import { nothingLeft, openFds, turn } from '../engine/leak-check.js';
import { Pipe } from '../engine/pipe.js';
import { Script } from '../engine/script.js';
import { promise, type Target } from '../engine/target.js';
import { commandOf, message, version, versionOf } from './client-messages.js';
import { answerTo, errorTo, Ledger } from './ledger.js';

const MOST_STEPS = 120;
const MOST_FLOODS = 3;
/** Without a reply. A busy machine has turned the loop often by then. */
const PATIENCE_MS = 500;
const EIO = 5;
const EPIPE = 32;
const REGION_WRITE = 10;
const MOST_MAPS = 6;
const MOST_EVENT_FDS = 3;
const PAGE = 4096;
/** A message more than is looked for, and what it costs. */
const SLACK = 2 * MAX_MESSAGE_SIZE + 4096;

type Served = DeviceModel & { close(): void };

/** A session, its client, and what went between them. */
class Run {
  readonly #script: Script;
  readonly #device: Served;
  readonly #listener: ClientListener;
  readonly #ledger = new Ledger();
  readonly #passesFds: boolean;
  readonly #errors: unknown[] = [];
  #pipe!: Pipe;
  #session: EmulatorSession | undefined;
  #client: ClientState | undefined;
  #last: Buffer = version({});
  #rest: Buffer | undefined;
  #floods = 0;
  #id = 0;

  constructor(script: Script) {
    this.#script = script;
    const [what, how] = [script.byte(), script.byte()];
    this.#passesFds = (how & 1) !== 0;
    this.#device = this.#watched(what % 4 === 3 ? nvmeDevice() : ramDevice(this.#passesFds));
    const settings = settingsOf(this.#options(how));
    const regions = new RegionTable(this.#device.regions);
    this.#listener = new ClientListener({
      places: 1,
      versionTimeoutMs: settings.versionTimeoutMs,
      messageTimeoutMs: settings.messageTimeoutMs,
      admit: (open) => (this.#session = new EmulatorSession(this.#device, regions, settings, open)),
      onTrouble: (error) => this.#errors.push(error),
    });
  }

  async go(): Promise<void> {
    const open = (handler: TransportHandler): Pipe =>
      (this.#pipe = new Pipe(this.#ledger.watch(handler), this.#passesFds));
    const connection = this.#listener.welcome(open);
    for (let i = 0; i < MOST_STEPS && !this.#script.isOver; i++) {
      const step = this.#script.byte();
      this.#step(step % 16);
      if (step >= 192) await turn();
      this.#look();
    }
    await this.#settle();
    this.#session?.close();
    this.#listener.close();
    this.#pipe.end(new ClosedError());
    closeFds(this.#pipe.takeFds());
    await connection.ended;
    this.#look();
    promise(this.#client?.connected !== true, 'the device knows that its client has gone');
    promise((this.#client?.dmaTable.size ?? 0) === 0, 'no mapping is kept of a client that has gone');
    await this.#device.reset?.(this.#client!);
    this.#device.close();
    if (this.#errors.length > 0)
      throw new Error("a client's command made the device fail", { cause: this.#errors[0] });
  }

  #options(how: number): EmulatorOptions {
    return {
      maxDmaMaps: MOST_MAPS,
      maxEventFds: MOST_EVENT_FDS,
      dirtyPages: (['none', 'logging', 'legacy', 'unmap'] as const)[(how >> 1) & 3]!,
      maxDataXferSize: (how & 8) === 0 ? 1 << 20 : PAGE,
      dmaTimeoutMs: 20,
      intercept: ({ id }) => {
        const verdict = (how & 16) === 0 ? 'pass' : verdictOf(id);
        this.#ledger.next(verdict === 'drop');
        return verdict;
      },
      onError: (error) => this.#errors.push(error),
    };
  }

  /** The device, which tells who its client is. */
  #watched(device: Served): Served {
    const attach = device.attach?.bind(device);
    device.attach = (client: ClientContext): void => {
      this.#client = client as ClientState;
      attach?.(client);
    };
    return device;
  }

  #step(step: number): void {
    switch (step) {
      case 0:
        this.#send(version({ max_msg_fds: 8, twin_socket: { supported: true }, write_multiple: true }));
        break;
      case 1:
        this.#send(versionOf(this.#script));
        break;
      case 2:
        this.#pipe.receive(this.#script.bytes(64));
        break;
      case 3:
        this.#half();
        break;
      case 4:
        this.#flood();
        break;
      case 5:
        this.#pipe.makeRoom(this.#script.byte() % 2 === 0 ? Infinity : this.#script.byte());
        break;
      case 6:
      case 7:
      case 8:
        this.#answer();
        break;
      case 9:
        this.#goAway();
        break;
      default:
        this.#send(commandOf(this.#script, this.#id++));
    }
  }

  #send(bytes: Buffer): void {
    this.#last = bytes;
    const count = this.#passesFds ? this.#script.byte() : 0;
    const fds = count < 128 ? [] : Array.from({ length: 1 + (count % 4) }, () => fdOf(this.#script.byte()));
    this.#pipe.receive(bytes, fds.length === 0 ? undefined : fds);
  }

  /** One half of a command now; the other is the next one's beginning, or never comes. */
  #half(): void {
    if (this.#rest !== undefined) this.#pipe.receive(this.#rest);
    const bytes = commandOf(this.#script, this.#id++);
    const middle = this.#script.byte() % bytes.length;
    this.#rest = bytes.subarray(middle);
    if (middle > 0) this.#pipe.receive(bytes.subarray(0, middle));
  }

  #flood(): void {
    const count = this.#script.byte();
    if (++this.#floods > MOST_FLOODS) return;
    if (count > 250) this.#last = message(7, REGION_WRITE, 0, Buffer.alloc(1 << 20));
    const times = count > 250 ? 20 : count * 2;
    this.#pipe.receive(Buffer.concat(Array.from({ length: times }, () => this.#last)));
  }

  #answer(): void {
    const { requests } = this.#ledger;
    const [request] = requests.splice(this.#script.byte() % Math.max(1, requests.length), 1);
    const how = this.#script.byte();
    if (request === undefined) return;
    const bytes = answerTo(request, how < 192 ? 0 : how % 8, this.#script.bytes(64));
    this.#pipe.receive(bytes);
    if (how === 255) this.#pipe.receive(bytes);
  }

  #goAway(): void {
    const how = this.#script.byte();
    if (how % 4 === 0) this.#pipe.end(new ClosedError());
    // It reads no more, which sending finds.
    else if (how % 4 === 1) this.#pipe.broken = new TransportError('sendmsg', EPIPE, 'fuzzer');
    else if (how % 4 === 2) this.#session?.close();
  }

  /** What is promised at any time. */
  #look(): void {
    const { fault } = this.#pipe;
    if (fault !== undefined) throw new Error('thrown into the transport', { cause: fault });
    this.#ledger.read(this.#pipe.sent);
    const kept = this.#session?.kept ?? { commands: 0, replies: 0 };
    promise(kept.commands <= MAX_QUEUED + SLACK, `${kept.commands} bytes of commands wait`);
    promise(kept.replies <= HIGH_WATER + SLACK, `${kept.replies} bytes wait to be taken`);
    promise((this.#client?.dmaTable.size ?? 0) <= MOST_MAPS, 'there are no more mappings than maxDmaMaps');
    promise(this.#armed() <= MOST_EVENT_FDS, 'there are no more eventfds than maxEventFds');
  }

  #armed(): number {
    const client = this.#client;
    if (client?.connected !== true) return 0;
    const lines = this.#device.irqs.flatMap(({ index, count }) =>
      Array.from({ length: count }, (_, sub) => client.irq(index, sub)),
    );
    return lines.filter(({ armed }) => armed).length;
  }

  /** The client takes all that comes, and answers each request with an error: it is answered, too. */
  async #settle(): Promise<void> {
    if (this.#pipe.ended) return;
    this.#pipe.makeRoom(Infinity);
    let end = performance.now() + PATIENCE_MS;
    for (let replies = -1; !this.#isSettled() && performance.now() < end;) {
      if (replies !== this.#ledger.replies) end = performance.now() + PATIENCE_MS;
      replies = this.#ledger.replies;
      for (const request of this.#ledger.requests.splice(0)) this.#pipe.receive(errorTo(request, EIO));
      await turn();
      this.#look();
    }
    promise(
      this.#isSettled(),
      `every command with a reply due is answered, and what comes is read: ${this.#state()}`,
    );
  }

  #state(): string {
    const { waiting, requests } = this.#ledger;
    const due = waiting.filter(({ isDue }) => isDue).map(({ command, id }) => `${command} #${id}`);
    const { isReading } = this.#pipe;
    const { length } = due;
    const kept = this.#session?.kept;
    return JSON.stringify({ length, due: due.slice(0, 3), requests: requests.length, isReading, kept });
  }

  #isSettled(): boolean {
    if (this.#pipe.ended) return true;
    return this.#ledger.isSettled && this.#ledger.requests.length === 0 && this.#pipe.isReading;
  }
}

function ramDevice(passesFds: boolean): Served {
  const sizes = { sharedSize: passesFds ? 4 * PAGE : 0, ramSize: 4 * PAGE };
  const features = new Map([[9, Buffer.alloc(8)]]);
  return new RamDevice({ ...sizes, features, migration: 'pre-copy', doorbells: passesFds });
}

function nvmeDevice(): Served {
  const store = new MemoryStore(64 * PAGE);
  return new NvmeDevice({
    namespaces: [{ store }],
    queues: 2,
    mapDoorbells: false,
    shadowDoorbells: true,
  });
}

function verdictOf(id: number): 'pass' | 'drop' | { errno: number } | { delayMs: number } {
  if (id % 16 === 13) return 'drop';
  if (id % 16 === 14) return { errno: EIO };
  return id % 16 === 15 ? { delayMs: 0 } : 'pass';
}

function fdOf(kind: number): number {
  if (kind % 2 === 0) return native().eventfd(0);
  return native().memfd('fuzz', kind % 4 === 1 ? PAGE : 4 * PAGE, false);
}

export const emulator: Target = {
  name: 'emulator',
  async run(input) {
    const before = openFds();
    await new Run(new Script(input)).go();
    await nothingLeft(before);
  },
};
