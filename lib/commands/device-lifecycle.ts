/**
 * The states of a device that a driver drives, and what leads from one to the next.
 *
 * ```
 *   opening ──▶ live ◀──▶ resetting ──▶ failed         commands in flight are sent again, or answered, after a reset
 *      │          │            │           │
 *      └──▶ failed└── close(), or the device is closed ──▶ closed
 * ```
 * One transition at a time, under one mutex: a reset, the creation or deletion of a queue, the shutdown. A reset first
 * answers the admin commands of whoever has the mutex, so it never waits for a controller that does not answer; what it
 * interrupted begins again after it.
 *
 * Memory that the controller may still write to is not given back: that of a controller that cannot be disabled stays
 * reserved until somebody can, or the device is closed. When the memory is taken away by others, everyone who waits is
 * answered first.
 */
import { Mutex } from 'async-mutex';
import { ClosedError, TransportError, type Device } from '../index.js';

/**
 * What a device is doing: `opening` until its driver's `open` resolves; `live`; `resetting` from a reset's beginning to its
 * end, also while a lost connection is made again; `failed` where it could not be brought back, or lost its memory; `closed`
 * after `close`, or with its device.
 */
export type DriverState = 'opening' | 'live' | 'resetting' | 'failed' | 'closed';

/** The steps of a driver, of which the lifecycle says when they happen. */
export interface DeviceSetup {
  /** What users know the device as, for errors: `the controller`. */
  readonly noun: string;
  /** What users get from a device that has failed. */
  failure(message: string, cause: unknown): Error;
  /** What a call gets that a reset interrupts. */
  interruption(message: string): Error;
  /** Whether `error` is one of those. */
  isInterruption(error: unknown): boolean;
  /** Brings the device up, with all queues of before; `throwIfEnded` is called where it may have ended meanwhile. */
  start(throwIfEnded: () => void): Promise<void>;
  /** The error of the first `start`, with the likely reason where there is one. */
  explain(error: unknown): unknown;
  /** Nothing is sent from here on but what belongs to a start. */
  suspend(): void;
  /** Nothing is taken any more. Waits for what is in flight, as long as commands may take. */
  drain(): Promise<void>;
  /** What comes before `shutDown`. Never rejects. */
  deleteQueues(): Promise<void>;
  /** Ends the device's work in order. */
  shutDown(): Promise<void>;
  /** Whoever waits gets that error, and nothing is sent any more. */
  end(error: () => Error): void;
  /** Callers' buffers are theirs again: the device has ended, and does not use them any more. */
  giveBackBuffers(): void;
  /** Disables a device that has ended. Whether that could be done: it uses no memory then. */
  disable(): Promise<boolean>;
  /** The same, without waiting for it, before its memory is taken away. */
  disableAtOnce(): void;
  /** Disables it, and gives its memory back, or keeps it reserved where it cannot be disabled. */
  free(): Promise<void>;
  /** The device has ended, and is not touched any more: whoever disables it next gives the memory back. */
  handOver(): void;
  /** The connection is a new one: mappings of registers are made again. */
  unmapDoorbells(): void;
}

/** A change was asked for, and not answered: nobody knows what the device has, until it is reset. */
export class UncertainChange extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

/** How often a change of queues begins again because of a reset. */
const MOST_TRIES = 8;

export class DeviceLifecycle {
  /** Settles with the reason when the controller has failed or is closed. */
  readonly closed: Promise<Error>;
  readonly #device: Device;
  readonly #setup: DeviceSetup;
  /** Held by whoever changes the controller's state or its queues. */
  readonly #mutex = new Mutex();
  #state: DriverState = 'opening';
  #resetting: Promise<void> | undefined;
  /** Those that have begun. */
  #resets = 0;
  #closing: Promise<void> | undefined;
  /** What users get in `failed` and `closed`. */
  #endError: (() => Error) | undefined;
  #resolveClosed!: (reason: Error) => void;
  /** Losses of the connection, of a device that reconnects. */
  #losses = 0;
  /** While the connection is lost: settles when it is back, or the controller has ended. */
  #back: Promise<void> | undefined;
  #resolveBack: (() => void) | undefined;

