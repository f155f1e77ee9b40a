/**
 * A proxied socket: two peers, and a half relay each way between them. Its ends come one by one (a half-closed side still takes
 * what the other has to say), and it is over when both half relays are done.
 */
import { performance } from 'node:perf_hooks';
import { AdaptiveSpin } from '../adaptive-spin.js';
import { ClosedError, type VfioUserError } from '../errors.js';
import type { Way } from '../faults/index.js';
import type { Peer, PeerHandler, OpenPeer } from './peer.js';
import { HalfRelay, type HalfRelayContext, type HalfRelayOwner } from './half-relay.js';

export type Side = 'client' | 'server';

export interface RelayHost {
  /** See `ProxyOptions.spinUs`. */
  readonly spinUs: number;
  context(direction: Way): HalfRelayContext;
  /** A side has said its last on this socket, which is about to be passed on. */
  onSideEnded(side: Side): void;
  onOver(reason: VfioUserError): void;
}

/** The longest that looking for more holds up the loop: then others have their turn, interrupts too, before it goes on. */
const LOOKING_MS = 0.25;
/** A side that ended one way only is looked at so often: the kernel tells nobody when the other way ends, too. */
const LOOK_MS = 500;
/** How long what a side left behind when it went may wait for the other to take it. */
const DRAIN_MS = 10_000;

export class Relay implements HalfRelayOwner {
  readonly #host: RelayHost;
  readonly #name: string;
  readonly #client: Peer;
  readonly #server: Peer;
  readonly #toServer: HalfRelay;
  readonly #toClient: HalfRelay;
  readonly #spin: AdaptiveSpin;
  #isLooking = false;
  #looksAgain: NodeJS.Immediate | undefined;
  #reason: VfioUserError | undefined;
  #look: NodeJS.Timeout | undefined;
  #drain: NodeJS.Timeout | undefined;
  #over = false;

  /** `name` is put before the sides in the words of its end. */
  constructor(name: string, open: Record<Side, OpenPeer>, host: RelayHost) {
    this.#host = host;
    this.#spin = new AdaptiveSpin(host.spinUs);
    this.#name = name;
    this.#client = open.client(this.#handlerOf('client'));
    try {
      this.#server = open.server(this.#handlerOf('server'));
    } catch (error) {
      this.#client.close();
      throw error;
    }
    this.#toServer = new HalfRelay(host.context('to-server'), this.#client, this.#server, this);
    this.#toClient = new HalfRelay(host.context('to-client'), this.#server, this.#client, this);
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

  /** Ends both sides, now; idempotent. The host is not told. */
  close(): void {
    this.#over = true;
    clearInterval(this.#look);
    clearTimeout(this.#drain);
    clearImmediate(this.#looksAgain);
    this.#toServer.clear();
    this.#toClient.clear();
    this.#client.close();
    this.#server.close();
  }

  onDone(): void {
    if (this.#over) return;
    if (this.#toServer.isDone && this.#toClient.isDone) {
      this.#finish(this.#reason ?? new ClosedError(`${this.#name}both sides closed the connection`));
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

  #handlerOf(side: Side): PeerHandler {
    const from = (): HalfRelay => (side === 'client' ? this.#toServer : this.#toClient);
    const to = (): HalfRelay => (side === 'client' ? this.#toClient : this.#toServer);
    return {
      onChunk: (bytes, start, end, fds) => from().take(bytes, start, end, fds),
      onTurn: () => {
        if (!this.#over && this.#client.canLook && this.#server.canLook) this.#lookForMore();
      },
      onWritable: () => to().flush(),
      onEnd: () => this.#sideEnded(side, new ClosedError(`${this.#name}the ${side} closed its end`)),
      onFailure: (error) => this.#sideEnded(side, error),
    };
  }

  /**
   * Something has been passed on: a question is about to be answered, or an answer followed by the next question. To be
   * woken for that by the loop takes about half of what a proxy adds to a round trip.
   */
  #lookForMore(): void {
    if (this.#isLooking || this.#over) return;
    const patienceMs = this.#spin.begin() / 1000;
    if (patienceMs === 0) return;
    this.#isLooking = true;
    const begun = performance.now();
    let last = begun;
    let now = begun;
    try {
      for (; now - last < patienceMs && now - begun < LOOKING_MS; now = performance.now()) {
        if (this.#takeMore()) last = performance.now();
      }
    } finally {
      this.#isLooking = false;
    }
    this.#spin.end(last !== begun);
    if (this.#over || now - last >= patienceMs) return;
    this.#looksAgain ??= setImmediate(() => {
      this.#looksAgain = undefined;
      this.#lookForMore();
    });
  }

  /** Passes on what either side has sent. Whether there was anything. */
  #takeMore(): boolean {
    const fromServer = !this.#over && this.#server.receiveNow();
    return (!this.#over && this.#client.receiveNow()) || fromServer;
  }

  #sideEnded(side: Side, reason: VfioUserError): void {
    if (this.#over) return;
    this.#reason ??= reason;
    this.#host.onSideEnded(side);
    const [from, to] =
      side === 'client' ? [this.#toServer, this.#toClient] : [this.#toClient, this.#toServer];
    from.sourceEnded();
    const peer = side === 'client' ? this.#client : this.#server;
    if (!this.#over && peer.isGone()) this.#sideGone(to);
  }

  /** What would go to a side that has gone is dropped; what it left behind has some time to be delivered. */
  #sideGone(to: HalfRelay): void {
    to.abandon();
    this.#limitDrain();
  }

  #limitDrain(): void {
    if (this.#over) return;
    this.#drain ??= setTimeout(() => {
      this.#finish(this.#reason ?? new ClosedError(`${this.#name}a side has gone`));
    }, DRAIN_MS);
  }

  #lookAfterSides(): void {
    const [client, server] = [this.#client.isGone(), this.#server.isGone()];
    if (this.#toServer.isDone && client) this.#sideGone(this.#toClient);
    else if (this.#toClient.isDone && server) this.#sideGone(this.#toServer);
    // What it was sent has told that it is gone, and what it left behind may find no room.
    else if (client || server) this.#limitDrain();
  }

  #finish(reason: VfioUserError): void {
    if (this.#over) return;
    this.close();
    this.#host.onOver(reason);
  }
}
