/**
 * The client's side of a connection, driven by a spec: it sends the bytes that `wire.ts` builds and takes replies apart
 * by hand. It shares nothing with lib/ but the addon's socket.
 */
import { WITH_FDS, native, type NativeSocket } from '../../lib/native.js';
import { sendBytes } from '../support/send-bytes.js';
import { errorReply, regionReadRequest, regionWriteRequest, versionRequest, wire } from '../support/wire.js';

const HEADER = 16;
const EAGAIN = 11;
const READABLE = 1;
/** How long a spec waits for a message that must come. */
const PATIENCE_MS = 5_000;

export const REPLY = 0x1;
export const NO_REPLY = 0x10;
export const ERROR = 0x20;

export interface Received {
  id: number;
  command: number;
  flags: number;
  errno: number;
  payload: Buffer;
  fds: number[];
}

/** What VERSION's reply says. */
export interface Agreed {
  major: number;
  minor: number;
  json: Record<string, unknown>;
  fds: number[];
}

/** A connected pair of sockets. */
export function socketPair(): [number, number] {
  const pair = native().socketPair();
  if (typeof pair === 'number') throw new Error(`socketpair: errno ${-pair}`);
  return pair;
}

export class RawClient {
  readonly #socket: NativeSocket;
  readonly #inbox: Received[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #fds: number[] = [];
  #waiting: (() => void)[] = [];
  #nextId = 1;
  /** The server has closed its end. */
  ended = false;

  /** Owns `fd`. */
  constructor(fd: number) {
    this.#socket = new (native().Socket)(fd, () => this.#read());
    this.#socket.watch(READABLE);
  }

  static connect(path: string): RawClient {
    const fd = native().connectUnix(path);
    if (fd < 0) throw new Error(`connect: errno ${-fd}`);
    return new RawClient(fd);
  }

  /** Sends a command and takes its reply; what comes before it stays in the inbox. */
  async ask(request: Buffer, fds: readonly number[] = []): Promise<Received> {
    const id = this.post(request, fds);
    const isReply = (received: Received) => received.id === id && (received.flags & 0xf) === REPLY;
    return this.take(isReply, `the reply to command ${request.readUInt16LE(2)}`);
  }

  /** `ask`, and the errno of a reply that must be a bare error header. */
  async refusal(request: Buffer, fds?: readonly number[]): Promise<number> {
    const { flags, errno, payload } = await this.ask(request, fds);
    if (flags !== (REPLY | ERROR)) throw new Error(`the reply has flags 0x${flags.toString(16)}, no error`);
    if (payload.byteLength > 0)
      throw new Error(`the error reply has a payload of ${payload.byteLength} bytes`);
    return errno;
  }

  /** `ask`, and the payload of a reply that must be a good one without fds. */
  async answer(request: Buffer, fds?: readonly number[]): Promise<Buffer> {
    const { command, flags, errno, payload, fds: came } = await this.ask(request, fds);
    if (flags !== REPLY) throw new Error(`command ${command}: flags 0x${flags.toString(16)}, errno ${errno}`);
    if (came.length > 0) throw new Error(`command ${command}: ${came.length} fds came`);
    return payload;
  }

  /** Sends a command under an id of its own and waits for nothing. Returns the id. */
  post(request: Buffer, fds: readonly number[] = []): number {
    const id = this.#nextId++;
    const bytes = Buffer.from(request);
    bytes.writeUInt16LE(id, 0);
    this.send(bytes, fds);
    return id;
  }

  /** Answers a command of the server with a whole message, which gets the command's id. */
  reply(to: Received, reply: Buffer): void {
    const bytes = Buffer.from(reply);
    bytes.writeUInt16LE(to.id, 0);
    this.send(bytes);
  }

  refuse(to: Received, errno: number): void {
    this.reply(to, errorReply(to.command, errno));
  }

