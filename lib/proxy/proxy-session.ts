/**
 * A client and its connection to the server: their socket, and the twin socket where the server gives one. The session
 * is over when their socket is.
 */
import { ClosedError, VfioUserError, errnoName } from '../errors.js';
import { native } from '../native.js';
import { Command, HEADER_FLAG_ERROR, HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import type { TraceTap } from '../trace/index.js';
import { newWayCounters, type WayCounters } from './counters.js';
import type { Told } from './forward-queue.js';
import type { DeviceFaults, Way } from '../faults/index.js';
import { FaultyMessages } from './faulty-messages.js';
import { Interrupts, describeFds } from './interrupts.js';
import type { OpenPeer } from './peer.js';
import { Relay, type RelayHost, type Side } from './relay.js';
import type { HalfRelayContext } from './half-relay.js';
import type { ProxyEvent, Settings } from './proxy-options.js';
import { unixPeer } from './unix-peer.js';
import { decodeVersion } from '../protocol/version.js';

export interface ProxySessionOptions {
  /** From 1. */
  client: number;
  /** The name of its socket in traces and captures. */
  name: string;
  settings: Settings;
  tap: TraceTap;
  /** Of the device, where there are such faults. */
  faults: DeviceFaults | undefined;
  onOver(session: ProxySession): void;
}

export class ProxySession {
  readonly toServer: WayCounters = newWayCounters();
  readonly toClient: WayCounters = newWayCounters();
  interrupts = 0;
  readonly #parts: ProxySessionOptions;
  readonly #main: Relay;
  readonly #interrupts: Interrupts | undefined;
  readonly #device: FaultyMessages | undefined;
  #twin: Relay | undefined;
  #over = false;

  constructor(open: Record<Side, OpenPeer>, parts: ProxySessionOptions) {
    this.#parts = parts;
    const { settings, tap, name, faults } = parts;
    if (faults !== undefined) {
      const raise = (irq: number, vector: number): void => this.#interrupts?.signal(irq, vector);
      this.#device = new FaultyMessages(faults, settings.maxMessageBytes, raise);
    }
    const device = this.#device;
    if (settings.interrupts) {
      const onInterrupt = (index: number, subindex: number, count: number): void => {
        this.interrupts++;
        if (tap.active) tap.interrupt(name, index, subindex, count);
      };
      this.#interrupts = new Interrupts(
        settings.maxEventFds,
        onInterrupt,
        (text) => this.#notice(text),
        device && ((index, subindex, count, pass) => device.interrupt(index, subindex, count, pass)),
      );
    }
    this.#main = new Relay(
      '',
      open,
      this.#host('main', (reason) => this.#end(reason)),
    );
  }

  /** Both sides are open: messages may pass. */
  start(): void {
    this.#device?.open();
    this.#main.start();
  }

  /** Ends it now; idempotent. */
  close(reason: VfioUserError): void {
    this.#end(reason);
  }

  #end(reason: VfioUserError): void {
    if (this.#over) return;
    this.#over = true;
    const { tap, name, client } = this.#parts;
    this.#main.close();
    this.#twin?.close();
    this.#interrupts?.close();
    this.#device?.close();
    if (tap.active) tap.ended(name, reason);
    this.#say({ type: 'ended', client, reason: reason.message, code: reason.code });
    this.#parts.onOver(this);
  }

  #host(socket: 'main' | 'twin', onOver: (reason: VfioUserError) => void): RelayHost {
    return {
      spinUs: this.#parts.settings.spinUs,
      context: (direction) => this.#context(socket, direction),
      // What a side sent through the twin socket before it went must not come after its end.
      onSideEnded: (side) => {
        if (socket === 'main') this.#twin?.receiveNow(side);
      },
      onOver,
    };
  }

  #context(socket: 'main' | 'twin', direction: Way): HalfRelayContext {
    const { settings, client, tap } = this.#parts;
    const context: HalfRelayContext = {
      direction,
      socket,
      counters: direction === 'to-server' ? this.toServer : this.toClient,
      plan: settings.plan,
      device: this.#device,
      maxMessageBytes: settings.maxMessageBytes,
      passesUncut: settings.passesUncut,
      told: this.#told(socket, direction),
      isWatched: () => tap.active,
      interpose: undefined,
      onFault: (fault, message) => this.#say({ type: 'fault', client, fault, message }),
      onNotice: (text) => this.#notice(text),
    };
    if (socket === 'main') context.interpose = this.#interposer(context);
    return context;
  }

  #told(socket: 'main' | 'twin', way: Way): Told {
    const { tap, name } = this.#parts;
    const shown = socket === 'main' ? name : `${name} (twin)`;
    // Through a proxy the client is who sends.
    const direction = way === 'to-server' ? 'sent' : 'received';
    return (bytes, start, end, fds, note) => {
      if (!tap.active) return;
      const notes = fds.length > 0 ? [describeFds(fds)] : [];
      if (note !== undefined) notes.push(note);
      tap.passed(
        shown,
        direction,
        bytes.subarray(start, end),
        fds,
        notes.length > 0 ? notes.join('; ') : undefined,
      );
    };
  }

  /** Of the messages on the main socket, those that hand over what the proxy wants to stand in between of. */
  #interposer(context: HalfRelayContext): HalfRelayContext['interpose'] {
    const interrupts = this.#interrupts;
    if (context.direction === 'to-server') {
      return interrupts && ((bytes, start, end, fds) => interrupts.request(bytes, start, end, fds));
    }
    return (bytes, start, end, fds) => {
      interrupts?.reply(bytes, start);
      if (!isVersionReply(bytes, start)) return fds;
      if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) === 0) {
        // There is only one, so from now on only interrupts are looked for.
        context.interpose = interrupts && ((later, at, _end, own) => (interrupts.reply(later, at), own));
      }
      return fds.length === 0 ? fds : this.#interposeTwin(bytes, start, end, fds);
    };
  }

  #interposeTwin(bytes: Buffer, start: number, end: number, fds: readonly number[]): readonly number[] {
    if (this.#parts.settings.twinSocket === 'pass') return fds;
    const index = twinIndex(bytes, start, end, fds);
    if (index === undefined) return fds;
    const pair = twinPair(fds[index]!);
    if (typeof pair === 'number') {
      this.#notice(`the twin socket is forwarded, and not traced: ${errnoName(pair)}`);
      return fds;
    }
    const [ours, theirs] = pair;
    const open = {
      client: unixPeer(ours, "the client's twin socket"),
      server: unixPeer(fds[index]!, "the server's twin socket"),
    };
    const host = this.#host('twin', (reason) => {
      // That a side closes it is how every session ends.
      if (!(reason instanceof ClosedError)) this.#notice(reason.message);
    });
    try {
      this.#twin = new Relay('the twin socket: ', open, host);
    } catch (error) {
      native().closeFd(theirs);
      throw error;
    }
    this.#twin.start();
    return fds.map((fd, i) => (i === index ? theirs : fd));
  }

  #notice(text: string): void {
    if (!this.#over) this.#say({ type: 'notice', client: this.#parts.client, text });
  }

  #say(event: ProxyEvent): void {
    this.#parts.settings.onEvent(event);
  }
}

