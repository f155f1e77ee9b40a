/** The sockets of a connection: the main one, and the twin where the server gives one (VERSION's twin_socket). */
import type { FastPathSocket } from '../transport/index.js';
import type { Channel } from './channel.js';

/** With both sockets full each is waited for so long in turn: one wait watches one of them for room. In milliseconds. */
const TAKING_TURNS_MS = 1;

export class Sockets {
  readonly main: Channel;
  /** The server's commands come on this one as well, where there is one. */
  #twin: Channel | undefined;

  constructor(main: Channel) {
    this.main = main;
  }

  get hasTwin(): boolean {
    return this.#twin !== undefined;
  }

  isTwin(channel: Channel): boolean {
    return channel === this.#twin;
  }

  attachTwin(channel: Channel): void {
    this.#twin = channel;
  }

  get twinFastPath(): FastPathSocket | undefined {
    return this.#twin?.fastPath;
  }

  /** See `Channel.isIdle`. */
  get isIdle(): boolean {
    return this.main.isIdle && this.#twin?.isIdle !== false;
  }

  /** Serves what the server has sent on the twin socket. */
  receiveFromTwin(): void {
    this.#twin?.receiveSync(0, undefined);
  }

  /** Reads on at once where the loop was to turn first. */
  resumeReading(): void {
    this.main.resumeReading();
    this.#twin?.resumeReading();
  }

  /**
   * Blocks for up to `timeoutMs`, at most a slice: sends what waits for room, and receives what comes, unless `caller` is
   * settled before.
   */
  wait(timeoutMs: number, caller: { readonly isSettled: boolean }): void {
    const { main } = this;
    const twin = this.#twin;
    this.resumeReading();
    if (caller.isSettled) return;
    const mainWaits = main.hasUnsent;
    const twinWaits = twin?.hasUnsent === true;
    const flushMs = mainWaits && twinWaits ? Math.min(TAKING_TURNS_MS, timeoutMs) : timeoutMs;
    if (twinWaits) twin.flushSync(flushMs, main);
    if (caller.isSettled) return;
    if (mainWaits) main.flushSync(flushMs, twin);
    else if (!twinWaits) main.receiveSync(timeoutMs, twin);
  }

  /** See `SendQueue.copyBodies`. */
  copyBodies(): void {
    this.main.copyBodies();
    this.#twin?.copyBodies();
  }

  /** Whether the loop stays alive for the sockets' sake. */
  setReferenced(on: boolean): void {
    this.main.setReferenced(on);
    this.#twin?.setReferenced(on);
  }

  close(): void {
    this.main.close();
    this.#twin?.close();
  }
}
