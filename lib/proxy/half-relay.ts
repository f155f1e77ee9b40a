/**
 * One way of a proxied socket: what a peer receives goes to the other peer, message by message, each in one `sendmsg`, as
 * the receivers of this protocol want it.
 *
 * ```
 *   source ── chunk ──▶ cutter ── message ──▶ interposed? ──▶ faults ──▶ queue ──▶ target
 *     ▲                                                          │ errno      │
 *     └── not read while anything waits ─────────────────────────┼────────────┘
 *                          other way ◀───────────────────────────┘
 *
 *   flowing ── the source's end, or a fault's ──▶ ending ── all is delivered ──▶ done
 *      └──────────────── the target has gone ──────────────────────────────────▶ done
 * ```
 */
import { TransportError, VfioUserError } from '../errors.js';
import { EPIPE, closeFds, native } from '../native.js';
import { HEADER_FLAG_REPLY, HEADER_FLAG_TYPE_MASK } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { ForwardQueue, type Told } from './forward-queue.js';
import { describeMessage, type FaultPlan, type Way } from '../faults/index.js';
import type { Peer } from './peer.js';
import { MessageCutter } from './message-cutter.js';
import { applyFaults, untouched, type FaultedMessage } from './apply-faults.js';
import type { FaultyMessages } from './faulty-messages.js';
import type { WayCounters } from './counters.js';
import { TurnShare } from '../turn-share.js';
import { ECONNRESET } from '../system-numbers.js';

const NO_FDS: readonly number[] = [];

/** What a half relay needs to know of its surroundings. */
export interface HalfRelayContext {
  readonly direction: Way;
  readonly socket: 'main' | 'twin';
  readonly counters: WayCounters;
  readonly plan: FaultPlan | undefined;
  /** Undefined where no fault is of the device. */
  readonly device: FaultyMessages | undefined;
  readonly maxMessageBytes: number;
  readonly passesUncut: boolean;
  /** Traces and captures; undefined where nobody wants to know. */
  readonly told: Told | undefined;
  /** Whether anybody does just now. */
  readonly isWatched: () => boolean;
  /** May put other fds in the place of some, which it then owns. Undefined once there is nothing more to look for. */
  interpose:
    ((bytes: Buffer, start: number, end: number, fds: readonly number[]) => readonly number[]) | undefined;
  onFault(fault: string, message: string): void;
  onNotice(text: string): void;
}

export interface HalfRelayOwner {
  /** Nothing goes this way any more. */
  onDone(): void;
  /** Both sides are to be disconnected, now. */
  onDisconnect(reason: string): void;
  onError(error: VfioUserError): void;
}

type State = 'flowing' | 'ending' | 'done';

export class HalfRelay {
  readonly #context: HalfRelayContext;
  readonly #source: Peer;
  readonly #target: Peer;
  readonly #owner: HalfRelayOwner;
  readonly #cutter: MessageCutter;
  readonly #queue: ForwardQueue;
  #other!: HalfRelay;
  #state: State = 'flowing';
  /** An answer of ours waits for the other way to take it. */
  #waitsForOther = false;
  /** Why both sides are disconnected once all is delivered. */
  #disconnects: string | undefined;
  #saidUncut = false;
  #saidDropped = false;
  readonly #share = new TurnShare(() => this.#goOn());
  /** When the chunk that is being cut began to be. */
  #begun = 0;

  constructor(context: HalfRelayContext, source: Peer, target: Peer, owner: HalfRelayOwner) {
    this.#context = context;
    this.#source = source;
    this.#target = target;
    this.#owner = owner;
    this.#cutter = new MessageCutter(this, source.name, context.maxMessageBytes, context.passesUncut);
    this.#queue = new ForwardQueue(target, this);
  }

  get isDone(): boolean {
    return this.#state === 'done';
  }

  /** The other way of the same socket; before `start`. */
  pairWith(other: HalfRelay): void {
    this.#other = other;
  }

  start(): void {
    this.#update();
  }

  /** The source's bytes. */
  take(bytes: Buffer, start: number, end: number, fds: readonly number[]): void {
    if (this.#state !== 'flowing') {
      closeFds(fds);
      return;
    }
    this.#context.counters.bytes += end - start;
    this.#cut(() => this.#cutter.push(bytes, start, end, fds));
  }

