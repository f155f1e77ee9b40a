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
import { closeFds, native } from '../../lib/native.js';
import { nothingLeft, openFds, turn } from '../engine/leak-check.js';
import { Script } from '../engine/script.js';
import { promise, type Target } from '../engine/target.js';
import { commandOf, version, versionOf } from './client-messages.js';
import { ClientSide } from './client-side.js';

const MOST_STEPS = 120;
const EIO = 5;
const MOST_MAPS = 6;
const MOST_EVENT_FDS = 3;
const PAGE = 4096;
/** Of 1 MiB each: more than may wait. */
const FLOOD_MESSAGES = 20;

type Served = DeviceModel & { close(): void };

/** A session, its client, and what went between them. */
class Run {
  readonly #script: Script;
  readonly #device: Served;
  readonly #listener: ClientListener;
  readonly #client: ClientSide;
  readonly #passesFds: boolean;
  readonly #errors: unknown[] = [];
  #session: EmulatorSession | undefined;
  /** The client as its device sees it. */
  #attached: ClientState | undefined;
  #id = 0;

  constructor(script: Script) {
    this.#script = script;
    const [what, how] = [script.byte(), script.byte()];
    this.#passesFds = (how & 1) !== 0;
    this.#client = new ClientSide({
      script,
      passesFds: this.#passesFds,
      floodMessages: FLOOD_MESSAGES,
      limits: { commands: MAX_QUEUED, replies: HIGH_WATER },
      kept: () => this.#session?.kept,
      first: version({}),
    });
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
    const connection = this.#listener.admit(this.#client.open);
    for (let i = 0; i < MOST_STEPS && !this.#script.isOver; i++) {
      const step = this.#script.byte();
      this.#step(step % 16);
      if (step >= 192) await turn();
      this.#check();
    }
    await this.#client.settle(() => this.#check());
    this.#session?.close();
    this.#listener.close();
    this.#client.leave();
    closeFds(this.#client.pipe.takeFds());
    await connection.ended;
    this.#check();
    promise(this.#attached?.isConnected !== true, 'the device knows that its client has gone');
    promise((this.#attached?.dmaTable.size ?? 0) === 0, 'no mapping is kept of a client that has gone');
    await this.#device.reset?.(this.#attached!);
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
        this.#client.ledger.next(verdict === 'drop');
        return verdict;
      },
      onError: (error) => this.#errors.push(error),
    };
  }

  /** The device, which tells who its client is. */
  #watched(device: Served): Served {
    const attach = device.attach?.bind(device);
    device.attach = (client: ClientContext): void => {
      this.#attached = client as ClientState;
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
        this.#client.sendGarbage();
        break;
      case 3:
        this.#client.sendHalf(commandOf(this.#script, this.#id++));
        break;
      case 4:
        this.#client.flood();
        break;
      case 5:
        this.#client.makeRoom();
        break;
      case 6:
      case 7:
      case 8:
        this.#client.answer(() => this.#script.bytes(64));
        break;
      case 9:
        this.#goAway();
        break;
      default:
        this.#send(commandOf(this.#script, this.#id++));
    }
  }

  #send(bytes: Buffer): void {
    const count = this.#passesFds ? this.#script.byte() : 0;
    const fds = count < 128 ? [] : Array.from({ length: 1 + (count % 4) }, () => fdOf(this.#script.byte()));
    this.#client.send(bytes, fds);
  }

  #goAway(): void {
    const how = this.#script.byte();
    if (how % 4 === 0) this.#client.leave();
    else if (how % 4 === 1) this.#client.stopReading();
    else if (how % 4 === 2) this.#session?.close();
  }

  /** What is promised at any time. */
  #check(): void {
    this.#client.check();
    promise((this.#attached?.dmaTable.size ?? 0) <= MOST_MAPS, 'there are no more mappings than maxDmaMaps');
    promise(this.#armed() <= MOST_EVENT_FDS, 'there are no more eventfds than maxEventFds');
  }

  #armed(): number {
    const client = this.#attached;
    if (client?.isConnected !== true) return 0;
    const lines = this.#device.irqs.flatMap(({ index, count }) =>
      Array.from({ length: count }, (_, sub) => client.irq(index, sub)),
    );
    return lines.filter(({ isArmed: armed }) => armed).length;
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
