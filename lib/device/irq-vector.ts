/**
 * One interrupt, by the eventfd that the server signals it with.
 *
 * ```
 *   made ── armed ──▶ open ── the connection ends ──▶ cut off ── armed again ──▶ open
 *     └───────────────┴────────── close() ─────────────┴──▶ closed
 * ```
 *
 * The way from the eventfd to a listener has no promise on it.
 */
import { EventEmitter } from 'node:events';
import { forbidCloning } from '../cloning.js';
import {
  Deadlines,
  checkSignal,
  listenForAbort,
  timeoutOf,
  type AbortListener,
  type CallOptions,
  type Timed,
} from '../connection/index.js';
import { ClosedError, TimeoutError, type VfioUserError } from '../errors.js';
import { integer, wrongType } from '../fields.js';
import { check, native, type NativeEventFd } from '../native.js';
import * as option from '../options.js';
import type { DeviceContext } from './device-context.js';
import { WaitIterator } from './wait-iterator.js';

/** Hears of each count, at least 1, as it is read. */
export type InterruptListener = (count: number) => void;

/** Events of a vector. */
export interface VectorEvents {
  /** The server has signalled `count` times, at least once, since the eventfd was read last. */
  interrupt: [count: number];
  /** The vector has been closed: by its user, because its index was disabled, or with the device. Nothing follows. */
  close: [];
}

interface Waiter extends Timed {
  readonly resolve: (count: number) => void;
  readonly reject: (reason: unknown) => void;
  readonly timeoutMs: number;
  abortListener: AbortListener | undefined;
}

/** What a vector is of. */
export interface VectorIdentity {
  /** `PciIrq` numbers for a PCI device. */
  index: number;
  subindex: number;
  /** For messages: `MSI-X vector 3`. */
  name: string;
  /** Its counts are interrupts, not events of masking. */
  isTrigger: boolean;
}

/**
 * One interrupt, by the eventfd that the server signals it with. `IrqIndex.enable` makes it.
 *
 * The eventfd adds up what the server signals until this process reads it: one count may stand for several
 * interrupts. Each count that is read wakes one waiter, the one that waits longest (`wait`, and each step of a
 * `for await`); with nobody waiting it is added to what is kept, and the next waiter gets all of that at once.
 * And it is told to every listener of `'interrupt'`, whether a waiter took it or not. What a listener throws is
 * an uncaughtException, and the others are called all the same.
 *
 * @example
 * ```ts
 * const [vector] = await device.irqs.msi.enable(1);
 * vector.on('interrupt', (count) => console.log(`${count} interrupts`));
 * await vector.wait({ timeoutMs: 1_000 });
 * ```
 */
export class Vector extends EventEmitter<VectorEvents> {
  /** The interrupt index that it belongs to: `PciIrq` numbers for a PCI device. */
  readonly index: number;
  /** Its number within the index, from 0. */
  readonly subindex: number;
  readonly #name: string;
  readonly #isTrigger: boolean;
  readonly #context: DeviceContext;
  readonly #eventfd: NativeEventFd;
  readonly #onClose: (vector: Vector) => void;
  /** In the order in which they came. */
  readonly #waiters = new Set<Waiter>();
  /** Of the waiters; made for the first that has one. */
  #deadlines: Deadlines<Waiter> | undefined;
  #count = 0;
  /** What was read while nobody waited. */
  #kept = 0;
  #referenced = true;
  #isClosed = false;
  /** Why the connection ended, while the vector is cut off. */
  #endReason: VfioUserError | undefined;

  /**
   * @internal Makes the eventfd; `start` follows when the server has it.
   * @throws TransportError where there is no room for one more fd.
   */
  constructor(context: DeviceContext, identity: VectorIdentity, onClose: (vector: Vector) => void) {
    super();
    this.index = identity.index;
    this.subindex = identity.subindex;
    this.#name = identity.name;
    this.#isTrigger = identity.isTrigger;
    this.#context = context;
    this.#onClose = onClose;
    const fd = check(native().eventfd(0), 'eventfd', identity.name);
    this.#eventfd = new (native().EventFd)(fd, (count) => this.#deliver(count));
    // Drivers listen beside their users: any number of NVMe queues may share a vector.
    this.setMaxListeners(0);
    context.addResource(this);
    forbidCloning(this, 'a Vector');
  }

  /** All that was counted since the vector was enabled. */
  get count(): number {
    return this.#count;
  }

  /** The eventfd's number, for those who poll it themselves; -1 once closed. It stays the vector's. */
  get fd(): number {
    return this.#eventfd.fd;
  }

