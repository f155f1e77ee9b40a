/**
 * The registers and capabilities of config space under the names that setpci(8) has for them, so that its command lines
 * can be taken over.
 */
import { PciCapabilityId, PciConfig, PciHeaderType } from '../pci/index.js';

export type RegisterWidth = 1 | 2 | 4;

type Register = readonly [name: string, offset: number, width: RegisterWidth];

/** Of every header. */
const COMMON: readonly Register[] = [
  ['VENDOR_ID', PciConfig.VENDOR_ID, 2],
  ['DEVICE_ID', PciConfig.DEVICE_ID, 2],
  ['COMMAND', PciConfig.COMMAND, 2],
  ['STATUS', PciConfig.STATUS, 2],
  ['REVISION', PciConfig.REVISION_ID, 1],
  ['CLASS_PROG', PciConfig.CLASS_PROG_IF, 1],
  ['CLASS_DEVICE', PciConfig.CLASS_SUB, 2],
  ['CACHE_LINE_SIZE', PciConfig.CACHE_LINE_SIZE, 1],
  ['LATENCY_TIMER', PciConfig.LATENCY_TIMER, 1],
  ['HEADER_TYPE', PciConfig.HEADER_TYPE, 1],
  ['BIST', PciConfig.BIST, 1],
];

/** Of devices and of PCI-to-PCI bridges. */
const DEVICE_AND_BRIDGE: readonly Register[] = [
  ['BASE_ADDRESS_0', PciConfig.BAR0, 4],
  ['BASE_ADDRESS_1', PciConfig.BAR1, 4],
  ['CAPABILITIES', PciConfig.CAPABILITIES_POINTER, 1],
  ['INTERRUPT_LINE', PciConfig.INTERRUPT_LINE, 1],
  ['INTERRUPT_PIN', PciConfig.INTERRUPT_PIN, 1],
];

const DEVICE: readonly Register[] = [
  ['BASE_ADDRESS_2', PciConfig.BAR2, 4],
  ['BASE_ADDRESS_3', PciConfig.BAR3, 4],
  ['BASE_ADDRESS_4', PciConfig.BAR4, 4],
  ['BASE_ADDRESS_5', PciConfig.BAR5, 4],
  ['CARDBUS_CIS', PciConfig.CARDBUS_CIS_POINTER, 4],
  ['SUBSYSTEM_VENDOR_ID', PciConfig.SUBSYSTEM_VENDOR_ID, 2],
  ['SUBSYSTEM_ID', PciConfig.SUBSYSTEM_ID, 2],
  ['ROM_ADDRESS', PciConfig.EXPANSION_ROM, 4],
  ['MIN_GNT', PciConfig.MIN_GRANT, 1],
  ['MAX_LAT', PciConfig.MAX_LATENCY, 1],
];

const BRIDGE: readonly Register[] = [
  ['PRIMARY_BUS', PciConfig.PRIMARY_BUS, 1],
  ['SECONDARY_BUS', PciConfig.SECONDARY_BUS, 1],
  ['SUBORDINATE_BUS', PciConfig.SUBORDINATE_BUS, 1],
  ['SEC_LATENCY_TIMER', 0x1b, 1],
  ['IO_BASE', 0x1c, 1],
  ['IO_LIMIT', 0x1d, 1],
  ['SEC_STATUS', 0x1e, 2],
  ['MEMORY_BASE', 0x20, 2],
  ['MEMORY_LIMIT', 0x22, 2],
  ['PREF_MEMORY_BASE', 0x24, 2],
  ['PREF_MEMORY_LIMIT', 0x26, 2],
  ['PREF_BASE_UPPER32', 0x28, 4],
  ['PREF_LIMIT_UPPER32', 0x2c, 4],
  ['IO_BASE_UPPER16', 0x30, 2],
  ['IO_LIMIT_UPPER16', 0x32, 2],
  ['BRIDGE_ROM_ADDRESS', PciConfig.BRIDGE_EXPANSION_ROM, 4],
  ['BRIDGE_CONTROL', 0x3e, 2],
];

const CARDBUS: readonly Register[] = [
  ['CB_CARDBUS_BASE', 0x10, 4],
  ['CB_CAPABILITIES', PciConfig.CARDBUS_CAPABILITIES_POINTER, 2],
  ['CB_SEC_STATUS', 0x16, 2],
  ['CB_BUS_NUMBER', 0x18, 1],
  ['CB_CARDBUS_NUMBER', 0x19, 1],
  ['CB_SUBORDINATE_BUS', 0x1a, 1],
  ['CB_CARDBUS_LATENCY', 0x1b, 1],
  ['CB_MEMORY_BASE_0', 0x1c, 4],
  ['CB_MEMORY_LIMIT_0', 0x20, 4],
  ['CB_MEMORY_BASE_1', 0x24, 4],
  ['CB_MEMORY_LIMIT_1', 0x28, 4],
  ['CB_IO_BASE_0', 0x2c, 2],
  ['CB_IO_BASE_0_HI', 0x2e, 2],
  ['CB_IO_LIMIT_0', 0x30, 2],
  ['CB_IO_LIMIT_0_HI', 0x32, 2],
  ['CB_IO_BASE_1', 0x34, 2],
  ['CB_IO_BASE_1_HI', 0x36, 2],
  ['CB_IO_LIMIT_1', 0x38, 2],
  ['CB_IO_LIMIT_1_HI', 0x3a, 2],
  ['CB_SUBSYSTEM_VENDOR_ID', 0x40, 2],
  ['CB_SUBSYSTEM_ID', 0x42, 2],
  ['CB_LEGACY_MODE_BASE', 0x44, 4],
];

