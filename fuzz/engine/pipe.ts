/** A transport whose other end is the fuzzer: what comes is what it is given, and the socket is as full as it is told. */
import { VfioUserError } from '../../lib/errors.js';
import { Framer } from '../../lib/transport/framer.js';
import type { OutgoingMessage, Transport, TransportHandler } from '../../lib/transport/index.js';

export class Pipe implements Transport {
  readonly passesFds: boolean;
  readonly canBlock = false;
  readonly canSpin = false;
  readonly spin = { blocking: 0, awaiting: 0 };
  readonly takesMany = false;
  readonly fastPath = undefined;
  readonly peer = 'fuzzer';
  readonly isServedHere = false;
  turn = 0;
  /** What has been sent and not been taken out. */
  readonly sent: Buffer[] = [];
  room = Infinity;
  ended = false;
  /** Sending fails from now on, and ends the transport at once. */
  broken: VfioUserError | undefined;
  /** What the handler has thrown that it must not throw. */
  fault: unknown;
  /** Is lent the fds that are sent. */
  onFds: (fds: readonly number[]) => void = () => undefined;
  #held: { bytes: Buffer; fds: number[] | undefined }[] = [];
  readonly #handler: TransportHandler;
  readonly #framer: Framer;

  constructor(handler: TransportHandler, passesFds = false) {
    this.#handler = handler;
    this.passesFds = passesFds;
    this.#framer = new Framer(handler);
  }

  trySend({ head, headLength, body, fds }: OutgoingMessage, sent: number): number {
    if (this.ended) return 0;
    if (this.broken !== undefined) {
      this.end(this.broken);
      return 0;
    }
    const whole = Buffer.concat([head.subarray(0, headLength), body ?? Buffer.alloc(0)]);
    const took = Math.min(whole.length - sent, this.room);
    this.room -= took;
    if (took > 0) this.sent.push(whole.subarray(sent, sent + took));
    if (took > 0 && fds !== null) this.onFds(fds);
    return took;
  }

  serveHere(): void {}

  receiveSpinning(): void {}

  get begun(): number {
    return this.#framer.begun;
  }

  get isReading(): boolean {
    return !this.ended && !this.#framer.isPaused;
  }

  /** `bytes` come, and `fds` with the last of them. */
  receive(bytes: Buffer, fds?: number[]): void {
    if (this.ended || this.#framer.isPaused) {
      this.#held.push({ bytes, fds });
      return;
    }
    this.turn++;
    this.#sort(() => this.#framer.push(bytes, 0, bytes.length, fds));
  }

  /** Fds that nobody has taken: the fuzzer closes them. */
  takeFds(): number[] {
    return this.#held.splice(0).flatMap(({ fds }) => fds ?? []);
  }

  makeRoom(room: number): void {
    this.room = room;
    if (!this.ended) this.#handler.onWritable();
  }

  /** The other end has gone. */
  end(reason: VfioUserError): void {
    if (this.ended) return;
    this.close();
    this.#handler.onEnd(reason);
  }

  flushSync(): void {}

  receiveSync(): void {}

  setReading(on: boolean): void {
    if (!on) {
      this.#framer.pause();
      return;
    }
    this.#sort(() => this.#framer.resume());
    for (const { bytes, fds } of this.#held.splice(0)) this.receive(bytes, fds);
  }

  ref(): void {}

  unref(): void {}

  close(): void {
    this.ended = true;
    this.#framer.stop();
  }

  /** As a transport does it with what its handler throws; but what is no error of the library's is remembered. */
  #sort(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof VfioUserError)) this.fault ??= error;
      this.end(error instanceof VfioUserError ? error : new VfioUserError('ERR_FUZZ', String(error)));
    }
  }
}