  #cut(work: () => void): void {
    this.#begun = performance.now();
    try {
      work();
    } catch (error) {
      if (!(error instanceof VfioUserError)) throw error;
      this.#owner.onError(error);
      return;
    }
    this.#update();
  }

  /** The loop has turned since a side's share of it was used up. */
  #goOn(): void {
    if (this.#state === 'flowing') this.#cut(() => this.#cutter.resume());
  }

  /** The target takes bytes again. */
  flush(): void {
    this.#queue.flush();
  }

  /** The source sends no more: what it began goes out as it is, and then the end. */
  sourceEnded(): void {
    if (this.#state !== 'flowing') return;
    this.#share.stop();
    this.#cut(() => this.#cutter.resume());
    if (this.#state !== 'flowing') return;
    const rest = this.#cutter.takeUnfinished();
    if (rest !== undefined) this.onUncut(rest.bytes, 0, rest.bytes.length, rest.fds);
    if (this.#state !== 'flowing') return;
    this.#state = 'ending';
    if (this.#queue.isEmpty) this.onDrained();
  }

  /**
   * Nobody is at the other end any more: what is left is dropped, and what comes, too. It is read all the same, as the
   * source may take nothing, the other way, before it has got rid of its own.
   */
  abandon(): void {
    if (this.#state === 'done') return;
    this.clear();
    this.#source.setReading(true);
    this.#owner.onDone();
  }

  /** Drops all that waits, and takes no more. */
  clear(): void {
    this.#state = 'done';
    this.#share.stop();
    this.#cutter.clear();
    this.#queue.clear();
  }

  onMessage(bytes: Buffer, start: number, end: number, fds: readonly number[], isKept: boolean): void {
    const { counters, plan, interpose } = this.#context;
    counters.messages++;
    let passed = fds;
    if (interpose !== undefined) passed = interpose(bytes, start, end, fds);
    if (passed.length > 0) passed = this.#passable(passed);
    if (plan !== undefined) this.#meetFaults(plan, bytes, start, end, passed, isKept);
    else this.#deliver(bytes, start, end, passed, isKept);
    const now = performance.now();
    this.#share.spend(now - this.#begun, this.#source.turn);
    this.#begun = now;
    if (this.#share.isUsedUp) this.#cutter.pause();
  }

  /** No message any more, only bytes. */
  onUncut(bytes: Buffer, start: number, end: number, fds: readonly number[]): void {
    if (!this.#saidUncut && this.#context.passesUncut) {
      this.#saidUncut = true;
      this.#context.onNotice(
        `${this.#source.name} sends data that is not a message: it is forwarded unchanged, and not traced`,
      );
    }
    const passed = fds.length > 0 ? this.#passable(fds) : fds;
    this.#queue.send({ bytes, start, end, fds: passed, told: undefined }, false);
  }

  onDrained(): void {
    this.#other.#otherDrained();
    if (this.#disconnects !== undefined) this.#owner.onDisconnect(this.#disconnects);
    else if (this.#state === 'ending') this.#finish();
    else this.#update();
  }

  onBroken(errno: number): void {
    if (errno === EPIPE || errno === ECONNRESET) this.abandon();
    else this.#owner.onError(new TransportError('sendmsg', errno, this.#target.name));
  }

  #finish(): void {
    this.#state = 'done';
    this.#cutter.clear();
    this.#target.endSending();
    this.#owner.onDone();
  }

  #otherDrained(): void {
    if (!this.#waitsForOther) return;
    this.#waitsForOther = false;
    this.#update();
  }

  /** Reads while there is room for what would come. */
  #update(): void {
    if (this.#state !== 'flowing') return;
    const hasRoom =
      !this.#share.isUsedUp && this.#queue.isEmpty && !this.#waitsForOther && this.#disconnects === undefined;
    this.#source.setReading(hasRoom);
  }

  /** Where fds do not pass they end here: the message goes without. */
  #passable(fds: readonly number[]): readonly number[] {
    const { counters } = this.#context;
    if (this.#target.passesFds) {
      counters.fds += fds.length;
      return fds;
    }
    closeFds(fds);
    counters.droppedFds += fds.length;
    if (!this.#saidDropped)
      this.#context.onNotice(
        `${this.#target.name} cannot receive file descriptors: messages are forwarded without them`,
      );
    this.#saidDropped = true;
    return NO_FDS;
  }

  #deliver(
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[],
    isKept: boolean,
    note?: string,
  ): void {
    const { told } = this.#context;
    const delivery = { bytes, start, end, fds, told, ...(note !== undefined && { note }) };
    this.#queue.send(delivery, isKept);
  }

  #meetFaults(
    plan: FaultPlan,
    bytes: Buffer,
    start: number,
    end: number,
    fds: readonly number[],
    isKept: boolean,
  ): void {
    const { direction, socket } = this.#context;
    const command = headerCommand(bytes, start);
    const isReply = (headerFlags(bytes, start) & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY;
    const size = end - start;
    const changed = this.#context.device?.meet(this.#context, bytes, start, end, fds);
    const firings = plan.firings({ direction, socket, command, isReply, size, fds: fds.length });
    if (firings.length === 0 && changed === undefined) {
      this.#deliver(bytes, start, end, fds, isKept);
      return;
    }
    const outcome = changed ?? untouched(Buffer.from(bytes.subarray(start, end)), fds);
    applyFaults(outcome, firings);
    if (firings.length > 0) this.#context.onFault(outcome.note, describeMessage(command, isReply));
    closeFds(outcome.withheld);
    this.#carryOut(outcome);
  }

  #carryOut(outcome: FaultedMessage): void {
    const { bytes, fds, note, answer, disconnectAfter } = outcome;
    const { told } = this.#context;
    if (disconnectAfter === 0) {
      this.#disconnect(outcome, 0);
      return;
    }
    if (outcome.isDropped) {
      told?.(bytes, 0, bytes.length, fds, note);
      closeFds(fds);
      if (answer !== undefined) this.#answer(answer, note, outcome.delayMs);
      return;
    }
    if (disconnectAfter !== undefined) {
      this.#disconnect(outcome, disconnectAfter);
      return;
    }
    for (let copy = 0; copy < outcome.copies; copy++) {
      const isLast = copy === outcome.copies - 1;
      this.#deliverPieces(outcome, isLast ? fds : duplicates(fds), copy === 0 ? outcome.delayMs : 0);
    }
  }

  #deliverPieces(
    { bytes, cuts, pieceMs, note }: Pick<FaultedMessage, 'bytes' | 'cuts' | 'pieceMs' | 'note'>,
    fds: readonly number[],
    delayMs: number,
  ): void {
    const { told } = this.#context;
    const ends = [...cuts, bytes.length];
    for (const [i, end] of ends.entries()) {
      const pauseMs = i === 0 ? delayMs : pieceMs;
      this.#queue.send(
        {
          bytes,
          start: i === 0 ? 0 : ends[i - 1]!,
          end,
          fds: i === 0 ? fds : NO_FDS,
          ...(pauseMs > 0 && { pauseMs }),
          // The message is told of as a whole, when its first piece leaves.
          told:
            i > 0
              ? undefined
              : told && ((_bytes, _start, _end, own) => told(bytes, 0, bytes.length, own, note || undefined)),
        },
        true,
      );
    }
  }

  /** Ours, in the server's place. It goes out between whole messages. */
  #answer(reply: Buffer, note: string, delayMs: number): void {
    const other = this.#other;
    if (other.#state === 'done') return;
    // Whoever waits for the server's answer takes this for it.
    other.#context.interpose?.(reply, 0, reply.length, NO_FDS);
    if (delayMs === 0) other.#deliver(reply, 0, reply.length, NO_FDS, true, note);
    else other.#deliverPieces({ bytes: reply, cuts: [], pieceMs: 0, note }, NO_FDS, delayMs);
    this.#waitsForOther = !other.#queue.isEmpty;
  }

  #disconnect({ bytes, fds, note, delayMs }: FaultedMessage, count: number): void {
    const { told } = this.#context;
    this.#disconnects = note;
    this.#cutter.clear();
    if (count === 0) {
      told?.(bytes, 0, bytes.length, fds, note);
      closeFds(fds);
      if (this.#queue.isEmpty) this.#owner.onDisconnect(note);
      return;
    }
    const part = { bytes: bytes.subarray(0, count), cuts: [], pieceMs: 0, note };
    this.#deliverPieces(part, fds, delayMs);
    if (this.#queue.isEmpty && this.#state === 'flowing') this.#owner.onDisconnect(note);
  }
}

function duplicates(fds: readonly number[]): number[] {
  return fds.map((fd) => native().dupFd(fd)).filter((fd) => fd >= 0);
}
