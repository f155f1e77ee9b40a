/** What changes the device: only where that was allowed. */
import { configReader, decodeConfigSpace, PciConfig } from '../../pci/index.js';
import { Command, DEVICE_FLAG_RESET, PciRegion } from '../../protocol/constants.js';
import { regionAccess } from '../raw-messages.js';
import type { Probe } from '../probe.js';
import { inWords, isError, isGood, shortly } from '../raw-connection.js';
import { isReadReply } from './survey.js';

const CONFIG = PciRegion.CONFIG;
/** The most data of a write that is tried, from the least; 32 KiB is what the library sends where nothing is said. */
const LARGE = [32 << 10, 64 << 10, 256 << 10, 1 << 20] as const;
const LEAST_CHUNK = 4096;
const BAR_STEP = 0x1000_0000;
const FIRST_BAR = 0x8000_0000;

/** The interrupt line register: the host's notepad, without effect on the device. */
const writeEcho: Probe = {
  name: 'write-echo',
  harm: 'none',
  changes: true,
  rules: ['write.echo', 'write.past-end'],
  needless: ({ config }) => (config === undefined ? 'the device has no config space' : undefined),
  async run(examination) {
    const { facts } = examination;
    const connection = await examination.session();
    let mark = connection.mark();
    const line = facts.config![PciConfig.INTERRUPT_LINE]!;
    const access = regionAccess(CONFIG, PciConfig.INTERRUPT_LINE, 1);
    const answer = await connection.ask(Command.REGION_WRITE, Buffer.concat([access, Buffer.from([line])]));
    const isEcho = isGood(answer) && answer.payload.equals(access);
    examination.check('write.echo', isEcho, isEcho ? 'it does' : inWords(answer), connection.since(mark));
    if (connection.isOver) return;
    mark = connection.mark();
    const { size } = facts.regions[CONFIG]!.info;
    const past = Buffer.concat([regionAccess(CONFIG, size - 1, 4), Buffer.alloc(4)]);
    const refused = await connection.ask(Command.REGION_WRITE, past);
    examination.check('write.past-end', isError(refused), inWords(refused), connection.since(mark));
  },
};

/** A write that no region has room for, so that it is refused: but first it has to arrive. */
function large(size: number): Probe {
  return {
    name: `write-${size >> 10}k`,
    harm: 'connection',
    changes: true,
    rules: ['write.large'],
    needless: ({ maxDataXferSize }) => (size <= maxDataXferSize ? undefined : 'max_data_xfer_size is less'),
    async run(examination) {
      const { facts } = examination;
      const connection = await examination.session();
      const mark = connection.mark();
      const payload = Buffer.concat([regionAccess(CONFIG, 1n << 40n, size), Buffer.alloc(size)]);
      const answer = await connection.ask(Command.REGION_WRITE, payload);
      const arrived = answer.kind === 'reply' && (await examination.isInStep(connection));
      const after = arrived ? 'then in step' : 'then no longer in step';
      examination.check(
        'write.large',
        arrived,
        `${size} bytes: ${inWords(answer)}; ${after}`,
        connection.since(mark),
      );
      if (!arrived) facts.writeChunkBytes ??= Math.max(LEAST_CHUNK, size >> 1);
    },
  };
}

/** As a host does: addresses for the BARs, then memory and I/O decoding. What was refused before may be answered now. */
const enable: Probe = {
  name: 'enable',
  harm: 'connection',
  changes: true,
  rules: [],
  needless: ({ config, widths }) =>
    config !== undefined && [...widths].some(([index, taken]) => index < 6 && taken.length === 0)
      ? undefined
      : 'no BAR refused to be read',
  async run(examination) {
    const { facts } = examination;
    const refused = [...facts.widths].filter(([index, taken]) => index < 6 && taken.length === 0);
    const { header } = decodeConfigSpace(configReader(facts.config!));
    const connection = await examination.session();
    const mark = connection.mark();
    const write = (offset: number, value: number): ReturnType<typeof connection.ask> => {
      const data = Buffer.alloc(4);
      data.writeUInt32LE(value >>> 0);
      return connection.ask(Command.REGION_WRITE, Buffer.concat([regionAccess(CONFIG, offset, 4), data]));
    };
    let address = FIRST_BAR;
    for (const { index, kind } of header.bars) {
      await write(0x10 + 4 * index, kind === 'io' ? 0xc000 + 0x400 * index : address);
      if (kind === 'memory64') await write(0x14 + 4 * index, 0);
      address += BAR_STEP;
    }
    await write(PciConfig.COMMAND, 0x7);
    for (const [index] of refused) {
      const taken: number[] = [];
      const errors = new Set<string>();
      for (const width of [1, 2, 4, 8]) {
        const answer = await connection.ask(Command.REGION_READ, regionAccess(index, 0, width));
        if (isGood(answer) && isReadReply(answer.payload, index, 0, width)) taken.push(width);
        else errors.add(shortly(answer));
      }
      if (taken.length > 0) facts.widths.set(index, taken);
      const value = `${taken.join(', ') || 'none'}${errors.size === 0 ? '' : `; refused: ${[...errors].join(', ')}`}`;
      const title = `Widths in which region ${index} is read once it is assigned and enabled`;
      examination.trait(`region.${index}.enabled-widths`, title, value, connection.since(mark, 8));
    }
  },
};

const reset: Probe = {
  name: 'reset',
  harm: 'connection',
  changes: true,
  rules: ['reset.reply'],
  async run(examination) {
    const flags = examination.facts.info?.flags ?? 0;
    const connection = await examination.session();
    const mark = connection.mark();
    const answer = await connection.ask(Command.DEVICE_RESET);
    if ((flags & DEVICE_FLAG_RESET) === 0) {
      examination.judge(
        'reset.reply',
        'not applicable',
        `the device does not say RESET: ${inWords(answer)}`,
        connection.since(mark),
      );
      return;
    }
    const isKept = isGood(answer) && answer.payload.length === 0 && (await examination.isInStep(connection));
    examination.check('reset.reply', isKept, inWords(answer), connection.since(mark));
  },
};

export const writeProbes: readonly Probe[] = [writeEcho, reset, enable, ...LARGE.map(large)];
