/** The list of PCI Express extended capabilities (PCI Express Base 7.6), from 0x100 on. */
import { fits, listOffsets, type CapabilityPlace } from './capability-list.js';
import type { CapabilityHeader, OtherFields } from './capabilities.js';
import { copyBytes, type ConfigReader } from './config-reader.js';
import { hex, PCI_CONFIG_SIZE, PCI_EXTENDED_CONFIG_SIZE } from './registers.js';

const NAMES: Readonly<Record<number, string>> = {
  0x00: 'Null',
  0x01: 'Advanced Error Reporting',
  0x02: 'Virtual Channel',
  0x03: 'Device Serial Number',
  0x04: 'Power Budgeting',
  0x05: 'Root Complex Link Declaration',
  0x06: 'Root Complex Internal Link Control',
  0x07: 'Root Complex Event Collector Endpoint Association',
  0x08: 'Multi-Function Virtual Channel',
  0x09: 'Virtual Channel (with MFVC)',
  0x0a: 'RCRB Header',
  0x0b: 'Vendor Specific Extended',
  0x0c: 'Configuration Access Correlation',
  0x0d: 'Access Control Services',
  0x0e: 'Alternative Routing-ID Interpretation',
  0x0f: 'Address Translation Services',
  0x10: 'Single Root I/O Virtualization',
  0x11: 'Multi-Root I/O Virtualization',
  0x12: 'Multicast',
  0x13: 'Page Request Interface',
  0x15: 'Resizable BAR',
  0x16: 'Dynamic Power Allocation',
  0x17: 'TPH Requester',
  0x18: 'Latency Tolerance Reporting',
  0x19: 'Secondary PCI Express',
  0x1a: 'Protocol Multiplexing',
  0x1b: 'Process Address Space ID',
  0x1c: 'LN Requester',
  0x1d: 'Downstream Port Containment',
  0x1e: 'L1 PM Substates',
  0x1f: 'Precision Time Measurement',
  0x20: 'PCI Express over M-PHY',
  0x21: 'FRS Queueing',
  0x22: 'Readiness Time Reporting',
  0x23: 'Designated Vendor-Specific Extended',
  0x24: 'VF Resizable BAR',
  0x25: 'Data Link Feature',
  0x26: 'Physical Layer 16.0 GT/s',
  0x27: 'Lane Margining at the Receiver',
  0x28: 'Hierarchy ID',
  0x29: 'Native PCIe Enclosure Management',
  0x2a: 'Physical Layer 32.0 GT/s',
  0x2b: 'Alternate Protocol',
  0x2c: 'System Firmware Intermediary',
  0x2e: 'Data Object Exchange',
};

const SERIAL_NUMBER = 0x03;
const VENDOR_SPECIFIC = 0x0b;
const HEADER_SIZE = 4;
const VENDOR_HEADER_SIZE = 8;

export interface SerialNumberFields {
  readonly kind: 'serial-number';
  /** The EUI-64. */
  readonly serialNumber: bigint;
  /** The same as people write it: `ca-fe-ba-be-de-ad-be-ef`. */
  readonly text: string;
}

export interface VendorSpecificExtendedFields {
  readonly kind: 'vendor-specific';
  /** The vendor's own id, revision and length (headers included). */
  readonly vendorCapabilityId: number;
  readonly revision: number;
  readonly length: number;
  /** What follows both headers, as far as it is there. */
  readonly bytes: Uint8Array;
}

/** An extended capability; `kind` says which fields it has. */
export type ExtendedCapability = CapabilityHeader & { readonly version: number } & (
    SerialNumberFields | VendorSpecificExtendedFields | OtherFields
  );

/** The name of an extended capability id. */
export function extendedCapabilityName(id: number): string {
  return NAMES[id] ?? `Extended capability ${hex(id)}`;
}

/**
 * The extended capabilities in the order of their list; none where the space ends at 256 bytes. Nothing in the bytes
 * makes it throw, as with `decodeCapabilities`.
 */
export function decodeExtendedCapabilities(config: ConfigReader): {
  extendedCapabilities: ExtendedCapability[];
  problems: string[];
} {
  const problems: string[] = [];
  const limit = Math.min(config.size, PCI_EXTENDED_CONFIG_SIZE);
  if (limit < PCI_CONFIG_SIZE + HEADER_SIZE) return { extendedCapabilities: [], problems };
  // All zeroes is an empty list (7.6.2), all ones a space that is not there.
  const first = config.readUInt32(PCI_CONFIG_SIZE);
  if (first === 0 || first === 0xffff_ffff) return { extendedCapabilities: [], problems };

  const shape = {
    what: 'extended capability',
    lowest: PCI_CONFIG_SIZE,
    limit,
    headerSize: HEADER_SIZE,
    next: (offset: number) => {
      const header = config.readUInt32(offset);
      return header === 0xffff_ffff ? null : header >>> 20;
    },
  };
  const offsets = listOffsets(PCI_CONFIG_SIZE, shape, problems);
  const extendedCapabilities = offsets.map((offset) => {
    const header = config.readUInt32(offset);
    const id = header & 0xffff;
    const fields = decodeKnown(id, { config, offset, limit, problems }) ?? { kind: 'other' as const };
    return { id, name: extendedCapabilityName(id), offset, version: (header >> 16) & 0xf, ...fields };
  });
  return { extendedCapabilities, problems };
}

function decodeKnown(id: number, place: CapabilityPlace) {
  if (id === SERIAL_NUMBER) return decodeSerialNumber(place);
  if (id === VENDOR_SPECIFIC) return decodeVendorSpecific(place);
  return null;
}

function decodeSerialNumber(place: CapabilityPlace): SerialNumberFields | null {
  const { config, offset } = place;
  if (!fits(place, 12, 'Device Serial Number')) return null;
  const low = config.readUInt32(offset + 4);
  const high = config.readUInt32(offset + 8);
  const serialNumber = (BigInt(high) << 32n) | BigInt(low);
  const digits = serialNumber.toString(16).padStart(16, '0');
  return { kind: 'serial-number', serialNumber, text: digits.replaceAll(/..(?!$)/g, '$&-') };
}

function decodeVendorSpecific(place: CapabilityPlace): VendorSpecificExtendedFields | null {
  const { config, offset, limit, problems } = place;
  const name = 'Vendor Specific Extended';
  if (!fits(place, VENDOR_HEADER_SIZE, name)) return null;
  const header = config.readUInt32(offset + 4);
  const length = header >>> 20;
  if (length < VENDOR_HEADER_SIZE) {
    problems.push(`${name} at ${hex(offset)}: length ${length} is less than its headers`);
  }
  fits(place, length, name);
  const end = Math.min(offset + Math.max(length, VENDOR_HEADER_SIZE), limit);
  return {
    kind: 'vendor-specific',
    vendorCapabilityId: header & 0xffff,
    revision: (header >> 16) & 0xf,
    length,
    bytes: copyBytes(config, offset + VENDOR_HEADER_SIZE, end),
  };
}
