/** DEVICE_SET_IRQS: eventfds of this process are given to the server, triggered, and taken back. */
import { native, type NativeEventFd } from '../../native.js';
import {
  Command,
  IRQ_FLAG_EVENTFD,
  IRQ_FLAG_MASKABLE,
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_DATA_EVENTFD,
  IRQ_SET_DATA_NONE,
} from '../../protocol/constants.js';
import type { IrqInfo } from '../../protocol/irq-info.js';
import { words } from '../raw-messages.js';
import type { ServerFacts } from '../server-facts.js';
import type { Probe, ProbeContext } from '../probe.js';
import type { RuleId } from '../rules.js';
import {
  describeAnswer,
  isError,
  isGood,
  shortAnswer,
  type Answer,
  type RawConnection,
} from '../raw-connection.js';

const ASSIGN = IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_TRIGGER;
const TRIGGER = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER;
const MASK = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_MASK;
/** How long a signal may take once the command was answered. */
const SIGNAL_MS = 100;

function setIrqs(
  connection: RawConnection,
  flags: number,
  index: number,
  start: number,
  count: number,
  fds: readonly number[] = [],
): Promise<Answer> {
  return connection.ask(Command.DEVICE_SET_IRQS, words(20, flags, index, start, count), { fds });
}

/** Types with interrupts. Some servers omit their EVENTFD flag and deliver all the same, so that is not asked. */
function present({ irqs }: ServerFacts): IrqInfo[] {
  return irqs.filter((irq) => irq !== undefined && irq.count > 0);
}

function needsIrqs(facts: ServerFacts): string | undefined {
  return present(facts).length > 0 ? undefined : 'the device has no interrupts';
}

/** Two eventfds that are closed when the probe is over. */
async function withEvents(work: (one: NativeEventFd, other: NativeEventFd) => Promise<void>): Promise<void> {
  const events: NativeEventFd[] = [];
  try {
    const open = (): NativeEventFd => {
      const fd = native().eventfd(0);
      if (fd < 0) throw new Error(`no eventfd for the probe: errno ${-fd}`);
      const event = new (native().EventFd)(fd, () => undefined);
      events.push(event);
      return event;
    };
    await work(open(), open());
  } finally {
    for (const event of events) event.close();
  }
}

/** The eventfd's count, as soon as it is not 0 or its time is over. */
async function countOf(connection: RawConnection, event: NativeEventFd): Promise<number> {
  const until = performance.now() + SIGNAL_MS;
  for (;;) {
    const count = event.read();
    if (count > 0 || performance.now() >= until) return Math.max(0, count);
    await connection.sleep(5);
    if (connection.leftMs === 0 || connection.ended !== undefined) return Math.max(0, event.read());
  }
}

const assign: Probe = {
  name: 'irqs',
  harm: 'connection',
  changes: true,
  rules: ['irqs.eventfd', 'irqs.trigger', 'irqs.deassign'],
  skipReason: needsIrqs,
  async run(context, connection) {
    if (!connection.passesFds) {
      for (const id of assign.rules) context.judge(id, 'not applicable', 'no fds can be passed here');
      return;
    }
    const [irq] = present(context.facts);
    if (irq === undefined) return;
    if ((irq.flags & IRQ_FLAG_EVENTFD) === 0) {
      const title = `EVENTFD flag of index ${irq.index}`;
      context.trait('irqs.eventfd-flag', title, 'not set although it has interrupts');
    }
    await withEvents(async (event) => lifecycle(context, connection, irq, event));
  },
};

async function lifecycle(
  context: ProbeContext,
  connection: RawConnection,
  { index }: IrqInfo,
  event: NativeEventFd,
): Promise<void> {
  const given = await setIrqs(connection, ASSIGN, index, 0, 1, [event.fd]);
  const isGiven = isGood(given) && given.payload.length === 0;
  context.check('irqs.eventfd', isGiven, `index ${index}: ${describeAnswer(given)}`);
  if (connection.isOver) return;
  connection.mark();
  const triggered = await setIrqs(connection, TRIGGER, index, 0, 1);
  const count = isGiven ? await countOf(connection, event) : 0;
  connection.event(`the eventfd counts ${count}`);
  const detail = `${describeAnswer(triggered)}; the eventfd counts ${count}`;
  // Not all types support every combination: a refusal is an answer.
  if (isError(triggered)) context.judge('irqs.trigger', 'not applicable', detail);
  else context.check('irqs.trigger', isGood(triggered) && count > 0, detail);
  if (connection.isOver) return;
  connection.mark();
  const taken = await setIrqs(connection, ASSIGN, index, 0, 1);
  const again = await setIrqs(connection, TRIGGER, index, 0, 1);
  const late = await countOf(connection, event);
  connection.event(`the eventfd counts ${late}`);
  const after = `${describeAnswer(taken)}; a trigger after it: ${shortAnswer(again)}, the eventfd counts ${late}`;
  context.check('irqs.deassign', isGood(taken) && late === 0, after, connection.evidence(8));
}

