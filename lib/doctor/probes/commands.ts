/** Commands that a server may not know, and indexes that a device does not have. */
import { ProtocolError } from '../../errors.js';
import {
  Command,
  commandName,
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_PROBE,
  Feature,
  PciRegion,
} from '../../protocol/constants.js';
import { decodeRegionIoFds } from '../../protocol/region-io-fds.js';
import { words } from '../raw-messages.js';
import type { Examination, Probe } from '../probe.js';
import type { RuleId } from '../rules.js';
import { inWords, isError, isGood, shortly, type Answer, type RawConnection } from '../raw-connection.js';

const UNKNOWN_COMMAND = 0x4321;
const REGION_INFO_SIZE = 32;
const MOST_PROBED_FEATURES = [
  Feature.MIGRATION,
  Feature.MIG_DEVICE_STATE,
  Feature.DMA_LOGGING_START,
  Feature.DMA_LOGGING_REPORT,
] as const;

/** A command with a body that an older server does not know: it has to take the body from the stream all the same. */
function optional(
  name: string,
  rule: RuleId,
  command: number,
  payload: (examination: Examination) => Buffer,
  look?: (examination: Examination, answer: Answer, connection: RawConnection) => void | Promise<void>,
): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(examination) {
      const connection = await examination.session();
      const mark = connection.mark();
      const body = payload(examination);
      const answer = await connection.ask(command, body, { waitMs: examination.timeoutMs / 2 });
      const inStep = answer.kind === 'reply' && (await examination.isInStep(connection));
      const word = commandName(command);
      const detail = `${inWords(answer)}; ${inStep ? 'then in step' : 'then no longer in step'}`;
      examination.check(rule, inStep, detail, connection.since(mark));
      if (!inStep) examination.facts.deadlyCommands.add(word);
      if (!isGood(answer)) examination.facts.unsupported.set(word, shortly(answer));
      examination.trait(
        `command.${command}`,
        `${word}`,
        isGood(answer) ? 'answered' : shortly(answer),
        connection.since(mark),
      );
      await look?.(examination, answer, connection);
    },
  };
}

function unknown(name: string, rule: RuleId, body?: Buffer): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(examination) {
      const connection = await examination.session();
      const mark = connection.mark();
      const answer = await connection.ask(UNKNOWN_COMMAND, body);
      const inStep = isError(answer) && (await examination.isInStep(connection));
      const detail = `${inWords(answer)}; ${inStep ? 'then in step' : 'then no longer in step'}`;
      examination.check(rule, inStep, detail, connection.since(mark));
      if (body === undefined)
        examination.trait(
          'errno.unknown-command',
          'Answer to an unknown command',
          shortly(answer),
          connection.since(mark),
        );
    },
  };
}

const indexes: Probe = {
  name: 'indexes',
  harm: 'none',
  rules: ['region.out-of-range', 'irq.out-of-range', 'size.argsz-small'],
  async run(examination) {
    const { info } = examination.facts;
    const connection = await examination.session();
    const regionIndex = info?.numRegions ?? 100;
    let mark = connection.mark();
    const region = await connection.ask(
      Command.DEVICE_GET_REGION_INFO,
      words(4096, 0, regionIndex, 0, 0n, 0n),
    );
    examination.check(
      'region.out-of-range',
      isError(region),
      `index ${regionIndex}: ${inWords(region)}`,
      connection.since(mark),
    );
    if (connection.isOver) return;
    const irqIndex = info?.numIrqs ?? 100;
    mark = connection.mark();
    const irq = await connection.ask(Command.DEVICE_GET_IRQ_INFO, words(16, 0, irqIndex, 0));
    examination.check(
      'irq.out-of-range',
      isError(irq),
      `index ${irqIndex}: ${inWords(irq)}`,
      connection.since(mark),
    );
    if (connection.isOver) return;
    mark = connection.mark();
    const small = await connection.ask(Command.DEVICE_GET_INFO, words(8, 0, 0, 0));
    const saysSize = isGood(small) && small.payload.length >= 4 && small.payload.readUInt32LE(0) >= 16;
    examination.check(
      'size.argsz-small',
      isError(small) || saysSize,
      `argsz 8: ${inWords(small)}`,
      connection.since(mark),
    );
  },
};

