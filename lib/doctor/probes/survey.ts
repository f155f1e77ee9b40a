/** The first conversation: what a client sends that opens a device. */
import { ProtocolError } from '../../errors.js';
import { configReader, decodeConfigSpace, findCapability } from '../../pci/index.js';
import {
  Command,
  DEVICE_FLAG_PCI,
  PciIrq,
  PciRegion,
  REGION_FLAG_MMAP,
  REGION_FLAG_READ,
} from '../../protocol/constants.js';
import { decodeDeviceInfo } from '../../protocol/device-info.js';
import { decodeIrqInfo } from '../../protocol/irq-info.js';
import { decodeRegionInfo, type RegionInfo } from '../../protocol/region-info.js';
import { decodeVersion } from '../../protocol/version.js';
import { GET_INFO, words } from '../raw-messages.js';
import type { Evidence } from '../report.js';
import type { ServerFacts } from '../server-facts.js';
import { OUR_CAPABILITIES, type Probe, type ProbeContext } from '../probe.js';
import {
  describeAnswer,
  isError,
  isGood,
  type Answer,
  type GoodReply,
  type RawConnection,
  type Reply,
} from '../raw-connection.js';
import { readRegion } from './region-read.js';

const PCI_REGIONS = 9;
const ARGSZ = 4096;
/** What a device may claim and is looked at. */
const MOST_REGIONS = 32;
const MOST_IRQS = 16;
const HEADER_BYTES = 64;
const CONFIG_BYTES = 256;
const PROPOSED = ['max_msg_fds', 'max_data_xfer_size', 'twin_socket'];

export const survey: Probe = {
  name: 'survey',
  harm: 'none',
  rules: [
    'version.major',
    'version.subset',
    'version.json',
    'version.nul',
    'version.twin-socket',
    'info.reply',
    'info.pci-regions',
    'region.info',
    'region.mmap-fd',
    'irq.info',
    'irq.counts',
    'config.sound',
    'read.echo',
  ],
  beforeVersion: true,
  async run(context, connection) {
    const twin = connection.passesFds ? ',"twin_socket":{"supported":true}' : '';
    const data = `{"capabilities":{${OUR_CAPABILITIES}${twin}}}\0`;
    judgeVersion(context, connection, await context.negotiate(connection, data));
    connection.mark();
    if (!(await askInfo(context, connection))) return;
    await askRegions(context, connection);
    await askIrqs(context, connection);
    connection.mark();
    await readConfig(context, connection);
  },
};

function judgeVersion(context: ProbeContext, connection: RawConnection, { payload, fds }: Reply): void {
  const { facts } = context;
  const major = payload.readUInt16LE(0);
  const minor = payload.readUInt16LE(2);
  facts.version = { major, minor };
  context.check('version.major', major === 0, `0 was proposed, ${major} answered`);
  context.trait('version.answered', 'Version answered to a proposal of 0.2', `${major}.${minor}`);
  const data = payload.subarray(4);
  const last = data.at(-1) ?? 0;
  const seen = `the ${data.length} bytes of version data end in 0x${last.toString(16)}`;
  context.check('version.nul', last === 0, last === 0 ? 'it does' : seen);
  facts.capabilitiesText = data.toString('utf8').replace(/\0+$/, '');
  facts.capabilities = capabilitiesOf(facts.capabilitiesText);
  judgeCapabilities(context, payload, fds, connection.passesFds);
}

function capabilitiesOf(text: string): Record<string, unknown> {
  try {
    const { capabilities } = JSON.parse(text) as { capabilities?: unknown };
    return typeof capabilities === 'object' && capabilities !== null ? { ...capabilities } : {};
  } catch {
    return {};
  }
}