  constructor(device: Device, setup: DeviceSetup) {
    this.#device = device;
    this.#setup = setup;
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    void device.closed.then((reason) => {
      const text = `the connection has ended: ${reason.message}`;
      this.#end('closed', () => new ClosedError(text, { cause: reason }));
      setup.giveBackBuffers();
    });
    device.on('lost', this.#onLost);
    device.on('reconnected', this.#onReconnected);
  }

  get state(): DriverState {
    return this.#state;
  }

  /** `close` was called, or the controller has ended. */
  get isClosed(): boolean {
    return this.#closing !== undefined || this.#endError !== undefined;
  }

  /** It has failed or is closed: nothing is sent any more but what leaves the controller. */
  get hasEnded(): boolean {
    return this.#endError !== undefined;
  }

  throwIfEnded(): void {
    if (this.#endError !== undefined) throw this.#endError();
  }

  /** @throws ClosedError, too, where `close` was called. */
  throwIfClosing(): void {
    this.throwIfEnded();
    if (this.#closing !== undefined) throw new ClosedError(`${this.#setup.noun} is being closed`);
  }

  /** @throws the failure where the controller does not come up; it has failed then, and its memory is given back. */
  async open(): Promise<void> {
    try {
      await this.#mutex.runExclusive(async () => {
        await this.#setup.start(() => this.throwIfEnded());
        this.#enter('live');
      });
    } catch (error) {
      await sameTurn();
      const failure = this.fail(this.#setup.explain(error));
      // What the server does not let go of stays reserved; why it did not come up is what counts.
      await this.#mutex.runExclusive(() => this.#setup.free()).catch(() => undefined);
      throw failure;
    }
  }

  /** Several at a time are one. @throws the failure, ClosedError. */
  async reset(): Promise<void> {
    this.throwIfClosing();
    await this.#resetOnce();
  }

  /** Never rejects: a controller that cannot be reset has failed. */
  async resetOrFail(): Promise<void> {
    if (this.#state === 'live' || this.#state === 'resetting') await this.#resetOnce().catch(() => undefined);
  }

  /**
   * Runs while nobody else changes the controller, and it is live; again where a reset comes between. What the controller
   * did not answer is followed by a reset, and tried once more.
   * @throws what ended the controller, and what `run` throws.
   */
  async whenLive<T>(run: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const resets = this.#resets;
      await this.#resetting?.catch(() => undefined);
      try {
        return await this.#mutex.runExclusive(async () => {
          this.throwIfEnded();
          if (this.#resetting !== undefined)
            throw this.#setup.interruption(`${this.#setup.noun} is being reset`);
          return run();
        });
      } catch (error) {
        await sameTurn();
        // What was under way when it ended has failed because of that, whatever it failed with.
        this.throwIfEnded();
        if (error instanceof UncertainChange) {
          await this.resetOrFail();
          if (tries > 1) throw error.cause;
        } else if (!this.#isInterruption(error) || resets === this.#resets || tries === MOST_TRIES)
          throw error;
      }
    }
  }

  /** Idempotent. @throws the failure where the shutdown does not end; the controller is closed all the same. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** Another driver takes over what has ended: from then on it is not touched from here. */
  async handOver(): Promise<void> {
    await this.#mutex.runExclusive(() => this.#setup.handOver());
  }

  /** Fails the controller for that reason, unless it has ended already; what its users get from here on. */
  fail(cause: unknown): Error {
    const message = cause instanceof Error ? cause.message : String(cause);
    const error = () => this.#setup.failure(`${this.#setup.noun} has failed: ${message}`, cause);
    if (this.#endError !== undefined) return this.#endError();
    this.#end('failed', error);
    // When whoever has the mutex, and may be about to enable it, is done.
    void this.#mutex.runExclusive(() => this.#setup.disable());
    return error();
  }

  /** The device is closed, or all its memory unmapped: whoever waits is answered before the memory is gone. */
  onMemoryLost(reason: Error): void {
    const isNew = this.#endError === undefined;
    const text = `${this.#setup.noun} has lost its memory: ${reason.message}`;
    this.#end('failed', () => new ClosedError(text, { cause: reason }));
    this.#setup.giveBackBuffers();
    if (!isNew) return;
    // It leaves before whatever takes the memory away; and again when nobody can enable it any more.
    this.#setup.disableAtOnce();
    void this.#mutex.runExclusive(() => this.#setup.disable());
  }

  #resetOnce(): Promise<void> {
    return (this.#resetting ??= this.#reset().finally(() => (this.#resetting = undefined)));
  }

  async #reset(): Promise<void> {
    this.#enter('resetting');
    this.#resets++;
    this.#setup.suspend();
    await this.#mutex.runExclusive(async () => {
      for (;;) {
        await this.#back;
        this.throwIfEnded();
        const losses = this.#losses;
        try {
          await this.#setup.start(() => this.throwIfEnded());
          this.#enter('live');
          return;
        } catch (error) {
          await sameTurn();
          // What a loss of the connection interrupted begins again when the device is back.
          if (losses === this.#losses || this.#endError !== undefined) throw this.fail(error);
          this.#setup.suspend();
        }
      }
    });
  }

  /** A server that comes back may be a new one: the controller is set up from the beginning. */
  readonly #onLost = (): void => {
    this.#losses++;
    this.#back ??= new Promise((resolve) => (this.#resolveBack = resolve));
    // A command of a reset that is under way would wait for its deadline: nobody completes it.
    if (this.#state === 'resetting') this.#setup.suspend();
    void this.resetOrFail();
  };

  readonly #onReconnected = (): void => {
    this.#setup.unmapDoorbells();
    this.#endLoss();
  };

  #endLoss(): void {
    this.#back = undefined;
    this.#resolveBack?.();
  }

