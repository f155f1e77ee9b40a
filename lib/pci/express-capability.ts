/** The PCI Express capability (PCI Express Base 6.0 section 7.5.3). */
import { fits, type CapabilityPlace } from './capability-list.js';
import { decodeDevice2, decodeLink2, type Device2Fields, type Link2Fields } from './express-capability-2.js';
import {
  decodeRoot,
  decodeSlot,
  slotPowerMilliwatts,
  type RootFields,
  type SlotFields,
} from './express-ports.js';
import { linkSpeed } from './link-speed.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

/** What a link's capabilities or status register says of it. */
export interface LinkState {
  /** The register's code: 1 for 2.5 GT/s, 2 for 5 GT/s and so on; 0 where there is no link. */
  readonly speedCode: number;
  /** GT/s; null for codes that are not known. */
  readonly speed: number | null;
  /** Lanes. */
  readonly width: number;
}

/** Device Capabilities, Control and Status (7.5.3.3 to 7.5.3.5). What they say of payloads is in `ExpressFields`. */
export interface ExpressDeviceFields {
  readonly capabilities: RegisterFields<typeof decodeDeviceCapabilities>;
  readonly control: RegisterFields<typeof decodeDeviceControl>;
  readonly status: RegisterFields<typeof decodeDeviceStatus>;
}

/** Link Capabilities, Control and Status (7.5.3.6 to 7.5.3.8). Speeds and widths are in `ExpressFields`. */
export interface ExpressLinkFields {
  readonly portNumber: number;
  readonly capabilities: RegisterFields<typeof decodeLinkCapabilities>;
  readonly control: RegisterFields<typeof decodeLinkControl>;
  readonly status: RegisterFields<typeof decodeLinkStatus>;
}

/** The PCI Express capability. Registers that the device or the capability's version does not have are null. */
export interface ExpressFields {
  readonly kind: 'express';
  readonly version: number;
  /** Device/port type. */
  readonly deviceType: number;
  readonly deviceTypeName: string;
  readonly slotImplemented: boolean;
  readonly interruptMessageNumber: number;
  readonly flitModeSupported: boolean;
  /** The most that the device supports in a packet, bytes. */
  readonly maxPayloadSupported: number;
  /** What device control sets, bytes. */
  readonly maxPayload: number;
  readonly maxReadRequest: number;
  readonly functionLevelReset: boolean;
  /** Device status: requests of the device are on their way. */
  readonly transactionsPending: boolean;
  /** The fastest and widest that the link can be; null without link registers. */
  readonly linkCapabilities: LinkState | null;
  /** The link as it is; null without link registers. */
  readonly linkStatus: LinkState | null;
  readonly device: ExpressDeviceFields;
  /** null without link registers. */
  readonly link: ExpressLinkFields | null;
  /** null where no slot is implemented. */
  readonly slot: SlotFields | null;
  /** null for all but root ports and root complex event collectors. */
  readonly root: RootFields | null;
  /** From version 2 on. */
  readonly device2: Device2Fields | null;
  /** From version 2 on, with a link. */
  readonly link2: Link2Fields | null;
}

/** Device/port types. */
export const ExpressType = {
  ENDPOINT: 0,
  LEGACY_ENDPOINT: 1,
  ROOT_PORT: 4,
  UPSTREAM_PORT: 5,
  DOWNSTREAM_PORT: 6,
  PCIE_TO_PCI_BRIDGE: 7,
  PCI_TO_PCIE_BRIDGE: 8,
  INTEGRATED_ENDPOINT: 9,
  EVENT_COLLECTOR: 10,
} as const;

const DEVICE_TYPES: Readonly<Record<number, string>> = {
  0: 'Endpoint',
  1: 'Legacy endpoint',
  4: 'Root port',
  5: 'Upstream switch port',
  6: 'Downstream switch port',
  7: 'PCI Express to PCI bridge',
  8: 'PCI to PCI Express bridge',
  9: 'Root complex integrated endpoint',
  10: 'Root complex event collector',
};
const HAVE_NO_LINK: readonly number[] = [ExpressType.INTEGRATED_ENDPOINT, ExpressType.EVENT_COLLECTOR];
const HAVE_ROOT: readonly number[] = [ExpressType.ROOT_PORT, ExpressType.EVENT_COLLECTOR];