  /** Bytes as they are, in one `sendmsg`. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    const sent = sendBytes(this.#socket, bytes, fds.length === 0 ? null : fds);
    if (sent !== bytes.byteLength) throw new Error(`sent ${sent} of ${bytes.byteLength} bytes`);
  }

  /** The next message that `wanted` says yes to. */
  async take(wanted: (received: Received) => boolean = () => true, what = 'a message'): Promise<Received> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const index = this.#inbox.findIndex(wanted);
      if (index !== -1) return this.#inbox.splice(index, 1)[0]!;
      if (this.ended) throw new Error(`the server closed the connection before ${what} came`);
      await this.#something(deadline, what);
    }
  }

  /** The next command of the server, which must be this one. */
  async command(command: number): Promise<Received> {
    const received = await this.take(({ flags }) => (flags & 0xf) === 0, `command ${command}`);
    if (received.command !== command) throw new Error(`command ${received.command} came, not ${command}`);
    return received;
  }

  /** Resolves when the server has closed its end. */
  async end(): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!this.ended) await this.#something(deadline, 'the end');
  }

  /** Messages that nobody has taken. */
  get inbox(): readonly Received[] {
    return this.#inbox;
  }

  /** Forgets what came and nobody has taken, and says how many messages those were. */
  drop(): number {
    const dropped = this.#inbox.splice(0);
    for (const { fds } of dropped) for (const fd of fds) native().closeFd(fd);
    return dropped.length;
  }

  /** Negotiates; gives what the reply says, and its fds. */
  async negotiate(capabilities: object = {}): Promise<Agreed> {
    const { flags, payload, fds } = await this.ask(versionRequest({ data: { capabilities } }));
    if (flags !== REPLY) throw new Error('VERSION was refused');
    const { capabilities: json } = JSON.parse(payload.toString('utf8', 4, payload.length - 1)) as {
      capabilities: Record<string, unknown>;
    };
    return { major: payload.readUInt16LE(0), minor: payload.readUInt16LE(2), json, fds };
  }

  async readRegion(region: number, offset: number, count: number): Promise<Buffer> {
    return (await this.answer(regionReadRequest({ region, offset, count }))).subarray(16);
  }

  async writeRegion(region: number, offset: number, data: Uint8Array): Promise<void> {
    await this.answer(regionWriteRequest({ region, offset, data }));
  }

  async read32(region: number, offset: number): Promise<number> {
    return (await this.readRegion(region, offset, 4)).readUInt32LE();
  }

  write32(region: number, offset: number, value: number): Promise<void> {
    return this.writeRegion(region, offset, wire().u32(value).build());
  }

  write64(region: number, offset: number, value: number | bigint): Promise<void> {
    return this.writeRegion(region, offset, wire().u64(value).build());
  }

  /** Stops reading, and goes on. */
  setReading(on: boolean): void {
    this.#socket.watch(on ? READABLE : 0);
  }

  close(): void {
    this.ended = true;
    this.#socket.close();
    for (const { fds } of this.#inbox) for (const fd of fds) native().closeFd(fd);
    this.#wake();
  }

  async #something(deadline: number, what: string): Promise<void> {
    const left = deadline - performance.now();
    if (left <= 0) throw new Error(`${what} did not come in time`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, left);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #wake(): void {
    for (const resume of this.#waiting.splice(0)) resume();
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
    this.#wake();
  }

  #cut(): void {
    while (this.#bytes.byteLength >= HEADER && this.#bytes.byteLength >= this.#bytes.readUInt32LE(4)) {
      const size = this.#bytes.readUInt32LE(4);
      this.#inbox.push({
        id: this.#bytes.readUInt16LE(0),
        command: this.#bytes.readUInt16LE(2),
        flags: this.#bytes.readUInt32LE(8),
        errno: this.#bytes.readUInt32LE(12),
        payload: Buffer.from(this.#bytes.subarray(HEADER, size)),
        // Good enough for specs: the server sends no fds before others were taken.
        fds: this.#fds.splice(0),
      });
      this.#bytes = this.#bytes.subarray(size);
    }
  }
}
