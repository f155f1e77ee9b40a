/** The list of conventional capabilities (PCI Local Bus 3.0 section 6.7). */
import { PciCapabilityId } from './capability-ids.js';
import { capabilityOffsets, fits, type CapabilityPlace } from './capability-list.js';
import { copyBytes, type ConfigReader } from './config-reader.js';
import { decodeExpress, type ExpressFields } from './express-capability.js';
import { decodeMsi, decodeMsix, type MsiFields, type MsixFields } from './interrupt-capabilities.js';
import { bits, coded } from './register-bits.js';
import { hex, PCI_CONFIG_SIZE } from './registers.js';

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
  /** The capability id: `PciCapabilityId`, or `PciExtendedCapabilityId` in the extended space. */
  readonly id: number;
  /** The id's name, a number in words for an unknown one. */
  readonly name: string;
  /** Where the capability stands in config space. */
  readonly offset: number;
}

/** PCI Bus Power Management Interface 1.2 section 3.2. */
export interface PowerManagementFields {
  /** Which capability it is. */
  readonly kind: 'power-management';
  /** The version of the capability's registers. */
  readonly version: number;
  /** The state that the device is in: 0 to 3 for D0 to D3hot. */
  readonly powerState: number;
  /** Coming back from D3hot keeps the device's state. */
  readonly noSoftReset: boolean;
  /** The device has the state D1. */
  readonly d1Support: boolean;
  /** The device has the state D2. */
  readonly d2Support: boolean;
  /** It needs the bus clock to signal PME#. */
  readonly pmeClock: boolean;
  /** It wants more than a reset to be initialized. */
  readonly deviceSpecificInit: boolean;
  /** What it may take of the auxiliary supply in D3cold, milliamperes. */
  readonly auxCurrentMilliamperes: number;
  /** Bit n: the device can signal PME# from Dn; 3 is D3hot, 4 is D3cold. */
  readonly pmeSupport: number;
  /** The device may signal PME#. */
  readonly pmeEnabled: boolean;
  /** The device has signalled PME#, or would have. */
  readonly pmeStatus: boolean;
  /** Which value the data register shows. */
  readonly dataSelect: number;
  /** The value's unit, 10 to the power of minus this; 0 without a data register. */
  readonly dataScale: number;
  /** Where the control and status register stands in config space. */
  readonly controlOffset: number;
}

/** A vendor's own capability (PCI Local Bus 3.0, appendix H). */
export interface VendorSpecificFields {
  /** Which capability it is. */
  readonly kind: 'vendor-specific';
  /** The length that the capability states, its three-byte header included. */
  readonly length: number;
  /** What follows the header, as far as it is there. */
  readonly bytes: Uint8Array;
}

/** A PCI-to-PCI bridge's subsystem (PCI Express Base 6.0 section 7.9.23). */
export interface BridgeSubsystemFields {
  /** Which capability it is. */
  readonly kind: 'bridge-subsystem-id';
  /** The subsystem's vendor. */
  readonly subsystemVendorId: number;
  /** The subsystem's id, which its vendor assigns. */
  readonly subsystemId: number;
}

/** A capability whose fields are not decoded, or that does not fit where it stands. */
export interface OtherFields {
  /** Which capability it is. */
  readonly kind: 'other';
}

/** A capability; `kind` says which fields it has. */
export type Capability = CapabilityHeader &
  (
    | BridgeSubsystemFields
    | ExpressFields
    | MsiFields
    | MsixFields
    | PowerManagementFields
    | VendorSpecificFields
    | OtherFields
  );

/**
 * The capability of that kind, of a conventional or an extended list: `findCapability(capabilities, 'msix')`. The first of
 * several.
 */
export function findCapability<C extends { readonly kind: string }, K extends C['kind']>(
  capabilities: readonly C[],
  kind: K,
): Extract<C, { kind: K }> | undefined {
  const isWanted = (capability: C): capability is Extract<C, { kind: K }> => capability.kind === kind;
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
  const capabilities = capabilityOffsets(config, problems).map((offset) => {
    const id = config.getUInt8(offset);
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
    case PciCapabilityId.BRIDGE_SUBSYSTEM_ID:
      return decodeBridgeSubsystem(place);
    case PciCapabilityId.EXPRESS:
      return decodeExpress(place);
    case PciCapabilityId.MSIX:
      return decodeMsix(place);
    default:
      return null;
  }
}

/** By code. */
const AUX_CURRENTS_MA: readonly number[] = [0, 55, 100, 160, 220, 270, 320, 375];

function decodePowerManagement(place: CapabilityPlace): PowerManagementFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Power Management')) return null;
  const capabilities = config.getUInt16(offset + 2);
  const status = config.getUInt16(offset + 4);
  return {
    kind: 'power-management',
    version: capabilities & 0x7,
    powerState: status & 0x3,
    noSoftReset: (status & 0x0008) !== 0,
    d1Support: (capabilities & 0x0200) !== 0,
    d2Support: (capabilities & 0x0400) !== 0,
    pmeClock: (capabilities & 0x0008) !== 0,
    deviceSpecificInit: (capabilities & 0x0020) !== 0,
    auxCurrentMilliamperes: coded(AUX_CURRENTS_MA, capabilities, 6, 3),
    pmeSupport: capabilities >> 11,
    pmeEnabled: (status & 0x0100) !== 0,
    pmeStatus: (status & 0x8000) !== 0,
    dataSelect: bits(status, 9, 4),
    dataScale: bits(status, 13, 2),
    controlOffset: offset + 4,
  };
}

function decodeVendorSpecific(place: CapabilityPlace): VendorSpecificFields | null {
  const { config, offset, limit, problems } = place;
  if (!fits(place, 3, 'Vendor Specific')) return null;
  const length = config.getUInt8(offset + 2);
  if (length < 3)
    problems.push(`Vendor Specific at ${hex(offset)}: length ${length} is less than its header`);
  fits(place, length, 'Vendor Specific');
  const end = Math.min(offset + Math.max(length, 3), limit);
  return { kind: 'vendor-specific', length, bytes: copyBytes(config, offset + 3, end) };
}

function decodeBridgeSubsystem(place: CapabilityPlace): BridgeSubsystemFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Bridge Subsystem ID')) return null;
  return {
    kind: 'bridge-subsystem-id',
    subsystemVendorId: config.getUInt16(offset + 4),
    subsystemId: config.getUInt16(offset + 6),
  };
}
