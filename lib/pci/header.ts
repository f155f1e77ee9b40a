/** The header of config space: type 0 (PCI Local Bus 3.0 section 6.1), and what types 1 and 2 share with it. */
import { decodeBars, type Bar } from './bars.js';
import { decodeBridge, decodeBridgeWindows, type BridgeFields, type BridgeWindow } from './bridge.js';
import { PciCapabilityId } from './capability-ids.js';
import { capabilitiesPointer, findCapabilityOffset } from './capability-list.js';
import { pciClassName } from './classes.js';
import { zeroExtended, type ConfigReader } from './config-reader.js';
import { HEADER_TYPE_MASK, HEADER_TYPE_MULTIFUNCTION, hex, PciConfig, PciHeaderType } from './registers.js';

/** The class code register in its three parts. */
export interface ClassCode {
  /** The base class. */
  readonly base: number;
  /** The sub-class. */
  readonly sub: number;
  /** The programming interface. */
  readonly progIf: number;
  /** What the code assignment calls it, for example `Non-volatile memory controller (NVMe)`. */
  readonly name: string;
}

/** A decoded header. Registers that its type does not have are 0. */
export interface PciHeader {
  /** The vendor, as the PCI-SIG assigned it. */
  readonly vendorId: number;
  /** The device's id, which its vendor assigns. */
  readonly deviceId: number;
  /** Bits as in `PciCommand`. */
  readonly command: number;
  /** Bits as in `PciStatus`. */
  readonly status: number;
  /** The device's revision. */
  readonly revisionId: number;
  /** What kind of device it is. */
  readonly classCode: ClassCode;
  /** In units of four bytes. */
  readonly cacheLineSize: number;
  /** In bus clocks; 0 for PCI Express. */
  readonly latencyTimer: number;
  /** The layout, as in `PciHeaderType`, without the multifunction bit. */
  readonly headerType: number;
  /** The device has several functions. */
  readonly multifunction: boolean;
  /** The built-in self test register. */
  readonly bist: number;
  /** The base address registers. */
  readonly bars: readonly Bar[];
  /** Where a CardBus card's information structure is. */
  readonly cardbusCisPointer: number;
  /** A PCI-to-PCI bridge has these two in the capability `bridge-subsystem-id`, if at all. */
  readonly subsystemVendorId: number;
  /** The subsystem's id, which its vendor assigns. */
  readonly subsystemId: number;
  /** The register: an address in the bits from 11 on, enabled where bit 0 is set. */
  readonly expansionRomAddress: number;
  /** Where the list of capabilities begins; 0 where the status register says that there is none. */
  readonly capabilitiesPointer: number;
  /** Which input of the interrupt controller INTx is routed to; software sets it. */
  readonly interruptLine: number;
  /** 1 to 4 for INTA to INTD, 0 for none. */
  readonly interruptPin: number;
  /** In units of 250 ns. */
  readonly minGrant: number;
  /** In units of 250 ns. */
  readonly maxLatency: number;
  /** What a PCI-to-PCI bridge (type 1) or a CardBus bridge (type 2) has; null for all others. */
  readonly bridge: BridgeFields | null;
  /** What the bridge passes on; only where `bridge` is not null. */
  readonly bridgeWindows?: readonly BridgeWindow[];
  /** What is wrong with the bytes, for people; empty when all is sound. */
  readonly problems: readonly string[];
}

