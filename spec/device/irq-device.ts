/**
 * A device for the specs of interrupts: a server that keeps the eventfds it is given, a config space and BARs that are
 * plain memory, and a log of all that was changed, in the order in which it came.
 */
import { Connection, negotiate } from '../../lib/connection/index.js';
import { ConfigSpace } from '../../lib/device/config-space.js';
import { Irqs } from '../../lib/device/irqs.js';
import { RegionDescription } from '../../lib/device/region-description.js';
import { Region } from '../../lib/device/region.js';
import { DeviceContext } from '../../lib/device/device-context.js';
import { native, type NativeEventFd } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { ScriptedPeer, type Received } from '../support/scripted-peer.js';

const SET_IRQS = 8;
const REGION_READ = 9;
const REGION_WRITE = 10;
const CONFIG = 7;
const READ_WRITE = 3;

const FLAG_NAMES = ['NONE', 'BOOL', 'EVENTFD', 'MASK', 'UNMASK', 'TRIGGER'];

export interface IrqDeviceOptions {
  /** What VERSION's reply says. */
  minor?: number;
  maxMsgFds?: number;
  tryOptional?: boolean;
  /** Default true. */
  isPci?: boolean;
  /** Of INTx, MSI, MSI-X, ERR, REQ and so on. */
  irqs?: { count: number; flags?: number }[];
  /** The config space; default none. */
  config?: Buffer;
  /** Whether config space can be written. */
  configFlags?: number;
  /** Sizes of BARs. */
  bars?: Record<number, number>;
  timeoutMs?: number;
}

/** What becomes of a message: an errno to refuse it with, nothing at all (`silence`), or undefined to serve it. */
export type Fate = number | 'silence' | undefined;

export class IrqDevice {
  readonly peer = new ScriptedPeer();
  readonly connection: Connection;
  context!: DeviceContext;
  irqs!: Irqs;
  config: ConfigSpace | undefined;
  /** What the client changed: SET_IRQS in words, writes as `region offset = bytes`. */
  readonly log: string[] = [];
  /** Decides about each message before it is served. */
  fate: (line: string) => Fate = () => undefined;
  /** The eventfds that came, by index, action and subindex: `2 TRIGGER 0`. */
  readonly #eventfds = new Map<string, NativeEventFd>();
  readonly #memory = new Map<number, Buffer>();
  readonly #options: IrqDeviceOptions;

  private constructor(options: IrqDeviceOptions) {
    this.#options = options;
    this.connection = new Connection(openFd(this.peer.clientFd), { timeoutMs: options.timeoutMs });
    for (const [bar, size] of Object.entries(options.bars ?? {})) {
      this.#memory.set(Number(bar), Buffer.alloc(size));
    }
    if (options.config !== undefined) this.#memory.set(CONFIG, Buffer.from(options.config));
  }

  static async open(options: IrqDeviceOptions = {}): Promise<IrqDevice> {
    const device = new IrqDevice(options);
    await device.#connect();
    return device;
  }

  /** Signals an eventfd as a server does. */
  signal(index: number, subindex: number, count = 1, action = 'TRIGGER'): void {
    const eventfd = this.#eventfds.get(`${index} ${action} ${subindex}`);
    if (eventfd === undefined)
      throw new Error(`the server has no eventfd for ${index} ${action} ${subindex}`);
    const result = eventfd.signal(count);
    if (result < 0) throw new Error(`eventfd: errno ${-result}`);
  }

  /** How many eventfds the server has. */
  get held(): number {
    return this.#eventfds.size;
  }

  /** The memory of a region, 7 for config space. */
  memory(region: number): Buffer {
    return this.#memory.get(region)!;
  }