  /** Whether the vector is closed, by its user or with the index or the device. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * The next count: at once where some is kept, else when the server signals. The class says how waiters and listeners
   * share counts.
   * @throws TimeoutError after `timeoutMs` (default: the device's), ClosedError when the vector is closed or the
   * connection ends, the signal's reason.
   */
  wait(options?: CallOptions): Promise<number> {
    const problem = option.CALL_OPTIONS.problem('Vector.wait', options);
    if (problem !== undefined) return Promise.reject(problem);
    return new Promise((resolve, reject) => {
      const timeoutMs = timeoutOf(options, this.#context.connection.timeoutMs);
      const signal = options?.signal;
      checkSignal(signal);
      if (this.#kept > 0) {
        resolve(this.#takeKept());
        return;
      }
      if (this.#isClosed || this.#endReason !== undefined) throw this.#ended();
      const timed = { deadline: 0, heapIndex: -1, timeoutMs };
      const waiter: Waiter = { ...timed, resolve, reject, abortListener: undefined };
      this.#waiters.add(waiter);
      if (timeoutMs !== Infinity) this.#watchDeadline(waiter);
      if (signal !== undefined) {
        waiter.abortListener = listenForAbort(signal, (reason) => this.#giveUp(waiter, reason));
      }
    });
  }

  /**
   * What has been signalled and nobody has waited for, without waiting: 0 where there is nothing. It looks at the
   * eventfd itself, so it sees what was signalled during a synchronous call; listeners are called before it returns.
   */
  take(): number {
    this.#read();
    return this.#takeKept();
  }

  /**
   * Another name for `on('interrupt', listener)`, which gives a function that takes the listener away again. The same
   * function may be added several times; each has its own.
   */
  onInterrupt(listener: InterruptListener): () => void {
    if (typeof listener !== 'function')
      throw wrongType('Vector.onInterrupt: listener', 'a function', listener);
    const own: InterruptListener = (count) => listener(count);
    this.on('interrupt', own);
    return () => void this.off('interrupt', own);
  }

  /**
   * Each step waits for the next count, without a deadline. Ends when the vector is closed, and at once, also while a step
   * waits, by `return()` (which leaving the loop calls) and `throw()`; the vector stays open then.
   * @throws ClosedError when the connection ends.
   */
  [Symbol.asyncIterator](): AsyncGenerator<number, void, undefined> {
    return new WaitIterator(
      (signal) => this.wait({ timeoutMs: Infinity, signal }),
      () => this.#isClosed,
    );
  }

  /** Signals the eventfd as the server does: for tests, and to wake who waits. @throws TransportError once closed. */
  signal(count = 1): void {
    integer('Vector.signal: count', count, 1, Number.MAX_SAFE_INTEGER);
    check(this.#eventfd.signal(count), 'write', this.#name);
  }

  /** Keeps the process alive while the vector is open (as it does at first). */
  ref(): this {
    this.#referenced = true;
    this.#eventfd.ref();
    this.#deadlines?.setReferenced(true);
    return this;
  }

  /** Lets the process end although the vector is open. */
  unref(): this {
    this.#referenced = false;
    this.#eventfd.unref();
    this.#deadlines?.setReferenced(false);
    return this;
  }

  /**
   * Gives the eventfd back; idempotent. Who waits is rejected with a ClosedError, a `for await` ends, what was kept is
   * dropped, and listeners of `'interrupt'` are. Nothing is sent: the server signals into nothing until `IrqIndex.disable`.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#context.removeResource(this);
    this.#eventfd.close();
    this.#kept = 0;
    this.#onClose(this);
    this.#rejectAll();
    // Nothing comes any more, and who holds the vector need not hold what its listeners do.
    this.removeAllListeners('interrupt');
    // Later, as Node's streams tell it: it may be one of many that are being closed.
    if (this.listenerCount('close') > 0) process.nextTick(() => this.emit('close'));
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Does what `close` does. */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** @internal The server has the eventfd. Nothing is read before: whoever enabled it can listen from the first count. */
  start(): void {
    if (this.#isClosed) return;
    const ended = this.#context.connection.endReason;
    if (ended !== undefined) {
      this.disconnect(ended);
      return;
    }
    this.#endReason = undefined;
    check(this.#eventfd.watch(true), 'epoll_ctl', this.#name);
  }

  /** @internal The connection has ended. What was signalled before is still delivered. */
  disconnect(reason: VfioUserError): void {
    if (this.#isClosed || this.#endReason !== undefined) return;
    this.#read();
    if (this.#isClosed) return;
    // Unwatched it does not keep the process alive.
    this.#eventfd.watch(false);
    this.#endReason = reason;
    this.#rejectAll();
  }

  #read(): void {
    const count = this.#eventfd.read();
    if (count > 0) this.#deliver(count);
  }

  #deliver(count: number): void {
    this.#count += count;
    if (this.#isTrigger) this.#context.connection.tellInterrupt(this.index, this.subindex, count);
    if (this.#waiters.size === 0) this.#kept += count;
    else this.#wakeFirst(count);
    // Not `emit`: what one of them throws must not keep the others from hearing of it.
    for (const listener of this.rawListeners('interrupt') as InterruptListener[]) {
      try {
        listener.call(this, count);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #wakeFirst(count: number): void {
    for (const waiter of this.#waiters) {
      this.#forget(waiter);
      waiter.resolve(count);
      return;
    }
  }

  #takeKept(): number {
    const count = this.#kept;
    this.#kept = 0;
    return count;
  }

  #watchDeadline(waiter: Waiter): void {
    if (this.#deadlines === undefined) {
      this.#deadlines = new Deadlines((late) => this.#giveUp(late, this.#timeoutError(late)));
      this.#deadlines.setReferenced(this.#referenced);
    }
    this.#deadlines.add(waiter, performance.now() + waiter.timeoutMs);
  }

  #timeoutError({ timeoutMs }: Waiter): TimeoutError {
    return new TimeoutError(`waiting for ${this.#name}`, timeoutMs, undefined, 'no interrupt');
  }

  #giveUp(waiter: Waiter, reason: unknown): void {
    this.#forget(waiter);
    waiter.reject(reason);
  }

  #forget(waiter: Waiter): void {
    this.#waiters.delete(waiter);
    this.#deadlines?.remove(waiter);
    waiter.abortListener?.remove();
  }

  #rejectAll(): void {
    // One error for all: with thousands of them, making one for each would hold up the loop.
    const ended = this.#ended();
    for (const waiter of this.#waiters) this.#giveUp(waiter, ended);
    // Its timer, which is not moved for each wait, would keep the process alive for nothing.
    this.#deadlines?.close();
  }

  #ended(): ClosedError {
    const reason = this.#endReason;
    if (this.#isClosed || reason === undefined) return new ClosedError(`${this.#name}: the vector is closed`);
    return new ClosedError(`${this.#name}: ${reason.message}`, { cause: reason });
  }
}
