/**
 * A device for the specs of DMA: a server that keeps the memory it is given, reaches it through the fd that came or by
 * message, and logs the commands that came.
 */
import { Connection, negotiate } from '../../lib/connection/index.js';
import { Dma, type DmaOptions } from '../../lib/device/dma.js';
import { DeviceContext } from '../../lib/device/device-context.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { openFd } from '../../lib/transport/index.js';
import { ScriptedPeer, type Received } from '../support/scripted-peer.js';

export { until } from '../support/until.js';

const DMA_MAP = 2;
const DMA_UNMAP = 3;
const PATIENCE_MS = 5_000;

export interface DmaDeviceOptions extends DmaOptions {
  /** Negotiates a twin socket. */
  twin?: boolean;
  /** What VERSION's reply says. */
  capabilities?: object;
  inFlight?: number;
  timeoutMs?: number;
}

/** What the server was told of. */
export interface Mapped {
  flags: number;
  offset: number;
  address: bigint;
  size: number;
  /** The server's own view of it, where an fd came that may be read and written. */
  memory: Buffer | undefined;
}

/** What becomes of a command: an errno to refuse it with, nothing at all, these bytes as the reply, or it is served. */
export type Fate = number | 'silence' | Buffer | undefined;

export class DmaDevice {
  readonly peer = new ScriptedPeer();
  readonly twin: ScriptedPeer | undefined;
  readonly connection: Connection;
  context!: DeviceContext;
  dma!: Dma;
  /** Commands in words: `MAP 0x100000000+0x400000 flags 3, 1 fds`. */
  readonly log: string[] = [];
  /** Decides about each command before it is served. */
  fate: (line: string) => Fate = () => undefined;
  readonly maps = new Map<bigint, Mapped>();
  /** Commands that got no answer. */
  readonly silenced: Received[] = [];
  readonly #mappings: NativeMapping[] = [];
  readonly #answers: Received[] = [];
  #wake: (() => void) | undefined;

  private constructor(options: DmaDeviceOptions) {
    this.twin = options.twin === true ? new ScriptedPeer() : undefined;
    this.connection = new Connection(openFd(this.peer.clientFd), {
      timeoutMs: options.timeoutMs,
      inFlight: options.inFlight,
    });
  }

  static async open(options: DmaDeviceOptions = {}): Promise<DmaDevice> {
    const device = new DmaDevice(options);
    await device.#connect(options);
    return device;
  }

  /** Takes what is in the log. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  /** The server sends a request of its own; where, depends on the twin socket. In chunks, if their ends are given. */
  async send(bytes: Buffer, cuts: readonly number[] = []): Promise<void> {
    const socket = this.twin ?? this.peer;
    const ends = [...cuts, bytes.byteLength];
    for (const [index, end] of ends.entries()) {
      if (index > 0) await turn();
      await socket.sendAll(bytes.subarray(ends[index - 1] ?? 0, end));
    }
  }

  /** Sends a request of the server's, and gives the reply. */
  async ask(bytes: Buffer, cuts?: readonly number[]): Promise<Received> {
    await this.send(bytes, cuts);
    return this.answer();
  }

  /** The next reply to a request of the server's. */
  async answer(): Promise<Received> {
    if (this.twin !== undefined) return this.twin.receive();
    const deadline = performance.now() + PATIENCE_MS;
    while (this.#answers.length === 0) {
      if (performance.now() > deadline) throw new Error('no reply came in time');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#answers.shift()!;
  }

  /** What `device.close` does. */
  close(): void {
    this.connection.close();
    this.context.closeResources();
    this.peer.close();
    this.twin?.close();
    for (const mapping of this.#mappings.splice(0)) mapping.close();
  }

  async #connect({ twin, capabilities, inFlight, ...options }: DmaDeviceOptions): Promise<void> {
    const { twin: other } = this;
    const said =
      other === undefined ? capabilities : { ...capabilities, twin_socket: { supported: true, fd_index: 0 } };
    const greeting = this.peer
      .handshake({ capabilities: said ?? {} }, other === undefined ? [] : [other.clientFd])
      .then(() => other !== undefined && native().closeFd(other.clientFd));
    const negotiated = await negotiate(this.connection, { twinSocket: twin ?? false }, {});
    await greeting;
    this.peer.onMessage((received) => this.#serve(received));
    this.context = new DeviceContext(this.connection, negotiated, {
      mmap: 'never',
      writeChunkBytes: 4096,
      chunksInFlight: 4,
      inFlightFixed: inFlight !== undefined,
      spinUs: 50,
      tryOptional: false,
    });
    this.dma = new Dma(this.context, options);
  }

  #serve(received: Received): void {
    if ((received.flags & 1) !== 0) {
      this.#answers.push(received);
      this.#wake?.();
      return;
    }
    const line = describe(received);
    this.log.push(line);
    const fate = this.fate(line);
    if (fate === undefined) this.#carryOut(received);
    for (const fd of received.fds) native().closeFd(fd);
    if (fate === 'silence') this.silenced.push(received);
    else if (typeof fate === 'number') this.peer.refuse(received, fate);
    else this.peer.reply(received, fate ?? (received.command === DMA_UNMAP ? received.payload : undefined));
  }

  #carryOut({ command, payload, fds }: Received): void {
    if (command === DMA_UNMAP) {
      this.maps.delete(payload.readBigUInt64LE(8));
      return;
    }
    if (command !== DMA_MAP) return;
    const offset = Number(payload.readBigUInt64LE(8));
    const size = Number(payload.readBigUInt64LE(24));
    const address = payload.readBigUInt64LE(16);
    let memory: Buffer | undefined;
    if (fds[0] !== undefined) {
      const mapping = native().map(fds[0], offset, size, true, true);
      if (typeof mapping !== 'number') {
        this.#mappings.push(mapping);
        memory = Buffer.from(mapping.view(0, size) as ArrayBuffer);
      }
    }
    this.maps.set(address, { flags: payload.readUInt32LE(4), offset, address, size, memory });
  }
}

/** `MAP 0x100000000+0x400000 flags 3, 1 fds`, `UNMAP 0x100000000+0x400000`, `command 9`. */
function describe({ command, payload, fds }: Received): string {
  const hex = (at: number): string => `0x${payload.readBigUInt64LE(at).toString(16)}`;
  if (command === DMA_MAP) {
    const from = payload.readBigUInt64LE(8) === 0n ? '' : ` offset ${hex(8)}`;
    return `MAP ${hex(16)}+${hex(24)}${from} flags ${payload.readUInt32LE(4)}, ${fds.length} fds`;
  }
  return command === DMA_UNMAP ? `UNMAP ${hex(8)}+${hex(16)}` : `command ${command}`;
}

/** Lets the loop turn. */
export function turn(ms = 2): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
