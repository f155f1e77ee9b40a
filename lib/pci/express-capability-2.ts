/** Registers that version 2 of the PCI Express capability added (PCI Express Base 6.0 sections 7.5.3.15 to 7.5.3.20). */
import type { CapabilityPlace } from './capability-list.js';
import { linkSpeed, linkSpeeds } from './link-speed.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

/** Device Capabilities 2 and Device Control 2. */
export interface Device2Fields {
  readonly capabilities: RegisterFields<typeof decodeCapabilities>;
  readonly control: RegisterFields<typeof decodeControl>;
}

/** Link Capabilities 2, Link Control 2 and Link Status 2. */
export interface Link2Fields {
  readonly capabilities: RegisterFields<typeof decodeLinkCapabilities>;
  readonly control: RegisterFields<typeof decodeLinkControl>;
  readonly status: RegisterFields<typeof decodeLinkStatus>;
}

/** Microseconds, by code. */
const COMPLETION_TIMEOUTS_US: Readonly<Record<number, { readonly min: number; readonly max: number }>> = {
  0: { min: 50, max: 50_000 },
  1: { min: 50, max: 100 },
  2: { min: 1_000, max: 10_000 },
  5: { min: 16_000, max: 55_000 },
  6: { min: 65_000, max: 210_000 },
  9: { min: 260_000, max: 900_000 },
  10: { min: 1_000_000, max: 3_500_000 },
  13: { min: 4_000_000, max: 13_000_000 },
  14: { min: 17_000_000, max: 64_000_000 },
};
/** By their bits. */
const COMPLETION_TIMEOUT_RANGES = ['', 'A', 'B', 'AB', 'C', 'AC', 'BC', 'ABC'];
const OBFF = ['disabled', 'message A', 'message B', 'wake'] as const;
const LN_CACHE_LINES: readonly number[] = [0, 64, 128, 0];

function decodeCapabilities(register: number) {
  return {
    completionTimeoutDisable: bit(register, 4),
    ariForwarding: bit(register, 5),
    atomicOpRouting: bit(register, 6),
    atomicOp32: bit(register, 7),
    atomicOp64: bit(register, 8),
    cas128: bit(register, 9),
    noRoEnabledPrPrPassing: bit(register, 10),
    latencyToleranceReporting: bit(register, 11),
    tphCompleter: bit(register, 12),
    extendedTphCompleter: bit(register, 13),
    tag10Completer: bit(register, 16),
    tag10Requester: bit(register, 17),
    obffMessage: bit(register, 18),
    obffWake: bit(register, 19),
    extendedFmt: bit(register, 20),
    endEndTlpPrefix: bit(register, 21),
    emergencyPowerReductionInit: bit(register, 26),
    functionReadinessStatus: bit(register, 31),
    /** The ranges that the completion timeout can be set to, of A to D: `ABC`; empty where it cannot be set. */
    completionTimeoutRanges: `${COMPLETION_TIMEOUT_RANGES[bits(register, 0, 3)]}${bit(register, 3) ? 'D' : ''}`,
    /** Cache lines of LN systems, bytes; 0 for none. */
    lnCacheLineSize: LN_CACHE_LINES[bits(register, 14, 2)]!,
    /** Meaningful where `endEndTlpPrefix` is set. */
    maxEndEndTlpPrefixes: bits(register, 22, 2) || 4,
    /** 0 for none, 1 device specific, 2 by the form factor or device specific. */
    emergencyPowerReduction: bits(register, 24, 2),
  };
}

function decodeControl(register: number) {
  return {
    completionTimeoutDisabled: bit(register, 4),
    ariForwarding: bit(register, 5),
    atomicOpRequester: bit(register, 6),
    atomicOpEgressBlocking: bit(register, 7),
    idBasedOrderingRequest: bit(register, 8),
    idBasedOrderingCompletion: bit(register, 9),
    latencyToleranceReporting: bit(register, 10),
    emergencyPowerReductionRequest: bit(register, 11),
    tag10Requester: bit(register, 12),
    endEndTlpPrefixBlocking: bit(register, 15),
    /** What the completion timeout is set to, microseconds; null for a code that is reserved. */
    completionTimeoutUs: COMPLETION_TIMEOUTS_US[bits(register, 0, 4)] ?? null,
    obff: OBFF[bits(register, 13, 2)]!,
  };
}

function decodeLinkCapabilities(register: number) {
  return {
    crosslink: bit(register, 8),
    retimerPresenceDetect: bit(register, 23),
    twoRetimersPresenceDetect: bit(register, 24),
    deviceReadinessStatus: bit(register, 31),
    /** GT/s. */
    supportedSpeeds: linkSpeeds(bits(register, 1, 7)),
  };
}

function decodeLinkControl(register: number) {
  return {
    enterCompliance: bit(register, 4),
    autonomousSpeedDisabled: bit(register, 5),
    enterModifiedCompliance: bit(register, 10),
    complianceSos: bit(register, 11),
    /** The register's code. */
    targetSpeedCode: bits(register, 0, 4),
    /** GT/s; null for codes that are not known. */
    targetSpeed: linkSpeed(bits(register, 0, 4)),
    /** De-emphasis at 5 GT/s, decibels. */
    selectableDeemphasisDb: deemphasisDb(register, 6),
    /** The register's code; 0 is the normal range. */
    transmitMargin: bits(register, 7, 3),
    /** The register's code. */
    compliancePreset: bits(register, 12, 4),
  };
}

function decodeLinkStatus(register: number) {
  return {
    equalizationComplete: bit(register, 1),
    equalizationPhase1: bit(register, 2),
    equalizationPhase2: bit(register, 3),
    equalizationPhase3: bit(register, 4),
    linkEqualizationRequest: bit(register, 5),
    retimerPresent: bit(register, 6),
    twoRetimersPresent: bit(register, 7),
    flitMode: bit(register, 10),
    readinessMessageReceived: bit(register, 15),
    /** De-emphasis at 5 GT/s, decibels. */
    currentDeemphasisDb: deemphasisDb(register, 0),
    /** 0 not supported, 1 upstream port, 2 downstream port, 3 negotiation not completed. */
    crosslinkResolution: bits(register, 8, 2),
    /** The register's code of the component downstream. */
    downstreamComponent: bits(register, 12, 3),
  };
}

export function decodeDevice2({ config, offset }: CapabilityPlace): Device2Fields {
  return {
    capabilities: decodeCapabilities(config.getUInt32(offset + 0x24)),
    control: decodeControl(config.getUInt16(offset + 0x28)),
  };
}

export function decodeLink2({ config, offset }: CapabilityPlace): Link2Fields {
  return {
    capabilities: decodeLinkCapabilities(config.getUInt32(offset + 0x2c)),
    control: decodeLinkControl(config.getUInt16(offset + 0x30)),
    status: decodeLinkStatus(config.getUInt16(offset + 0x32)),
  };
}

function deemphasisDb(register: number, index: number): number {
  return bit(register, index) ? -3.5 : -6;
}
