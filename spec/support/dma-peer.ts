/**
 * A server's end of a socket for DMA messages in great number and of any size: nothing is copied about on its side. One
 * exchange at a time, and whatever else comes is an error.
 */
import { WITH_FDS, native, type NativeSocket } from '../../lib/native.js';

const READABLE = 1;
const WRITABLE = 2;
const EAGAIN = 11;
const HEADER = 16;
const ROOM = (1 << 20) + 4096;

const DMA_READ = 11;
const DMA_WRITE = 12;

export class DmaPeer {
  /** The client's end; whoever connects with it owns it. */
  readonly clientFd: number;
  readonly #socket: NativeSocket;
  readonly #into = Buffer.allocUnsafeSlow(ROOM);
  readonly #head = Buffer.alloc(32);
  #filled = 0;
  #outHead: Uint8Array = this.#head;
  #outBody: Uint8Array | null = null;
  #outFds: readonly number[] | null = null;
  /** Bytes of the message that are still to be sent, and that have been. */
  #left = 0;
  #sent = 0;
  #resolve: ((message: Buffer) => void) | undefined;
  #reject: ((error: Error) => void) | undefined;

  constructor() {
    const pair = native().socketPair();
    if (typeof pair === 'number') throw new Error(`socketpair: errno ${-pair}`);
    this.clientFd = pair[0];
    this.#socket = new (native().Socket)(pair[1], () => this.#turn());
  }

  /** The client's next message; its bytes last until the next exchange. */
  receive(): Promise<Buffer> {
    const message = new Promise<Buffer>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#turn();
    return message;
  }

  /** Sends a message, and gives the next one of the client's. */
  exchange(
    head: Uint8Array,
    body: Uint8Array | null = null,
    fds: readonly number[] | null = null,
  ): Promise<Buffer> {
    this.#outHead = head;
    this.#outBody = body;
    this.#outFds = fds;
    this.#left = head.byteLength + (body?.byteLength ?? 0);
    this.#sent = 0;
    return this.receive();
  }

  /** Sends a message without waiting for another. */
  async send(head: Uint8Array, fds: readonly number[] | null = null): Promise<void> {
    const sent = native().send(this.#socket.handle, head, head.byteLength, null, 0, 0, 0, fds);
    if (sent !== head.byteLength) throw new Error(`the peer could not send: ${sent}`);
    await Promise.resolve();
  }

  /** DMA_READ; the reply. */
  read(id: number, address: bigint, count: number): Promise<Buffer> {
    return this.exchange(this.#request(DMA_READ, id, address, count, 0));
  }

  /** DMA_WRITE; the reply. */
  write(id: number, address: bigint, data: Uint8Array): Promise<Buffer> {
    return this.exchange(this.#request(DMA_WRITE, id, address, data.byteLength, data.byteLength), data);
  }

  close(): void {
    this.#socket.close();
    this.#reject?.(new Error('the peer was closed'));
  }

  #request(command: number, id: number, address: bigint, count: number, extra: number): Buffer {
    const head = this.#head;
    head.writeUInt16LE(id, 0);
    head.writeUInt16LE(command, 2);
    head.writeUInt32LE(head.byteLength + extra, 4);
    head.writeUInt32LE(0, 8);
    head.writeUInt32LE(0, 12);
    head.writeBigUInt64LE(address, 16);
    head.writeBigUInt64LE(BigInt(count), 24);
    return head;
  }

  #turn(): void {
    this.#push();
    if (this.#resolve !== undefined) this.#pull();
    this.#socket.watch((this.#resolve === undefined ? 0 : READABLE) | (this.#left === 0 ? 0 : WRITABLE));
  }

  #push(): void {
    while (this.#left > 0) {
      const head = this.#outHead;
      const body = this.#outBody;
      const fds = this.#sent === 0 ? this.#outFds : null;
      const took = native().send(
        this.#socket.handle,
        head,
        head.byteLength,
        body,
        0,
        body?.byteLength ?? 0,
        this.#sent,
        fds,
      );
      if (took === -EAGAIN) return;
      if (took < 0) return this.#fail(new Error(`the peer cannot send: errno ${-took}`));
      this.#sent += took;
      this.#left -= took;
    }
  }

  #pull(): void {
    const into = this.#into;
    for (;;) {
      const size = this.#filled < HEADER ? ROOM : into.readUInt32LE(4);
      if (size > ROOM) return this.#fail(new Error(`a message of ${size} bytes`));
      if (this.#filled === size) break;
      const count = native().recv(this.#socket.handle, into, this.#filled, ROOM - this.#filled);
      if (count === -EAGAIN) return;
      if (count <= 0) return this.#fail(new Error('the client has closed its end'));
      this.#filled += count % WITH_FDS;
      if (this.#filled >= HEADER && this.#filled > into.readUInt32LE(4))
        return this.#fail(new Error('more than one message came'));
    }
    const message = into.subarray(0, this.#filled);
    this.#filled = 0;
    const resolve = this.#resolve;
    this.#resolve = undefined;
    this.#reject = undefined;
    resolve?.(message);
  }

  #fail(error: Error): void {
    this.#left = 0;
    this.#resolve = undefined;
    this.#reject?.(error);
    this.#reject = undefined;
  }
}