const argszCut: Probe = {
  name: 'argsz-cut',
  harm: 'none',
  rules: ['size.argsz-cut'],
  needless: ({ regions }) =>
    regions.some((region) => region !== undefined && region.info.argsz > REGION_INFO_SIZE)
      ? undefined
      : 'no region has capabilities, so no reply is longer than its structure',
  async run(examination) {
    const region = examination.facts.regions.find(
      (one) => one !== undefined && one.info.argsz > REGION_INFO_SIZE,
    )!;
    const connection = await examination.session();
    const mark = connection.mark();
    const payload = words(REGION_INFO_SIZE, 0, region.info.index, 0, 0n, 0n);
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, payload);
    const evidence = connection.since(mark);
    if (!isGood(answer) || answer.payload.length < REGION_INFO_SIZE) {
      examination.judge('size.argsz-cut', 'broken', inWords(answer), evidence);
      return;
    }
    const argsz = answer.payload.readUInt32LE(0);
    const claims =
      (answer.payload.readUInt32LE(4) & 8) !== 0 && answer.payload.readUInt32LE(12) >= answer.payload.length;
    const isKept = argsz === region.info.argsz && answer.payload.length <= REGION_INFO_SIZE && !claims;
    const detail = `argsz 32 of ${region.info.argsz}: ${answer.payload.length} bytes, argsz ${argsz}${claims ? ', and CAPS for what is not there' : ''}, ${answer.fds} fds`;
    examination.check('size.argsz-cut', isKept, detail, evidence);
  },
};

const feature = optional(
  'feature',
  'command.feature',
  Command.DEVICE_FEATURE,
  () => words(8, (DEVICE_FEATURE_PROBE | DEVICE_FEATURE_GET | Feature.MIGRATION) >>> 0),
  async (examination, answer, connection) => {
    if (!isGood(answer)) {
      examination.judge(
        'feature.probe',
        'not applicable',
        `a probe of MIGRATION: ${inWords(answer)}`,
        connection.since(0),
      );
      return;
    }
    const flags = (DEVICE_FEATURE_PROBE | DEVICE_FEATURE_GET | Feature.MIGRATION) >>> 0;
    const isEcho = answer.payload.equals(words(8, flags));
    examination.check(
      'feature.probe',
      isEcho,
      isEcho ? 'it is' : answer.payload.toString('hex').slice(0, 64),
      connection.since(0),
    );
    const known: string[] = [];
    for (const number of MOST_PROBED_FEATURES) {
      const probed = await connection.ask(
        Command.DEVICE_FEATURE,
        words(8, (DEVICE_FEATURE_PROBE | number) >>> 0),
      );
      if (isGood(probed)) known.push(Object.entries(Feature).find(([, value]) => value === number)![0]);
    }
    examination.trait('features', 'Device features', known.join(', ') || 'none');
  },
);

const ioFds = optional(
  'io-fds',
  'command.io-fds',
  Command.DEVICE_GET_REGION_IO_FDS,
  () => words(4096, 0, PciRegion.BAR0, 0),
  (examination, answer, connection) => {
    if (!isGood(answer)) {
      examination.judge(
        'io-fds.reply',
        'not applicable',
        `for BAR0: ${inWords(answer)}`,
        connection.since(0),
      );
      return;
    }
    try {
      const { subRegions } = decodeRegionIoFds(answer.payload, 0, answer.payload.length, PciRegion.BAR0);
      const count = subRegions.length;
      const stride = count === 0 ? 0 : (answer.payload.readUInt32LE(0) - 16) / count;
      const isSound = count === 0 || answer.fds > 0;
      const detail = `${count} sub-regions of ${stride} bytes, ${answer.fds} fds`;
      examination.check('io-fds.reply', isSound, detail, connection.since(0));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      examination.judge('io-fds.reply', 'broken', error.message, connection.since(0));
    }
  },
);

export const commandProbes: readonly Probe[] = [
  indexes,
  argszCut,
  { ...feature, rules: ['command.feature', 'feature.probe'] },
  { ...ioFds, rules: ['command.io-fds', 'io-fds.reply'] },
  optional('mig-data-read', 'command.mig-data-read', Command.MIG_DATA_READ, () => words(16, 8)),
  // No page was logged: nothing is asked about.
  optional('dirty-pages', 'command.dirty-pages', Command.DIRTY_PAGES, () => words(8, 4)),
  // No write in it.
  optional('write-multi', 'command.write-multi', Command.REGION_WRITE_MULTI, () => words(0n)),
  unknown('unknown-command', 'command.unknown'),
  unknown('unknown-body', 'command.unknown-body', Buffer.alloc(24, 0xa5)),
];
