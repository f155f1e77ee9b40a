/** Reads of all widths, and reads that must fail. */
import { Command, PciRegion, REGION_FLAG_READ } from '../../protocol/constants.js';
import { regionAccess } from '../raw-messages.js';
import type { ProbeContext, Probe } from '../probe.js';
import type { ServerFacts, RegionFacts } from '../server-facts.js';
import { describeAnswer, isError, type Answer } from '../raw-connection.js';
import { readRegion, tryWidths } from './region-read.js';

const CONFIG = PciRegion.CONFIG;
/** At the beginning of config space, and a byte at an odd offset, as byte registers are. */
const CONFIG_READS = [
  [0, 1],
  [0, 2],
  [0, 4],
  [0x3d, 1],
] as const;
const WIDTHS = [1, 2, 4, 8] as const;

function hasConfig({ regions }: ServerFacts): string | undefined {
  const config = regions[CONFIG]?.info;
  return config !== undefined && config.size >= 64 ? undefined : 'the device has no config space to read';
}

const configBytes: Probe = {
  name: 'config-widths',
  harm: 'none',
  rules: ['read.config-bytes'],
  skipReason: hasConfig,
  async run(context, connection) {
    const taken: number[] = [];
    const wrong: Answer[] = [];
    for (const [offset, count] of CONFIG_READS) {
      const { answer, data } = await readRegion(connection, CONFIG, offset, count);
      if (data === undefined) wrong.push(answer);
      else if (offset === 0) taken.push(count);
    }
    if (taken.length > 0) context.facts.widths.set(CONFIG, taken);
    const detail = wrong.length === 0 ? 'all widths were answered' : wrong.map(describeAnswer).join('; ');
    context.check('read.config-bytes', wrong.length === 0, detail, connection.evidence(10));
  },
};

const configWhole: Probe = {
  name: 'config-whole',
  harm: 'connection',
  rules: ['read.config-whole'],
  skipReason: hasConfig,
  async run(context, connection) {
    const { regions, config } = context.facts;
    const count = Math.min(regions[CONFIG]!.info.size, 4096);
    const { answer, data } = await readRegion(connection, CONFIG, 0, count);
    // What the device changes by itself may differ: the ids may not.
    const isSame =
      data !== undefined && (config === undefined || data.subarray(0, 4).equals(config.subarray(0, 4)));
    context.check('read.config-whole', isSame, `${count} bytes: ${describeAnswer(answer)}`);
  },
};

/** Three bytes: a server that splits them into bus accesses may come to a piece that its author did not expect. */
const configOdd: Probe = {
  name: 'config-odd',
  harm: 'server',
  rules: [],
  survival: 'robust.config-odd',
  skipReason: hasConfig,
  async run(context, connection) {
    const { answer, data } = await readRegion(connection, CONFIG, 0, 3);
    const value = data === undefined ? describeAnswer(answer) : 'answered';
    context.trait('region.7.odd', 'A config read of 3 bytes', value);
  },
};

/** One read of each width at the beginning of each BAR: the only probe that reads registers, which may have side effects. */
const barWidths: Probe = {
  name: 'bar-widths',
  harm: 'connection',
  rules: [],
  async run(context, connection) {
    for (const { info } of readableBars(context)) {
      if (connection.ended !== undefined) break;
      connection.mark();
      const widths = WIDTHS.filter((width) => width <= info.size);
      const { taken, refusals, text } = await tryWidths(connection, info.index, widths);
      const areErrors = !refusals.has('no answer') && !refusals.has('connection lost');
      if (taken.length > 0 || areErrors) context.facts.widths.set(info.index, taken);
      const title = `Widths in which region ${info.index} is read at offset 0`;
      context.trait(`region.${info.index}.widths`, title, text, connection.evidence(8));
    }
  },
};

function readableBars({ facts }: ProbeContext): RegionFacts[] {
  return facts.regions.filter(
    (region) =>
      region !== undefined &&
      region.info.index !== CONFIG &&
      region.info.size > 0 &&
      (region.info.flags & REGION_FLAG_READ) !== 0,
  );
}

const badReads: Probe = {
  name: 'bad-reads',
  harm: 'connection',
  rules: ['read.past-end', 'read.no-region'],
  async run(context, connection) {
    const target = context.facts.regions.find((region) => region !== undefined && region.info.size > 0)?.info;
    if (target === undefined) {
      context.judge('read.past-end', 'not applicable', 'the device has no region');
    } else {
      const { answer } = await readRegion(connection, target.index, target.size - 2, 4);
      const detail = `4 bytes, 2 of them past region ${target.index}: ${describeAnswer(answer)}`;
      context.check('read.past-end', isError(answer), detail);
    }
    if (connection.isOver) return;
    connection.mark();
    const index = (context.facts.info?.numRegions ?? 9) + 7;
    const { answer } = await readRegion(connection, index, 0, 4);
    context.check('read.no-region', isError(answer), `region ${index}: ${describeAnswer(answer)}`);
  },
};

const zero: Probe = {
  name: 'zero-read',
  harm: 'connection',
  rules: ['read.zero'],
  skipReason: hasConfig,
  async run(context, connection) {
    const { answer, data } = await readRegion(connection, CONFIG, 0, 0);
    context.check('read.zero', isError(answer) || data !== undefined, describeAnswer(answer));
  },
};

const tooMuch: Probe = {
  name: 'too-much',
  harm: 'connection',
  rules: ['read.too-much'],
  async run(context, connection) {
    const { maxDataXferSize, regions } = context.facts;
    const count = maxDataXferSize + 1;
    const large = regions.find((region) => region !== undefined && region.info.size >= count);
    const index = large?.info.index ?? CONFIG;
    const { answer } = await readRegion(connection, index, 0, count);
    const detail = `${count} bytes of region ${index}: ${describeAnswer(answer)}`;
    const isKept = isError(answer) && (await context.isInSync(connection));
    context.check('read.too-much', isKept, detail);
  },
};

const huge: Probe = {
  name: 'huge-count',
  harm: 'server',
  rules: [],
  survival: 'robust.huge-count',
  async run(context, connection) {
    const payload = regionAccess(CONFIG, 0xffff_ffff_ffff_fff0n, 0xffff_ffff);
    const answer = await connection.ask(Command.REGION_READ, payload);
    context.trait('hostile.huge-count', 'A read of 4 GiB that wraps around', describeAnswer(answer));
  },
};

export const readProbes: readonly Probe[] = [
  configBytes,
  configWhole,
  badReads,
  zero,
  barWidths,
  tooMuch,
  huge,
  configOdd,
];
