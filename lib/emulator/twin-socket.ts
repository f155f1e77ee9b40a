/** The socket of our own commands, DMA_READ and DMA_WRITE, where the client asked for one ("twin_socket"). */
import { ProtocolError, type VfioUserError } from '../errors.js';
import { check, closeFds, native } from '../native.js';
import { commandName, HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { UnixTransport, type TransportHandler } from '../transport/index.js';
import { TurnShare } from '../turn-share.js';
import { MessageDeadline } from './message-deadline.js';
import { OutputQueue } from './output-queue.js';

export class TwinSocket implements TransportHandler {
  readonly output: OutputQueue;
  readonly transport: UnixTransport;
  /** The client's end, for the reply to VERSION. Whoever sends it closes it. */
  readonly clientFd: number;
  readonly #onReply: (bytes: Buffer, start: number, end: number) => void;
  readonly #onEnd: (reason: VfioUserError) => void;
  readonly #watch: MessageDeadline;
  readonly #share = new TurnShare(() => this.onWritable());

  /** `onReply` may throw a ProtocolError, which ends the socket. Throws a TransportError where no socket can be had. */
  constructor(
    onReply: (bytes: Buffer, start: number, end: number) => void,
    onEnd: (reason: VfioUserError) => void,
    messageTimeoutMs: number,
  ) {
    this.#watch = new MessageDeadline(messageTimeoutMs, onEnd);
    this.#onReply = onReply;
    this.#onEnd = onEnd;
    const [ours, theirs] = check(native().socketPair(), 'socketpair') as [number, number];
    this.clientFd = theirs;
    this.transport = new UnixTransport(ours, 'the twin socket', this);
    this.output = new OutputQueue(this.transport);
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: number[] | undefined): void {
    if (fds !== undefined) closeFds(fds);
    if ((headerFlags(bytes, start) & HEADER_FLAG_TYPE_MASK) !== HEADER_FLAG_REPLY) {
      throw new ProtocolError(
        `${commandName(headerCommand(bytes, start))} came on the twin socket: only replies belong there`,
      );
    }
    this.#onReply(bytes, start, end);
  }

  onBegun(begun: number): void {
    this.#watch.onBegun(begun, this.transport);
  }

  findLanding(): undefined {
    return undefined;
  }

  /** No landing was lent. */
  onLanded(): void {}

  onWritable(): void {
    if (!this.output.flush()) this.#share.useUp();
  }

  onEnd(reason: VfioUserError): void {
    this.#onEnd(reason);
  }

  close(): void {
    this.#share.stop();
    this.#watch.stop();
    this.transport.close();
    this.output.clear();
  }
}