/** Whether a message is an answer to VERSION: there is only one on a connection. */
export function isVersionReply(bytes: Buffer, start: number): boolean {
  return (
    headerCommand(bytes, start) === Command.VERSION && (headerFlags(bytes, start) & HEADER_FLAG_REPLY) !== 0
  );
}

/**
 * Which of the fds of an answer to VERSION is the twin socket; undefined where none is, as far as can be told: what is
 * wrong with the answer is the client's to say.
 */
export function twinIndex(
  bytes: Buffer,
  start: number,
  end: number,
  fds: readonly number[],
): number | undefined {
  if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) return undefined;
  try {
    const { supported, fdIndex } = decodeVersion(bytes, start + HEADER_SIZE, end).capabilities.twinSocket;
    return supported && fdIndex !== undefined && fdIndex < fds.length ? fdIndex : undefined;
  } catch (error) {
    if (error instanceof VfioUserError) return undefined;
    throw error;
  }
}

/** A pair to put in the place of a twin socket; an errno where there is none to be had, or the fd is no socket. */
export function twinPair(fd: number): [ours: number, clients: number] | number {
  const usable = native().adoptSocket(fd);
  if (usable < 0) return -usable;
  const pair = native().socketPair();
  return typeof pair === 'number' ? -pair : pair;
}