function judgeCapabilities(context: ProbeContext, payload: Buffer, fds: number, passesFds: boolean): void {
  const { facts } = context;
  try {
    const { capabilities } = decodeVersion(payload, 0, payload.length);
    facts.maxDataXferSize = Math.min(capabilities.maxDataXferSize, 1 << 20);
    context.judge('version.json', 'kept', 'it is');
    const { supported, fdIndex } = capabilities.twinSocket;
    const value = supported ? `fd ${fdIndex ?? '(none named)'} of ${fds}` : 'not offered';
    context.trait('version.twin-socket', 'Twin socket, when asked for', value);
    if (!passesFds || !supported) {
      context.judge('version.twin-socket', 'not applicable', `the server answered: ${value}`);
    } else {
      const isValid = fdIndex !== undefined && fdIndex < fds;
      context.check('version.twin-socket', isValid, `the server answered ${value}`);
    }
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    context.judge('version.json', 'broken', error.message);
    context.judge('version.twin-socket', 'unclear', 'the version data is malformed');
  }
  const beyond = Object.keys(facts.capabilities).filter((name) => !PROPOSED.includes(name));
  const detail =
    beyond.length === 0 ? 'they are' : `not proposed and answered: ${beyond.join(', ').slice(0, 200)}`;
  context.check('version.subset', beyond.length === 0, detail);
}

async function askInfo(context: ProbeContext, connection: RawConnection): Promise<boolean> {
  const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO);
  const decoded = decodeReply(answer, '', (payload) => decodeDeviceInfo(payload, 0, payload.length));
  if (decoded instanceof ProtocolError) {
    context.judge('info.reply', 'broken', decoded.message);
    return false;
  }
  const { info, reply } = decoded;
  context.facts.info = info;
  context.judge('info.reply', 'kept', `${reply.payload.length} bytes`);
  const counts = `${info.numRegions} regions, ${info.numIrqs} interrupt types`;
  context.trait('info.counts', 'Regions and interrupt types', counts);
  if ((info.flags & DEVICE_FLAG_PCI) === 0)
    context.judge('info.pci-regions', 'not applicable', 'the device does not have the PCI flag');
  else context.check('info.pci-regions', info.numRegions >= PCI_REGIONS, counts);
  return true;
}

async function askRegions(context: ProbeContext, connection: RawConnection): Promise<void> {
  const { facts } = context;
  const problems = new Problems();
  const mappable: { info: RegionInfo; fds: number; evidence: Evidence[] }[] = [];
  for (let index = 0; index < Math.min(facts.info?.numRegions ?? 0, MOST_REGIONS); index++) {
    connection.mark();
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, words(ARGSZ, 0, index, 0, 0n, 0n));
    const decoded = decodeReply(answer, `region ${index}: `, (payload) =>
      decodeRegionInfo(payload, 0, payload.length, index),
    );
    // As the kernel's VFIO does, some servers refuse to describe what they do not have.
    if (isError(answer)) continue;
    problems.note(decoded, connection);
    if (decoded instanceof ProtocolError) {
      if (connection.ended !== undefined) break;
      continue;
    }
    const { info, reply } = decoded;
    facts.regions[index] = { info, fds: reply.fds };
    if ((info.flags & REGION_FLAG_MMAP) !== 0)
      mappable.push({ info, fds: reply.fds, evidence: connection.evidence() });
  }
  context.check('region.info', problems.first === undefined, problems.first ?? 'all are', problems.evidence);
  for (const { info, fds, evidence } of mappable) {
    const areas = info.capabilities.sparseMmap?.areas.length ?? 0;
    const value = `${fds} fd for ${areas === 0 ? 'the whole region' : `${areas} sparse areas`}`;
    context.trait(`region.${info.index}.mmap`, `File descriptors of region ${info.index}`, value, evidence);
  }
  if (mappable.length === 0 || !connection.passesFds) {
    const detail = 'no region has the MMAP flag';
    context.judge('region.mmap-fd', 'not applicable', detail, problems.evidence);
    return;
  }
  const withoutFd = mappable.filter(({ fds }) => fds === 0);
  const indexes = withoutFd.map(({ info }) => info.index).join(', ');
  const detail = withoutFd.length === 0 ? 'all have one' : `none came with region ${indexes}`;
  const evidence = (withoutFd[0] ?? mappable[0])?.evidence;
  context.check('region.mmap-fd', withoutFd.length === 0, detail, evidence);
}

