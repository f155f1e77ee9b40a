/** The first conversation: what a client says that opens a device. */
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
import { decodeRegionInfo } from '../../protocol/region-info.js';
import { decodeVersion } from '../../protocol/version.js';
import { GET_INFO, regionAccess, words } from '../raw-messages.js';
import type { ServerFacts } from '../server-facts.js';
import type { Examination, Probe } from '../probe.js';
import { OUR_CAPABILITIES } from '../probe.js';
import { inWords, isError, isGood, type Reply, type RawConnection } from '../raw-connection.js';

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
  async run(examination) {
    const connection = await examination.open();
    const twin = connection.passesFds ? ',"twin_socket":{"supported":true}' : '';
    const reply = await examination.greet(connection, `{"capabilities":{${OUR_CAPABILITIES}${twin}}}\0`);
    judgeVersion(examination, connection, reply);
    if (!(await askInfo(examination, connection))) return;
    await askRegions(examination, connection);
    await askIrqs(examination, connection);
    await readConfig(examination, connection);
  },
};

function judgeVersion(examination: Examination, connection: RawConnection, reply: Reply): void {
  const { facts } = examination;
  const { payload, fds } = reply;
  const evidence = connection.since(0);
  const major = payload.readUInt16LE(0);
  const minor = payload.readUInt16LE(2);
  facts.version = { major, minor };
  examination.check('version.major', major === 0, `0 was proposed, ${major} answered`, evidence);
  examination.trait(
    'version.answered',
    'Version answered to a proposal of 0.2',
    `${major}.${minor}`,
    evidence,
  );
  const data = payload.subarray(4);
  const endsInNul = data.length === 0 || data[data.length - 1] === 0;
  examination.check(
    'version.nul',
    endsInNul,
    endsInNul
      ? 'it does'
      : `the ${data.length} bytes of version data end in 0x${data[data.length - 1]!.toString(16)}`,
    evidence,
  );
  facts.capabilitiesText = data.toString('utf8').replace(/\0+$/, '');
  facts.capabilities = capabilitiesOf(facts.capabilitiesText);
  judgeCapabilities(examination, payload, fds, connection.passesFds, evidence);
}

function capabilitiesOf(text: string): Record<string, unknown> {
  try {
    const { capabilities } = JSON.parse(text) as { capabilities?: unknown };
    return typeof capabilities === 'object' && capabilities !== null ? { ...capabilities } : {};
  } catch {
    return {};
  }
}

function judgeCapabilities(
  examination: Examination,
  payload: Buffer,
  fds: number,
  passesFds: boolean,
  evidence: ReturnType<RawConnection['since']>,
): void {
  const { facts } = examination;
  try {
    const { capabilities } = decodeVersion(payload, 0, payload.length);
    facts.maxDataXferSize = Math.min(capabilities.maxDataXferSize, 1 << 20);
    examination.judge('version.json', 'kept', 'it is', evidence);
    const { supported, fdIndex } = capabilities.twinSocket;
    const value = supported ? `fd ${fdIndex ?? '(none named)'} of ${fds}` : 'not offered';
    examination.trait('version.twin-socket', 'Twin socket, when asked for', value, evidence);
    if (!passesFds || !supported) {
      examination.judge('version.twin-socket', 'not applicable', `the server answered: ${value}`, evidence);
    } else {
      const isSound = fdIndex !== undefined && fdIndex < fds;
      examination.check('version.twin-socket', isSound, `the server answered ${value}`, evidence);
    }
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    examination.judge('version.json', 'broken', error.message, evidence);
    examination.judge('version.twin-socket', 'unclear', 'the version data cannot be read', evidence);
  }
  const beyond = Object.keys(facts.capabilities).filter((name) => !PROPOSED.includes(name));
  const detail =
    beyond.length === 0 ? 'they are' : `not proposed and answered: ${beyond.join(', ').slice(0, 200)}`;
  examination.check('version.subset', beyond.length === 0, detail, evidence);
}

async function askInfo(examination: Examination, connection: RawConnection): Promise<boolean> {
  const mark = connection.mark();
  const answer = await connection.ask(Command.DEVICE_GET_INFO, GET_INFO);
  const evidence = connection.since(mark);
  if (!isGood(answer)) {
    examination.judge('info.reply', 'broken', inWords(answer), evidence);
    return false;
  }
  const info = decoded(() => decodeDeviceInfo(answer.payload, 0, answer.payload.length));
  if (info instanceof ProtocolError) {
    examination.judge('info.reply', 'broken', info.message, evidence);
    return false;
  }
  examination.facts.info = info;
  const { flags, numRegions, numIrqs } = info;
  examination.judge('info.reply', 'kept', `${answer.payload.length} bytes`, evidence);
  const counts = `${numRegions} regions, ${numIrqs} interrupt types`;
  examination.trait('info.counts', 'Regions and interrupt types', counts, evidence);
  if ((flags & DEVICE_FLAG_PCI) === 0)
    examination.judge('info.pci-regions', 'not applicable', 'the device does not say PCI', evidence);
  else examination.check('info.pci-regions', numRegions >= PCI_REGIONS, counts, evidence);
  return true;
}

