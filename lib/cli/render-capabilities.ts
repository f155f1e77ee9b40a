/** Capabilities of a configuration space in words: a line for each, and further ones for what people look for in it. */
import {
  decodeVirtioCapability,
  pciId,
  type Bar,
  type Capability,
  type ErrorReportingFields,
  type ExpressFields,
  type ExtendedCapability,
  type LinkState,
  type ResizableBar,
  type SrIovFields,
  type VendorSpecificFields,
} from '../pci/index.js';
import { byteCount, counted, hex, spelledOut } from './format-text.js';

export const BAR_KINDS = { memory32: '32-bit memory', memory64: '64-bit memory', io: 'I/O' } as const;

const PAGE_SHIFT = 12;

/** `isVirtio`: vendor-specific capabilities are those of virtio. */
export function capabilityLines(capability: Capability, isVirtio = false): string[] {
  const { name } = capability;
  switch (capability.kind) {
    case 'power-management':
      return [`${name}: version ${capability.version}, in D${capability.powerState}`];
    case 'msi':
      return [`${name}: ${onOff(capability.enabled)}, ${counted(capability.vectorsCapable, 'vector')}`];
    case 'msix': {
      const { tableSize, table, pba } = capability;
      const places = `table in BAR ${table.bir} at ${hex(table.offset)}, pending bits in BAR ${pba.bir} at ${hex(pba.offset)}`;
      return [`${name}: ${onOff(capability.enabled)}, ${counted(tableSize, 'vector')}, ${places}`];
    }
    case 'express':
      return [
        `${name}: ${capability.deviceTypeName}, payload ${capability.maxPayload} of ${capability.maxPayloadSupported}`,
        ...expressLines(capability),
      ];
    case 'bridge-subsystem-id':
      return [`${name}: ${pciId(capability.subsystemVendorId, capability.subsystemId)}`];
    case 'vendor-specific': {
      const virtio = isVirtio ? virtioLines(capability) : [];
      const [title = counted(capability.length, 'byte'), ...rest] = virtio;
      return [`${name}: ${title}`, ...rest];
    }
    case 'other':
      return [name];
  }
}

/** As lspci has it: which structure it is, and where. Nothing for what is none. */
function virtioLines(capability: VendorSpecificFields): string[] {
  const virtio = decodeVirtioCapability(capability);
  if (virtio === undefined) return [];
  const { typeName, bar, offset, length, notifyMultiplier } = virtio;
  const word = (value: number) => value.toString(16).padStart(8, '0');
  const multiplier = notifyMultiplier === undefined ? '' : ` multiplier=${word(notifyMultiplier)}`;
  return [`VirtIO: ${typeName}`, `BAR=${bar} offset=${word(offset)} size=${word(length)}${multiplier}`];
}

export function extendedLines(capability: ExtendedCapability): string[] {
  const { name } = capability;
  switch (capability.kind) {
    case 'serial-number':
      return [`${name}: ${capability.text}`];
    case 'vendor-specific': {
      const id = hex(capability.vendorCapabilityId, 4);
      return [`${name}: id ${id}, revision ${capability.revision}, ${counted(capability.length, 'byte')}`];
    }
    case 'designated-vendor-specific': {
      const { vendorId, vendorCapabilityId, revision, length } = capability;
      const ids = `vendor ${hex(vendorId, 4)}, id ${hex(vendorCapabilityId, 4)}`;
      return [`${name}: ${ids}, revision ${revision}, ${counted(length, 'byte')}`];
    }
    case 'advanced-error-reporting':
      return [name, ...errorLines(capability)];
    case 'downstream-port-containment': {
      const { control, status } = capability;
      const trigger =
        ['off', 'on fatal errors', 'on fatal and non-fatal errors'][control.trigger] ?? 'reserved';
      const state = status.triggered ? `triggered by ${hex(capability.sourceId, 4)}` : 'not triggered';
      return [`${name}: ${trigger}, ${state}`];
    }
    case 'sr-iov':
      return [...virtualFunctionLines(name, capability)];
    case 'resizable-bar':
    case 'vf-resizable-bar':
      return [name, ...resizableLines(capability.bars)];
    case 'address-translation-services': {
      const unit = byteCount(2 ** (capability.smallestTranslationUnit + PAGE_SHIFT));
      const depth = capability.invalidateQueueDepth || 32;
      return [`${name}: ${onOff(capability.enabled)}, units of ${unit}, ${depth} invalidate requests`];
    }
    case 'page-request-interface': {
      const { enabled, allocation, capacity, status } = capability;
      return [`${name}: ${onOff(enabled)}, ${allocation} of ${capacity} requests${suffix(setNames(status))}`];
    }
    case 'pasid': {
      const { control, maxWidth, capabilities } = capability;
      return [`${name}: ${onOff(control.enabled)}, ${maxWidth} bits${suffix(setNames(capabilities))}`];
    }
    case 'access-control-services': {
      const { control, capabilities } = capability;
      return [`${name}: ${setNames(control) || 'off'}`, `supports ${setNames(capabilities) || 'nothing'}`];
    }
    case 'alternative-routing-id':
      return [`${name}: next function ${capability.nextFunction}`];
    case 'latency-tolerance-reporting': {
      const { maxSnoopLatencyNs, maxNoSnoopLatencyNs } = capability;
      return [
        `${name}: snoop ${nanoseconds(maxSnoopLatencyNs)}, no snoop ${nanoseconds(maxNoSnoopLatencyNs)}`,
      ];
    }
    case 'l1-pm-substates': {
      const { control, capabilities } = capability;
      return [`${name}: on ${substates(control)}; supported ${substates(capabilities)}`];
    }
    case 'precision-time-measurement': {
      const { control, capabilities } = capability;
      return [`${name}: ${onOff(control.enabled)}${suffix(setNames(capabilities))}`];
    }
    case 'data-object-exchange': {
      const { interruptEnabled, status } = capability;
      return [`${name}: interrupts ${onOff(interruptEnabled)}${suffix(setNames(status))}`];
    }
    case 'other':
      return [name];
  }
}

