/**
 * The calls of a connection that block the thread until they are answered.
 *
 * ```
 *   idle, and few bytes ── fast path ──▶ the expected reply ──▶ value
 *        │ no                   │ anything else
 *        ▼                      ▼
 *      request ── sent, or queued ── block, a slice at a time ──▶ value or error
 *                                      └ serves the server's requests, on both sockets; ends calls whose time is over
 * ```
 */
import { performance } from 'node:perf_hooks';
import { TimeoutError, UnsupportedError } from '../errors.js';
import { commandName } from '../protocol/constants.js';
import { SLICE_MS, type MessageTap } from '../transport/index.js';
import { deadlineOf, hasDeadline, timeoutOf, type SyncCallOptions } from './call-options.js';
import type { Statistics } from './counters.js';
import { FastPath, type Unfinished } from './fast-path.js';
import type { Call, Decoder, PendingRequest } from './pending-request.js';
import type { PendingRequests } from './pending-requests.js';
import { FLAGS_COMMAND, checkMemory, type AccessEncoder, type RegionAccess } from './region-access-codec.js';
import type { RequestScheduler } from './request-scheduler.js';
import type { EncodedMessage } from './send-queue.js';
import type { ServerRequests } from './server-request.js';
import type { Sockets } from './sockets.js';

/** What blocking calls have to know of their connection. */
export interface BlockingOptions {
  sockets: Sockets;
  requests: PendingRequests;
  scheduler: RequestScheduler;
  serverRequests: ServerRequests;
  encoder: AccessEncoder;
  statistics: Statistics;
  tap: MessageTap | undefined;
  /** The deadline of calls that say nothing, in milliseconds. */
  timeoutMs: number;
}

/** Who blocks looks here for how the call has ended. */
class BlockedCaller {
  isSettled = false;
  #value: unknown;
  #error: unknown;

  readonly resolve = (value: unknown): void => {
    this.isSettled = true;
    this.#value = value;
  };

  readonly reject = (error: unknown): void => {
    this.isSettled = true;
    this.#error = error;
  };

  /** @throws what the call was rejected with. */
  take(): unknown {
    if (this.#error !== undefined) throw this.#error;
    return this.#value;
  }
}

export class BlockingCalls {
  readonly #sockets: Sockets;
  readonly #scheduler: RequestScheduler;
  readonly #serverRequests: ServerRequests;
  readonly #encoder: AccessEncoder;
  readonly #fastPath: FastPath | undefined;
  #whyNotSync: string | undefined;
  readonly #tap: MessageTap | undefined;
  readonly #timeoutMs: number;

  constructor(options: BlockingOptions) {
    const { sockets } = options;
    this.#sockets = sockets;
    this.#scheduler = options.scheduler;
    this.#serverRequests = options.serverRequests;
    this.#encoder = options.encoder;
    this.#tap = options.tap;
    this.#timeoutMs = options.timeoutMs;
    const socket = sockets.main.fastPath;
    this.#fastPath = socket === undefined ? undefined : new FastPath({ ...options, socket });
  }

