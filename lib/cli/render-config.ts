/** A configuration space in words. */
import { PciCommand, PciStatus, pciId, type Bar, type BridgeWindow, type PciHeader } from '../pci/index.js';
import type { ConfigReport, RegionReport } from './describe-device.js';
import type { Colors } from './global-options.js';
import { BAR_KINDS, capabilityLines, extendedLines } from './render-capabilities.js';
import { byteCount, columns, hex } from './format-text.js';

const VIRTIO_VENDOR_ID = 0x1af4;
/** Not a flag: a field of two bits. */
const { DEVSEL_TIMING: _, ...STATUS_FLAGS } = PciStatus;

export function renderConfig(config: ConfigReport, regions: readonly RegionReport[], colors: Colors): string {
  const { header, capabilities, extendedCapabilities, problems } = config;
  const rows = headerRows(header);
  for (const bar of header.bars) {
    // A register that is not implemented looks like one without an address.
    const size = regions[bar.index]?.size ?? 0;
    if (size > 0) rows.push([`bar${bar.index}`, barText(bar, size)]);
  }
  for (const capability of capabilities) {
    rows.push(
      ...capabilityRows(
        `[${hex(capability.offset, 2)}]`,
        capabilityLines(capability, header.vendorId === VIRTIO_VENDOR_ID),
      ),
    );
  }
  for (const capability of extendedCapabilities) {
    rows.push(...capabilityRows(`[${hex(capability.offset, 3)}]`, extendedLines(capability)));
  }
  for (const problem of problems) rows.push([colors.yellow('problem'), problem]);
  return columns(rows);
}

/** The offset stands before the first line only. */
function capabilityRows(offset: string, [first = '', ...rest]: readonly string[]): string[][] {
  return [[offset, first], ...rest.map((line) => ['', `  ${line}`])];
}

function headerRows(header: PciHeader): string[][] {
  const { classCode, subsystemVendorId, subsystemId, interruptPin, interruptLine, bridge } = header;
  const code = [classCode.base, classCode.sub, classCode.progIf].map((byte) =>
    byte.toString(16).padStart(2, '0'),
  );
  const rows = [
    ['class', `0x${code.join('')}  ${classCode.name}`],
    ['revision', hex(header.revisionId, 2)],
    ['subsystem', pciId(subsystemVendorId, subsystemId)],
    ['command', register(header.command, PciCommand)],
    ['status', register(header.status, STATUS_FLAGS)],
    ['interrupt', interruptPin === 0 ? 'no pin' : `${pinName(interruptPin)}, line ${interruptLine}`],
  ];
  if (bridge === null) return rows;
  const { primary, secondary, subordinate } = bridge;
  rows.push(['buses', `on ${primary}, in front of ${secondary} to ${subordinate}`]);
  return [...rows, ...(header.bridgeWindows ?? []).map((window) => ['window', windowText(window)])];
}

const WINDOW_KINDS = { io: 'I/O', memory: 'memory', prefetchable: 'prefetchable memory' } as const;

function windowText({ kind, base, limit }: BridgeWindow): string {
  return `${WINDOW_KINDS[kind]}, ${base > limit ? 'closed' : `${hex(base)} to ${hex(limit)}`}`;
}

function register(value: number, bits: Readonly<Record<string, number>>): string {
  const names = Object.entries(bits).filter(([, bit]) => (value & bit) !== 0);
  return `${hex(value, 4)}  ${names.map(([name]) => name).join(' ') || '-'}`;
}

function pinName(pin: number): string {
  return pin <= 4 ? `INT${'ABCD'[pin - 1]}` : `pin ${pin}`;
}

function barText({ kind, prefetchable, address }: Bar, size: number): string {
  const where = address === 0n ? 'no address yet' : `at ${hex(address)}`;
  return `${BAR_KINDS[kind]}${prefetchable ? ', prefetchable' : ''}, ${byteCount(size)}, ${where}`;
}