/** Decodes the header. Nothing in the bytes makes it throw: what is wrong with them is told in `problems`. */
export function decodeHeader(config: ConfigReader): PciHeader {
  const registers = zeroExtended(config);
  const { bars, problems } = decodeBars(config);
  const typeByte = registers.getUInt8(PciConfig.HEADER_TYPE);
  const headerType = typeByte & HEADER_TYPE_MASK;
  const isDevice = headerType === PciHeaderType.DEVICE;
  const bridge = decodeBridge(registers, headerType);
  const subsystem = subsystemOffset(config, headerType);

  const vendorId = registers.getUInt16(PciConfig.VENDOR_ID);
  if (vendorId === 0xffff) problems.push('the vendor id is 0xffff: no device answers here');
  if (headerType > PciHeaderType.CARDBUS) problems.push(`the header type ${hex(headerType)} is not defined`);
  const interruptPin = registers.getUInt8(PciConfig.INTERRUPT_PIN);
  if (interruptPin > 4) problems.push(`the interrupt pin ${interruptPin} is reserved`);

  return {
    vendorId,
    deviceId: registers.getUInt16(PciConfig.DEVICE_ID),
    command: registers.getUInt16(PciConfig.COMMAND),
    status: registers.getUInt16(PciConfig.STATUS),
    revisionId: registers.getUInt8(PciConfig.REVISION_ID),
    classCode: decodeClassCode(registers),
    cacheLineSize: registers.getUInt8(PciConfig.CACHE_LINE_SIZE),
    latencyTimer: registers.getUInt8(PciConfig.LATENCY_TIMER),
    headerType,
    multifunction: (typeByte & HEADER_TYPE_MULTIFUNCTION) !== 0,
    bist: registers.getUInt8(PciConfig.BIST),
    bars,
    cardbusCisPointer: isDevice ? registers.getUInt32(PciConfig.CARDBUS_CIS_POINTER) : 0,
    subsystemVendorId: subsystem === undefined ? 0 : registers.getUInt16(subsystem),
    subsystemId: subsystem === undefined ? 0 : registers.getUInt16(subsystem + 2),
    expansionRomAddress: expansionRom(registers, headerType),
    capabilitiesPointer: capabilitiesPointer(config),
    interruptLine: registers.getUInt8(PciConfig.INTERRUPT_LINE),
    interruptPin,
    minGrant: isDevice ? registers.getUInt8(PciConfig.MIN_GRANT) : 0,
    maxLatency: isDevice ? registers.getUInt8(PciConfig.MAX_LATENCY) : 0,
    bridge,
    ...(bridge !== null && { bridgeWindows: decodeBridgeWindows(registers, headerType) }),
    problems,
  };
}

/** Bytes of the capability in which a PCI-to-PCI bridge has its subsystem (PCI Express Base 6.0 section 7.9.23). */
const BRIDGE_SUBSYSTEM_LENGTH = 8;

/** Where the subsystem's vendor id stands, its device id behind it. */
function subsystemOffset(config: ConfigReader, headerType: number): number | undefined {
  switch (headerType) {
    case PciHeaderType.DEVICE:
      return PciConfig.SUBSYSTEM_VENDOR_ID;
    case PciHeaderType.BRIDGE: {
      const offset = findCapabilityOffset(
        config,
        PciCapabilityId.BRIDGE_SUBSYSTEM_ID,
        BRIDGE_SUBSYSTEM_LENGTH,
      );
      return offset === undefined ? undefined : offset + 4;
    }
    case PciHeaderType.CARDBUS:
      return PciConfig.CARDBUS_SUBSYSTEM_VENDOR_ID;
    default:
      return undefined;
  }
}

function decodeClassCode(registers: ConfigReader): ClassCode {
  const base = registers.getUInt8(PciConfig.CLASS_BASE);
  const sub = registers.getUInt8(PciConfig.CLASS_SUB);
  const progIf = registers.getUInt8(PciConfig.CLASS_PROG_IF);
  return { base, sub, progIf, name: pciClassName(base, sub, progIf) };
}

function expansionRom(registers: ConfigReader, headerType: number): number {
  if (headerType === PciHeaderType.DEVICE) return registers.getUInt32(PciConfig.EXPANSION_ROM);
  return headerType === PciHeaderType.BRIDGE ? registers.getUInt32(PciConfig.BRIDGE_EXPANSION_ROM) : 0;
}
