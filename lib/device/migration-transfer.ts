/**
 * One save or restore at a time, from a state that is known, and a way back from whatever ends it.
 *
 * ```
 *            begin()                    complete()
 *   waiting ─────────▶ under way ──────────────────────▶ over
 *                          │ fail(): an error, an abort,  ▲
 *                          │ destroy, close, a lost       │
 *                          ▼ connection                   │
 *                       leaving ──────────────────────────┘
 * ```
 * Leaving takes the device back to where it was found, in a time that is bounded. What the connection's end prevents is
 * made up for when the server has come back.
 */
import { performance } from 'node:perf_hooks';
import { Exclusive, withDeadline, within, type CallOptions } from '../connection/index.js';
import { ClosedError, MigrationError } from '../errors.js';
import { MigrationState } from '../protocol/constants.js';
import { MigrationCommands } from './migration-commands.js';
import { explained, name, StepError, walk } from './migration-states.js';
import type { DeviceContext } from './device-context.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING } = MigrationState;

/** How long taking a device back may take, all in all. `close()` waits for it. */
export const LEAVE_MS = 10_000;
/** How much of that the rest of a stream may take that nobody wants. */
const DRAIN_MS = 5_000;
/** A step that fails is tried again: a device that stays where it is serves nobody. */
const LEAVE_ATTEMPTS = 3;

/** From where each begins. What a restore left behind is overwritten by the next one anyway. */
const BEGINNINGS: Readonly<Record<'save' | 'restore', readonly MigrationState[]>> = {
  save: [RUNNING, STOP],
  restore: [RUNNING, STOP, RESUMING],
};

const FAILURES = { save: 'the state could not be read', restore: 'the state could not be restored' } as const;

/** What is left of a time, for one call after the other; each has the device's own deadline at most. */
class Budget implements CallOptions {
  readonly #end: number;
  readonly #most: number;

  constructor(ms: number, most: number) {
    this.#end = performance.now() + ms;
    this.#most = most;
  }

  get isOver(): boolean {
    return performance.now() >= this.#end;
  }

