/**
 * The transitions of a controller, and what is called for each. Every ordered pair of them has to come out well: the
 * second begins in the turn in which the first has begun, and again while the first is under way, soon and later.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { errorOf } from '../fixture.js';
import { turns, until, type Rig } from './rig.js';

const LATER_MS = 5;

export const TRANSITIONS = [
  'create queue',
  'close queue',
  'reset',
  "timeout's reset",
  'connection lost',
  'reconnected',
  'device.close',
  'controller.close',
] as const;

export type Transition = (typeof TRANSITIONS)[number];

export const PAIRS: readonly (readonly [Transition, Transition])[] = TRANSITIONS.flatMap((first) =>
  TRANSITIONS.map((second) => [first, second] as const),
);

/** When the second begins, as the first has begun. */
export const MOMENTS = ['in the same turn', 'while it is under way', 'some milliseconds later'] as const;

export type Moment = (typeof MOMENTS)[number];

/** Carries a transition out; calls `onBegun` in the turn in which it begins. Settles when it is over. */
export type Perform = (rig: Rig, onBegun: () => void) => Promise<unknown>;

/** Nothing of the device, or of the controller, works any more afterwards. */
export function isClose(transition: Transition): boolean {
  return transition === 'device.close' || transition === 'controller.close';
}

export const PERFORM: Readonly<Record<Transition, Perform>> = {
  'create queue': (rig, onBegun) =>
    begun(
      rig.controller.createQueue({ entries: 4 }).then((queue) => void rig.created.push(queue)),
      onBegun,
    ),
  'close queue': (rig, onBegun) => begun(rig.spare.close(), onBegun),
  reset: (rig, onBegun) => begun(rig.controller.reset(), onBegun),
  "timeout's reset": deadlineStrikes,
  'connection lost': (rig, onBegun) => rig.lose(onBegun),
  reconnected: (rig, onBegun) => rig.comeBack(onBegun),
  'device.close': (rig, onBegun) => begun(rig.closeDevice(), onBegun),
  'controller.close': (rig, onBegun) => begun(rig.controller.close(), onBegun),
};

/** Until the second one's moment, when the first has begun. */
export async function underWay(first: Transition, moment: Moment, rig: Rig): Promise<void> {
  if (first === "timeout's reset") await until(() => rig.controller.state !== 'live', 'its reset begins');
  await (moment === 'some milliseconds later' ? sleep(LATER_MS) : turns(3));
}

async function begun(call: Promise<unknown>, onBegun: () => void): Promise<unknown> {
  onBegun();
  return call;
}

/** A request for an event that does not happen is a command that every controller leaves unanswered. */
async function deadlineStrikes(rig: Rig, onBegun: () => void): Promise<void> {
  const event = rig.armed ?? rig.requestEvent(1);
  const error = await errorOf(event);
  onBegun();
  await turns(3);
  await until(() => rig.controller.state !== 'resetting', "the timeout's reset ends");
  throw error;
}
