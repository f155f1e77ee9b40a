/** What lspci ought to say of a header, by what our decoder says. */
import type { Bar, BridgeWindow, PciHeader } from '../../lib/pci/index.js';
import { differences, type DeviceText, type Expectation, type Section } from './lspci-text.js';

const COMMAND = {
  'I/O': 0x0001,
  Mem: 0x0002,
  BusMaster: 0x0004,
  SpecCycle: 0x0008,
  MemWINV: 0x0010,
  VGASnoop: 0x0020,
  ParErr: 0x0040,
  Stepping: 0x0080,
  SERR: 0x0100,
  FastB2B: 0x0200,
  DisINTx: 0x0400,
};
const STATUS = {
  INTx: 0x0008,
  Cap: 0x0010,
  '66MHz': 0x0020,
  UDF: 0x0040,
  FastB2B: 0x0080,
  ParErr: 0x0100,
};
/** `>` and `<` stand for what was signalled and received. */
const STATUS_ERRORS: readonly [RegExp, number][] = [
  [/>TAbort([+-])/, 0x0800],
  [/<TAbort([+-])/, 0x1000],
  [/<MAbort([+-])/, 0x2000],
  [/[<>]SERR([+-])/, 0x4000],
  [/<PERR([+-])/, 0x8000],
];
const BRIDGE_CONTROL = {
  Parity: 0x0001,
  SERR: 0x0002,
  NoISA: 0x0004,
  ISA: 0x0004,
  VGA: 0x0008,
  VGA16: 0x0010,
  MAbort: 0x0020,
  PriDiscTmr: 0x0100,
  SecDiscTmr: 0x0200,
  DiscTmrStat: 0x0400,
  DiscTmrSERREn: 0x0800,
};
const CARDBUS_CONTROL = { '16bInt': 0x0080, PostWrite: 0x0400 };
const DEVSEL = ['fast', 'medium', 'slow', '??'];

function flags(register: number, bits: Readonly<Record<string, number>>): Expectation[] {
  return Object.entries(bits).map(([name, bit]) => [name, (register & bit) !== 0] as const);
}

function statusFlags(register: number): Expectation[] {
  return [
    ...flags(register, STATUS),
    ...STATUS_ERRORS.map(([pattern, bit]) => [pattern, (register & bit) !== 0] as const),
    [/DEVSEL=(\S+)/, DEVSEL[(register >> 9) & 3]!],
  ];
}

/** @returns what is not as lspci says */
export function compareHeader(header: PciHeader, said: DeviceText): string[] {
  const wrong = compareTitle(header, said.title);
  for (const section of said.sections) {
    const expectations = expectationsOf(section, header);
    if (expectations === 'not ours') continue;
    if (expectations === undefined)
      wrong.push(`nothing was compared with '${section.label}: ${section.text}'`);
    else wrong.push(...differences(section, expectations));
  }
  return [...wrong, ...missingBars(header, said)];
}