  /** Takes what is in the log. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  close(): void {
    this.connection.close();
    this.context.closeResources();
    this.peer.close();
    for (const eventfd of this.#eventfds.values()) eventfd.close();
    this.#eventfds.clear();
  }

  async #connect(): Promise<void> {
    const { minor = 1, maxMsgFds = 8, tryOptional = false } = this.#options;
    const greeting = this.peer.handshake({ minor, capabilities: { max_msg_fds: maxMsgFds } });
    const negotiated = await negotiate(this.connection, {}, {});
    await greeting;
    this.peer.onMessage((received) => this.#serve(received));
    this.context = new DeviceContext(this.connection, negotiated, {
      mmap: 'never',
      writeChunkBytes: 4096,
      chunksInFlight: 4,
      inFlightFixed: false,
      spinUs: 50,
      tryOptional,
    });
    const regions = Array.from({ length: 9 }, (_, index) => this.#region(index));
    if (this.#memory.has(CONFIG)) {
      const size = this.memory(CONFIG).length;
      this.config = new ConfigSpace(regions[CONFIG]!, size, minor === 0, this.context.memorySpace);
      await this.config.refresh();
    }
    const infos = (this.#options.irqs ?? []).map(({ count, flags = 1 }, index) => ({ index, count, flags }));
    this.irqs = new Irqs(this.context, infos, {
      isPci: this.#options.isPci ?? true,
      config: this.config,
      region: (index) => {
        const region = regions[index];
        if (region === undefined) throw new RangeError(`no region ${index}`);
        return region;
      },
    });
  }

  #region(index: number): Region {
    const size = this.#memory.get(index)?.length ?? 0;
    const flags = index === CONFIG ? (this.#options.configFlags ?? READ_WRITE) : READ_WRITE;
    const info = {
      index,
      flags,
      size,
      offset: 0,
      argsz: 32,
      truncated: false,
      capabilities: { unknown: [] },
    };
    return new Region(this.context, new RegionDescription(info, []));
  }

  #serve(received: Received): void {
    const { payload } = received;
    if (received.command === REGION_READ) {
      const at = Number(payload.readBigUInt64LE(0));
      const count = payload.readUInt32LE(12);
      const bytes = this.memory(payload.readUInt32LE(8)).subarray(at, at + count);
      this.peer.reply(received, Buffer.concat([payload.subarray(0, 16), bytes]));
      return;
    }
    const line = describe(received);
    this.log.push(line);
    const fate = this.fate(line);
    if (fate !== undefined) {
      for (const fd of received.fds) native().closeFd(fd);
      if (fate !== 'silence') this.peer.refuse(received, fate);
      return;
    }
    if (received.command === SET_IRQS) this.#setIrqs(received);
    if (received.command === REGION_WRITE) {
      payload.copy(this.memory(payload.readUInt32LE(8)), Number(payload.readBigUInt64LE(0)), 16);
    }
    this.peer.reply(received, received.command === REGION_WRITE ? payload.subarray(0, 16) : Buffer.alloc(0));
  }

  #setIrqs({ payload, fds }: Received): void {
    const [flags, index, start, count] = [4, 8, 12, 16].map((at) => payload.readUInt32LE(at));
    const action = flagNames(flags! & 0x38);
    if (count === 0) this.#drop((key) => key.startsWith(`${index} TRIGGER `));
    if ((flags! & 4) === 0) return;
    for (let i = 0; i < count!; i++) {
      const key = `${index} ${action} ${start! + i}`;
      this.#drop((other) => other === key);
      const fd = fds[i];
      if (fd !== undefined) this.#eventfds.set(key, new (native().EventFd)(fd, () => undefined));
    }
  }

  #drop(which: (key: string) => boolean): void {
    for (const [key, eventfd] of this.#eventfds) {
      if (!which(key)) continue;
      eventfd.close();
      this.#eventfds.delete(key);
    }
  }
}

function flagNames(flags: number): string {
  return FLAG_NAMES.filter((_, bit) => (flags & (1 << bit)) !== 0).join('|');
}

/** `SET_IRQS EVENTFD|TRIGGER 2: 0+4, 4 fds`, `config 0x4 = 0004`, `BAR4 0x10 = 0000e0fe`. */
function describe({ command, payload, fds }: Received): string {
  if (command === SET_IRQS) {
    const [argsz, flags, index, start, count] = [0, 4, 8, 12, 16].map((at) => payload.readUInt32LE(at));
    if (argsz !== payload.length)
      throw new Error(`argsz is ${argsz}, the payload has ${payload.length} bytes`);
    const data = payload.length === 20 ? '' : `, data ${payload.subarray(20).toString('hex')}`;
    const own = fds.length === 0 ? '' : `, ${fds.length} fds`;
    return `SET_IRQS ${flagNames(flags!)} ${index}: ${start}+${count}${data}${own}`;
  }
  if (command === REGION_WRITE) {
    const region = payload.readUInt32LE(8);
    const name = region === CONFIG ? 'config' : `BAR${region}`;
    return `${name} 0x${payload.readBigUInt64LE(0).toString(16)} = ${payload.subarray(16).toString('hex')}`;
  }
  return `command ${command}`;
}

/** Lets the loop turn: eventfds are read, closed handles go. */
export function turn(ms = 5): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
