/** Registers that version 2 of the PCI Express capability added (PCI Express Base 6.0 sections 7.5.3.15 to 7.5.3.20). */
import type { CapabilityPlace } from './capability-list.js';
import { linkSpeed, linkSpeeds } from './link-speed.js';
import { bit, bits, coded } from './register-bits.js';

/** Device Capabilities 2 (7.5.3.15). */
export interface ExpressDeviceCapabilities2 {
  /** The completion timeout can be disabled. */
  readonly completionTimeoutDisable: boolean;
  /** The port forwards ARI requests. */
  readonly ariForwarding: boolean;
  /** The port routes AtomicOps. */
  readonly atomicOpRouting: boolean;
  /** 32-bit AtomicOps are completed. */
  readonly atomicOp32: boolean;
  /** 64-bit AtomicOps are completed. */
  readonly atomicOp64: boolean;
  /** 128-bit compare-and-swap is completed. */
  readonly cas128: boolean;
  /** Posted requests with Relaxed Ordering do not pass each other. */
  readonly noRoEnabledPrPrPassing: boolean;
  /** Latency Tolerance Reporting is supported. */
  readonly latencyToleranceReporting: boolean;
  /** TLP Processing Hints are supported as a completer. */
  readonly tphCompleter: boolean;
  /** Extended TLP Processing Hints are supported as a completer. */
  readonly extendedTphCompleter: boolean;
  /** 10-bit tags are supported as a completer. */
  readonly tag10Completer: boolean;
  /** 10-bit tags are supported as a requester. */
  readonly tag10Requester: boolean;
  /** OBFF by message is supported. */
  readonly obffMessage: boolean;
  /** OBFF by WAKE# is supported. */
  readonly obffWake: boolean;
  /** The 3-bit Fmt field is supported. */
  readonly extendedFmt: boolean;
  /** End-End TLP prefixes are supported. */
  readonly endEndTlpPrefix: boolean;
  /** The device must be initialized again after Emergency Power Reduction. */
  readonly emergencyPowerReductionInit: boolean;
  /** Function Readiness Status is supported. */
  readonly functionReadinessStatus: boolean;
  /** The ranges that the completion timeout can be set to, of A to D: `ABC`; empty where it cannot be set. */
  readonly completionTimeoutRanges: string;
  /** Cache lines of LN systems, bytes; 0 for none. */
  readonly lnCacheLineSize: number;
  /** 1 to 4; meaningful where `endEndTlpPrefix` is set. */
  readonly maxEndEndTlpPrefixes: number;
  /** 0 for none, 1 device specific, 2 by the form factor or device specific. */
  readonly emergencyPowerReduction: number;
}

/** Device Control 2 (7.5.3.16). */
export interface ExpressDeviceControl2 {
  /** The completion timeout is disabled. */
  readonly completionTimeoutDisabled: boolean;
  /** The port forwards ARI requests. */
  readonly ariForwarding: boolean;
  /** The device may send AtomicOps. */
  readonly atomicOpRequester: boolean;
  /** The port blocks AtomicOps. */
  readonly atomicOpEgressBlocking: boolean;
  /** The device may set ID-based ordering in requests. */
  readonly idBasedOrderingRequest: boolean;
  /** The device may set ID-based ordering in completions. */
  readonly idBasedOrderingCompletion: boolean;
  /** Latency Tolerance Reporting is enabled. */
  readonly latencyToleranceReporting: boolean;
  /** Emergency Power Reduction is requested. */
  readonly emergencyPowerReductionRequest: boolean;
  /** The device uses 10-bit tags. */
  readonly tag10Requester: boolean;
  /** The port does not forward TLPs with End-End TLP prefixes. */
  readonly endEndTlpPrefixBlocking: boolean;
  /** What the completion timeout is set to, microseconds; null for a code that is reserved. */
  readonly completionTimeoutUs: { readonly min: number; readonly max: number } | null;
  /** Optimized Buffer Flush/Fill: how it is signalled. */
  readonly obff: 'disabled' | 'message A' | 'message B' | 'wake';
}

/** Link Capabilities 2 (7.5.3.18). */
export interface ExpressLinkCapabilities2 {
  /** Crosslinks are supported. */
  readonly crosslink: boolean;
  /** A retimer can be detected. */
  readonly retimerPresenceDetect: boolean;
  /** Two retimers can be detected. */
  readonly twoRetimersPresenceDetect: boolean;
  /** Device Readiness Status is supported. */
  readonly deviceReadinessStatus: boolean;
  /** The speeds that the link can have, GT/s. */
  readonly supportedSpeeds: readonly number[];
}

