/** A configuration space in words. */
import {
  PciCommand,
  PciStatus,
  pciId,
  type Bar,
  type Capability,
  type ExtendedCapability,
  type PciHeader,
} from '../pci/index.js';
import type { ConfigReport, RegionReport } from './describe-device.js';
import type { Colors } from './global-options.js';
import { byteCount, columns, counted, hex } from './text.js';

const BAR_KINDS = { memory32: '32-bit memory', memory64: '64-bit memory', io: 'I/O' } as const;
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
    rows.push([`[${hex(capability.offset, 2)}]`, capabilityText(capability)]);
  }
  for (const capability of extendedCapabilities) {
    rows.push([`[${hex(capability.offset, 3)}]`, extendedText(capability)]);
  }
  for (const problem of problems) rows.push([colors.yellow('problem'), problem]);
  return columns(rows);
}

function headerRows(header: PciHeader): string[][] {
  const { classCode, subsystemVendorId, subsystemId, interruptPin, interruptLine } = header;
  const code = [classCode.base, classCode.sub, classCode.progIf].map((byte) =>
    byte.toString(16).padStart(2, '0'),
  );
  return [
    ['class', `0x${code.join('')}  ${classCode.name}`],
    ['revision', hex(header.revisionId, 2)],
    ['subsystem', pciId(subsystemVendorId, subsystemId)],
    ['command', register(header.command, PciCommand)],
    ['status', register(header.status, STATUS_FLAGS)],
    ['interrupt', interruptPin === 0 ? 'no pin' : `${pinName(interruptPin)}, line ${interruptLine}`],
  ];
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

function capabilityText(capability: Capability): string {
  const { name } = capability;
  switch (capability.kind) {
    case 'power-management':
      return `${name}: version ${capability.version}, in D${capability.powerState}`;
    case 'msi':
      return `${name}: ${onOff(capability.enabled)}, ${counted(capability.vectorsCapable, 'vector')}`;
    case 'msix': {
      const { tableSize, table, pba } = capability;
      const places = `table in BAR ${table.bir} at ${hex(table.offset)}, pending bits in BAR ${pba.bir} at ${hex(pba.offset)}`;
      return `${name}: ${onOff(capability.enabled)}, ${counted(tableSize, 'vector')}, ${places}`;
    }
    case 'express':
      return `${name}: ${capability.deviceTypeName}, payload ${capability.maxPayload} of ${capability.maxPayloadSupported}`;
    case 'vendor-specific':
      return `${name}: ${counted(capability.length, 'byte')}`;
    case 'other':
      return name;
  }
}

function extendedText(capability: ExtendedCapability): string {
  switch (capability.kind) {
    case 'serial-number':
      return `${capability.name}: ${capability.text}`;
    case 'vendor-specific': {
      const id = hex(capability.vendorCapabilityId, 4);
      return `${capability.name}: id ${id}, revision ${capability.revision}, ${counted(capability.length, 'byte')}`;
    }
    case 'other':
      return capability.name;
  }
}

function onOff(enabled: boolean): string {
  return enabled ? 'on' : 'off';
}