/** `SATA controller [0106]: Vendor Device [8086:3a22] (rev 02) (prog-if 01 [AHCI 1.0])`. */
function compareTitle(header: PciHeader, title: string): string[] {
  const { base, sub, progIf } = header.classCode;
  const digits = (value: number, count: number) => value.toString(16).padStart(count, '0');
  const code = /\[([0-9a-f]{4})\]:/.exec(title)?.[1];
  const wrong: string[] = [];
  const same = (what: string, theirs: string | undefined, ours: string) => {
    if (theirs !== ours) wrong.push(`${what}: lspci says ${theirs}, we say ${ours}`);
  };
  same('class', code, digits(base, 2) + digits(sub, 2));
  same(
    'ids',
    /\[([0-9a-f]{4}:[0-9a-f]{4})\]/.exec(title)?.[1],
    `${digits(header.vendorId, 4)}:${digits(header.deviceId, 4)}`,
  );
  same('revision', /\(rev (\w\w)\)/.exec(title)?.[1] ?? '00', digits(header.revisionId, 2));
  same('interface', /\(prog-if (\w\w)/.exec(title)?.[1] ?? '00', digits(progIf, 2));
  return wrong;
}

function expectationsOf(section: Section, header: PciHeader): Expectation[] | 'not ours' | undefined {
  const { label } = section;
  const region = /^Region (\d)$/.exec(label)?.[1];
  if (label.startsWith('!!!') || label === 'BIST is running') return 'not ours';
  if (region !== undefined) return barExpectations(header.bars, Number(region));
  switch (label) {
    case 'Subsystem':
      return [[/.*\[([0-9a-f]{4}:[0-9a-f]{4})\]/, ids(header.subsystemVendorId, header.subsystemId)]];
    case 'Control':
      return flags(header.command, COMMAND);
    case 'Status':
      return statusFlags(header.status);
    case 'Latency':
      return [
        [/^(\d+)/, header.latencyTimer],
        [/(\d+)ns min/, header.minGrant * 250],
        [/(\d+)ns max/, header.maxLatency * 250],
        [/Cache Line Size: (\d+) bytes/, header.cacheLineSize * 4],
      ];
    case 'Interrupt':
      return [
        [/pin (\S)/, header.interruptPin === 0 ? '?' : String.fromCharCode(64 + header.interruptPin)],
        [/routed to IRQ (\d+)/, header.interruptLine],
      ];
    case 'BIST result':
      return [[/^(\w\w)$/, (header.bist & 0xf).toString(16).padStart(2, '0')]];
    case 'Expansion ROM':
      return [
        [/^([0-9a-f]+|<unassigned>)/, romText(header.expansionRomAddress)],
        [/\[disabled\]/, (header.expansionRomAddress & 1) === 0 ? '[disabled]' : 'enabled'],
        [/\[disabled by cmd\]/, null],
      ];
    default:
      return bridgeExpectations(section, header);
  }
}

function bridgeExpectations(section: Section, header: PciHeader): Expectation[] | 'not ours' | undefined {
  const { label } = section;
  const { bridge, bridgeWindows: windows } = header;
  if (bridge === null || windows === undefined) return undefined;
  switch (label) {
    case 'Bus':
      return [
        [/primary=(\w\w)/, bridge.primary.toString(16).padStart(2, '0')],
        [/secondary=(\w\w)/, bridge.secondary.toString(16).padStart(2, '0')],
        [/subordinate=(\w\w)/, bridge.subordinate.toString(16).padStart(2, '0')],
        [/sec-latency=(\d+)/, bridge.secondaryLatencyTimer],
      ];
    case 'Secondary status':
      if (section.text === 'SERR')
        return [[/SERR/, (bridge.secondaryStatus & 0x4000) === 0 ? 'none' : 'SERR']];
      return statusFlags(bridge.secondaryStatus);
    case 'BridgeCtl':
      return [
        [/>Reset([+-])/, (bridge.control & 0x40) !== 0],
        [/FastB2B([+-])/, (bridge.control & 0x80) !== 0],
        ...flags(bridge.control, BRIDGE_CONTROL),
        ...flags(bridge.control, CARDBUS_CONTROL),
      ];
    case 'I/O behind bridge':
      return windowExpectations(windows[0]!);
    case 'Memory behind bridge':
      return windowExpectations(windows[1]!);
    case 'Prefetchable memory behind bridge':
      return windowExpectations(windows[2]!);
    case 'Memory window 0':
      return windowExpectations(windows[0]!);
    case 'Memory window 1':
      return windowExpectations(windows[1]!);
    case 'I/O window 0':
      return windowExpectations(windows[2]!);
    case 'I/O window 1':
      return windowExpectations(windows[3]!);
    case '16-bit legacy interface ports':
      return 'not ours';
    default:
      return undefined;
  }
}

function windowExpectations({ kind, base, limit }: BridgeWindow): Expectation[] {
  return [
    // Their digits are as many as the window has bits.
    [/^0*([0-9a-f]+)-/, base.toString(16)],
    [/0*([0-9a-f]+)(?= |$)/, limit.toString(16)],
    [/\[size=\w+\]/, null],
    [/\[disabled\]/, null],
    [/\[\d\d-bit\]/, null],
    [/\(prefetchable\)/, kind === 'prefetchable' ? '(prefetchable)' : kind],
  ];
}

function barExpectations(bars: readonly Bar[], index: number): Expectation[] {
  const bar = bars.find((candidate) => candidate.index === index);
  // The upper half of a 64-bit address is for lspci a register that has no address.
  if (bar === undefined) return [[/.*/, null]];
  const bits = bar.kind === 'memory64' ? '64-bit' : '32-bit';
  return [
    [
      /^(?:Memory|I\/O ports) at (?:0*([0-9a-f]+)|<unassigned>)/,
      bar.address === 0n ? null : bar.address.toString(16),
    ],
    [/\((\d\d-bit)/, bits],
    [/(?:non-)?prefetchable/, bar.prefetchable ? 'prefetchable' : 'non-prefetchable'],
    [/\[disabled\]/, null],
  ];
}

/** A register that is not zero is shown. */
function missingBars({ bars }: PciHeader, said: DeviceText): string[] {
  const shown = new Set(said.sections.map(({ label }) => label));
  return bars
    .filter(({ index, address }) => address !== 0n && !shown.has(`Region ${index}`))
    .map(({ index }) => `BAR ${index} is not shown by lspci`);
}

function romText(register: number): string {
  const address = (register & ~0x7ff) >>> 0;
  return address === 0 ? '<unassigned>' : address.toString(16).padStart(8, '0');
}

function ids(vendor: number, device: number): string {
  return [vendor, device].map((id) => id.toString(16).padStart(4, '0')).join(':');
}
