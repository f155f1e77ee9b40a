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
import type { Examination, Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { inWords, isError, isGood, shortly, type Answer, type RawConnection } from '../raw-connection.js';

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

/** Types with interrupts. That some servers forget the EVENTFD flag is no reason not to try. */
function present({ irqs }: ServerFacts): IrqInfo[] {
  return irqs.filter((irq) => irq !== undefined && irq.count > 0);
}

function needsIrqs(facts: ServerFacts): string | undefined {
  return present(facts).length > 0 ? undefined : 'the device has no interrupts';
}

/** Eventfds that are closed when the probe is over. */
async function withEvents(count: number, work: (events: NativeEventFd[]) => Promise<void>): Promise<void> {
  const events: NativeEventFd[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const fd = native().eventfd(0);
      if (fd < 0) throw new Error(`no eventfd for the probe: errno ${-fd}`);
      events.push(new (native().EventFd)(fd, () => undefined));
    }
    await work(events);
  } finally {
    for (const event of events) event.close();
  }
}

/** The count, waited for a little. */
async function signalled(connection: RawConnection, event: NativeEventFd): Promise<number> {
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
  needless: needsIrqs,
  async run(examination) {
    const connection = await examination.session();
    if (!connection.passesFds) {
      for (const id of assign.rules) examination.judge(id, 'not applicable', 'no fds can be passed here');
      return;
    }
    const irq = present(examination.facts)[0]!;
    if ((irq.flags & IRQ_FLAG_EVENTFD) === 0)
      examination.trait(
        'irqs.eventfd-flag',
        `EVENTFD flag of index ${irq.index}`,
        'not set although it has interrupts',
      );
    await withEvents(1, async ([event]) => lifecycle(examination, connection, irq, event!));
  },
};

async function lifecycle(
  examination: Examination,
  connection: RawConnection,
  { index }: IrqInfo,
  event: NativeEventFd,
): Promise<void> {
  let mark = connection.mark();
  const given = await setIrqs(connection, ASSIGN, index, 0, 1, [event.fd]);
  const isGiven = isGood(given) && given.payload.length === 0;
  examination.check('irqs.eventfd', isGiven, `index ${index}: ${inWords(given)}`, connection.since(mark));
  if (connection.isOver) return;
  mark = connection.mark();
  const triggered = await setIrqs(connection, TRIGGER, index, 0, 1);
  const count = isGiven ? await signalled(connection, event) : 0;
  connection.event(`the eventfd counts ${count}`);
  const detail = `${inWords(triggered)}; the eventfd counts ${count}`;
  // Not all types support every combination: a refusal is an answer.
  if (isError(triggered)) examination.judge('irqs.trigger', 'not applicable', detail, connection.since(mark));
  else examination.check('irqs.trigger', isGood(triggered) && count > 0, detail, connection.since(mark));
  if (connection.isOver) return;
  mark = connection.mark();
  const taken = await setIrqs(connection, ASSIGN, index, 0, 1);
  const again = await setIrqs(connection, TRIGGER, index, 0, 1);
  const late = await signalled(connection, event);
  connection.event(`the eventfd counts ${late}`);
  const after = `${inWords(taken)}; a trigger after it: ${shortly(again)}, the eventfd counts ${late}`;
  examination.check('irqs.deassign', isGood(taken) && late === 0, after, connection.since(mark, 8));
}

/** One command about the first type that has interrupts. */
function single(
  name: string,
  rule: RuleId,
  judge: (examination: Examination, connection: RawConnection, irq: IrqInfo) => Promise<void>,
): Probe {
  return {
    name,
    harm: 'connection',
    changes: true,
    rules: [rule],
    needless: needsIrqs,
    async run(examination) {
      const connection = await examination.session();
      await judge(examination, connection, present(examination.facts)[0]!);
    },
  };
}

const disable = single('irqs-disable', 'irqs.disable', async (examination, connection, { index }) => {
  const mark = connection.mark();
  const answer = await setIrqs(connection, TRIGGER, index, 0, 0);
  examination.check('irqs.disable', isGood(answer), inWords(answer), connection.since(mark));
});

const pastEnd = single(
  'irqs-past-end',
  'irqs.past-end',
  async (examination, connection, { index, count }) => {
    const mark = connection.mark();
    const answer = await setIrqs(connection, TRIGGER, index, count, 1);
    const detail = `interrupt ${count} of ${count}: ${inWords(answer)}`;
    examination.check('irqs.past-end', isError(answer), detail, connection.since(mark));
  },
);

const mask = single('irqs-mask', 'irqs.mask-flag', async (examination, connection, { index, flags }) => {
  if ((flags & IRQ_FLAG_MASKABLE) !== 0) {
    examination.judge('irqs.mask-flag', 'not applicable', 'the index is MASKABLE');
    return;
  }
  const mark = connection.mark();
  const answer = await setIrqs(connection, MASK, index, 0, 1);
  examination.check('irqs.mask-flag', isError(answer), inWords(answer), connection.since(mark));
});

const disableNone: Probe = {
  name: 'irqs-disable-none',
  harm: 'connection',
  changes: true,
  rules: [],
  needless: ({ irqs }) =>
    irqs.some((irq) => irq !== undefined && irq.count === 0) ? undefined : 'all types have interrupts',
  async run(examination) {
    const absent = examination.facts.irqs.find((irq) => irq !== undefined && irq.count === 0)!;
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await setIrqs(connection, TRIGGER, absent.index, 0, 0);
    examination.trait(
      'irqs.disable-none',
      'Disabling an index without interrupts',
      shortly(answer),
      connection.since(mark),
    );
  },
};

const separate: Probe = {
  name: 'irqs-separate',
  harm: 'connection',
  changes: true,
  rules: ['irqs.separate'],
  needless: (facts) => (present(facts).length > 1 ? undefined : 'the device has one type of interrupts'),
  async run(examination) {
    const connection = await examination.session();
    const [first, second] = present(examination.facts);
    if (!connection.passesFds) {
      examination.judge('irqs.separate', 'not applicable', 'no fds can be passed here');
      return;
    }
    await withEvents(2, async ([one, other]) => {
      const mark = connection.mark();
      await setIrqs(connection, ASSIGN, first!.index, 0, 1, [one!.fd]);
      await setIrqs(connection, ASSIGN, second!.index, 0, 1, [other!.fd]);
      const triggered = await setIrqs(connection, TRIGGER, first!.index, 0, 1);
      const counts = [await signalled(connection, one!), await signalled(connection, other!)];
      connection.event(`the eventfds count ${counts.join(' and ')}`);
      const detail = `index ${first!.index} triggered (${shortly(triggered)}): its eventfd counts ${counts[0]}, that of index ${second!.index} ${counts[1]}`;
      if (counts[0] === 0 && counts[1] === 0)
        examination.judge('irqs.separate', 'unclear', detail, connection.since(mark, 8));
      else
        examination.check(
          'irqs.separate',
          counts[0]! > 0 && counts[1] === 0,
          detail,
          connection.since(mark, 8),
        );
    });
  },
};

export const irqProbes: readonly Probe[] = [assign, separate, disable, disableNone, pastEnd, mask];