async function askRegions(examination: Examination, connection: RawConnection): Promise<void> {
  const { facts } = examination;
  const problems: string[] = [];
  const withoutFd: number[] = [];
  let shown = connection.since(connection.mark());
  let shownFd = shown;
  let mappable = 0;
  for (let index = 0; index < Math.min(facts.info!.numRegions, MOST_REGIONS); index++) {
    const mark = connection.mark();
    const answer = await connection.ask(Command.DEVICE_GET_REGION_INFO, words(ARGSZ, 0, index, 0, 0n, 0n));
    const info = isGood(answer)
      ? decoded(() => decodeRegionInfo(answer.payload, 0, answer.payload.length, index))
      : new ProtocolError(`region ${index}: ${inWords(answer)}`);
    if (info instanceof ProtocolError) {
      // As the kernel's VFIO does, some servers refuse to describe what they do not have.
      if (isError(answer)) continue;
      if (problems.length === 0) shown = connection.since(mark);
      problems.push(info.message);
      if (connection.ended !== undefined) break;
      continue;
    }
    if (shown.length === 0) shown = connection.since(mark);
    const fds = (answer as Reply).fds;
    facts.regions[index] = { info, fds };
    if ((info.flags & REGION_FLAG_MMAP) === 0) continue;
    mappable++;
    shownFd = connection.since(mark);
    if (fds === 0) withoutFd.push(index);
    const areas = info.capabilities.sparseMmap?.areas.length ?? 0;
    const value = `${fds} fd for ${areas === 0 ? 'the whole region' : `${areas} sparse areas`}`;
    examination.trait(`region.${index}.mmap`, `File descriptors of region ${index}`, value, shownFd);
  }
  const isSound = problems.length === 0;
  examination.check('region.info', isSound, isSound ? 'all are' : problems[0]!, shown);
  if (mappable === 0 || !connection.passesFds)
    examination.judge('region.mmap-fd', 'not applicable', 'no region says MMAP', shown);
  else {
    const detail = withoutFd.length === 0 ? 'all have one' : `none came with region ${withoutFd.join(', ')}`;
    examination.check('region.mmap-fd', withoutFd.length === 0, detail, shownFd);
  }
}

async function askIrqs(examination: Examination, connection: RawConnection): Promise<void> {
  const { facts } = examination;
  let problem: string | undefined;
  let shown = connection.since(connection.mark());
  for (
    let index = 0;
    index < Math.min(facts.info!.numIrqs, MOST_IRQS) && connection.ended === undefined;
    index++
  ) {
    const mark = connection.mark();
    const answer = await connection.ask(Command.DEVICE_GET_IRQ_INFO, words(16, 0, index, 0));
    const info = isGood(answer)
      ? decoded(() => decodeIrqInfo(answer.payload, 0, answer.payload.length, index))
      : new ProtocolError(`index ${index}: ${inWords(answer)}`);
    if (!(info instanceof ProtocolError)) facts.irqs[index] = info;
    else if (!isError(answer) && problem === undefined) {
      problem = info.message;
      shown = connection.since(mark);
    }
    if (shown.length === 0) shown = connection.since(mark);
  }
  examination.check('irq.info', problem === undefined, problem ?? 'all are', shown);
}

/** In dwords from servers that may know nothing else, in one piece from the others, and in dwords where that is refused. */
async function readConfig(examination: Examination, connection: RawConnection): Promise<void> {
  const { facts } = examination;
  const config = facts.regions[PciRegion.CONFIG]?.info;
  if (config === undefined || config.size < HEADER_BYTES || (config.flags & REGION_FLAG_READ) === 0) {
    for (const id of ['read.echo', 'config.sound', 'irq.counts'] as const)
      examination.judge(id, 'not applicable', 'the device has no config space to read');
    return;
  }
  const size = Math.min(CONFIG_BYTES, config.size);
  const mark = connection.mark();
  const first = await connection.ask(Command.REGION_READ, regionAccess(PciRegion.CONFIG, 0, 4));
  const evidence = connection.since(mark);
  const echoes = isGood(first) && isReadReply(first.payload, PciRegion.CONFIG, 0, 4);
  examination.check('read.echo', echoes, echoes ? 'it does' : inWords(first), evidence);
  if (!echoes) return;
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 4) {
    const answer =
      at === 0 ? first : await connection.ask(Command.REGION_READ, regionAccess(PciRegion.CONFIG, at, 4));
    if (!isGood(answer) || !isReadReply(answer.payload, PciRegion.CONFIG, at, 4)) break;
    answer.payload.copy(bytes, at, 16, 20);
  }
  facts.config = bytes;
  const { problems } = decodeConfigSpace(configReader(bytes));
  examination.check(
    'config.sound',
    problems.length === 0,
    problems.join('; ').slice(0, 300) || 'it is',
    evidence,
  );
  judgeIrqCounts(examination, facts);
}

/** Whether `payload` answers a read of `count` bytes. */
export function isReadReply(payload: Buffer, region: number, offset: number, count: number): boolean {
  return (
    payload.length === 16 + count &&
    payload.readBigUInt64LE(0) === BigInt(offset) &&
    payload.readUInt32LE(8) === region &&
    payload.readUInt32LE(12) === count
  );
}

function judgeIrqCounts(examination: Examination, facts: ServerFacts): void {
  const { capabilities } = decodeConfigSpace(configReader(facts.config!));
  const msi = findCapability(capabilities, 'msi')?.vectorsCapable ?? 0;
  const msix = findCapability(capabilities, 'msix')?.tableSize ?? 0;
  const said = [facts.irqs[PciIrq.MSI]?.count ?? 0, facts.irqs[PciIrq.MSIX]?.count ?? 0];
  const isKept = said[0] === msi && said[1] === msix;
  const detail = `MSI and MSI-X: ${said.join(' and ')} by GET_IRQ_INFO, ${msi} and ${msix} by config space`;
  examination.check('irq.counts', isKept, detail);
}

function decoded<T>(decode: () => T): T | ProtocolError {
  try {
    return decode();
  } catch (error) {
    if (error instanceof ProtocolError) return error;
    throw error;
  }
}
