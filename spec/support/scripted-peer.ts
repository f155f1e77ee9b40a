/**
 * The server's side of a socket, driven by a spec: it takes the client's messages one by one and sends whatever bytes
 * the spec wants, sound or not. It shares nothing with lib/ but the addon's socket: bytes are built here, by hand, from
 * the protocol's text.
 */
import { WITH_FDS, native, type NativeSocket } from '../../lib/native.js';
import { sendBytes } from './send-bytes.js';

const HEADER = 16;
const READABLE = 1;
const EAGAIN = 11;

/** How long a spec waits for a message that must come. */
const PATIENCE_MS = 5_000;

export interface Received {
  id: number;
  command: number;
  flags: number;
  errno: number;
  payload: Buffer;
  fds: number[];
}

/** What a fake device answers to GET_INFO, GET_REGION_INFO and GET_IRQ_INFO. */
export interface FakeDevice {
  /** VFIO_DEVICE_FLAGS; default RESET. */
  flags?: number;
  regions?: { size: number; flags?: number }[];
  irqs?: { count: number; flags?: number }[];
  /** The JSON of VERSION's reply; default none. */
  capabilities?: object;
  minor?: number;
}

export function message(
  id: number,
  command: number,
  flags: number,
  errno: number,
  payload: Uint8Array,
): Buffer {
  const bytes = Buffer.alloc(HEADER + payload.byteLength);
  bytes.writeUInt16LE(id, 0);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(bytes.byteLength, 4);
  bytes.writeUInt32LE(flags, 8);
  bytes.writeUInt32LE(errno, 12);
  bytes.set(payload, HEADER);
  return bytes;
}

/** Little-endian words, as the protocol's tables list them. */
export function words(...values: (number | [value: bigint])[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(typeof value === 'number' ? 4 : 8);
      if (typeof value === 'number') bytes.writeUInt32LE(value);
      else bytes.writeBigUInt64LE(value[0]);
      return bytes;
    }),
  );
}

export class ScriptedPeer {
  /** The client's end; whoever connects with it owns it. */
  readonly clientFd: number;
  readonly #socket: NativeSocket;
  readonly #queue: Received[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #fds: number[] = [];
  #wake: (() => void) | undefined;
  #respond: ((received: Received) => void) | undefined;
  /** The client has closed its end. */
  ended = false;

  constructor() {
    const pair = native().socketPair();
    if (typeof pair === 'number') throw new Error(`socketpair: errno ${-pair}`);
    this.clientFd = pair[0];
    this.#socket = new (native().Socket)(pair[1], () => this.#read());
    this.#socket.watch(READABLE);
  }