async function askIrqs(context: ProbeContext, connection: RawConnection): Promise<void> {
  const { facts } = context;
  const problems = new Problems();
  const count = Math.min(facts.info?.numIrqs ?? 0, MOST_IRQS);
  for (let index = 0; index < count && connection.ended === undefined; index++) {
    connection.mark();
    const answer = await connection.ask(Command.DEVICE_GET_IRQ_INFO, words(16, 0, index, 0));
    if (isError(answer)) continue;
    const decoded = decodeReply(answer, `index ${index}: `, (payload) =>
      decodeIrqInfo(payload, 0, payload.length, index),
    );
    problems.note(decoded, connection);
    if (!(decoded instanceof ProtocolError)) facts.irqs[index] = decoded.info;
  }
  context.check('irq.info', problems.first === undefined, problems.first ?? 'all are', problems.evidence);
}

/** In dwords: some servers know nothing else. */
async function readConfig(context: ProbeContext, connection: RawConnection): Promise<void> {
  const { facts } = context;
  const config = facts.regions[PciRegion.CONFIG]?.info;
  if (config === undefined || config.size < HEADER_BYTES || (config.flags & REGION_FLAG_READ) === 0) {
    for (const id of ['read.echo', 'config.sound', 'irq.counts'] as const)
      context.judge(id, 'not applicable', 'the device has no config space to read');
    return;
  }
  const first = await readRegion(connection, PciRegion.CONFIG, 0, 4);
  const evidence = connection.evidence();
  if (first.data === undefined) {
    context.judge('read.echo', 'broken', describeAnswer(first.answer));
    return;
  }
  context.judge('read.echo', 'kept', 'it does');
  const bytes = Buffer.alloc(Math.min(CONFIG_BYTES, config.size));
  first.data.copy(bytes);
  for (let at = 4; at < bytes.length; at += 4) {
    const { data } = await readRegion(connection, PciRegion.CONFIG, at, 4);
    if (data === undefined) break;
    data.copy(bytes, at);
  }
  facts.config = bytes;
  const { problems } = decodeConfigSpace(configReader(bytes));
  const detail = problems.join('; ').slice(0, 300) || 'it is';
  context.check('config.sound', problems.length === 0, detail, evidence);
  judgeIrqCounts(context, facts, bytes);
}

function judgeIrqCounts(context: ProbeContext, facts: ServerFacts, config: Buffer): void {
  const { capabilities } = decodeConfigSpace(configReader(config));
  const msi = findCapability(capabilities, 'msi')?.vectorsCapable ?? 0;
  const msix = findCapability(capabilities, 'msix')?.tableSize ?? 0;
  const counts = [facts.irqs[PciIrq.MSI]?.count ?? 0, facts.irqs[PciIrq.MSIX]?.count ?? 0];
  const isKept = counts[0] === msi && counts[1] === msix;
  const detail = `MSI and MSI-X: ${counts.join(' and ')} by GET_IRQ_INFO, ${msi} and ${msix} by config space`;
  context.check('irq.counts', isKept, detail);
}

/** The first thing that is wrong in a list of replies. */
class Problems {
  first: string | undefined;
  /** Of the first problem; where there is none, of the first reply. */
  evidence: Evidence[] = [];

  note(decoded: unknown, connection: RawConnection): void {
    const isProblem = decoded instanceof ProtocolError && this.first === undefined;
    if (isProblem) this.first = decoded.message;
    if (isProblem || this.evidence.length === 0) this.evidence = connection.evidence();
  }
}

/** What a good reply says; a ProtocolError where it is malformed, or there is none. */
function decodeReply<T>(
  answer: Answer,
  prefix: string,
  decode: (payload: Buffer) => T,
): { info: T; reply: GoodReply } | ProtocolError {
  if (!isGood(answer)) return new ProtocolError(`${prefix}${describeAnswer(answer)}`);
  try {
    return { info: decode(answer.payload), reply: answer };
  } catch (error) {
    if (error instanceof ProtocolError) return error;
    throw error;
  }
}
