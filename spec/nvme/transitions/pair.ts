/** Runs a pair of transitions, with I/O in flight, and holds what comes of it against what must. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ClosedError, TimeoutError } from '../../../lib/index.js';
import { NvmeController, NvmeResetError, type NvmeQueue } from '../../../lib/nvme/index.js';
import { errorOf } from '../fixture.js';
import { bounded, Rig, turns, until, type Ground } from './rig.js';
import { isClose, PERFORM, underWay, type Moment, type Transition } from './table.js';

/** How long a request for an event is under way before its deadline strikes, milliseconds. */
const ARMED_MS = 25;
/** Where nothing else is written. */
const FREE_BLOCK = 100;
const EN = 1;

export interface Pair {
  readonly first: Transition;
  readonly second: Transition;
  readonly moment: Moment;
}

/** @throws what was not as it has to be, with the pair's name. */
export async function runPair(ground: Ground, pair: Pair, stamp: number): Promise<void> {
  const { first, second, moment } = pair;
  let rig: Rig | undefined;
  try {
    rig = await bounded('setting up', Rig.open(ground, stamp));
    const outcomes = await perform(rig, pair);
    for (const [i, transition] of [first, second].entries()) checkOutcome(pair, transition, outcomes[i]!);
    await rig.ioIsOver();
    checkIo(rig, pair);
    await checkAfter(rig, pair);
    await bounded('device.close() at the end', rig.closeDevice());
    await checkDisk(rig);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new Error(`${first}, then ${second} ${moment}: ${text}`, { cause: error });
  } finally {
    await rig?.end();
  }
}

type Outcome = PromiseSettledResult<unknown>;

/** Both, with the link whole again at the end. */
async function perform(rig: Rig, { first, second, moment }: Pair): Promise<[Outcome, Outcome]> {
  const isAtOnce = moment === 'in the same turn';
  const isLostBefore = first === 'reconnected' || (second === 'reconnected' && first !== 'connection lost');
  if (isLostBefore) await bounded('losing the connection', rig.lose(nothing));
  else if (second === "timeout's reset") await arm(rig, isAtOnce ? 0 : 2);
  rig.startIo();

  const firstBegun = new Signal();
  const secondBegun = new Signal();
  let secondCall: Promise<unknown> | undefined;
  const beginSecond = () => {
    secondCall = PERFORM[second](rig, secondBegun.give);
    secondCall.catch(nothing);
  };
  const firstCall = PERFORM[first](rig, () => {
    if (isAtOnce) beginSecond();
    firstBegun.give();
  });
  firstCall.catch(nothing);
  if (isAtOnce) await bounded(`the beginning of ${first}`, firstBegun.given);
  else {
    // While it comes back, before it is there.
    await bounded(`the beginning of ${first}`, first === 'reconnected' ? rig.arrived() : firstBegun.given);
    await underWay(first, moment, rig);
    beginSecond();
  }
  await bounded(`the beginning of ${second}`, secondBegun.given);
  await turns(3);
  if (rig.isDown) await rig.mend();
  const both = Promise.allSettled([firstCall, secondCall!] as const);
  return bounded(`${first} or ${second}`, both);
}

/** A request for an event is sent, and its deadline strikes that soon. */
async function arm(rig: Rig, strikesInMs: number): Promise<void> {
  // Timers of one length strike in the order in which they were set.
  const timer = sleep(ARMED_MS - strikesInMs);
  rig.armed = rig.requestEvent(ARMED_MS);
  await timer;
}

/** A call succeeds, but where the device or the controller is closed. */
function checkOutcome({ first, second }: Pair, transition: Transition, outcome: Outcome): void {
  const hasClose = isClose(first) || isClose(second);
  const reason = outcome.status === 'rejected' ? (outcome.reason as Error) : undefined;
  if (transition === "timeout's reset") {
    const isFit =
      reason instanceof TimeoutError ||
      reason instanceof NvmeResetError ||
      (hasClose && reason instanceof ClosedError);
    if (!isFit) throw new Error(`the request for an event has got ${String(reason)}`);
  } else if (reason !== undefined) {
    const mayFail = transition === 'create queue' || transition === 'reset';
    if (!hasClose || !mayFail || !(reason instanceof ClosedError))
      throw new Error(`${transition} has got ${String(reason)}`);
  }
}

