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
import { HEADER_SIZE, commandName } from '../protocol/constants.js';
import {
  QUICK_OTHER_AT,
  QUICK_REPLY_AT,
  QUICK_WAITED_AT,
  SLICE_MS,
  type MessageTap,
  type QuickFace,
} from '../transport/index.js';
import { ACCESS_HEAD_SIZE, encodeAccess, encodeQuickly, isPlainReply, isQuick } from './access.js';
import { deadlineOf, hasDeadline, timeoutOf, type SyncCallOptions } from './call-options.js';
import { FLAGS_COMMAND } from './flags.js';
import { countRoundTrip, countSent, type Counters } from './counters.js';
import type { Flow } from './flow.js';
import { lostMemory } from './memory.js';
import { Slot, aim, type Decoder } from './slot.js';

const NO_FDS: number[] = [];
/** Region accesses are encoded here: header and access structure. Sent, or copied, before the next one is. */
const accessHead = Buffer.alloc(ACCESS_HEAD_SIZE);
/** What a quick access was, for its decoder alone, once its reply is known to be the plain one. */
const quickSlot = new Slot();
quickSlot.isPlain = true;
const QUICK_OTHER_WORD = QUICK_OTHER_AT >>> 2;

export class BlockingCalls {
  readonly #flow: Flow;
  readonly #counters: Counters;
  readonly #quick: QuickFace | undefined;
  /** Of the twin, where there was one when it was looked for the last time. */
  #quickTwin: QuickFace | undefined;
  #whyNotSync: string | undefined;
  readonly #tap: MessageTap | undefined;
  /** The deadline of calls that say nothing. */
  readonly #timeoutMs: number;
  /** See `Transport.isServedHere`. Asked once: the ends of a socket stay what they are. */
  #isServedHere: boolean | undefined;

  constructor(flow: Flow, tap: MessageTap | undefined, timeoutMs: number) {
    this.#flow = flow;
    this.#counters = flow.counters;
    this.#quick = flow.main.transport.quick;
    this.#tap = tap;
    this.#timeoutMs = timeoutMs;
  }

  /** Refuses calls with this explanation, until set to undefined. */
  set whyNotSync(reason: string | undefined) {
    this.#whyNotSync = reason;
    this.disturb();
  }

  /** What has to be minded has changed, other than by a message: the next call looks anew. */
  disturb(): void {
    if (this.#quick !== undefined) this.#quick.isUndisturbed = false;
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
    const slot = this.#open(command, decode, options);
    this.#hurry();
    if (!slot.settled) this.#flow.submit(slot, head, payload, fds);
    return this.#block(slot) as T;
  }

  /** `Connection.access`, blocking: the lowest latency. */
  access<T>(
    command: number,
    region: number,
    offset: number,
    count: number,
    body: Uint8Array | null,
    target: Uint8Array | undefined,
    decode: Decoder<T>,
    options: SyncCallOptions | undefined,
  ): T {
    const caller = body ?? target;
    if (caller !== undefined && caller.length !== count) throw lostMemory(command);
    const quick = this.#quick;
    if (quick !== undefined && isQuick(count, body) && this.#isQuiet(quick)) {
      const timeoutMs = this.#leftOf(command, options);
      const { memory } = quick;
      const id = this.#flow.slots.borrowId();
      const size = encodeQuickly(memory, id, command, region, offset, count, body);
      const twin = this.#quickTwin;
      let came = quick.roundTrip(size, timeoutMs < SLICE_MS ? timeoutMs : SLICE_MS, twin);
      const dataBytes = body === null ? count : 0;
      if (!isPlainReply(memory, came, dataBytes)) {
        came = quick.afterRoundTrip(came, size);
        if (!isPlainReply(memory, came, dataBytes)) {
          countSent(this.#counters, size);
          // It has been sent: its time began before, and is not asked for again.
          const slot = this.#open(command, decode, { timeoutMs });
          slot.timeoutMs = Math.ceil(timeoutOf(options, this.#timeoutMs));
          aim(slot, region, offset, count, target);
          return this.#goOn(quick, slot, id, size, came) as T;
        }
      }
      countRoundTrip(this.#counters, size, came);
      quickSlot.count = count;
      quickSlot.target = target;
      const start = QUICK_REPLY_AT + HEADER_SIZE;
      const value = decode(quickSlot, memory.bytes, start, QUICK_REPLY_AT + came, NO_FDS);
      quickSlot.target = undefined;
      // What the server asked for before it answered comes before the answer: a read pushes writes.
      if (twin !== undefined && memory.words[QUICK_OTHER_WORD] !== 0)
        this.#flow.twin!.transport.receiveSync(0, undefined);
      return value;
    }
    const slot = this.#open(command, decode, options);
    aim(slot, region, offset, count, target);
    this.#hurry();
    encodeAccess(accessHead, command, region, offset, count, body, FLAGS_COMMAND);
    if (!slot.settled) this.#flow.submit(slot, accessHead, body, null);
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

  #open<T>(command: number, decode: Decoder<T>, options: SyncCallOptions | undefined): Slot {
    this.#flow.refuseWhenClosed(command);
    const { canBlock, peer } = this.#flow.main.transport;
    if (!canBlock) throw new UnsupportedError(`synchronous calls need a Unix socket; this is ${peer}`);
    if (this.#peerIsHere()) {
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
    return this.#flow.open(command, decode, options, true);
  }

  #peerIsHere(): boolean {
    return (this.#isServedHere ??= this.#flow.main.transport.isServedHere);
  }

  /** No call but the next is under way, nothing is being done, and nobody listens: there is nothing to mind. */
  #isQuiet(quick: QuickFace): boolean {
    if (this.#tap?.active === true) return false;
    // Whatever ends the quiet goes through one of the transports, or is told to `disturb`.
    if (!quick.isUndisturbed || this.#quickTwin?.isUndisturbed === false) return this.#isQuietAgain(quick);
    return true;
  }

  #isQuietAgain(quick: QuickFace): boolean {
    const { counters, serving, endReason, queue, main, twin } = this.#flow;
    const isQuiet =
      counters.inFlight === 0 &&
      counters.tombstones === 0 &&
      serving === 0 &&
      endReason === undefined &&
      this.#whyNotSync === undefined &&
      queue.first === undefined &&
      main.isQuiet &&
      (twin === undefined || twin.isQuiet) &&
      !this.#peerIsHere();
    if (!isQuiet) return false;
    this.#quickTwin = twin?.transport.quick;
    if (this.#quickTwin !== undefined) this.#quickTwin.isUndisturbed = true;
    quick.isUndisturbed = true;
    return true;
  }

  /** A quick access becomes a call like any other: `came`, of its answer, is not what was expected. */
  #goOn(quick: QuickFace, slot: Slot, id: number, size: number, came: number): unknown {
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
