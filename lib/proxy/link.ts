/**
 * A proxied socket: two legs, and a pipe each way between them. Its ends come one by one (a half-closed side still takes
 * what the other has to say), and it is over when both pipes are done.
 */
import { ClosedError, type VfioUserError } from '../errors.js';
import type { Way } from './fault-spec.js';
import type { Leg, LegHandler, OpenLeg } from './leg.js';
import { Linger } from './linger.js';
import { Pipe, type PipeContext, type PipeOwner } from './pipe.js';

export type Side = 'client' | 'server';

export interface LinkHost {
  /** See `ProxyOptions.spinUs`. */
  readonly spinUs: number;
  context(direction: Way): PipeContext;
  /** A side has said its last on this socket, which is about to be passed on. */
  onSideEnded(side: Side): void;
  onOver(reason: VfioUserError): void;
}

/** A side that ended one way only is looked at so often: the kernel tells nobody when the other way ends, too. */
const LOOK_MS = 500;
/** How long what a side left behind when it went may wait for the other to take it. */
const DRAIN_MS = 10_000;

export class Link implements PipeOwner {
  readonly #host: LinkHost;
  readonly #name: string;
  readonly #client: Leg;
  readonly #server: Leg;
  readonly #toServer: Pipe;
  readonly #toClient: Pipe;
  readonly #linger: Linger;
  #reason: VfioUserError | undefined;
  #look: NodeJS.Timeout | undefined;
  #drain: NodeJS.Timeout | undefined;
  #over = false;

  /** `name` is put before the sides in the words of its end. */
  constructor(name: string, open: Record<Side, OpenLeg>, host: LinkHost) {
    this.#host = host;
    this.#linger = new Linger(host.spinUs);
    this.#name = name;
    this.#client = open.client(this.#handlerOf('client'));
    try {
      this.#server = open.server(this.#handlerOf('server'));
    } catch (error) {
      this.#client.close();
      throw error;
    }
    this.#toServer = new Pipe(host.context('to-server'), this.#client, this.#server, this);
    this.#toClient = new Pipe(host.context('to-client'), this.#server, this.#client, this);
    this.#toServer.pairWith(this.#toClient);
    this.#toClient.pairWith(this.#toServer);
  }

  start(): void {
    this.#toClient.start();
    this.#toServer.start();
  }

  /** Takes what a side has sent already. */
  receiveNow(side: Side): void {
    (side === 'client' ? this.#client : this.#server).receiveNow();
  }

  /** What either side has sent since; with nothing to be done to it for as long as something comes, up to `turnUs`. */
  readonly #takeMore = (turnUs: number): boolean => {
    if (this.#toServer.isPlain && this.#toClient.isPlain) {
      const came = this.#client.relay(this.#server, turnUs);
      if (came !== undefined) return came;
    }
    const fromServer = this.#server.receiveNow();
    return (!this.#over && this.#client.receiveNow()) || fromServer;
  };

  /** Ends both sides, now; idempotent. The host is not told. */
  close(): void {
    this.#over = true;
    clearInterval(this.#look);
    clearTimeout(this.#drain);
    this.#linger.close();
    this.#toServer.clear();
    this.#toClient.clear();
    this.#client.close();
    this.#server.close();
  }

  onDone(): void {
    if (this.#over) return;
    if (this.#toServer.isDone && this.#toClient.isDone) {
      this.#finish(this.#reason ?? new ClosedError(`${this.#name}both sides have gone`));
      return;
    }
    this.#look ??= setInterval(() => this.#lookAfterSides(), LOOK_MS);
  }

  onDisconnect(reason: string): void {
    this.#finish(new ClosedError(`${this.#name}disconnected by ${reason}`));
  }

  onError(error: VfioUserError): void {
    this.#finish(error);
  }

  #handlerOf(side: Side): LegHandler {
    const from = (): Pipe => (side === 'client' ? this.#toServer : this.#toClient);
    const to = (): Pipe => (side === 'client' ? this.#toClient : this.#toServer);
    return {
      onChunk: (bytes, start, end, fds) => from().take(bytes, start, end, fds),
      onRelayed: (messages, bytes) => from().count(messages, bytes),
      onTurn: () => {
        if (!this.#over && this.#client.canLook && this.#server.canLook) this.#linger.run(this.#takeMore);
      },
      onWritable: () => to().flush(),
      onEnd: () => this.#sideEnded(side, new ClosedError(`${this.#name}the ${side} closed its end`)),
      onFailure: (error) => this.#sideEnded(side, error),
    };
  }

  #sideEnded(side: Side, reason: VfioUserError): void {
    if (this.#over) return;
    this.#reason ??= reason;
    this.#host.onSideEnded(side);
    const [from, to] =
      side === 'client' ? [this.#toServer, this.#toClient] : [this.#toClient, this.#toServer];
    from.sourceEnded();
    const leg = side === 'client' ? this.#client : this.#server;
    if (!this.#over && leg.isGone()) this.#sideGone(to);
  }

  /** What would go to a side that has gone is dropped; what it left behind has some time to be delivered. */
  #sideGone(to: Pipe): void {
    to.abandon();
    if (this.#over) return;
    this.#drain ??= setTimeout(() => this.#finish(this.#reason!), DRAIN_MS);
  }

  #lookAfterSides(): void {
    if (this.#toServer.isDone && this.#client.isGone()) this.#sideGone(this.#toClient);
    else if (this.#toClient.isDone && this.#server.isGone()) this.#sideGone(this.#toServer);
  }

  #finish(reason: VfioUserError): void {
    if (this.#over) return;
    this.close();
    this.#host.onOver(reason);
  }
}
