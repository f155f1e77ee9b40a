/**
 * The socket to a simulator. Bridge and simulator take turns, so everything has one order, and at most one frame is on its way:
 *
 * ```
 *   bridge ── READ, WRITE, RUN, RESET ──▶ simulator          the simulator's turn begins
 *          ◀── INTERRUPT, any number ───
 *          ◀── DMA_READ, DMA_WRITE ─────                     the bridge's turn: host memory
 *          ── its answer ──────────────▶                     the simulator's again
 *          ◀── the answer ──────────────                     the bridge's turn
 * ```
 * The deadline is for the simulator's turn, without what the host's memory took.
 */
import type { Socket } from 'node:net';
import {
  FrameStatus,
  FrameType,
  answerTo,
  byeFrame,
  checkHello,
  dmaAnswer,
  dmaOf,
  frameAt,
  frameName,
  interruptOf,
  type Frame,
} from './frames.js';
import { RtlError } from './rtl-error.js';

/** What a simulator reaches. */
export interface SimulatorSide {
  /** How many vectors there are. */
  readonly vectors: number;
  interrupt(vector: number, isUp: boolean): void;
  read(address: bigint, length: number): Promise<Uint8Array>;
  write(address: bigint, data: Buffer): Promise<void>;
}

interface Exchange {
  /** The answer's type. */
  readonly type: number;
  /** In words, for errors. */
  readonly what: string;
  resolve(frame: Frame): void;
  reject(error: RtlError): void;
}

export class SimulatorLink {
  /** Resolves when it has ended. */
  readonly ended: Promise<RtlError>;
  readonly #socket: Socket;
  readonly #side: SimulatorSide;
  readonly #timeoutMs: number;
  readonly #resolveEnded: (reason: RtlError) => void;
  #reason: RtlError | undefined;
  #exchange: Exchange | undefined;
  /** The beginning of a frame: never more than one. */
  #rest = Buffer.alloc(0);
  #isTheirTurn = false;
  #leftMs = 0;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;
  #time = 0n;

  constructor(socket: Socket, side: SimulatorSide, timeoutMs: number) {
    this.#socket = socket;
    this.#side = side;
    this.#timeoutMs = timeoutMs;
    let resolveEnded: (reason: RtlError) => void = () => undefined;
    this.ended = new Promise((resolve) => (resolveEnded = resolve));
    this.#resolveEnded = resolveEnded;
    socket.on('data', (chunk) => this.#onData(chunk));
    socket.on('error', (cause) =>
      this.end(new RtlError(`the simulator's socket: ${cause.message}`, { cause })),
    );
    socket.on('close', () => this.end(new RtlError('the simulator closed its socket')));
    socket.resume();
  }

  /** The simulated time, in picoseconds, as of the last frame. */
  get time(): bigint {
    return this.#time;
  }

  /** Waits for HELLO. */
  async greet(): Promise<void> {
    checkHello(await this.#turn(FrameType.HELLO, 'HELLO', undefined));
  }

  /** Sends what has no answer. */
  send(frame: Buffer): void {
    if (this.#reason === undefined) this.#socket.write(frame);
  }

  /** Sends a request: one at a time. @throws RtlError where no answer comes. */
  async exchange(request: Buffer, what: string): Promise<Frame> {
    return this.#turn(answerTo(request[4]!), what, request);
  }

  /** Lets the simulator end in order. */
  bye(): void {
    if (this.#reason !== undefined) return;
    this.#socket.end(byeFrame());
    this.#end(new RtlError('the device is closed'));
  }

  /** Whoever waits is told why; the first reason counts. */
  end(reason: RtlError): void {
    if (this.#reason !== undefined) return;
    this.#end(reason);
    this.#socket.destroy();
  }

  #end(reason: RtlError): void {
    this.#reason = reason;
    clearTimeout(this.#timer);
    this.#rest = Buffer.alloc(0);
    this.#exchange?.reject(reason);
    this.#exchange = undefined;
    this.#resolveEnded(reason);
  }

  #turn(type: number, what: string, request: Buffer | undefined): Promise<Frame> {
    return new Promise((resolve, reject) => {
      if (this.#reason !== undefined) return reject(this.#reason);
      if (this.#exchange !== undefined) return reject(new RtlError(`${what}: another request is under way`));
      this.#exchange = { type, what, resolve, reject };
      this.#leftMs = this.#timeoutMs;
      if (request !== undefined) this.#socket.write(request);
      this.#giveTurn();
    });
  }

  #giveTurn(): void {
    if (this.#leftMs <= 0) return this.#onTimeout();
    this.#isTheirTurn = true;
    this.#since = performance.now();
    this.#timer = setTimeout(() => this.#onTimeout(), this.#leftMs);
  }

  #takeTurn(): void {
    this.#isTheirTurn = false;
    this.#leftMs -= performance.now() - this.#since;
    clearTimeout(this.#timer);
  }

  #onTimeout(): void {
    const { what = 'nothing' } = this.#exchange ?? {};
    this.end(new RtlError(`${what}: the simulator did not answer within ${this.#timeoutMs} ms`));
  }

  #onData(chunk: Buffer): void {
    if (this.#reason !== undefined) return;
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    try {
      let at = 0;
      while (at < bytes.length && this.#reason === undefined) {
        if (!this.#isTheirTurn) throw new RtlError('the simulator sent something when it was not its turn');
        const frame = frameAt(bytes, at);
        if (frame === undefined) break;
        at += frame.size;
        this.#onFrame(frame);
      }
      this.#rest = Buffer.from(bytes.subarray(at));
    } catch (error) {
      this.end(error as RtlError);
    }
  }

  #onFrame(frame: Frame): void {
    if (frame.time < this.#time)
      throw new RtlError(`simulated time went back, from ${this.#time} to ${frame.time} ps`);
    this.#time = frame.time;
    const { type } = frame;
    const exchange = this.#exchange;
    if (type === exchange?.type) {
      this.#takeTurn();
      this.#exchange = undefined;
      exchange.resolve({ ...frame, payload: Buffer.from(frame.payload) });
    } else if (exchange?.type === FrameType.HELLO) checkHello(frame);
    else if (type === FrameType.INTERRUPT) {
      const { vector, isUp } = interruptOf(frame, this.#side.vectors);
      this.#side.interrupt(vector, isUp);
    } else if (type === FrameType.DMA_READ || type === FrameType.DMA_WRITE) {
      const { address, length, data } = dmaOf(frame);
      this.#takeTurn();
      const work =
        data === undefined ? this.#side.read(address, length) : this.#side.write(address, Buffer.from(data));
      void this.#answer(type, work);
    } else {
      throw new RtlError(`${exchange?.what}: the simulator sent ${frameName(type)}`);
    }
  }

  /** What cannot be reached is an error of the bus, for the device to deal with. */
  async #answer(type: number, work: Promise<Uint8Array | void>): Promise<void> {
    let answer: Buffer;
    try {
      answer = dmaAnswer(type, FrameStatus.OK, (await work) ?? undefined);
    } catch {
      answer = dmaAnswer(type, FrameStatus.ERROR);
    }
    if (this.#reason !== undefined) return;
    this.#socket.write(answer);
    this.#giveTurn();
  }
}