export interface NamedRegister {
  readonly name: string;
  readonly offset: number;
  readonly width: RegisterWidth;
  /** The types of header that have it: 0 for devices, 1 for PCI-to-PCI bridges, 2 for CardBus bridges; none for all. */
  readonly headerTypes: readonly number[];
}

export interface NamedCapability {
  readonly name: string;
  readonly id: number;
  /** Of the extended space. */
  readonly extended: boolean;
}

function named(registers: readonly Register[], ...headerTypes: readonly number[]): NamedRegister[] {
  return registers.map(([name, offset, width]) => ({ name, offset, width, headerTypes }));
}

/** Those of every header, then those of devices, of bridges and of CardBus bridges. */
export const REGISTERS: readonly NamedRegister[] = [
  ...named(COMMON),
  ...named(DEVICE_AND_BRIDGE, PciHeaderType.DEVICE, PciHeaderType.BRIDGE),
  ...named(DEVICE, PciHeaderType.DEVICE),
  ...named(BRIDGE, PciHeaderType.BRIDGE),
  ...named(CARDBUS, PciHeaderType.CARDBUS),
];

/** Whether a header of that type has the register. */
export function hasRegister({ headerTypes }: NamedRegister, headerType: number): boolean {
  return headerTypes.length === 0 || headerTypes.includes(headerType);
}

/** The registers that a header of that type (0, 1, 2) has, in the order of their offsets; the common ones alone where the type is unknown. */
export function registersOf(headerType: number): readonly NamedRegister[] {
  const registers = REGISTERS.filter((register) => hasRegister(register, headerType));
  return registers.sort((a, b) => a.offset - b.offset);
}

const CAPABILITIES: Readonly<Record<string, number>> = {
  CAP_PM: PciCapabilityId.POWER_MANAGEMENT,
  CAP_AGP: PciCapabilityId.AGP,
  CAP_VPD: PciCapabilityId.VPD,
  CAP_SLOTID: PciCapabilityId.SLOT_ID,
  CAP_MSI: PciCapabilityId.MSI,
  CAP_CHSWP: PciCapabilityId.HOT_SWAP,
  CAP_PCIX: PciCapabilityId.PCI_X,
  CAP_HT: PciCapabilityId.HYPER_TRANSPORT,
  CAP_VNDR: PciCapabilityId.VENDOR_SPECIFIC,
  CAP_DBG: PciCapabilityId.DEBUG_PORT,
  CAP_CCRC: PciCapabilityId.CPCI_RESOURCE_CONTROL,
  CAP_HOTPLUG: PciCapabilityId.HOT_PLUG,
  CAP_SSVID: PciCapabilityId.BRIDGE_SUBSYSTEM_ID,
  CAP_AGP3: PciCapabilityId.AGP_8X,
  CAP_SECURE: PciCapabilityId.SECURE_DEVICE,
  CAP_EXP: PciCapabilityId.EXPRESS,
  CAP_MSIX: PciCapabilityId.MSIX,
  CAP_SATA: PciCapabilityId.SATA,
  CAP_AF: PciCapabilityId.ADVANCED_FEATURES,
  CAP_EA: PciCapabilityId.ENHANCED_ALLOCATION,
};

/** From id 1 on; null for ids without a name. */
const EXTENDED = [
  ...[
    'AER',
    'VC',
    'DSN',
    'PB',
    'RCLINK',
    'RCILINK',
    'RCEC',
    'MFVC',
    'VC2',
    'RBCB',
    'VNDR',
    null,
    'ACS',
    'ARI',
  ],
  ...['ATS', 'SRIOV', 'MRIOV', 'MCAST', 'PRI', null, 'REBAR', 'DPA', 'TPH', 'LTR', 'SECPCI', 'PMUX', 'PASID'],
  ...['LNR', 'DPC', 'L1PM', 'PTM', 'M_PCIE', 'FRS', 'RTR', 'DVSEC', 'VF_REBAR', 'DLNK', '16GT', 'LMR'],
  ...['HIER_ID', 'NPEM', '32GT', null, null, null, null, null, 'IDE', '64GT', 'FL'],
];

export const CAPABILITY_NAMES: readonly NamedCapability[] = [
  ...Object.entries(CAPABILITIES).map(([name, id]) => ({ name, id, extended: false })),
  ...EXTENDED.flatMap((name, i) =>
    name === null ? [] : [{ name: `ECAP_${name}`, id: i + 1, extended: true }],
  ),
];
