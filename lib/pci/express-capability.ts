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
import { bit, bits, coded } from './register-bits.js';

/** Device Capabilities (7.5.3.3). */
export interface ExpressDeviceCapabilities {
  /** 8-bit tags are supported. */
  readonly extendedTag: boolean;
  /** The adapter has an attention button. */
  readonly attentionButton: boolean;
  /** The adapter has an attention indicator. */
  readonly attentionIndicator: boolean;
  /** The adapter has a power indicator. */
  readonly powerIndicator: boolean;
  /** Errors are reported by role (6.2.3.2.4). */
  readonly roleBasedErrorReporting: boolean;
  /** Function Level Reset is supported. */
  readonly functionLevelReset: boolean;
  /** TEE-IO is supported. */
  readonly teeIo: boolean;
  /** Bits of the function number that may name phantom functions. */
  readonly phantomFunctionBits: number;
  /** The longest exit from L0s that the device can stand, nanoseconds; null for any. */
  readonly l0sLatencyNs: number | null;
  /** The longest exit from L1 that the device can stand, nanoseconds; null for any. */
  readonly l1LatencyNs: number | null;
  /** What the slot may give, milliwatts; null for more than 600 W. */
  readonly slotPowerMilliwatts: number | null;
}

/** Device Control (7.5.3.4). */
export interface ExpressDeviceControl {
  /** Correctable errors are reported. */
  readonly correctableErrorReporting: boolean;
  /** Non-fatal errors are reported. */
  readonly nonFatalErrorReporting: boolean;
  /** Fatal errors are reported. */
  readonly fatalErrorReporting: boolean;
  /** Unsupported requests are reported. */
  readonly unsupportedRequestReporting: boolean;
  /** The device may set Relaxed Ordering in its requests. */
  readonly relaxedOrdering: boolean;
  /** The device uses 8-bit tags. */
  readonly extendedTag: boolean;
  /** The device uses phantom functions as tags. */
  readonly phantomFunctions: boolean;
  /** The device may draw auxiliary power. */
  readonly auxPower: boolean;
  /** The device may set No Snoop in its requests. */
  readonly noSnoop: boolean;
  /**
   * Of bridges to PCI: configuration requests may be answered with Request Retry. In others the bit starts a
   * reset and reads 0.
   */
  readonly bridgeConfigurationRetry: boolean;
}

/** Device Status (7.5.3.5). */
export interface ExpressDeviceStatus {
  /** A correctable error was detected. */
  readonly correctableError: boolean;
  /** A non-fatal error was detected. */
  readonly nonFatalError: boolean;
  /** A fatal error was detected. */
  readonly fatalError: boolean;
  /** An unsupported request was received. */
  readonly unsupportedRequest: boolean;
  /** Auxiliary power was detected. */
  readonly auxPower: boolean;
  /** Requests of the device wait for their completions. */
  readonly transactionsPending: boolean;
}

/** Link Capabilities (7.5.3.6). Speed and width are in `LinkState`. */
export interface ExpressLinkCapabilities {
  /** ASPM L0s is supported. */
  readonly aspmL0s: boolean;
  /** ASPM L1 is supported. */
  readonly aspmL1: boolean;
  /** The reference clock may be removed in L1 and L2/L3 Ready. */
  readonly clockPowerManagement: boolean;
  /** Surprise Down errors are reported. */
  readonly surpriseDownReporting: boolean;
  /** Data Link Layer Link Active is reported. */
  readonly dataLinkActiveReporting: boolean;
  /** Link bandwidth notification is supported. */
  readonly bandwidthNotification: boolean;
  /** The component conforms to the rules by which ASPM is optional. */
  readonly aspmOptionality: boolean;
  /** The longest that the exit from L0s takes, nanoseconds; null for more than 4 µs. */
  readonly l0sExitLatencyNs: number | null;
  /** The longest that the exit from L1 takes, nanoseconds; null for more than 64 µs. */
  readonly l1ExitLatencyNs: number | null;
}

/** Link Control (7.5.3.7). */
export interface ExpressLinkControl {
  /** ASPM L0s is enabled. */
  readonly aspmL0s: boolean;
  /** ASPM L1 is enabled. */
  readonly aspmL1: boolean;
  /** The link is disabled. */
  readonly disabled: boolean;
  /** Both ends share a reference clock. */
  readonly commonClock: boolean;
  /** Additional ordered sets are sent when leaving L0s and in Recovery. */
  readonly extendedSynch: boolean;
  /** The device may remove the reference clock (CLKREQ#). */
  readonly clockPowerManagement: boolean;
  /** The device may not change the link width but to correct errors. */
  readonly autonomousWidthDisabled: boolean;
  /** Link bandwidth management interrupts are enabled. */
  readonly bandwidthManagementInterrupt: boolean;
  /** Link autonomous bandwidth interrupts are enabled. */
  readonly autonomousBandwidthInterrupt: boolean;
  /** Flit Mode is disabled. */
  readonly flitModeDisabled: boolean;
  /** Read completion boundary, bytes. */
  readonly readCompletionBoundary: 64 | 128;
}

