/** What changes the device: only where that was allowed. */
import { configReader, decodeConfigSpace, PciConfig } from '../../pci/index.js';
import { Command, DEVICE_FLAG_RESET, PciRegion } from '../../protocol/constants.js';
import { regionAccess } from '../raw-messages.js';
import type { Probe } from '../probe.js';
import { describeAnswer, isError, isGood, type Answer, type RawConnection } from '../raw-connection.js';
import { tryWidths } from './region-read.js';

const CONFIG = PciRegion.CONFIG;
/** Bytes of data in one write. The library sends up to 32 KiB by default. */
const LARGE = [32 << 10, 64 << 10, 256 << 10, 1 << 20] as const;
const LEAST_CHUNK = 4096;
const BAR_STEP = 0x1000_0000;
const FIRST_BAR = 0x8000_0000;
const WIDTHS = [1, 2, 4, 8] as const;

function writeConfig(connection: RawConnection, offset: number, data: Buffer): Promise<Answer> {
  const payload = Buffer.concat([regionAccess(CONFIG, offset, data.length), data]);
  return connection.ask(Command.REGION_WRITE, payload);
}

/** Writes the interrupt line register, which has no effect on the device: software may keep any value there. */
const writeEcho: Probe = {
  name: 'write-echo',
  harm: 'none',
  changes: true,
  rules: ['write.echo', 'write.past-end'],
  skipReason: ({ config }) => (config === undefined ? 'the device has no config space' : undefined),
  async run(context, connection) {
    const { config, regions } = context.facts;
    const space = regions[CONFIG];
    if (config === undefined || space === undefined) return;
    const line = config.subarray(PciConfig.INTERRUPT_LINE, PciConfig.INTERRUPT_LINE + 1);
    const answer = await writeConfig(connection, PciConfig.INTERRUPT_LINE, line);
    const isEcho = isGood(answer) && answer.payload.equals(regionAccess(CONFIG, PciConfig.INTERRUPT_LINE, 1));
    context.check('write.echo', isEcho, isEcho ? 'it does' : describeAnswer(answer));
    if (connection.isOver) return;
    connection.mark();
    const past = await writeConfig(connection, space.info.size - 1, Buffer.alloc(4));
    context.check('write.past-end', isError(past), describeAnswer(past));
  },
};

/** A write past any region, so that it is refused: but first it has to arrive. */
function large(size: number): Probe {
  return {
    name: `write-${size >> 10}k`,
    harm: 'connection',
    changes: true,
    rules: ['write.large'],
    skipReason: ({ maxDataXferSize }) => (size <= maxDataXferSize ? undefined : 'max_data_xfer_size is less'),
    async run(context, connection) {
      const payload = Buffer.concat([regionAccess(CONFIG, 1n << 40n, size), Buffer.alloc(size)]);
      const answer = await connection.ask(Command.REGION_WRITE, payload);
      const { isInSync, detail } = await context.followUp(connection, answer);
      const arrived = answer.kind === 'reply' && isInSync;
      context.check('write.large', arrived, `${size} bytes: ${detail}`);
      if (!arrived) context.facts.writeChunkBytes ??= Math.max(LEAST_CHUNK, size >> 1);
    },
  };
}

/** As a host does: addresses for the BARs, then memory and I/O decoding. What was refused before may be answered now. */
const enable: Probe = {
  name: 'enable',
  harm: 'connection',
  changes: true,
  rules: [],
  skipReason: ({ config, widths }) =>
    config !== undefined && [...widths].some(([index, taken]) => index < 6 && taken.length === 0)
      ? undefined
      : 'no BAR refused to be read',
  async run(context, connection) {
    const { config, widths } = context.facts;
    const refused = [...widths].filter(([index, taken]) => index < 6 && taken.length === 0);
    if (config === undefined) return;
    const { header } = decodeConfigSpace(configReader(config));
    const write = (offset: number, value: number): Promise<Answer> => {
      const data = Buffer.alloc(4);
      data.writeUInt32LE(value >>> 0);
      return writeConfig(connection, offset, data);
    };
    let address = FIRST_BAR;
    for (const { index, kind } of header.bars) {
      await write(PciConfig.BAR0 + 4 * index, kind === 'io' ? 0xc000 + 0x400 * index : address);
      if (kind === 'memory64') await write(PciConfig.BAR0 + 4 * (index + 1), 0);
      address += BAR_STEP;
    }
    await write(PciConfig.COMMAND, 0x7);
    for (const [index] of refused) {
      connection.mark();
      const { taken, text } = await tryWidths(connection, index, WIDTHS);
      if (taken.length > 0) widths.set(index, taken);
      const title = `Widths in which region ${index} is read once it is assigned and enabled`;
      context.trait(`region.${index}.enabled-widths`, title, text, connection.evidence(8));
    }
  },
};

const reset: Probe = {
  name: 'reset',
  harm: 'connection',
  changes: true,
  rules: ['reset.reply'],
  async run(context, connection) {
    const flags = context.facts.info?.flags ?? 0;
    const answer = await connection.ask(Command.DEVICE_RESET);
    if ((flags & DEVICE_FLAG_RESET) === 0) {
      const detail = `the device does not have the RESET flag: ${describeAnswer(answer)}`;
      context.judge('reset.reply', 'not applicable', detail);
      return;
    }
    const isKept = isGood(answer) && answer.payload.length === 0 && (await context.isInSync(connection));
    context.check('reset.reply', isKept, describeAnswer(answer));
  },
};

export const writeProbes: readonly Probe[] = [writeEcho, reset, enable, ...LARGE.map(large)];
