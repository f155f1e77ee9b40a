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

const UNKNOWN_COMMAND = 0x4321;
const REGION_INFO_SIZE = 32;
const REGION_FLAG_CAPS = 8;
const PROBE_MIGRATION = (DEVICE_FEATURE_PROBE | DEVICE_FEATURE_GET | Feature.MIGRATION) >>> 0;
const PROBED_FEATURES = ['MIGRATION', 'MIG_DEVICE_STATE', 'DMA_LOGGING_START', 'DMA_LOGGING_REPORT'] as const;

/** A command with a body that an older server does not know: it has to take the body from the stream all the same. */
function optional(
  name: string,
  rule: RuleId,
  command: number,
  payload: Buffer,
  inspect?: (context: ProbeContext, answer: Answer, connection: RawConnection) => void | Promise<void>,
): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(context, connection) {
      const answer = await connection.ask(command, payload, { waitMs: context.timeoutMs / 2 });
      const { isInSync, detail } = await context.followUp(connection, answer);
      const isKept = answer.kind === 'reply' && isInSync;
      const title = commandName(command);
      context.check(rule, isKept, detail);
      if (!isKept) context.facts.breakingCommands.add(title);
      if (!isGood(answer)) context.facts.unsupported.set(title, shortAnswer(answer));
      context.trait(`command.${command}`, title, shortAnswer(answer));
      await inspect?.(context, answer, connection);
    },
  };
}

function unknown(name: string, rule: RuleId, body?: Buffer): Probe {
  return {
    name,
    harm: 'connection',
    rules: [rule],
    async run(context, connection) {
      const answer = await connection.ask(UNKNOWN_COMMAND, body);
      const { isInSync, detail } = await context.followUp(connection, answer);
      context.check(rule, isError(answer) && isInSync, detail);
      if (body === undefined)
        context.trait('errno.unknown-command', 'Answer to an unknown command', shortAnswer(answer));
    },
  };
}

const indexes: Probe = {
  name: 'indexes',
  harm: 'none',
  rules: ['region.out-of-range', 'irq.out-of-range', 'size.argsz-small'],
  async run(context, connection) {
    const { numRegions = 100, numIrqs = 100 } = context.facts.info ?? {};
    const regionInfo = words(4096, 0, numRegions, 0, 0n, 0n);
    const region = await connection.ask(Command.DEVICE_GET_REGION_INFO, regionInfo);
    context.check('region.out-of-range', isError(region), `index ${numRegions}: ${describeAnswer(region)}`);
    if (connection.isOver) return;
    connection.mark();
    const irq = await connection.ask(Command.DEVICE_GET_IRQ_INFO, words(16, 0, numIrqs, 0));
    context.check('irq.out-of-range', isError(irq), `index ${numIrqs}: ${describeAnswer(irq)}`);
    if (connection.isOver) return;
    connection.mark();
    const small = await connection.ask(Command.DEVICE_GET_INFO, words(8, 0, 0, 0));
    const givesSize = isGood(small) && small.payload.length >= 4 && small.payload.readUInt32LE(0) >= 16;
    context.check('size.argsz-small', isError(small) || givesSize, `argsz 8: ${describeAnswer(small)}`);
  },
};

const argszCut: Probe = {
  name: 'argsz-cut',
  harm: 'none',
  rules: ['size.argsz-cut'],
  skipReason: ({ regions }) =>
    regions.some((region) => region !== undefined && region.info.argsz > REGION_INFO_SIZE)
      ? undefined
      : 'no region has capabilities, so no reply is longer than its structure',
  async run(context, connection) {
    const region = context.facts.regions.find(
      (one) => one !== undefined && one.info.argsz > REGION_INFO_SIZE,
    );
    if (region === undefined) return;
    const payload = words(REGION_INFO_SIZE, 0, region.info.index, 0, 0n, 0n);
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, payload);
    if (!isGood(answer) || answer.payload.length < REGION_INFO_SIZE) {
      context.judge('size.argsz-cut', 'broken', describeAnswer(answer));
      return;
    }
    const argsz = answer.payload.readUInt32LE(0);
    const hasCaps = (answer.payload.readUInt32LE(4) & REGION_FLAG_CAPS) !== 0;
    const claims = hasCaps && answer.payload.readUInt32LE(12) >= answer.payload.length;
    const isKept = argsz === region.info.argsz && answer.payload.length <= REGION_INFO_SIZE && !claims;
    const detail = `argsz 32 of ${region.info.argsz}: ${answer.payload.length} bytes, argsz ${argsz}${claims ? ', and CAPS for what is not there' : ''}, ${answer.fds} fds`;
    context.check('size.argsz-cut', isKept, detail);
  },
};

const feature = optional(
  'feature',
  'command.feature',
  Command.DEVICE_FEATURE,
  words(8, PROBE_MIGRATION),
  async (context, answer, connection) => {
    if (!isGood(answer)) {
      const detail = `a probe of MIGRATION: ${describeAnswer(answer)}`;
      context.judge('feature.probe', 'not applicable', detail);
      return;
    }
    const isEcho = answer.payload.equals(words(8, PROBE_MIGRATION));
    const detail = isEcho ? 'it is' : answer.payload.toString('hex').slice(0, 64);
    context.check('feature.probe', isEcho, detail);
    connection.mark();
    const known: string[] = [];
    for (const name of PROBED_FEATURES) {
      const payload = words(8, (DEVICE_FEATURE_PROBE | Feature[name]) >>> 0);
      if (isGood(await connection.ask(Command.DEVICE_FEATURE, payload))) known.push(name);
    }
    context.trait('features', 'Device features', known.join(', ') || 'none');
  },
);

const ioFds = optional(
  'io-fds',
  'command.io-fds',
  Command.DEVICE_GET_REGION_IO_FDS,
  words(4096, 0, PciRegion.BAR0, 0),
  (context, answer) => {
    if (!isGood(answer)) {
      context.judge('io-fds.reply', 'not applicable', `for BAR0: ${describeAnswer(answer)}`);
      return;
    }
    try {
      const { subRegions } = decodeRegionIoFds(answer.payload, 0, answer.payload.length, PciRegion.BAR0);
      const count = subRegions.length;
      const stride = count === 0 ? 0 : (answer.payload.readUInt32LE(0) - 16) / count;
      const detail = `${count} sub-regions of ${stride} bytes, ${answer.fds} fds`;
      context.check('io-fds.reply', count === 0 || answer.fds > 0, detail);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      context.judge('io-fds.reply', 'broken', error.message);
    }
  },
);

export const commandProbes: readonly Probe[] = [
  indexes,
  argszCut,
  { ...feature, rules: ['command.feature', 'feature.probe'] },
  { ...ioFds, rules: ['command.io-fds', 'io-fds.reply'] },
  optional('mig-data-read', 'command.mig-data-read', Command.MIG_DATA_READ, words(16, 8)),
  // No page was logged: nothing is asked about.
  optional('dirty-pages', 'command.dirty-pages', Command.DIRTY_PAGES, words(8, 4)),
  // No write in it.
  optional('write-multi', 'command.write-multi', Command.REGION_WRITE_MULTI, words(0n)),
  unknown('unknown-command', 'command.unknown'),
  unknown('unknown-body', 'command.unknown-body', Buffer.alloc(24, 0xa5)),
];
