/**
 * A device that survives its server (specification: Socket Disconnection Behavior): when the server comes back, the
 * device is checked to be the one that it was, and set up as it was left.
 *
 * Calls that waited when the connection ended have been rejected, and calls made before all is set up again are: whether
 * an access may be repeated is for its caller to know.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { withDeadline, type CallOptions, type Connection, type Negotiated } from '../connection/index.js';
import { ClosedError, TimeoutError, TransportError, UnsupportedError, VfioUserError } from '../errors.js';
import { discover, firstDifference, type DeviceDescription } from './discover.js';
import type { DeviceContext } from './device-context.js';

/**
 * A device that comes back is compared with what it was before it is given any memory: the protocol version, the device's
 * flags, the number, sizes and flags of regions, the number of interrupts of each type, and on PCI the ids, class,
 * revision, subsystem, capabilities and Device Serial Number. What a device of the same kind holds inside is for a driver
 * to compare: `vfio-user/nvme` compares the controller and its namespaces.
 */
export interface ReconnectOptions {
  /** How long to try, from the loss on, before the device is lost for good. Milliseconds; default 30,000. */
  timeoutMs?: number | undefined;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const FIRST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 200;

/** A connection that has been negotiated. */
export interface Dialled {
  connection: Connection;
  negotiated: Negotiated;
}

export interface ReconnectHooks {
  /** Opens a connection to the same server. */
  dial: (options: CallOptions) => Promise<Dialled>;
  /** The version that was spoken when the device was opened. */
  negotiated: Negotiated;
  /** What the device was then. */
  description: DeviceDescription;
  /** Sets the device up again; owns the description's fds. */
  restore: (description: DeviceDescription, options: CallOptions) => Promise<void>;
  onLost: (reason: VfioUserError) => void;
  onReconnected: () => void;
}

export class Reconnector {
  readonly #context: DeviceContext;
  readonly #hooks: ReconnectHooks;
  readonly #timeoutMs: number;
  readonly #stop = new AbortController();

  constructor(context: DeviceContext, hooks: ReconnectHooks, options: ReconnectOptions) {
    this.#context = context;
    this.#hooks = hooks;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    // One listener for each call that is under way.
    setMaxListeners(0, this.#stop.signal);
    void this.#watch();
  }

  /** The owner closes the device: whatever is under way ends. */
  close(): void {
    this.#stop.abort(closedByOwner());
  }

  /** One round for each loss. Never rejects. */
  async #watch(): Promise<void> {
    for (;;) {
      const reason = await this.#context.connection.closed;
      if (this.#stop.signal.aborted) {
        this.#context.end(reason);
        return;
      }
      tell(() => this.#hooks.onLost(reason));
      try {
        await this.#restore();
      } catch (error) {
        this.#context.connection.close();
        this.#context.end(this.#stop.signal.aborted ? closedByOwner() : lostForGood(error, reason));
        return;
      }
      this.#context.resume();
      tell(() => this.#hooks.onReconnected());
    }
  }

  /** Tries until the device is set up again. @throws what ends trying. */
  async #restore(): Promise<void> {
    const deadline = performance.now() + this.#timeoutMs;
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
      const left = deadline - performance.now();
      try {
        await this.#attempt(withDeadline({ timeoutMs: Math.max(1, left), signal: this.#stop.signal }));
        return;
      } catch (error) {
        this.#stop.signal.throwIfAborted();
        if (!isTransient(error) || performance.now() + pause > deadline) throw error;
      }
      await sleep(pause, undefined, { signal: this.#stop.signal });
    }
  }

  async #attempt(options: CallOptions): Promise<void> {
    const { connection, negotiated } = await this.#hooks.dial(options);
    try {
      const description = await discover(connection, options);
      try {
        // Closed meanwhile: nothing may be opened any more.
        options.signal?.throwIfAborted();
        this.#checkSame(negotiated, description);
      } catch (error) {
        for (const region of description.regions) region.close();
        throw error;
      }
      this.#context.restoreConnection(connection, negotiated);
      await this.#hooks.restore(description, options);
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  #checkSame({ major, minor }: Negotiated, description: DeviceDescription): void {
    const { major: majorBefore, minor: minorBefore } = this.#hooks.negotiated;
    if (major !== majorBefore || minor !== minorBefore) {
      throw anotherDevice(`its protocol version was ${majorBefore}.${minorBefore} and is ${major}.${minor}`);
    }
    const difference = firstDifference(this.#hooks.description, description);
    if (difference !== undefined) throw anotherDevice(difference);
  }
}

/** What ends reconnecting when the server that has come back is not the one that went. */
export function anotherDevice(difference: string): UnsupportedError {
  return new UnsupportedError(`another device has come back: ${difference}`);
}

/** A listener's failure is its own: it must not end reconnecting. */
function tell(listeners: () => void): void {
  try {
    listeners();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

function closedByOwner(): ClosedError {
  return new ClosedError('the device was closed by its owner');
}

/** A server that is not there yet, or goes again; not one that is there and wrong. */
function isTransient(error: unknown): boolean {
  return error instanceof TransportError || error instanceof ClosedError || error instanceof TimeoutError;
}

function lostForGood(error: unknown, first: VfioUserError): VfioUserError {
  if (!(error instanceof VfioUserError)) return new ClosedError('reconnecting failed', { cause: error });
  return new ClosedError(`the device is lost (${first.message}), and did not come back: ${error.message}`, {
    cause: error,
  });
}
