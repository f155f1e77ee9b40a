/** The list of conventional capabilities (PCI Local Bus 3.0 section 6.7). */
import { fits, listOffsets, type CapabilityPlace } from './capability-list.js';
import { copyBytes, type ConfigReader } from './config-reader.js';
import { decodeExpress, type ExpressFields } from './express-capability.js';
import { capabilitiesPointer } from './header.js';
import { decodeMsi, decodeMsix, type MsiFields, type MsixFields } from './interrupt-capabilities.js';
import { hex, PCI_CONFIG_SIZE, PCI_HEADER_SIZE } from './registers.js';

/** Capability ids, as the PCI Code and ID Assignment Specification gives them. */
export const PciCapabilityId = {
  NULL: 0x00,
  POWER_MANAGEMENT: 0x01,
  AGP: 0x02,
  VPD: 0x03,
  SLOT_ID: 0x04,
  MSI: 0x05,
  HOT_SWAP: 0x06,
  PCI_X: 0x07,
  HYPER_TRANSPORT: 0x08,
  VENDOR_SPECIFIC: 0x09,
  DEBUG_PORT: 0x0a,
  CPCI_RESOURCE_CONTROL: 0x0b,
  HOT_PLUG: 0x0c,
  BRIDGE_SUBSYSTEM_ID: 0x0d,
  AGP_8X: 0x0e,
  SECURE_DEVICE: 0x0f,
  EXPRESS: 0x10,
  MSIX: 0x11,
  SATA: 0x12,
  ADVANCED_FEATURES: 0x13,
  ENHANCED_ALLOCATION: 0x14,
  FLATTENING_PORTAL_BRIDGE: 0x15,
} as const;

const NAMES: Readonly<Record<number, string>> = {
  0x00: 'Null',
  0x01: 'Power Management',
  0x02: 'AGP',
  0x03: 'Vital Product Data',
  0x04: 'Slot Identification',
  0x05: 'MSI',
  0x06: 'CompactPCI Hot Swap',
  0x07: 'PCI-X',
  0x08: 'HyperTransport',
  0x09: 'Vendor Specific',
  0x0a: 'Debug Port',
  0x0b: 'CompactPCI Resource Control',
  0x0c: 'Hot-Plug',
  0x0d: 'Bridge Subsystem ID',
  0x0e: 'AGP 8x',
  0x0f: 'Secure Device',
  0x10: 'PCI Express',
  0x11: 'MSI-X',
  0x12: 'SATA',
  0x13: 'Advanced Features',
  0x14: 'Enhanced Allocation',
  0x15: 'Flattening Portal Bridge',
};

/** What every capability has. */
export interface CapabilityHeader {
  readonly id: number;
  /** The id's name, a number in words for an unknown one. */
  readonly name: string;
  /** Where the capability stands in config space. */
  readonly offset: number;
}

/** PCI Bus Power Management Interface 1.2 section 3.2. */
export interface PowerManagementFields {
  readonly kind: 'power-management';
  readonly version: number;
  /** The state that the device is in: 0 to 3 for D0 to D3hot. */
  readonly powerState: number;
  /** Coming back from D3hot keeps the device's state. */
  readonly noSoftReset: boolean;
  readonly d1Support: boolean;
  readonly d2Support: boolean;
  /** Bit n: the device can signal PME# from Dn; 3 is D3hot, 4 is D3cold. */
  readonly pmeSupport: number;
  readonly pmeEnabled: boolean;
  readonly pmeStatus: boolean;
  /** Where the control and status register stands in config space. */
  readonly controlOffset: number;
}

export interface VendorSpecificFields {
  readonly kind: 'vendor-specific';
  /** The length that the capability states, its three-byte header included. */
  readonly length: number;
  /** What follows the header, as far as it is there. */
  readonly bytes: Uint8Array;
}

/** A capability whose fields are not decoded, or that does not fit where it stands. */
export interface OtherFields {
  readonly kind: 'other';
}

/** A capability; `kind` says which fields it has. */
export type Capability = CapabilityHeader &
  (PowerManagementFields | MsiFields | MsixFields | VendorSpecificFields | ExpressFields | OtherFields);

/** The capability of that kind, for example `findCapability(capabilities, 'msix')`: the first of several. */
export function findCapability<K extends Capability['kind']>(
  capabilities: readonly Capability[],
  kind: K,
): Extract<Capability, { kind: K }> | undefined {
  const isWanted = (capability: Capability): capability is Extract<Capability, { kind: K }> =>
    capability.kind === kind;
  return capabilities.find(isWanted);
}

/** The name of a capability id. */
export function capabilityName(id: number): string {
  return NAMES[id] ?? `Capability ${hex(id)}`;
}

/**
 * The capabilities in the order of their list. Nothing in the bytes makes it throw: the list ends where it stops making
 * sense, a capability that does not fit is of kind `other`, and `problems` tells why.
 */
export function decodeCapabilities(config: ConfigReader): { capabilities: Capability[]; problems: string[] } {
  const problems: string[] = [];
  const limit = Math.min(config.size, PCI_CONFIG_SIZE);
  const shape = {
    what: 'capability',
    lowest: PCI_HEADER_SIZE,
    limit,
    headerSize: 2,
    next: (offset: number) => (config.readUInt8(offset) === 0xff ? null : config.readUInt8(offset + 1)),
  };
  const offsets = listOffsets(capabilitiesPointer(config), shape, problems);
  const capabilities = offsets.map((offset) => {
    const id = config.readUInt8(offset);
    const fields = decodeFields(id, { config, offset, limit, problems });
    return { id, name: capabilityName(id), offset, ...fields };
  });
  return { capabilities, problems };
}

function decodeFields(id: number, place: CapabilityPlace) {
  return decodeKnown(id, place) ?? { kind: 'other' as const };
}

function decodeKnown(id: number, place: CapabilityPlace) {
  switch (id) {
    case PciCapabilityId.POWER_MANAGEMENT:
      return decodePowerManagement(place);
    case PciCapabilityId.MSI:
      return decodeMsi(place);
    case PciCapabilityId.VENDOR_SPECIFIC:
      return decodeVendorSpecific(place);
    case PciCapabilityId.EXPRESS:
      return decodeExpress(place);
    case PciCapabilityId.MSIX:
      return decodeMsix(place);
    default:
      return null;
  }
}

function decodePowerManagement(place: CapabilityPlace): PowerManagementFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Power Management')) return null;
  const capabilities = config.readUInt16(offset + 2);
  const status = config.readUInt16(offset + 4);
  return {
    kind: 'power-management',
    version: capabilities & 0x7,
    powerState: status & 0x3,
    noSoftReset: (status & 0x0008) !== 0,
    d1Support: (capabilities & 0x0200) !== 0,
    d2Support: (capabilities & 0x0400) !== 0,
    pmeSupport: capabilities >> 11,
    pmeEnabled: (status & 0x0100) !== 0,
    pmeStatus: (status & 0x8000) !== 0,
    controlOffset: offset + 4,
  };
}

function decodeVendorSpecific(place: CapabilityPlace): VendorSpecificFields | null {
  const { config, offset, limit, problems } = place;
  if (!fits(place, 3, 'Vendor Specific')) return null;
  const length = config.readUInt8(offset + 2);
  if (length < 3)
    problems.push(`Vendor Specific at ${hex(offset)}: length ${length} is less than its header`);
  fits(place, length, 'Vendor Specific');
  const end = Math.min(offset + Math.max(length, 3), limit);
  return { kind: 'vendor-specific', length, bytes: copyBytes(config, offset + 3, end) };
}
