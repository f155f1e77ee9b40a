/**
 * A connection under any interleaving of calls, answers, deadlines, aborts, requests and ends, beside a model of it: lists
 * of who waits and of what the server owes. Each call settles once, by name; nobody waits while there is room; and calls
 * whose deadline is over end, however little the server answers.
 *
 * spec/support/model-run.ts has the environment that runs a failure again.
 */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Connection } from '../../lib/connection/index.js';
import { readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { ClosedError, RemoteError, TimeoutError } from '../../lib/errors.js';
import { openFd } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { assertModel, modelRun } from '../support/model-run.js';
import { ScriptedPeer, message, words, type Received } from '../support/scripted-peer.js';

const POSTED_IDS = 0x8000;
const STRAY_ID = 0x7fff;
/** As many may be unanswered, calls given up included, where more than one may be in flight. */
const MOST_UNANSWERED = 1_024;
/** The default deadline here, in milliseconds. */
const TIMEOUT_MS = 20;
/** How long a call may last that is over: a busy machine takes its time. */
const PATIENCE_MS = 20_000;
const RUN = modelRun({ seed: 1_000, runs: 150 });

type Step =
  | {
      do:
        | 'call'
        | 'call that expires'
        | 'call by default'
        | 'post'
        | 'ask'
        | 'stray'
        | 'expire'
        | 'close'
        | 'go';
    }
  | { do: 'abort all' | 'answer all' }
  | { do: 'answer' | 'answer twice' | 'refuse' | 'abort'; which: number }
  | { do: 'limit'; to: number };

/** A call: what became of it, as often as it did. */
interface Call {
  number: number;
  abort: AbortController;
  expires: boolean;
  outcomes: unknown[];
}

class Run {
  readonly peer = new ScriptedPeer();
  readonly connection = new Connection(openFd(this.peer.clientFd), { timeoutMs: TIMEOUT_MS });
  readonly calls: Call[] = [];
  /** Commands that the server has not answered, by id. */
  readonly owed = new Map<number, Received>();
  readonly problems: string[] = [];
  #received = 0;
  #sent = 0;
  #strays = 0;
  #late = 0;
  /** Answers on their way while the deadline of their call came near. */
  #perhapsLate = 0;
  #asked = 0;
  #postedErrors = 0;
  /** Posted writes that wait behind calls: they have their turn with them. */
  #postsWaiting = 0;
  #isOver = false;

  constructor() {
    this.connection.requestHandler = { serve: (request) => request.refuse(5) };
    this.peer.onMessage((received) => this.#onMessage(received));
  }

  /** Carries a step out, and waits until all that was sent has come. */
  async step(step: Step): Promise<void> {
    switch (step.do) {
      case 'call':
      case 'call that expires':
      case 'call by default':
        this.#call(step.do);
        break;
      case 'post':
        if (this.#isOver) break;
        this.#postsWaiting++;
        this.connection.post(writeOf(0, 0, words(1)));
        break;
      case 'answer':
      case 'answer twice':
      case 'refuse':
        this.#answer(step.do, step.which);
        break;
      case 'abort':
        this.#pick(this.#waiting, step.which)?.abort.abort(new Error('aborted'));
        break;
      case 'abort all':
        for (const call of this.#waiting) call.abort.abort(new Error('aborted'));
        break;
      case 'answer all':
        for (let { size } = this.owed; size > 0; size--) this.#answer('answer', 0);
        break;
      case 'ask':
        if (this.#send(message(9, 11, 0, 0, words([0n], [4n])))) this.#asked++;
        break;
      case 'stray':
        if (this.#send(message(STRAY_ID, 9, 1, 0, Buffer.alloc(20)))) this.#strays++;
        break;
      case 'expire':
        await this.#expire();
        break;
      case 'limit':
        this.connection.inFlightLimit = step.to;
        break;
      case 'close':
        this.connection.close();
        this.#isOver = true;
        break;
      case 'go':
        this.peer.close();
        await this.connection.closed;
        this.#isOver = true;
    }
    await this.#settle();
    this.#check(step);
  }

  /** Ends everything; every call has settled then, once. */
  async end(): Promise<void> {
    this.connection.close();
    this.peer.close();
    await new Promise((resolve) => setImmediate(resolve));
    for (const call of this.calls) expect(call.outcomes).toHaveLength(1);
    for (const { number, outcomes } of this.calls) expect(isRight(number, outcomes[0])).toBe(true);
    expect(this.connection.counters).toMatchObject({ inFlight: 0, queued: 0, tombstones: 0 });
    expect(this.problems).toEqual([]);
  }

  get #waiting(): Call[] {
    return this.calls.filter((call) => call.outcomes.length === 0);
  }

  async #expire(): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    while (this.#waiting.some((call) => call.expires)) {
      if (performance.now() > until) throw new Error('calls whose time is over wait still');
      await new Promise((r) => setTimeout(r, 1));
    }
  }

  #call(how: 'call' | 'call that expires' | 'call by default'): void {
    const expires = how !== 'call';
    const number = this.calls.length;
    const call: Call = { number, abort: new AbortController(), expires, outcomes: [] };
    this.calls.push(call);
    const timeoutMs = { call: Infinity, 'call that expires': 1, 'call by default': undefined }[how];
    const options = { signal: call.abort.signal, timeoutMs };
    this.connection
      .access(readOf(0, number, 4, takeUInt32), options)
      .then((value) => call.outcomes.push(value))
      .catch((error: unknown) => call.outcomes.push(error));
  }

  #answer(how: 'answer' | 'answer twice' | 'refuse', which: number): void {
    const command = this.#pick([...this.owed.values()], which);
    if (command === undefined || this.#isOver) return;
    this.owed.delete(command.id);
    const number = command.payload.readUInt32LE(0);
    if (command.id < POSTED_IDS) {
      const { outcomes, expires } = this.calls[number]!;
      if (outcomes.length > 0) this.#late++;
      else if (expires) this.#perhapsLate++;
    }
    const isRefused = how === 'refuse' || command.id >= POSTED_IDS;
    if (command.id >= POSTED_IDS) this.#postedErrors++;
    const bytes = isRefused
      ? message(command.id, command.command, 0x21, 22, Buffer.alloc(0))
      : message(command.id, command.command, 1, 0, Buffer.concat([command.payload, words(number + 1000)]));
    const isTwice = how === 'answer twice' && command.id < POSTED_IDS;
    this.#send(isTwice ? Buffer.concat([bytes, bytes]) : bytes, isTwice ? 2 : 1);
    if (isTwice) this.#strays++;
  }

  #pick<T>(list: readonly T[], which: number): T | undefined {
    return list[which % Math.max(1, list.length)];
  }

  #send(bytes: Buffer, messages = 1): boolean {
    if (this.#isOver) return false;
    this.peer.send(bytes);
    this.#sent += messages;
    return true;
  }

  #onMessage(received: Received): void {
    this.#received++;
    if ((received.flags & 1) !== 0) return;
    if (received.id >= POSTED_IDS) this.#postsWaiting--;
    if (this.owed.has(received.id)) this.problems.push(`id ${received.id} is used twice`);
    this.owed.set(received.id, received);
  }

  async #settle(): Promise<void> {
    do await new Promise((resolve) => setImmediate(resolve));
    while (!this.#isOver && this.#isOnItsWay());
  }

  /** A message has been sent, by either side, and has not come. */
  #isOnItsWay(): boolean {
    const { sent, received } = this.connection.counters;
    return sent !== this.#received || received !== this.#sent;
  }

  /** Whether one more call may be in flight. */
  #hasRoom(): boolean {
    const { counters, inFlightLimit } = this.connection;
    const unanswered = counters.inFlight + counters.tombstones;
    return counters.inFlight < inFlightLimit && unanswered < (inFlightLimit === 1 ? 1 : MOST_UNANSWERED);
  }

  #check(step: Step): void {
    if (this.#isOver) return;
    const { counters, inFlightLimit } = this.connection;
    const owed = [...this.owed.keys()].filter((id) => id < POSTED_IDS).length;
    // The limit may have been lowered below what was under way.
    if (step.do.startsWith('call')) {
      expect(counters.inFlight <= inFlightLimit || counters.queued > 0).toBe(true);
    }
    expect({ ...counters, owed: counters.inFlight + counters.tombstones }).toMatchObject({
      owed,
      unknown: this.#strays,
      postedErrors: this.#postedErrors,
      refused: this.#asked,
    });
    if (counters.queued > 0)
      expect({ ...counters, inFlightLimit, hasRoom: this.#hasRoom() }).toMatchObject({ hasRoom: false });
    // Deadlines pass whenever they like: only when none is near is it known who waits.
    if (this.#waiting.some((call) => call.expires)) return;
    expect(counters.inFlight + counters.queued).toBe(this.#waiting.length + this.#postsWaiting);
    expect(counters.late).toBeGreaterThanOrEqual(this.#late);
    expect(counters.late).toBeLessThanOrEqual(this.#late + this.#perhapsLate);
  }
}

function isRight(number: number, outcome: unknown): boolean {
  if (typeof outcome === 'number') return outcome === number + 1000;
  if (outcome instanceof ClosedError || outcome instanceof RemoteError || outcome instanceof TimeoutError)
    return true;
  return outcome instanceof Error && outcome.message === 'aborted';
}

const which = fc.nat(50);
const limit = fc.record({ do: fc.constant('limit' as const), to: fc.integer({ min: 1, max: 6 }) });
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Step>({ do: 'call' }) },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ do: 'call that expires' }, { do: 'call by default' }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'abort all' }, { do: 'answer all' }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('answer twice' as const, 'refuse'), which }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('abort' as const), which }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'expire' }) },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ do: 'post' }, { do: 'ask' }, { do: 'stray' }) },
  { weight: 1, arbitrary: limit },
);
const anyEnd: fc.Arbitrary<Step[]> = fc.constantFrom<Step[]>([], [{ do: 'close' }], [{ do: 'go' }]);

const property = fc.asyncProperty(
  fc.tuple(limit),
  fc.array(anyStep, { maxLength: 80 }),
  anyEnd,
  fc.array(anyStep, { maxLength: 5 }),
  async (...all) => {
    const run = new Run();
    try {
      for (const step of all.flat()) await run.step(step);
    } finally {
      await run.end();
    }
  },
);

test(
  `each call settles once with its own answer, and no id is used twice before it is answered (VFIO_USER_MODEL_SEED=${RUN.seed})`,
  async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = openFds();
    await assertModel(property, RUN, {
      examples: [
        [[{ do: 'limit', to: 1 }], [{ do: 'call' }, { do: 'call by default' }, { do: 'expire' }], [], []],
        [
          [{ do: 'limit', to: 6 }],
          [{ do: 'call' }, { do: 'limit', to: 1 }, { do: 'call' }, { do: 'post' }],
          [],
          [],
        ],
      ],
    });
    expect(openFds()).toBe(before);
  },
  60_000 + RUN.runs * 400,
);