function decodeDeviceCapabilities(register: number) {
  return {
    extendedTag: bit(register, 5),
    attentionButton: bit(register, 12),
    attentionIndicator: bit(register, 13),
    powerIndicator: bit(register, 14),
    roleBasedErrorReporting: bit(register, 15),
    functionLevelReset: bit(register, 28),
    teeIo: bit(register, 30),

    /** Bits of the function number that may name phantom functions. */
    phantomFunctionBits: bits(register, 3, 2),
    /** The longest exit from L0s that the device can stand, nanoseconds; null for any. */
    l0sLatencyNs: L0S_LATENCIES_NS[bits(register, 6, 3)]!,
    /** The longest exit from L1 that the device can stand, nanoseconds; null for any. */
    l1LatencyNs: L1_LATENCIES_NS[bits(register, 9, 3)]!,
    /** What the slot may give, milliwatts; null for more than 600 W. */
    slotPowerMilliwatts: slotPowerMilliwatts(bits(register, 18, 8), bits(register, 26, 2)),
  };
}

function decodeDeviceControl(register: number) {
  return {
    correctableErrorReporting: bit(register, 0),
    nonFatalErrorReporting: bit(register, 1),
    fatalErrorReporting: bit(register, 2),
    unsupportedRequestReporting: bit(register, 3),
    relaxedOrdering: bit(register, 4),
    extendedTag: bit(register, 8),
    phantomFunctions: bit(register, 9),
    auxPower: bit(register, 10),
    noSnoop: bit(register, 11),
    /** Of bridges to PCI; what the bit starts in others, a reset, it does not show. */
    bridgeConfigurationRetry: bit(register, 15),
  };
}

function decodeDeviceStatus(register: number) {
  return {
    correctableError: bit(register, 0),
    nonFatalError: bit(register, 1),
    fatalError: bit(register, 2),
    unsupportedRequest: bit(register, 3),
    auxPower: bit(register, 4),
    transactionsPending: bit(register, 5),
  };
}

function decodeLinkCapabilities(register: number) {
  return {
    aspmL0s: bit(register, 10),
    aspmL1: bit(register, 11),
    clockPowerManagement: bit(register, 18),
    surpriseDownReporting: bit(register, 19),
    dataLinkActiveReporting: bit(register, 20),
    bandwidthNotification: bit(register, 21),
    aspmOptionality: bit(register, 22),

    /** The longest that the exit from L0s takes, nanoseconds; null for more than 4 µs. */
    l0sExitLatencyNs: L0S_LATENCIES_NS[bits(register, 12, 3)]!,
    /** The longest that the exit from L1 takes, nanoseconds; null for more than 64 µs. */
    l1ExitLatencyNs: L1_LATENCIES_NS[bits(register, 15, 3)]!,
  };
}

function decodeLinkControl(register: number) {
  return {
    aspmL0s: bit(register, 0),
    aspmL1: bit(register, 1),
    disabled: bit(register, 4),
    commonClock: bit(register, 6),
    extendedSynch: bit(register, 7),
    clockPowerManagement: bit(register, 8),
    autonomousWidthDisabled: bit(register, 9),
    bandwidthManagementInterrupt: bit(register, 10),
    autonomousBandwidthInterrupt: bit(register, 11),
    flitModeDisabled: bit(register, 13),

    /** Read completion boundary, 64 or 128 bytes. */
    readCompletionBoundary: (register & 0x0008) === 0 ? 64 : 128,
  };
}

function decodeLinkStatus(register: number) {
  return {
    trainingError: bit(register, 10),
    training: bit(register, 11),
    slotClock: bit(register, 12),
    dataLinkActive: bit(register, 13),
    bandwidthManagement: bit(register, 14),
    autonomousBandwidth: bit(register, 15),
  };
}

