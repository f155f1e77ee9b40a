/** The header of config space: type 0 (PCI Local Bus 3.0 section 6.1), and what type 1 shares with it. */
import { decodeBars, type Bar } from './bars.js';
import { pciClassName } from './classes.js';
import { zeroExtended, type ConfigReader } from './config-reader.js';
import {
  HEADER_TYPE_MASK,
  HEADER_TYPE_MULTIFUNCTION,
  hex,
  PciConfig,
  PciHeaderType,
  PciStatus,
} from './registers.js';

/** The class code register in its three parts. */
export interface ClassCode {
  readonly base: number;
  readonly sub: number;
  /** The programming interface. */
  readonly progIf: number;
  /** What the code assignment calls it, for example `Non-volatile memory controller (NVMe)`. */
  readonly name: string;
}

/** The bus numbers of a PCI-to-PCI bridge. */
export interface BridgeBuses {
  readonly primary: number;
  readonly secondary: number;
  readonly subordinate: number;
}

/** A decoded header. Registers that its type does not have are 0. */
export interface PciHeader {
  readonly vendorId: number;
  readonly deviceId: number;
  /** Bits as in `PciCommand`. */
  readonly command: number;
  /** Bits as in `PciStatus`. */
  readonly status: number;
  readonly revisionId: number;
  readonly classCode: ClassCode;
  /** In units of four bytes. */
  readonly cacheLineSize: number;
  readonly latencyTimer: number;
  /** The layout, as in `PciHeaderType`, without the multifunction bit. */
  readonly headerType: number;
  readonly multifunction: boolean;
  readonly bist: number;
  readonly bars: readonly Bar[];
  readonly cardbusCisPointer: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** The register: an address in the bits from 11 on, enabled where bit 0 is set. */
  readonly expansionRomAddress: number;
  /** Where the list of capabilities begins; 0 where the status register says that there is none. */
  readonly capabilitiesPointer: number;
  readonly interruptLine: number;
  /** 1 to 4 for INTA to INTD, 0 for none. */
  readonly interruptPin: number;
  /** In units of 250 ns. */
  readonly minGrant: number;
  /** In units of 250 ns. */
  readonly maxLatency: number;
  /** A PCI-to-PCI bridge's (type 1), null for all others. */
  readonly bridge: BridgeBuses | null;
  /** What is wrong with the bytes, for people; empty when all is sound. */
  readonly problems: readonly string[];
}

/** Decodes the header. Nothing in the bytes makes it throw: what is wrong with them is told in `problems`. */
export function decodeHeader(config: ConfigReader): PciHeader {
  const registers = zeroExtended(config);
  const { bars, problems } = decodeBars(config);
  const typeByte = registers.readUInt8(PciConfig.HEADER_TYPE);
  const headerType = typeByte & HEADER_TYPE_MASK;
  const isDevice = headerType === PciHeaderType.DEVICE;
  const isBridge = headerType === PciHeaderType.BRIDGE;

  const vendorId = registers.readUInt16(PciConfig.VENDOR_ID);
  if (vendorId === 0xffff) problems.push('the vendor id is 0xffff: no device answers here');
  if (headerType > PciHeaderType.CARDBUS) problems.push(`the header type ${hex(headerType)} is not defined`);
  const interruptPin = registers.readUInt8(PciConfig.INTERRUPT_PIN);
  if (interruptPin > 4) problems.push(`the interrupt pin ${interruptPin} is reserved`);

  return {
    vendorId,
    deviceId: registers.readUInt16(PciConfig.DEVICE_ID),
    command: registers.readUInt16(PciConfig.COMMAND),
    status: registers.readUInt16(PciConfig.STATUS),
    revisionId: registers.readUInt8(PciConfig.REVISION_ID),
    classCode: decodeClassCode(registers),
    cacheLineSize: registers.readUInt8(PciConfig.CACHE_LINE_SIZE),
    latencyTimer: registers.readUInt8(PciConfig.LATENCY_TIMER),
    headerType,
    multifunction: (typeByte & HEADER_TYPE_MULTIFUNCTION) !== 0,
    bist: registers.readUInt8(PciConfig.BIST),
    bars,
    cardbusCisPointer: isDevice ? registers.readUInt32(PciConfig.CARDBUS_CIS_POINTER) : 0,
    subsystemVendorId: isDevice ? registers.readUInt16(PciConfig.SUBSYSTEM_VENDOR_ID) : 0,
    subsystemId: isDevice ? registers.readUInt16(PciConfig.SUBSYSTEM_ID) : 0,
    expansionRomAddress: expansionRom(registers, headerType),
    capabilitiesPointer: capabilitiesPointer(config),
    interruptLine: registers.readUInt8(PciConfig.INTERRUPT_LINE),
    interruptPin,
    minGrant: isDevice ? registers.readUInt8(PciConfig.MIN_GRANT) : 0,
    maxLatency: isDevice ? registers.readUInt8(PciConfig.MAX_LATENCY) : 0,
    bridge: isBridge
      ? {
          primary: registers.readUInt8(PciConfig.PRIMARY_BUS),
          secondary: registers.readUInt8(PciConfig.SECONDARY_BUS),
          subordinate: registers.readUInt8(PciConfig.SUBORDINATE_BUS),
        }
      : null,
    problems,
  };
}

/** The pointer to the list of capabilities as it stands in the header; 0 where the status bit says that there is none. */
export function capabilitiesPointer(config: ConfigReader): number {
  const registers = zeroExtended(config);
  if ((registers.readUInt16(PciConfig.STATUS) & PciStatus.CAPABILITIES_LIST) === 0) return 0;
  return registers.readUInt8(capabilitiesPointerOffset(config));
}

/** Where that pointer stands: CardBus bridges have it elsewhere. */
function capabilitiesPointerOffset(config: ConfigReader): number {
  const headerType = zeroExtended(config).readUInt8(PciConfig.HEADER_TYPE) & HEADER_TYPE_MASK;
  return headerType === PciHeaderType.CARDBUS
    ? PciConfig.CARDBUS_CAPABILITIES_POINTER
    : PciConfig.CAPABILITIES_POINTER;
}

function decodeClassCode(registers: ConfigReader): ClassCode {
  const base = registers.readUInt8(PciConfig.CLASS_BASE);
  const sub = registers.readUInt8(PciConfig.CLASS_SUB);
  const progIf = registers.readUInt8(PciConfig.CLASS_PROG_IF);
  return { base, sub, progIf, name: pciClassName(base, sub, progIf) };
}

function expansionRom(registers: ConfigReader, headerType: number): number {
  if (headerType === PciHeaderType.DEVICE) return registers.readUInt32(PciConfig.EXPANSION_ROM);
  return headerType === PciHeaderType.BRIDGE ? registers.readUInt32(PciConfig.BRIDGE_EXPANSION_ROM) : 0;
}
