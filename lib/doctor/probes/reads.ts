/** Reads of all widths, and reads that must fail. */
import { Command, PciRegion, REGION_FLAG_READ } from '../../protocol/constants.js';
import { regionAccess } from '../raw-messages.js';
import type { Examination, Probe } from '../probe.js';
import type { ServerFacts, RegionFacts } from '../server-facts.js';
import { inWords, isError, isGood, shortly, type Answer } from '../raw-connection.js';
import { isReadReply } from './survey.js';

const CONFIG = PciRegion.CONFIG;
const CONFIG_WIDTHS = [1, 2, 4] as const;
const WIDTHS = [1, 2, 4, 8] as const;

function hasConfig({ regions }: ServerFacts): string | undefined {
  const config = regions[CONFIG]?.info;
  return config !== undefined && config.size >= 64 ? undefined : 'the device has no config space to read';
}

const configBytes: Probe = {
  name: 'config-widths',
  harm: 'none',
  rules: ['read.config-bytes'],
  needless: hasConfig,
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answers: Answer[] = [];
    // The last one at an odd place, as a byte register is.
    for (const [offset, count] of [
      ...CONFIG_WIDTHS.map((width) => [0, width] as const),
      [0x3d, 1] as const,
    ]) {
      const answer = await connection.ask(Command.REGION_READ, regionAccess(CONFIG, offset, count));
      const isRight = isGood(answer) && isReadReply(answer.payload, CONFIG, offset, count);
      if (isRight && offset === 0) push(examination.facts.widths, CONFIG, count);
      if (!isRight) answers.push(answer);
    }
    const detail = answers.length === 0 ? 'all widths were answered' : answers.map(inWords).join('; ');
    examination.check('read.config-bytes', answers.length === 0, detail, connection.since(mark, 10));
  },
};

const configWhole: Probe = {
  name: 'config-whole',
  harm: 'connection',
  rules: ['read.config-whole'],
  needless: hasConfig,
  async run(examination) {
    const { size } = examination.facts.regions[CONFIG]!.info;
    const count = Math.min(size, 4096);
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.REGION_READ, regionAccess(CONFIG, 0, count));
    const isRight = isGood(answer) && isReadReply(answer.payload, CONFIG, 0, count);
    const { config } = examination.facts;
    // What the device changes by itself may differ: the ids may not.
    const isSame =
      isRight && (config === undefined || answer.payload.subarray(16, 20).equals(config.subarray(0, 4)));
    examination.check(
      'read.config-whole',
      isSame,
      `${count} bytes: ${inWords(answer)}`,
      connection.since(mark),
    );
  },
};

/** Three bytes: a server that cuts them into what a bus can do meets a piece that it may not have thought of. */
const configOdd: Probe = {
  name: 'config-odd',
  harm: 'server',
  rules: [],
  survival: 'robust.config-odd',
  needless: hasConfig,
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.REGION_READ, regionAccess(CONFIG, 0, 3));
    const value = isGood(answer) && isReadReply(answer.payload, CONFIG, 0, 3) ? 'answered' : inWords(answer);
    examination.trait('region.7.odd', 'A config read of 3 bytes', value, connection.since(mark));
  },
};

/** One read of each width at the beginning of a BAR. A register may count its reads: this is the one probe that shows. */
const barWidths: Probe = {
  name: 'bar-widths',
  harm: 'connection',
  rules: [],
  async run(examination) {
    const connection = await examination.session();
    for (const { info } of bars(examination)) {
      if (connection.ended !== undefined) break;
      const mark = connection.mark();
      const refused = new Set<string>();
      const taken: number[] = [];
      for (const width of WIDTHS.filter((width) => width <= info.size)) {
        const answer = await connection.ask(Command.REGION_READ, regionAccess(info.index, 0, width));
        if (isGood(answer) && isReadReply(answer.payload, info.index, 0, width)) taken.push(width);
        else refused.add(shortly(answer));
      }
      if (taken.length > 0 || isOnlyErrors(refused)) examination.facts.widths.set(info.index, taken);
      const value = `${taken.join(', ') || 'none'}${refused.size === 0 ? '' : `; refused: ${[...refused].join(', ')}`}`;
      const title = `Widths in which region ${info.index} is read at offset 0`;
      examination.trait(`region.${info.index}.widths`, title, value, connection.since(mark, 8));
    }
  },
};

const badReads: Probe = {
  name: 'bad-reads',
  harm: 'connection',
  rules: ['read.past-end', 'read.no-region'],
  async run(examination) {
    const connection = await examination.session();
    const target = examination.facts.regions.find(
      (region) => region !== undefined && region.info.size > 0,
    )?.info;
    if (target === undefined)
      examination.judge('read.past-end', 'not applicable', 'the device has no region');
    else {
      const mark = connection.mark();
      const answer = await connection.ask(
        Command.REGION_READ,
        regionAccess(target.index, target.size - 2, 4),
      );
      const detail = `4 bytes, 2 of them past region ${target.index}: ${inWords(answer)}`;
      examination.check('read.past-end', isError(answer), detail, connection.since(mark));
    }
    if (connection.isOver) return;
    const mark = connection.mark();
    const index = (examination.facts.info?.numRegions ?? 9) + 7;
    const answer = await connection.ask(Command.REGION_READ, regionAccess(index, 0, 4));
    examination.check(
      'read.no-region',
      isError(answer),
      `region ${index}: ${inWords(answer)}`,
      connection.since(mark),
    );
  },
};

const zero: Probe = {
  name: 'zero-read',
  harm: 'connection',
  rules: ['read.zero'],
  needless: hasConfig,
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.REGION_READ, regionAccess(CONFIG, 0, 0));
    const isKept = isError(answer) || (isGood(answer) && isReadReply(answer.payload, CONFIG, 0, 0));
    examination.check('read.zero', isKept, inWords(answer), connection.since(mark));
  },
};

const tooMuch: Probe = {
  name: 'too-much',
  harm: 'connection',
  rules: ['read.too-much'],
  async run(examination) {
    const { maxDataXferSize, regions } = examination.facts;
    const count = maxDataXferSize + 1;
    const large = regions.find((region) => region !== undefined && region.info.size >= count);
    const index = large?.info.index ?? CONFIG;
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.REGION_READ, regionAccess(index, 0, count));
    const detail = `${count} bytes of region ${index}: ${inWords(answer)}`;
    const isKept = isError(answer) && (await examination.isInStep(connection));
    examination.check('read.too-much', isKept, detail, connection.since(mark));
  },
};

const huge: Probe = {
  name: 'huge-count',
  harm: 'server',
  rules: [],
  survival: 'robust.huge-count',
  async run(examination) {
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(
      Command.REGION_READ,
      regionAccess(CONFIG, 0xffff_ffff_ffff_fff0n, 0xffff_ffff),
    );
    examination.trait(
      'hostile.huge-count',
      'A read of 4 GiB that wraps around',
      inWords(answer),
      connection.since(mark),
    );
  },
};

function bars({ facts }: Examination): RegionFacts[] {
  return facts.regions.filter(
    (region) =>
      region !== undefined &&
      region.info.index !== CONFIG &&
      region.info.size > 0 &&
      (region.info.flags & REGION_FLAG_READ) !== 0,
  );
}

function isOnlyErrors(refused: ReadonlySet<string>): boolean {
  return !refused.has('no answer') && !refused.has('connection lost');
}

function push(map: Map<number, number[]>, key: number, value: number): void {
  map.set(key, [...(map.get(key) ?? []), value]);
}

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