/** By code: what fits below the bound that each stands for. */
const L0S_LATENCIES_NS = [64, 128, 256, 512, 1_000, 2_000, 4_000, null] as const;
const L1_LATENCIES_NS = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, null] as const;

/** Up to device status, which all have; and up to link status, which all with a link have. */
const DEVICE_LENGTH = 0x0c;
const LINK_LENGTH = 0x14;
const SLOT_LENGTH = 0x1c;
const ROOT_LENGTH = 0x24;
/** Version 2 has place for all of its registers, whatever the device needs of them. */
const VERSION_2_LENGTH = 0x3c;

export function decodeExpress(place: CapabilityPlace): ExpressFields | null {
  const { config, offset, limit } = place;
  if (!fits(place, DEVICE_LENGTH, 'PCI Express')) return null;
  const flags = config.getUInt16(offset + 0x02);
  const version = flags & 0xf;
  const deviceType = expressType(flags);
  const deviceCapabilities = config.getUInt32(offset + 0x04);
  const deviceControl = config.getUInt16(offset + 0x08);
  const deviceStatus = config.getUInt16(offset + 0x0a);
  const hasLink = !HAVE_NO_LINK.includes(deviceType) && fits(place, LINK_LENGTH, 'PCI Express');
  const slotImplemented = (flags & 0x0100) !== 0;
  const reaches = (length: number) => offset + length <= limit;
  const isVersion2 = version >= 2 && reaches(VERSION_2_LENGTH);
  return {
    kind: 'express',
    version,
    deviceType,
    deviceTypeName: DEVICE_TYPES[deviceType] ?? `type ${deviceType}`,
    slotImplemented,
    interruptMessageNumber: (flags >> 9) & 0x1f,
    flitModeSupported: (flags & 0x8000) !== 0,
    maxPayloadSupported: 128 << (deviceCapabilities & 0x7),
    maxPayload: 128 << ((deviceControl >> 5) & 0x7),
    maxReadRequest: 128 << ((deviceControl >> 12) & 0x7),
    functionLevelReset: (deviceCapabilities & 0x1000_0000) !== 0,
    transactionsPending: (deviceStatus & 0x0020) !== 0,
    linkCapabilities: hasLink ? linkState(config.getUInt32(offset + 0x0c)) : null,
    linkStatus: hasLink ? linkState(config.getUInt16(offset + 0x12)) : null,
    device: {
      capabilities: decodeDeviceCapabilities(deviceCapabilities),
      control: decodeDeviceControl(deviceControl),
      status: decodeDeviceStatus(deviceStatus),
    },
    link: hasLink ? decodeLink(place) : null,
    slot: slotImplemented && reaches(SLOT_LENGTH) ? decodeSlot(place) : null,
    root: HAVE_ROOT.includes(deviceType) && reaches(ROOT_LENGTH) ? decodeRoot(place) : null,
    device2: isVersion2 ? decodeDevice2(place) : null,
    link2: isVersion2 && hasLink ? decodeLink2(place) : null,
  };
}

/** The device/port type in the capability's first register. */
export function expressType(flags: number): number {
  return (flags >> 4) & 0xf;
}

/** Both registers have the speed in bits 0 to 3 and the width in bits 4 to 9. */
function linkState(register: number): LinkState {
  const speedCode = register & 0xf;
  return { speedCode, speed: linkSpeed(speedCode), width: (register >> 4) & 0x3f };
}

function decodeLink({ config, offset }: CapabilityPlace): ExpressLinkFields {
  const capabilities = config.getUInt32(offset + 0x0c);
  const control = config.getUInt16(offset + 0x10);
  return {
    portNumber: capabilities >>> 24,
    capabilities: decodeLinkCapabilities(capabilities),
    control: decodeLinkControl(control),
    status: decodeLinkStatus(config.getUInt16(offset + 0x12)),
  };
}