function expressLines({ linkStatus, linkCapabilities, device, device2, slot }: ExpressFields): string[] {
  const lines: string[] = [];
  if (linkStatus !== null && linkCapabilities !== null) {
    lines.push(`link ${linkText(linkStatus)}, at most ${linkText(linkCapabilities)}`);
  }
  if (slot !== null)
    lines.push(`slot ${slot.physicalSlotNumber}: ${slot.status.presence ? 'occupied' : 'empty'}`);
  lines.push(`device control: ${setNames(device.control) || '-'}`);
  const status = setNames(device.status);
  if (status !== '') lines.push(`device status: ${status}`);
  if (device2 !== null) {
    const { completionTimeoutUs: timeout } = device2.control;
    const range = timeout === null ? 'reserved' : `${duration(timeout.min)} to ${duration(timeout.max)}`;
    lines.push(`device control 2: completion timeout ${range}${suffix(setNames(device2.control))}`);
  }
  return lines;
}

/** `8 GT/s x4`. */
function linkText({ speedCode, speed, width }: LinkState): string {
  if (speedCode === 0) return 'down';
  return `${speed === null ? `speed ${speedCode}` : `${speed} GT/s`} x${width}`;
}

function errorLines({ uncorrectable, correctable, control, root }: ErrorReportingFields): string[] {
  const lines = [
    `uncorrectable errors: ${setNames(uncorrectable.status) || 'none'}`,
    `masked: ${setNames(uncorrectable.mask) || 'none'}; fatal: ${setNames(uncorrectable.severity) || 'none'}`,
    `correctable errors: ${setNames(correctable.status) || 'none'}; masked: ${setNames(correctable.mask) || 'none'}`,
    `first error: bit ${control.firstErrorPointer}`,
  ];
  if (root !== null) lines.push(`root: ${setNames(root.status) || 'none received'}`);
  return lines;
}

function virtualFunctionLines(name: string, fields: SrIovFields): string[] {
  const { control, numVfs, initialVfs, totalVfs, vfDeviceId, firstVfOffset, vfStride, vfBars } = fields;
  const counts = `${numVfs} VFs, ${initialVfs} at first, at most ${totalVfs}`;
  const place = `device ${hex(vfDeviceId, 4)}, the first at +${firstVfOffset}, ${vfStride} apart`;
  const pages = `pages of ${pageSizes(fields.systemPageSize)}, supported ${pageSizes(fields.supportedPageSizes)}`;
  return [
    `${name}: ${onOff(control.vfEnable)}, ${counts}`,
    place,
    pages,
    ...vfBars.filter(({ address }) => address !== 0n).map(vfBarText),
  ];
}

function vfBarText({ index, kind, prefetchable, address }: Bar): string {
  return `VF BAR ${index}: ${BAR_KINDS[kind]}${prefetchable ? ', prefetchable' : ''}, at ${hex(address)}`;
}

/** Bit n stands for 2^(n + 12) bytes. */
function pageSizes(vector: number): string {
  const exponents = Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => ((vector >>> bit) & 1) !== 0);
  return exponents.map((bit) => byteCount(2 ** (bit + PAGE_SHIFT))).join(', ') || '-';
}

function resizableLines(bars: readonly ResizableBar[]): string[] {
  return bars.map(({ index, size, supportedSizes }) => {
    const supported = supportedSizes.map((bytes) => byteCount(Number(bytes))).join(', ') || '-';
    return `BAR ${index}: ${byteCount(Number(size))}, can have ${supported}`;
  });
}

function substates(flags: {
  pciPmL12: boolean;
  pciPmL11: boolean;
  aspmL12: boolean;
  aspmL11: boolean;
}): string {
  const names: string[] = [];
  if (flags.pciPmL12) names.push('PCI-PM L1.2');
  if (flags.pciPmL11) names.push('PCI-PM L1.1');
  if (flags.aspmL12) names.push('ASPM L1.2');
  if (flags.aspmL11) names.push('ASPM L1.1');
  return names.join(', ') || 'none';
}

/** The names of the bits that are set, `read only, powered off`. */
function setNames(flags: object): string {
  const set = Object.entries(flags).filter(([, value]) => value === true);
  return set.map(([name]) => spelledOut(name)).join(', ');
}

function suffix(text: string): string {
  return text === '' ? '' : `, ${text}`;
}

function onOff(enabled: boolean): string {
  return enabled ? 'on' : 'off';
}

function nanoseconds(value: number | null): string {
  return value === null ? 'reserved' : `${value} ns`;
}

function duration(microseconds: number): string {
  if (microseconds >= 1e6) return `${microseconds / 1e6} s`;
  return microseconds >= 1e3 ? `${microseconds / 1e3} ms` : `${microseconds} µs`;
}