  /** Refuses calls with this explanation, until set to undefined. */
  set whyNotSync(reason: string | undefined) {
    this.#whyNotSync = reason;
    if (this.#fastPath !== undefined) this.#fastPath.isForbidden = reason !== undefined;
  }

  /** See `FastPath.recheck`. */
  recheckFastPath(): void {
    this.#fastPath?.recheck();
  }

  /** `Connection.call`, blocking. */
  call<T>(
    command: number,
    message: EncodedMessage,
    decode: Decoder<T>,
    options: SyncCallOptions | undefined,
  ): T {
    this.#refuseWhereImpossible(command);
    const caller = new BlockedCaller();
    const request = this.#open(blockingCall(command, decode, caller), options);
    if (!caller.isSettled) this.#scheduler.submit(request, message);
    this.#giveUpInProcess(request, caller);
    return this.#block(caller) as T;
  }

  /** `Connection.access`, blocking: the lowest latency. */
  access<T>(access: RegionAccess<T>, options: SyncCallOptions | undefined): T {
    checkMemory(access);
    const fastPath = this.#fastPath;
    if (fastPath?.mayTake(access) === true) {
      const timeoutMs = options === undefined ? this.#timeoutMs : this.#leftOf(access.command, options);
      return fastPath.run(access, timeoutMs, (unfinished) => {
        const totalMs = timeoutOf(options, this.#timeoutMs);
        return this.#goOn(fastPath, access, unfinished, timeoutMs, totalMs) as T;
      });
    }
    const { command } = access;
    this.#refuseWhereImpossible(command);
    const caller = new BlockedCaller();
    const request = this.#open(blockingCall(command, access, caller), options);
    if (!caller.isSettled) {
      this.#scheduler.submit(request, this.#encoder.encode(access, FLAGS_COMMAND));
    }
    this.#giveUpInProcess(request, caller);
    return this.#block(caller) as T;
  }

  /** How long a call may take that is made now, in milliseconds. @throws TimeoutError where that is over. */
  #leftOf(command: number, options: SyncCallOptions): number {
    const timeoutMs = timeoutOf(options, this.#timeoutMs);
    if (!hasDeadline(options)) return timeoutMs;
    const left = deadlineOf(options, timeoutMs) - performance.now();
    if (left <= 0) throw new TimeoutError(commandName(command), timeoutMs);
    return left;
  }

  /** @throws ClosedError, and UnsupportedError where nothing that blocks can be called now. */
  #refuseWhereImpossible(command: number): void {
    this.#scheduler.refuseWhenClosed(command);
    const { main } = this.#sockets;
    if (!main.canBlock) {
      throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${main.peer}`);
    }
    if (main.isServedHere) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made to a server on this thread's own event loop, which cannot ` +
          'answer while the call blocks it: call asynchronously, or serve in a worker thread or another process',
      );
    }
    if (main.inProcess?.isBusy === true) {
      throw new UnsupportedError(
        `${commandName(command)}: no synchronous call can be made while the device in this process carries out an earlier ` +
          'command: call asynchronously, or when that one has been answered',
      );
    }
    if (this.#serverRequests.isServing) {
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
  }

  /** A device in this process has answered by now, or will not before the loop turns. */
  #giveUpInProcess(request: PendingRequest, caller: BlockedCaller): void {
    if (caller.isSettled || this.#sockets.main.inProcess === undefined) return;
    this.#scheduler.abandon(
      request,
      new UnsupportedError(
        `${commandName(request.call.command)}: the device's handler answers by a promise, which a synchronous call cannot ` +
          'wait for: call asynchronously. The handler has been called, and may still do what was asked',
      ),
    );
  }

  /** A request, before which everything goes that was sent before. It may be settled by that. */
  #open(call: Call, options: SyncCallOptions | undefined): PendingRequest {
    const request = this.#scheduler.open(call, options);
    this.#sockets.resumeReading();
    this.#sockets.main.sendGathered();
    return request;
  }

  /**
   * A call that the fast path has begun becomes one like any other. `timeoutMs` are what was left of the `totalMs` that it
   * may take.
   */
  #goOn<T>(
    fastPath: FastPath,
    access: RegionAccess<T>,
    unfinished: Unfinished,
    timeoutMs: number,
    totalMs: number,
  ): unknown {
    const { id, message, sent, received, waitedMs } = unfinished;
    const { command } = access;
    this.#scheduler.refuseWhenClosed(command);
    const caller = new BlockedCaller();
    const call = blockingCall(command, access, caller);
    const deadline = performance.now() - waitedMs + timeoutMs;
    const started = { call, id, timeoutMs: totalMs, deadline };
    const request =
      sent < message.headLength
        ? this.#scheduler.resumeSending(started, message, sent)
        : this.#scheduler.resume(started);
    if (received > 0) fastPath.handOver(unfinished);
    this.#giveUpInProcess(request, caller);
    return this.#block(caller);
  }

  /** Blocks until the caller is settled. */
  #block(caller: BlockedCaller): unknown {
    while (!caller.isSettled) this.#waitOnce(caller);
    return caller.take();
  }

  /** One slice of a blocking wait: sends what is stuck, receives what comes, ends calls whose time is over. */
  #waitOnce(caller: BlockedCaller): void {
    // No timer runs meanwhile, and what a call that ends leaves free is what this one may be waiting for.
    this.#scheduler.expire();
    if (caller.isSettled) return;
    const left = Math.ceil(this.#scheduler.earliestDeadline - performance.now());
    this.#sockets.wait(Math.min(SLICE_MS, Math.max(0, left)), caller);
  }
}

function blockingCall(
  command: number,
  reply: RegionAccess<unknown> | Decoder<unknown>,
  { resolve, reject }: BlockedCaller,
): Call {
  return { command, isBlocking: true, reply, resolve, reject, onAbandoned: undefined };
}