  get timeoutMs(): number {
    return Math.max(1, Math.min(this.#most, this.#end - performance.now()));
  }
}

/** Of one device. */
export class Transfers {
  readonly #context: DeviceContext;
  /** A transfer begins, or the user changes the state: one after the other. */
  readonly #exclusive = new Exclusive();
  #active: Transfer | undefined;
  /** Where the device is to be taken when its server has come back. */
  #owed: MigrationState | undefined;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /** On the connection that users may use now. @throws ClosedError */
  get commands(): MigrationCommands {
    return new MigrationCommands(this.#context.userConnection);
  }

  /** Does what must not be done beside a transfer. @throws MigrationError where one is under way. */
  alone<T>(
    what: string,
    options: CallOptions | undefined,
    work: (call: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    return this.#exclusive.run(what, options, async (call) => {
      await this.#refuseBeside(what, call);
      return work(call);
    });
  }

  /** The device is `transfer`'s from now on. @throws MigrationError where it is another's, or in another state. */
  claim(transfer: Transfer, options: CallOptions): Promise<MigrationState> {
    const { kind } = transfer;
    return this.alone(`${kind}()`, options, async (call) => {
      const state = await transfer.commands.state(call);
      if (!BEGINNINGS[kind].includes(state)) throw wrongState(kind, state);
      options.signal?.throwIfAborted();
      this.#active = transfer;
      return state;
    });
  }

  release(transfer: Transfer): void {
    if (this.#active === transfer) this.#active = undefined;
  }

  /**
   * Takes the device to `home`, out of whatever it is in; of a stream that nobody wants the rest is read, in pieces of
   * `chunkBytes`. Never rejects, and takes `LEAVE_MS` at most.
   * @returns where the device is then; undefined where that is not known.
   */
  async leave(home: MigrationState, chunkBytes: number): Promise<MigrationState | undefined> {
    const { connection } = this.#context;
    const commands = new MigrationCommands(connection);
    const budget = new Budget(LEAVE_MS, connection.timeoutMs);
    let target = home;
    for (let attempt = 0; attempt < LEAVE_ATTEMPTS && !budget.isOver; attempt++) {
      try {
        const state = await commands.state(budget);
        if (state === ERROR) return state;
        // What it was before is gone: it must not run.
        if (state === RESUMING) target = STOP;
        if (state === STOP_COPY) await drain(commands, chunkBytes);
        await walk(commands, state, target, budget);
        return target;
      } catch {
        if (connection.endReason === undefined) continue;
        this.#owed = target;
        return undefined;
      }
    }
    return commands.state(budget).catch(() => undefined);
  }

  /** The server has come back: nothing that was under way goes on. Never rejects. */
  async restore(): Promise<void> {
    const active = this.#active;
    if (active !== undefined) await active.breakOff(new ClosedError('the connection was lost meanwhile'));
    const home = this.#owed;
    this.#owed = undefined;
    if (home === undefined) return;
    const now = await new MigrationCommands(this.#context.connection).state().catch(() => undefined);
    // Another process runs from the start, and knows nothing of a transfer.
    if (now !== RUNNING) await this.leave(home, this.#context.maxDataXferSize);
  }

  /** Breaks off what is under way; resolves when the device has been left. Undefined where nothing is. */
  close(reason: Error): Promise<unknown> | undefined {
    return this.#active?.breakOff(reason);
  }

  /** A reset is being sent. */
  deviceIsReset(): void {
    this.#active?.deviceIsReset();
  }

  async #refuseBeside(what: string, call: CallOptions | undefined): Promise<void> {
    for (let other = this.#active; other !== undefined; other = this.#active) {
      if (!other.isLeaving) {
        throw new MigrationError(`${what}: a ${other.kind} of this device is under way`, name(other.at));
      }
      await within(what, other.over ?? Promise.resolve(), call, Infinity);
    }
  }
}

/** A save or a restore. */
export class Transfer {
  readonly kind: 'save' | 'restore';
  /** Bytes of a message's data. */
  readonly chunkBytes: number;
  /** Breaks the stream off; its end is `fail`. */
  onBreakOff: (reason: Error) => void = () => undefined;
  readonly #transfers: Transfers;
  readonly #options: CallOptions;
  readonly #abort = new AbortController();
  #commands: MigrationCommands | undefined;
  #home: MigrationState = STOP;
  #at: MigrationState = STOP;
  #isClaimed = false;
  /** A reset was sent since the device's state was last known: what it has of the stream is gone. */
  #wasReset = false;
  #over: Promise<unknown> | undefined;
  readonly #onAbort = () => this.onBreakOff(this.#options.signal?.reason as Error);

  constructor(transfers: Transfers, kind: 'save' | 'restore', chunkBytes: number, options: CallOptions) {
    this.kind = kind;
    this.chunkBytes = chunkBytes;
    this.#transfers = transfers;
    this.#options = withDeadline({ timeoutMs: options.timeoutMs, signal: options.signal });
  }

  /** The calls of this transfer, which end when it does. */
  get options(): CallOptions {
    return { ...this.#options, signal: this.#abort.signal };
  }

  /** On the connection that it began on. */
  get commands(): MigrationCommands {
    return (this.#commands ??= this.#transfers.commands);
  }

  /** Where it has taken the device. */
  get at(): MigrationState {
    return this.#at;
  }

  get isLeaving(): boolean {
    return this.#over !== undefined;
  }

  /** Resolves, never rejects, when it is over; undefined while it is under way. */
  get over(): Promise<unknown> | undefined {
    return this.#over;
  }

  /** Begins, in the state that is found, to which a device that is not changed goes back. */
  async begin(): Promise<MigrationState> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#at = await this.#transfers.claim(this, this.options);
    this.#home = this.#at === RESUMING ? STOP : this.#at;
    this.#isClaimed = true;
    return this.#at;
  }

  /** The device is somewhere else, and that is known: after a reset. */
  found(state: MigrationState): void {
    this.#at = state;
    this.#home = state;
    this.#wasReset = false;
  }

  deviceIsReset(): void {
    this.#wasReset = true;
  }

  /** What the device was before is gone: until all is done it must not run. */
  staysStopped(): void {
    this.#home = STOP;
  }

  /** Takes the device to `target`, from where this transfer has taken it. @throws StepError; what ends a call. */
  async go(target: MigrationState): Promise<void> {
    const now = await this.commands.state(this.options);
    if (now !== this.#at) {
      throw new StepError(
        `the device was in ${name(this.#at)} and is in ${name(now)}: another has changed it`,
      );
    }
    await walk(this.commands, now, target, this.options);
    // Another may have begun a restore since, so that the state alone does not tell.
    if (this.#wasReset) throw new StepError('the device was reset meanwhile');
    this.#at = target;
  }

  /** All is done, and the device is where it is to be. */
  complete(): void {
    this.#over ??= Promise.resolve();
    this.#end();
  }

  /**
   * Ends it, whatever it was doing, and takes the device out of it. The first cause counts.
   * @returns what to tell the user; never rejects.
   */
  fail(cause: unknown): Promise<unknown> {
    this.#over ??= this.#leave(cause);
    return this.#over;
  }

  /** Ends it from outside. Resolves when the device has been left. */
  async breakOff(reason: Error): Promise<void> {
    if (!this.isLeaving) this.onBreakOff(reason);
    await this.fail(reason);
  }

  async #leave(cause: unknown): Promise<unknown> {
    this.#abort.abort(cause ?? new ClosedError('the stream was destroyed'));
    if (!this.#isClaimed) {
      this.#end();
      return cause;
    }
    const state = await this.#transfers.leave(this.#home, this.chunkBytes);
    this.#end();
    return explained(cause, FAILURES[this.kind], state);
  }

  #end(): void {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#transfers.release(this);
  }
}

/** libvfio-user's sample ends when STOP_COPY is left before all has been read. */
async function drain(commands: MigrationCommands, chunkBytes: number): Promise<void> {
  const budget = new Budget(DRAIN_MS, commands.connection.timeoutMs);
  try {
    while (!budget.isOver && (await commands.read(chunkBytes, budget)).byteLength === chunkBytes);
  } catch {
    // It could not be drained: leaving is tried all the same.
  }
}

function wrongState(kind: 'save' | 'restore', state: MigrationState): MigrationError {
  const beginnings = BEGINNINGS[kind].map(name).join(' or ');
  const advice =
    state === ERROR || state === RESUMING
      ? 'reset it to recover'
      : 'another transfer is under way, or was left: transition(STOP) or transition(RUNNING) discards it';
  return new MigrationError(
    `${kind}() begins in ${beginnings}; the device is in state ${name(state)}: ${advice}`,
    name(state),
  );
}