  /** The next message of the client. */
  async receive(): Promise<Received> {
    const deadline = performance.now() + PATIENCE_MS;
    while (this.#queue.length === 0) {
      if (this.ended) throw new Error('the client has closed its end');
      const left = deadline - performance.now();
      if (left <= 0) throw new Error('the client sent nothing in time');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#queue.shift()!;
  }

  /** The next message, which must be this command. */
  async expect(command: number): Promise<Received> {
    const received = await this.receive();
    if (received.command !== command)
      throw new Error(`the client sent command ${received.command}, not ${command}`);
    return received;
  }

  /** Messages that came and that nobody has taken. */
  get pending(): readonly Received[] {
    return this.#queue;
  }

  /** Every later message goes to `respond` as it comes, those that wait first; undefined stops that. */
  onMessage(respond: ((received: Received) => void) | undefined): void {
    this.#respond = respond;
    while (this.#respond !== undefined && this.#queue.length > 0) this.#respond(this.#queue.shift()!);
  }

  /** A peer that does not read fills the socket, and the client has to keep what it sends. */
  setReading(on: boolean): void {
    this.#socket.watch(on ? READABLE : 0);
  }

  /** Bytes as they are, in one `sendmsg`. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    const sent = sendBytes(this.#socket, bytes, fds.length === 0 ? null : fds);
    if (sent !== bytes.byteLength)
      throw new Error(`the peer could send ${sent} of ${bytes.byteLength} bytes`);
  }

  /** Bytes of any length, going on when there is room. */
  async sendAll(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.byteLength;) {
      const took = native().send(this.#socket.handle, bytes, bytes.byteLength, null, 0, 0, sent, null);
      if (took > 0) sent += took;
      else if (took === -EAGAIN) await new Promise((resolve) => setTimeout(resolve, 1));
      else throw new Error(`the peer cannot send: errno ${-took}`);
    }
  }

  /** A good reply. */
  reply(to: Received, payload: Uint8Array = Buffer.alloc(0), fds: readonly number[] = []): void {
    this.send(message(to.id, to.command, 1, 0, payload), fds);
  }

  /** An error reply: a bare header. */
  refuse(to: Received, errno: number): void {
    this.send(message(to.id, to.command, 0x21, errno, Buffer.alloc(0)));
  }

  /** Answers VERSION. */
  async handshake(device: FakeDevice = {}, fds: readonly number[] = []): Promise<Received> {
    const request = await this.expect(1);
    const json = Buffer.from(`${JSON.stringify({ capabilities: device.capabilities ?? {} })}\0`);
    const version = Buffer.alloc(4);
    version.writeUInt16LE(device.minor ?? 1, 2);
    this.reply(request, Buffer.concat([version, json]), fds);
    return request;
  }

  /** Answers all that opening a device asks; config space (region 7) reads as zeroes. */
  async open(device: FakeDevice = {}, fds: readonly number[] = []): Promise<void> {
    const { flags = 1, regions = [], irqs = [] } = device;
    await this.handshake(device, fds);
    this.reply(await this.expect(4), words(16, flags, regions.length, irqs.length));
    for (let left = regions.length + irqs.length; left > 0; left--) {
      const asked = await this.receive();
      const index = asked.payload.readUInt32LE(8);
      if (asked.command === 5) {
        const { size, flags: regionFlags = 3 } = regions[index]!;
        this.reply(asked, words(32, regionFlags, index, 0, [BigInt(size)], [0n]));
      } else {
        const { count, flags: irqFlags = 1 } = irqs[index]!;
        this.reply(asked, words(16, irqFlags, index, count));
      }
    }
    if ((flags & 2) !== 0 && (regions[7]?.size ?? 0) > 0) {
      const asked = await this.expect(9);
      const count = asked.payload.readUInt32LE(12);
      this.reply(asked, Buffer.concat([asked.payload, Buffer.alloc(count)]));
    }
  }

  close(): void {
    this.ended = true;
    this.#socket.close();
    for (const { fds } of this.#queue) for (const fd of fds) native().closeFd(fd);
    this.#wake?.();
  }

  #read(): void {
    const chunk = Buffer.alloc(65536);
    while (!this.ended) {
      const count = native().recv(this.#socket.handle, chunk, 0, chunk.byteLength);
      if (count === -EAGAIN) break;
      if (count <= 0) {
        this.ended = true;
        this.#socket.watch(0);
        break;
      }
      if (count > WITH_FDS) this.#fds.push(...this.#socket.takeFds());
      this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, count % WITH_FDS)]);
      this.#cut();
    }
    this.#wake?.();
  }

  #cut(): void {
    while (this.#bytes.byteLength >= HEADER && this.#bytes.byteLength >= this.#bytes.readUInt32LE(4)) {
      const size = this.#bytes.readUInt32LE(4);
      const received: Received = {
        id: this.#bytes.readUInt16LE(0),
        command: this.#bytes.readUInt16LE(2),
        flags: this.#bytes.readUInt32LE(8),
        errno: this.#bytes.readUInt32LE(12),
        payload: Buffer.from(this.#bytes.subarray(HEADER, size)),
        fds: this.#fds,
      };
      this.#fds = [];
      this.#bytes = this.#bytes.subarray(size);
      if (this.#respond === undefined) this.#queue.push(received);
      else this.#respond(received);
    }
  }
}