/** I/O is carried out, also where resets come between; what is closed gives ClosedError. */
function checkIo(rig: Rig, { first, second }: Pair): void {
  const hasClose = isClose(first) || isClose(second);
  const closesSpare = first === 'close queue' || second === 'close queue';
  for (const { place, outcome, isOfSpare } of rig.writes) {
    if (outcome === 'acknowledged') continue;
    const mayFail = hasClose || (isOfSpare && closesSpare);
    if (mayFail && outcome instanceof ClosedError) continue;
    // Those that were submitted are not sent again after a reset.
    if (outcome?.message === 'ABORTED_BY_HOST') continue;
    throw new Error(`the write to place ${place} has got ${String(outcome)}`);
  }
  for (const { outcome, isOfSpare } of rig.reads) {
    const mayFail = hasClose || (isOfSpare && closesSpare);
    if (outcome === 'done' || (mayFail && outcome instanceof ClosedError)) continue;
    throw new Error(`a read has got ${String(outcome)}`);
  }
}

async function checkAfter(rig: Rig, pair: Pair): Promise<void> {
  const { first, second } = pair;
  if (rig.isDeviceClosed) {
    await bounded('device.closed', rig.device.closed);
    await checkClosed(rig);
    await bounded('controller.close() after device.close()', rig.controller.close());
    await rig.left();
    return;
  }
  await until(() => !rig.isLost, 'the device is back');
  if (isClose(first) || isClose(second)) {
    await checkClosed(rig);
    await checkDisabled(rig);
    const again = await bounded('opening again', NvmeController.open(rig.device));
    await checkUsable(await again.createQueue());
    await bounded('closing again', again.close());
  } else {
    await until(() => rig.controller.state !== 'resetting', 'its reset ends');
    if (rig.controller.state !== 'live') throw new Error(`the controller is ${rig.controller.state}`);
    const queue = await bounded('createQueue() afterwards', rig.controller.createQueue());
    for (const one of [queue, rig.main, ...rig.created]) await checkUsable(one);
    if (first !== 'close queue' && second !== 'close queue') await checkUsable(rig.spare);
    else await mustBeClosed('a write to the closed queue', rig.spare.write(0, Buffer.alloc(512)));
    await bounded('controller.close() afterwards', rig.controller.close());
  }
  await checkDisabled(rig);
  const address = await rig.freeAddress();
  if (address !== rig.firstFree) throw new Error('memory was not given back');
}

/** The controller says that it is closed, whatever is asked of it. */
async function checkClosed({ controller, main }: Rig): Promise<void> {
  if (controller.state !== 'closed') throw new Error(`the controller is closed, and ${controller.state}`);
  const reason = await bounded('controller.closed', controller.closed);
  if (!(reason instanceof ClosedError)) throw new Error(`the controller has ended: ${String(reason)}`);
  await mustBeClosed('createQueue()', controller.createQueue());
  await mustBeClosed('reset()', controller.reset());
  await mustBeClosed('smartLog()', controller.smartLog());
  await mustBeClosed('write()', main.write(0, Buffer.alloc(512)));
  await bounded('close() of a queue', main.close());
}

async function mustBeClosed(what: string, call: Promise<unknown>): Promise<void> {
  const error = await bounded(what, errorOf(call));
  if (!(error instanceof ClosedError)) throw new Error(`${what} gives ${String(error)}`);
}

async function checkDisabled(rig: Rig): Promise<void> {
  for (const configuration of await bounded('reading CC', rig.configurations()))
    if ((configuration & EN) !== 0) throw new Error('the controller is closed, and CC.EN is 1');
}

async function checkUsable(queue: NvmeQueue): Promise<void> {
  const data = Buffer.alloc(queue.namespace.blockSize, 1 + Math.floor(Math.random() * 255));
  await bounded(`a write by queue ${queue.id} afterwards`, queue.write(FREE_BLOCK, data));
  const back = await bounded(`a read by queue ${queue.id} afterwards`, queue.read(FREE_BLOCK, 1));
  if (!back.equals(data)) throw new Error(`queue ${queue.id} does not read what it has written`);
}

/** By a second connection: what was acknowledged is there, and what was not is whole or left alone. */
async function checkDisk(rig: Rig): Promise<void> {
  const bytes = await bounded('a second connection', rig.look());
  for (const write of rig.writes) {
    const { place, outcome } = write;
    if (rig.hasWritten(write, bytes)) continue;
    if (outcome === 'acknowledged')
      throw new Error(`place ${place} was acknowledged, and is not on the disk`);
    if (!rig.wasLeftAlone(write, bytes)) throw new Error(`place ${place} has what nobody wrote`);
  }
}

class Signal {
  give!: () => void;
  readonly given = new Promise<void>((resolve) => (this.give = resolve));
}

function nothing(): void {}
