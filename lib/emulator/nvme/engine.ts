/**
 * A controller that is enabled: fetches commands, has them carried out, and completes them. One is made when CC.EN is
 * set and stopped when it is cleared; after that it touches no memory of the client's.
 *
 * ```
 *   doorbell ──▶ serve: fetch ──▶ run: intercept, execute ──▶ complete: entry, interrupt
 * ```
 * Commands run beside each other, and are completed in whatever order they end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DmaError } from '../device-error.js';
import type { ClientMemory } from '../device-model.js';
import type { TurnPace } from '../../turn-share.js';
import { CQE_BYTES, DO_NOT_RETRY, SQE_BYTES, Status } from './constants.js';
import type { DoorbellPage } from './doorbell-page.js';
import type { NvmeCompletionFault, NvmeVerdict } from './nvme-faults.js';
import type { SubmissionRing } from './rings.js';
import { type Completion, type CompletionRing, type Outstanding } from './rings.js';
import type { ShadowDoorbells } from './shadow-doorbells.js';
import { CommandError, decodeSqe, type Sqe } from './sqe.js';

/** Entries fetched at once. */
const FETCH = 32;
/** Commands that are carried out at the same time: each has a piece of its data in memory. */
const MOST_RUNNING = 256;

/** What the engine needs of its controller. */
export interface EngineHost {
  readonly memory: ClientMemory;
  readonly pace: TurnPace;
  readonly doorbells: DoorbellPage;
  /** Carries a command out; what it gives is dword 0 of the completion. Throws a CommandError for a status. */
  execute(sq: SubmissionRing, sqe: Sqe): Promise<number>;
  intercept(sq: SubmissionRing, sqe: Sqe): NvmeVerdict;
  interrupt(vector: number): void;
  /** A completion with an error, for the log. */
  onFailure(completion: Completion, sqe: Sqe): void;
  /** The controller cannot go on: CSTS.CFS. */
  onFatal(error: unknown): void;
  /** Whether commands are fetched at all. */
  readonly isStalled: boolean;
}

export class Engine {
  readonly sqs = new Map<number, SubmissionRing>();
  readonly cqs = new Map<number, CompletionRing>();
  shadow: ShadowDoorbells | undefined;
  readonly #host: EngineHost;
  #isStopped = false;
  #running = 0;
  /** Queues that have more than can be carried out now. */
  readonly #heldUp = new Set<SubmissionRing>();
  /** Whatever touches memory or stores. */
  #busy = 0;
  #onIdle: (() => void) | undefined;