/** One command about the first type that has interrupts. */
function single(
  name: string,
  rule: RuleId,
  judge: (context: ProbeContext, connection: RawConnection, irq: IrqInfo) => Promise<void>,
): Probe {
  return {
    name,
    harm: 'connection',
    changes: true,
    rules: [rule],
    skipReason: needsIrqs,
    async run(context, connection) {
      const [irq] = present(context.facts);
      if (irq !== undefined) await judge(context, connection, irq);
    },
  };
}

const disable = single('irqs-disable', 'irqs.disable', async (context, connection, { index }) => {
  const answer = await setIrqs(connection, TRIGGER, index, 0, 0);
  context.check('irqs.disable', isGood(answer), describeAnswer(answer));
});

const pastEnd = single('irqs-past-end', 'irqs.past-end', async (context, connection, { index, count }) => {
  const answer = await setIrqs(connection, TRIGGER, index, count, 1);
  context.check(
    'irqs.past-end',
    isError(answer),
    `interrupt ${count} of ${count}: ${describeAnswer(answer)}`,
  );
});

const mask = single('irqs-mask', 'irqs.mask-flag', async (context, connection, { index, flags }) => {
  if ((flags & IRQ_FLAG_MASKABLE) !== 0) {
    context.judge('irqs.mask-flag', 'not applicable', 'the index is MASKABLE');
    return;
  }
  const answer = await setIrqs(connection, MASK, index, 0, 1);
  context.check('irqs.mask-flag', isError(answer), describeAnswer(answer));
});

const disableNone: Probe = {
  name: 'irqs-disable-none',
  harm: 'connection',
  changes: true,
  rules: [],
  skipReason: ({ irqs }) =>
    irqs.some((irq) => irq !== undefined && irq.count === 0) ? undefined : 'all types have interrupts',
  async run(context, connection) {
    const absent = context.facts.irqs.find((irq) => irq?.count === 0);
    if (absent === undefined) return;
    const answer = await setIrqs(connection, TRIGGER, absent.index, 0, 0);
    context.trait('irqs.disable-none', 'Disabling an index without interrupts', shortAnswer(answer));
  },
};

const separate: Probe = {
  name: 'irqs-separate',
  harm: 'connection',
  changes: true,
  rules: ['irqs.separate'],
  skipReason: (facts) => (present(facts).length > 1 ? undefined : 'the device has one type of interrupts'),
  async run(context, connection) {
    const [first, second] = present(context.facts);
    if (first === undefined || second === undefined) return;
    if (!connection.passesFds) {
      context.judge('irqs.separate', 'not applicable', 'no fds can be passed here');
      return;
    }
    await withEvents(async (one, other) => {
      await setIrqs(connection, ASSIGN, first.index, 0, 1, [one.fd]);
      await setIrqs(connection, ASSIGN, second.index, 0, 1, [other.fd]);
      const triggered = await setIrqs(connection, TRIGGER, first.index, 0, 1);
      const counts = [await countOf(connection, one), await countOf(connection, other)] as const;
      connection.event(`the eventfds count ${counts.join(' and ')}`);
      const detail = `index ${first.index} triggered (${shortAnswer(triggered)}): its eventfd counts ${counts[0]}, that of index ${second.index} ${counts[1]}`;
      const evidence = connection.evidence(8);
      if (counts[0] === 0 && counts[1] === 0) context.judge('irqs.separate', 'unclear', detail, evidence);
      else context.check('irqs.separate', counts[0] > 0 && counts[1] === 0, detail, evidence);
    });
  },
};

export const irqProbes: readonly Probe[] = [assign, separate, disable, disableNone, pastEnd, mask];