  async #close(): Promise<void> {
    if (this.#endError === undefined) await this.#setup.drain();
    const closed = () => new ClosedError(`${this.#setup.noun} is closed`);
    // While the connection is lost there is nothing to wait for: a reset that waits for it ends.
    if (this.#back !== undefined) this.#end('closed', closed);
    let failure: unknown;
    await this.#mutex.runExclusive(async () => {
      if (this.#endError === undefined) failure = await this.#shutDown();
      this.#end('closed', closed);
      await this.#setup.free();
    });
    if (failure !== undefined) throw failure;
  }

  /** Disabling comes next, whatever comes of this: what went wrong, if anything did. */
  async #shutDown(): Promise<unknown> {
    const losses = this.#losses;
    await this.#setup.deleteQueues();
    // Whoever lost the connection knows, and there is nothing to shut down.
    if (this.#endError !== undefined || losses !== this.#losses) return undefined;
    try {
      await this.#setup.shutDown();
    } catch (error) {
      await sameTurn();
      return this.#endError === undefined && losses === this.#losses ? error : undefined;
    }
    return undefined;
  }

  /** Calls that a reset, or the loss of the connection, has ended. */
  #isInterruption(error: unknown): boolean {
    return (
      this.#setup.isInterruption(error) || error instanceof ClosedError || error instanceof TransportError
    );
  }

  #enter(state: 'live' | 'resetting'): void {
    this.throwIfEnded();
    this.#state = state;
  }

  #end(state: 'failed' | 'closed', error: () => Error): void {
    if (this.#state !== 'closed') this.#state = state;
    if (this.#endError !== undefined) return;
    this.#endError = error;
    this.#setup.end(error);
    this.#device.off('lost', this.#onLost);
    this.#device.off('reconnected', this.#onReconnected);
    this.#endLoss();
    this.#resolveClosed(error());
  }
}

/** Settles when whatever ended a call has been told to everyone: who sees it first must not take it for something else. */
function sameTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