/** Link Control 2 (7.5.3.19). */
export interface ExpressLinkControl2 {
  /** The link enters Compliance at the target speed. */
  readonly enterCompliance: boolean;
  /** The device may not change the link speed but to correct errors. */
  readonly autonomousSpeedDisabled: boolean;
  /** The modified compliance pattern is sent. */
  readonly enterModifiedCompliance: boolean;
  /** SKP ordered sets are sent between compliance patterns. */
  readonly complianceSos: boolean;
  /** The register's code: 1 for 2.5 GT/s, 2 for 5 GT/s and so on. */
  readonly targetSpeedCode: number;
  /** GT/s; null for codes that are not known. */
  readonly targetSpeed: number | null;
  /** De-emphasis at 5 GT/s, decibels: -3.5 or -6. */
  readonly selectableDeemphasisDb: number;
  /** The register's code; 0 is the normal range. */
  readonly transmitMargin: number;
  /** The register's code. */
  readonly compliancePreset: number;
}

/** Link Status 2 (7.5.3.20). */
export interface ExpressLinkStatus2 {
  /** Equalization at 8 GT/s is complete. */
  readonly equalizationComplete: boolean;
  /** Phase 1 of it was successful. */
  readonly equalizationPhase1: boolean;
  /** Phase 2 of it was successful. */
  readonly equalizationPhase2: boolean;
  /** Phase 3 of it was successful. */
  readonly equalizationPhase3: boolean;
  /** Equalization is requested again. */
  readonly linkEqualizationRequest: boolean;
  /** A retimer is present. */
  readonly retimerPresent: boolean;
  /** Two retimers are present. */
  readonly twoRetimersPresent: boolean;
  /** The link is in Flit Mode. */
  readonly flitMode: boolean;
  /** A Device Readiness Status message was received. */
  readonly readinessMessageReceived: boolean;
  /** De-emphasis at 5 GT/s, decibels: -3.5 or -6. */
  readonly currentDeemphasisDb: number;
  /** 0 not supported, 1 upstream port, 2 downstream port, 3 negotiation not completed. */
  readonly crosslinkResolution: number;
  /** The register's code for the presence of the component downstream. */
  readonly downstreamComponent: number;
}

/** Device Capabilities 2 and Device Control 2. */
export interface Device2Fields {
  /** The capabilities register. */
  readonly capabilities: ExpressDeviceCapabilities2;
  /** The control register. */
  readonly control: ExpressDeviceControl2;
}

/** Link Capabilities 2, Link Control 2 and Link Status 2. */
export interface Link2Fields {
  /** The capabilities register. */
  readonly capabilities: ExpressLinkCapabilities2;
  /** The control register. */
  readonly control: ExpressLinkControl2;
  /** The status register. */
  readonly status: ExpressLinkStatus2;
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

function decodeCapabilities(register: number): ExpressDeviceCapabilities2 {
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
    completionTimeoutRanges: `${COMPLETION_TIMEOUT_RANGES[bits(register, 0, 3)]}${bit(register, 3) ? 'D' : ''}`,
    lnCacheLineSize: coded(LN_CACHE_LINES, register, 14, 2),
    maxEndEndTlpPrefixes: bits(register, 22, 2) || 4,
    emergencyPowerReduction: bits(register, 24, 2),
  };
}

function decodeControl(register: number): ExpressDeviceControl2 {
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
    completionTimeoutUs: COMPLETION_TIMEOUTS_US[bits(register, 0, 4)] ?? null,
    obff: coded(OBFF, register, 13, 2),
  };
}

function decodeLinkCapabilities(register: number): ExpressLinkCapabilities2 {
  return {
    crosslink: bit(register, 8),
    retimerPresenceDetect: bit(register, 23),
    twoRetimersPresenceDetect: bit(register, 24),
    deviceReadinessStatus: bit(register, 31),
    supportedSpeeds: linkSpeeds(bits(register, 1, 7)),
  };
}

function decodeLinkControl(register: number): ExpressLinkControl2 {
  return {
    enterCompliance: bit(register, 4),
    autonomousSpeedDisabled: bit(register, 5),
    enterModifiedCompliance: bit(register, 10),
    complianceSos: bit(register, 11),
    targetSpeedCode: bits(register, 0, 4),
    targetSpeed: linkSpeed(bits(register, 0, 4)),
    selectableDeemphasisDb: deemphasisDb(register, 6),
    transmitMargin: bits(register, 7, 3),
    compliancePreset: bits(register, 12, 4),
  };
}

function decodeLinkStatus(register: number): ExpressLinkStatus2 {
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
    currentDeemphasisDb: deemphasisDb(register, 0),
    crosslinkResolution: bits(register, 8, 2),
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