  constructor(host: EngineHost, adminSq: SubmissionRing) {
    this.#host = host;
    this.cqs.set(0, adminSq.cq);
    this.sqs.set(0, adminSq);
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Looks at every doorbell. Whether there was something to do. */
  look(): boolean {
    this.#host.pace.begin();
    let worked = this.#busy > 0;
    for (const sq of this.sqs.values()) {
      const shadow = this.#shadowOf(sq.id);
      if (shadow !== undefined) worked = this.#lookAtShadow(sq, shadow) || worked;
      else worked = this.#lookAtDoorbell(sq) || worked;
    }
    for (const cq of this.cqs.values()) if (cq.waiting.length > 0) this.#track(this.#flush(cq));
    return worked;
  }

  /** The host wrote a doorbell by message. */
  onDoorbell(queue: number, kind: 'tail' | 'head'): void {
    this.#host.pace.begin();
    const sq = this.sqs.get(queue);
    const cq = this.cqs.get(queue);
    if (kind === 'tail' && sq !== undefined) this.#start(sq);
    if (kind === 'head' && cq !== undefined) this.#track(this.#flush(cq));
  }

  /** Ends everything; settles when no memory is touched any more. */
  stop(): Promise<void> {
    this.#isStopped = true;
    for (const sq of this.sqs.values()) cancelAll(sq);
    this.#heldUp.clear();
    this.sqs.clear();
    this.cqs.clear();
    return this.idle();
  }

  /** Settles when nothing is under way. */
  idle(): Promise<void> {
    if (this.#busy === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const before = this.#onIdle;
      this.#onIdle = () => {
        before?.();
        resolve();
      };
    });
  }

  /** Whether the command was ended before it was carried out (section 5.1). */
  abort(queue: number, cid: number): boolean {
    const sq = this.sqs.get(queue);
    const outstanding = sq?.outstanding.get(cid);
    if (sq === undefined || outstanding?.cancel === undefined) return false;
    outstanding.cancel();
    this.complete({ sq, cid, status: Status.ABORT_REQUESTED, result: 0 });
    return true;
  }

  /**
   * Takes the queue out (section 5.6): what was not carried out is completed as aborted, and what is being carried out is
   * waited for, as the host may give its memory to others afterwards.
   */
  async remove(sq: SubmissionRing): Promise<void> {
    sq.isDeleted = true;
    for (const [cid, { cancel }] of sq.outstanding) {
      if (cancel === undefined) continue;
      cancel();
      this.complete({ sq, cid, status: Status.ABORTED_SQ_DELETION, result: 0 });
    }
    this.#heldUp.delete(sq);
    this.sqs.delete(sq.id);
    sq.cq.users--;
    // This command is under way itself, and so is not waited for.
    while (sq.isServed || sq.running > 0) await sleep(1);
  }

  /** Completes a command, now or when there is room. */
  complete(completion: Completion): void {
    const { sq, cid } = completion;
    sq.outstanding.delete(cid);
    if (this.#isStopped) return;
    sq.cq.waiting.push(completion);
    this.#track(this.#flush(sq.cq));
  }

  /** The admin queue has no shadow doorbells. */
  #shadowOf(queue: number): ShadowDoorbells | undefined {
    return queue === 0 ? undefined : this.shadow;
  }

  /** A tail that no ring of this size has is no work. */
  #lookAtDoorbell(sq: SubmissionRing): boolean {
    const tail = this.#host.doorbells.tail(sq.id);
    return tail !== sq.head && tail < sq.size && this.#start(sq);
  }

  #lookAtShadow(sq: SubmissionRing, shadow: ShadowDoorbells): boolean {
    if (sq.isServed) return true;
    this.#track(
      shadow.tail(sq.id).then((tail) => {
        if (tail !== sq.head) this.#start(sq);
      }),
    );
    return false;
  }

  #start(sq: SubmissionRing): boolean {
    if (this.#host.isStalled) return false;
    sq.isStale = true;
    if (!sq.isServed) this.#track(this.#serve(sq));
    return true;
  }

  async #serve(sq: SubmissionRing): Promise<void> {
    sq.isServed = true;
    try {
      while (sq.isStale && this.#canFetch(sq)) {
        sq.isStale = false;
        const tail = await this.#tailOf(sq);
        // A tail that no ring of this size has is ignored (an error event, section 5.2.1, is not sent).
        while (tail < sq.size && sq.head !== tail && this.#canFetch(sq)) {
          if (this.#isHeldUp(sq)) return;
          await this.#fetch(sq, tail);
          await this.#host.pace.rest();
        }
        const shadow = this.#shadowOf(sq.id);
        if (shadow !== undefined) await this.#armShadow(sq, shadow);
      }
    } finally {
      sq.isServed = false;
    }
  }

  #canFetch(sq: SubmissionRing): boolean {
    return !this.#isStopped && !sq.isDeleted && !this.#host.isStalled;
  }

  /** A host that takes no completions, or asks for more than a queue has places, waits. It is noted, for `#goOn`. */
  #isHeldUp(sq: SubmissionRing): boolean {
    const hasRoom = this.#running < MOST_RUNNING && sq.running < sq.size && sq.cq.waiting.length < sq.cq.size;
    if (!hasRoom) this.#heldUp.add(sq);
    return !hasRoom;
  }

  /** A command has ended, or a completion was taken. */
  #goOn(): void {
    if (this.#heldUp.size === 0) return;
    const queues = [...this.#heldUp];
    this.#heldUp.clear();
    for (const sq of queues) if (this.#canFetch(sq) && !this.#isHeldUp(sq)) this.#start(sq);
  }

  #tailOf(sq: SubmissionRing): number | Promise<number> {
    return (this.#shadowOf(sq.id) ?? this.#host.doorbells).tail(sq.id);
  }

  /** After the index is set the shadow is looked at once more: the host may have moved it before it saw the index. */
  async #armShadow(sq: SubmissionRing, shadow: ShadowDoorbells): Promise<void> {
    await shadow.waitForTail(sq.id, sq.head);
    if ((await shadow.tail(sq.id)) !== sq.head) sq.isStale = true;
  }

  async #fetch(sq: SubmissionRing, tail: number): Promise<void> {
    const end = tail > sq.head ? tail : sq.size;
    const count = Math.min(FETCH, end - sq.head);
    const bytes = await this.#host.memory.read(sq.addressOf(sq.head), count * SQE_BYTES);
    for (let i = 0; i < count && this.#canFetch(sq); i++) {
      sq.head = (sq.head + 1) % sq.size;
      this.#take(sq, decodeSqe(bytes, i * SQE_BYTES));
    }
  }

  #take(sq: SubmissionRing, sqe: Sqe): void {
    const verdict = this.#host.intercept(sq, sqe);
    const outstanding: Outstanding = { cancel: undefined };
    sq.outstanding.set(sqe.cid, outstanding);
    if (verdict === 'hold') {
      outstanding.cancel = () => undefined;
    } else if (typeof verdict === 'object' && 'status' in verdict) {
      this.#fail(sq, sqe, verdict.status);
    } else if (typeof verdict === 'object' && 'completions' in verdict) {
      this.#track(this.#run(sq, sqe, verdict.completions));
    } else if (typeof verdict === 'object') {
      const timer = setTimeout(() => {
        // A host that has used the identifier again has taken the means to end it.
        if (this.#isStopped || sq.isDeleted) return;
        outstanding.cancel = undefined;
        this.#track(this.#run(sq, sqe));
      }, verdict.delayMs);
      outstanding.cancel = () => clearTimeout(timer);
    } else this.#track(this.#run(sq, sqe, verdict === 'lose' ? [] : undefined));
  }

  /** Carries the command out, and completes it: as it should be, or by `faults`. */
  async #run(sq: SubmissionRing, sqe: Sqe, faults?: readonly NvmeCompletionFault[]): Promise<void> {
    this.#running++;
    sq.running++;
    try {
      const result = await this.#host.execute(sq, sqe);
      if (faults !== undefined)
        this.#completeBy(faults, { sq, cid: sqe.cid, status: Status.SUCCESS, result });
      else if (result !== DEFERRED) this.complete({ sq, cid: sqe.cid, status: Status.SUCCESS, result });
    } catch (error) {
      if (this.#isStopped) return;
      const status = statusOf(error);
      if (faults === undefined) this.#fail(sq, sqe, status);
      else this.#completeBy(faults, { sq, cid: sqe.cid, status, result: 0 });
    } finally {
      this.#running--;
      sq.running--;
      this.#goOn();
    }
  }

  /** The command itself stays outstanding, as far as this side knows: it can be neither aborted nor completed again. */
  #completeBy(faults: readonly NvmeCompletionFault[], { sq, cid, status, result }: Completion): void {
    if (this.#isStopped) return;
    for (const fault of faults)
      sq.cq.waiting.push({ sq, cid: fault.commandId ?? cid, status: fault.status ?? status, result });
    this.#track(this.#flush(sq.cq));
  }

  #fail(sq: SubmissionRing, sqe: Sqe, status: number): void {
    const completion = { sq, cid: sqe.cid, status, result: 0 };
    this.#host.onFailure(completion, sqe);
    this.complete(completion);
  }

  async #flush(cq: CompletionRing): Promise<void> {
    let posted = false;
    while (cq.waiting.length > 0 && !this.#isStopped) {
      // Somebody else may take the room, while this one waits: it looks again.
      if (cq.isFull) {
        if (!(await this.#findRoom(cq))) break;
        continue;
      }
      const completion = cq.waiting.shift();
      if (completion === undefined) break;
      await this.#post(cq, completion);
      posted = true;
      const rest = this.#host.pace.rest();
      if (rest === undefined) continue;
      // The host need not wait for what comes after the rest.
      this.#interrupt(cq);
      posted = false;
      await rest;
    }
    if (posted) this.#interrupt(cq);
    this.#goOn();
  }

  #interrupt(cq: CompletionRing): void {
    if (cq.vector !== undefined && !this.#isStopped) this.#host.interrupt(cq.vector);
  }

  /** Takes what the host has consumed out of the ring. */
  async #findRoom(cq: CompletionRing): Promise<boolean> {
    const shadow = this.#shadowOf(cq.id);
    const head = shadow === undefined ? this.#host.doorbells.head(cq.id) : await shadow.head(cq.id);
    if (head < cq.size) cq.head = head;
    if (!cq.isFull) return true;
    if (shadow === undefined) return false;
    await shadow.waitForHead(cq.id, cq.head);
    const again = await shadow.head(cq.id);
    if (again < cq.size) cq.head = again;
    return !cq.isFull;
  }

  /** The phase tag is in the last dword, which is written last (section 4.2.1). */
  async #post(cq: CompletionRing, { sq, cid, status, result }: Completion): Promise<void> {
    const { address, phase } = cq.advance();
    const entry = Buffer.alloc(CQE_BYTES);
    entry.writeUInt32LE(result >>> 0, 0);
    entry.writeUInt16LE(sq.head, 8);
    entry.writeUInt16LE(sq.id, 10);
    entry.writeUInt16LE(cid, 12);
    entry.writeUInt16LE((status << 1) | phase, 14);
    const last = CQE_BYTES - 4;
    await this.#host.memory.write(address, entry.subarray(0, last));
    await this.#host.memory.write(address + BigInt(last), entry.subarray(last));
  }

  /** Memory that cannot be reached is fatal: there is no way to tell of it. */
  #track(work: Promise<void>): void {
    this.#busy++;
    void work
      .catch((error: unknown) => {
        if (!this.#isStopped) this.#host.onFatal(error);
      })
      .finally(() => {
        if (--this.#busy > 0) return;
        this.#onIdle?.();
        this.#onIdle = undefined;
      });
  }
}

/** What `execute` gives for a command that is completed later: no dword has this value. */
export const DEFERRED = -1;

function cancelAll(sq: SubmissionRing): void {
  for (const { cancel } of sq.outstanding.values()) cancel?.();
  sq.outstanding.clear();
}

function statusOf(error: unknown): number {
  // What a command is wrong in, it is wrong in the next time too.
  if (error instanceof CommandError) return error.status | DO_NOT_RETRY;
  return error instanceof DmaError ? Status.DATA_TRANSFER_ERROR : Status.INTERNAL_ERROR;
}
