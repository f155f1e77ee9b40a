/**
 * The calls of a connection that block the thread until they are answered.
 *
 * ```
 *   quiet, and few bytes ── one native call ──▶ the plain reply ──▶ value
 *        │ no                     │ anything else
 *        ▼                        ▼
 *      slot ── sent, or queued ── block, a slice at a time ──▶ value or error
 *                                   └ serves the server's requests, on both sockets; ends calls whose time is over
 * ```
 */
import { performance } from 'node:perf_hooks';
import { TimeoutError, UnsupportedError } from '../errors.js';
import { commandName } from '../protocol/constants.js';
import { QUICK_WAITED_AT, SLICE_MS, type MessageTap } from '../transport/index.js';
import { deadlineOf, hasDeadline, timeoutOf, type SyncCallOptions } from './call-options.js';
import { FastPath, type Unfinished } from './fast-path.js';
import { FLAGS_COMMAND } from './header-flags.js';
import type { Flow } from './request-scheduler.js';
import { checkMemory, encodeAccess, type RegionAccess } from './region-access-codec.js';
import type { Decoder, Slot } from './pending-request.js';

export class BlockingCalls {
  readonly #flow: Flow;
  readonly #fastPath: FastPath | undefined;
  #whyNotSync: string | undefined;
  readonly #tap: MessageTap | undefined;
  /** The deadline of calls that say nothing. */
  readonly #timeoutMs: number;

  constructor(flow: Flow, tap: MessageTap | undefined, timeoutMs: number) {
    this.#flow = flow;
    const { quick } = flow.main.transport;
    this.#fastPath = quick === undefined ? undefined : new FastPath(flow, quick, tap);
    this.#tap = tap;
    this.#timeoutMs = timeoutMs;
  }

  /** Refuses calls with this explanation, until set to undefined. */
  set whyNotSync(reason: string | undefined) {
    this.#whyNotSync = reason;
    if (this.#fastPath !== undefined) this.#fastPath.isForbidden = reason !== undefined;
  }

  /** See `FastPath.disturb`. */
  disturb(): void {
    this.#fastPath?.disturb();
  }

  /** `Connection.call`, blocking; `head` is of the command and its payload. */
  call<T>(
    command: number,
    head: Buffer,
    payload: Uint8Array | null,
    fds: readonly number[] | null,
    decode: Decoder<T>,
    options: SyncCallOptions | undefined,
  ): T {
    const slot = this.#open(command, options);
    slot.decode = decode;
    this.#hurry();
    if (!slot.settled) this.#flow.submit(slot, head, payload, fds);
    return this.#block(slot) as T;
  }

  /** `Connection.access`, blocking: the lowest latency. */
  access<T>(access: RegionAccess<T>, options: SyncCallOptions | undefined): T {
    const { command, body } = access;
    checkMemory(access);
    const fastPath = this.#fastPath;
    if (fastPath?.mayTake(access) === true) {
      const timeoutMs = this.#leftOf(command, options);
      return fastPath.run(access, timeoutMs, (unfinished) => {
        // It has been sent: its time began before, and is not asked for again.
        const slot = this.#open(command, { timeoutMs });
        slot.timeoutMs = Math.ceil(timeoutOf(options, this.#timeoutMs));
        slot.aim(access);
        return this.#goOn(fastPath, slot, unfinished) as T;
      });
    }
    const head = this.#flow.accessHead;
    const slot = this.#open(command, options);
    slot.aim(access);
    this.#hurry();
    if (!slot.settled) {
      encodeAccess(head, access, FLAGS_COMMAND);
      this.#flow.submit(slot, head, body, null);
    }
    return this.#block(slot) as T;
  }

  /** How long a call may take that is made now, in milliseconds. @throws TimeoutError where that is over. */
  #leftOf(command: number, options: SyncCallOptions | undefined): number {
    const timeoutMs = timeoutOf(options, this.#timeoutMs);
    if (!hasDeadline(options)) return timeoutMs;
    const left = deadlineOf(options, timeoutMs) - performance.now();
    if (left <= 0) throw new TimeoutError(commandName(command), timeoutMs);
    return left;
  }

  #open(command: number, options: SyncCallOptions | undefined): Slot {
    this.#flow.refuseWhenClosed(command);
    const { canBlock, peer } = this.#flow.main.transport;
    if (!canBlock) throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${peer}`);
    if (this.#flow.isServedHere) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made to a server on this thread's own event loop, which cannot ` +
          'answer while the call blocks it: call asynchronously, or serve in a worker thread or another process',
      );
    }
    if (this.#flow.serving > 0) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made while a request of the server is served`,
      );
    }
    if (this.#tap?.telling === true) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made by what listens to the messages`,
      );
    }
    if (this.#whyNotSync !== undefined) {
      throw new UnsupportedError(`${commandName(command)}: ${this.#whyNotSync}`);
    }
    return this.#flow.open(command, options, true);
  }

  /** An access of the fast path becomes a call like any other. */
  #goOn({ quick }: FastPath, slot: Slot, { id, size, came }: Unfinished): unknown {
    const { main, deadlines } = this.#flow;
    const { bytes } = quick.memory;
    this.#flow.giveId(slot, id);
    // What was not sent whole was not waited for: what stands there is of another call.
    if (came >= 0 && slot.deadline !== 0) {
      const deadline = slot.deadline - Math.floor(bytes.readDoubleLE(QUICK_WAITED_AT));
      deadlines.remove(slot);
      deadlines.add(slot, deadline, false);
    }
    if (came > 0) quick.handOver(came);
    else if (came < 0) main.sendRest(slot, bytes, size, size + came);
    return this.#block(slot);
  }

  /** What the loop would do when it turns is done now: the calls that were made before come first. */
  #hurry(): void {
    this.#flow.main.hurry();
    this.#flow.twin?.hurry();
    this.#flow.main.outbox?.sendGathered();
  }

  /** Blocks until a synchronous call is answered. Its slot is free when this returns or throws. */
  #block(slot: Slot): unknown {
    while (!slot.settled) this.#turn(slot);
    const { error, value } = slot;
    // A tombstone is released by its late reply; `close` forgets ids, so anything else goes back now.
    if (slot.state !== 'tombstone') this.#flow.slots.release(slot);
    if (error !== undefined) throw error;
    return value;
  }

  /** One slice of a blocking wait: sends what is stuck, receives what comes, ends calls whose time is over. */
  #turn(slot: Slot): void {
    const { main, twin, deadlines } = this.#flow;
    // No timer runs meanwhile, and what a call that ends leaves free is what this one may be waiting for.
    deadlines.expire();
    this.#flow.pump();
    if (slot.settled) return;
    const wait = Math.min(SLICE_MS, Math.max(0, Math.ceil(deadlines.earliest - performance.now())));
    main.hurry();
    twin?.hurry();
    if (slot.settled) return;
    const mainWaits = main.outbox?.isEmpty === false;
    const twinWaits = twin?.outbox?.isEmpty === false;
    // One wait watches one socket for room: where both are full they take short turns.
    if (twinWaits) twin.transport.flushSync(mainWaits ? Math.min(1, wait) : wait, main.transport);
    if (slot.settled) return;
    if (mainWaits) main.transport.flushSync(twinWaits ? Math.min(1, wait) : wait, twin?.transport);
    else if (!twinWaits) main.transport.receiveSync(wait, twin?.transport);
  }
}