/** Link Status (7.5.3.8). Speed and width are in `LinkState`. */
export interface ExpressLinkStatus {
  /** Bit 10: a training error in PCI Express 1.0, undefined since. */
  readonly trainingError: boolean;
  /** The link is being trained. */
  readonly training: boolean;
  /** The component uses the reference clock of the slot. */
  readonly slotClock: boolean;
  /** The data link layer is in DL_Active. */
  readonly dataLinkActive: boolean;
  /** The link was retrained, or its bandwidth changed because of errors. */
  readonly bandwidthManagement: boolean;
  /** The device has changed the link bandwidth by itself. */
  readonly autonomousBandwidth: boolean;
}

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
  /** The capabilities register. */
  readonly capabilities: ExpressDeviceCapabilities;
  /** The control register. */
  readonly control: ExpressDeviceControl;
  /** The status register. */
  readonly status: ExpressDeviceStatus;
}

/** Link Capabilities, Control and Status (7.5.3.6 to 7.5.3.8). Speeds and widths are in `ExpressFields`. */
export interface ExpressLinkFields {
  /** The port's number in the component. */
  readonly portNumber: number;
  /** The capabilities register. */
  readonly capabilities: ExpressLinkCapabilities;
  /** The control register. */
  readonly control: ExpressLinkControl;
  /** The status register. */
  readonly status: ExpressLinkStatus;
}

/** The PCI Express capability. Registers that the device or the capability's version does not have are null. */
export interface ExpressFields {
  /** Which capability it is. */
  readonly kind: 'express';
  /** The version of the capability's registers. */
  readonly version: number;
  /** Device/port type. */
  readonly deviceType: number;
  /** The type in words: `Endpoint`, `Root port`, … */
  readonly deviceTypeName: string;
  /** The port has a slot. */
  readonly slotImplemented: boolean;
  /** The message number (MSI vector, or MSI-X entry) of its interrupt. */
  readonly interruptMessageNumber: number;
  /** Flit Mode is supported. */
  readonly flitModeSupported: boolean;
  /** The most that the device supports in a packet, bytes. */
  readonly maxPayloadSupported: number;
  /** What device control sets, bytes. */
  readonly maxPayload: number;
  /** The most that a read of the device may ask for, as device control sets it, bytes. */
  readonly maxReadRequest: number;
  /** Function Level Reset is supported. */
  readonly functionLevelReset: boolean;
  /** Device status: requests of the device are on their way. */
  readonly transactionsPending: boolean;
  /** The fastest and widest that the link can be; null without link registers. */
  readonly linkCapabilities: LinkState | null;
  /** The link as it is; null without link registers. */
  readonly linkStatus: LinkState | null;
  /** The device registers. */
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

function decodeDeviceCapabilities(register: number): ExpressDeviceCapabilities {
  return {
    extendedTag: bit(register, 5),
    attentionButton: bit(register, 12),
    attentionIndicator: bit(register, 13),
    powerIndicator: bit(register, 14),
    roleBasedErrorReporting: bit(register, 15),
    functionLevelReset: bit(register, 28),
    teeIo: bit(register, 30),
    phantomFunctionBits: bits(register, 3, 2),
    l0sLatencyNs: coded(L0S_LATENCIES_NS, register, 6, 3),
    l1LatencyNs: coded(L1_LATENCIES_NS, register, 9, 3),
    slotPowerMilliwatts: slotPowerMilliwatts(bits(register, 18, 8), bits(register, 26, 2)),
  };
}

function decodeDeviceControl(register: number): ExpressDeviceControl {
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
    bridgeConfigurationRetry: bit(register, 15),
  };
}

function decodeDeviceStatus(register: number): ExpressDeviceStatus {
  return {
    correctableError: bit(register, 0),
    nonFatalError: bit(register, 1),
    fatalError: bit(register, 2),
    unsupportedRequest: bit(register, 3),
    auxPower: bit(register, 4),
    transactionsPending: bit(register, 5),
  };
}

function decodeLinkCapabilities(register: number): ExpressLinkCapabilities {
  return {
    aspmL0s: bit(register, 10),
    aspmL1: bit(register, 11),
    clockPowerManagement: bit(register, 18),
    surpriseDownReporting: bit(register, 19),
    dataLinkActiveReporting: bit(register, 20),
    bandwidthNotification: bit(register, 21),
    aspmOptionality: bit(register, 22),
    l0sExitLatencyNs: coded(L0S_LATENCIES_NS, register, 12, 3),
    l1ExitLatencyNs: coded(L1_LATENCIES_NS, register, 15, 3),
  };
}

function decodeLinkControl(register: number): ExpressLinkControl {
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
    readCompletionBoundary: (register & 0x0008) === 0 ? 64 : 128,
  };
}

function decodeLinkStatus(register: number): ExpressLinkStatus {
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
