/**
 * L1 PM Substates, Latency Tolerance Reporting and Precision Time Measurement (PCI Express Base 6.0 sections 7.8.3, 7.8.2
 * and 7.9.15).
 */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits } from './register-bits.js';

/** A bit for each substate of L1 (7.8.3). */
export interface L1Substates {
  /** PCI-PM L1.2. */
  readonly pciPmL12: boolean;
  /** PCI-PM L1.1. */
  readonly pciPmL11: boolean;
  /** ASPM L1.2. */
  readonly aspmL12: boolean;
  /** ASPM L1.1. */
  readonly aspmL11: boolean;
}

/** PTM Capability (7.9.15.2). */
export interface PrecisionTimeCapabilities {
  /** The function can be a requester. */
  readonly requester: boolean;
  /** The function can be a responder. */
  readonly responder: boolean;
  /** The function can be the root. */
  readonly root: boolean;
  /** Nanoseconds: 0 where it has no clock of its own, 255 for more than 254. */
  readonly localClockGranularityNs: number;
}

/** PTM Control (7.9.15.3). */
export interface PrecisionTimeControl {
  /** PTM is enabled. */
  readonly enabled: boolean;
  /** The function is the root. */
  readonly rootSelect: boolean;
  /** Nanoseconds: 0 where it is not known, 255 for more than 254. */
  readonly effectiveGranularityNs: number;
}

/** L1 PM Substates (PCI Express Base 6.0 section 7.8.3). */
export interface L1SubstatesFields {
  /** Which capability it is. */
  readonly kind: 'l1-pm-substates';
  /** What the port supports. */
  readonly capabilities: L1Substates & {
    readonly l1PmSubstates: boolean;
    /** Microseconds. */
    readonly commonModeRestoreTimeUs: number;
    /** Microseconds; null for a scale that is reserved. */
    readonly powerOnTimeUs: number | null;
  };
  /** What is enabled of it. */
  readonly control: L1Substates & {
    /** Microseconds. */
    readonly commonModeRestoreTimeUs: number;
    /** Nanoseconds; null for a scale that is reserved. */
    readonly ltrThresholdNs: number | null;
    /** Microseconds; null for a scale that is reserved. */
    readonly powerOnTimeUs: number | null;
  };
}

/** Latency Tolerance Reporting (PCI Express Base 6.0 section 7.8.2). */
export interface LatencyToleranceFields {
  /** Which capability it is. */
  readonly kind: 'latency-tolerance-reporting';
  /** Nanoseconds; null for a scale that is reserved. */
  readonly maxSnoopLatencyNs: number | null;
  /** Nanoseconds; null for a scale that is reserved. */
  readonly maxNoSnoopLatencyNs: number | null;
}

/** Precision Time Measurement (PCI Express Base 6.0 section 7.9.15). */
export interface PrecisionTimeFields {
  /** Which capability it is. */
  readonly kind: 'precision-time-measurement';
  /** The capabilities register. */
  readonly capabilities: PrecisionTimeCapabilities;
  /** The control register. */
  readonly control: PrecisionTimeControl;
}

function decodeSubstates(register: number): L1Substates {
  return {
    pciPmL12: bit(register, 0),
    pciPmL11: bit(register, 1),
    aspmL12: bit(register, 2),
    aspmL11: bit(register, 3),
  };
}

function decodeTimeCapabilities(register: number): PrecisionTimeCapabilities {
  return {
    requester: bit(register, 0),
    responder: bit(register, 1),
    root: bit(register, 2),
    localClockGranularityNs: bits(register, 8, 8),
  };
}

function decodeTimeControl(register: number): PrecisionTimeControl {
  return {
    enabled: bit(register, 0),
    rootSelect: bit(register, 1),
    effectiveGranularityNs: bits(register, 8, 8),
  };
}

/** By scale. */
const POWER_ON_UNITS_US: readonly number[] = [2, 10, 100];
/** Latencies have a scale in powers of 32 ns, up to this. */
const MAX_LATENCY_SCALE = 5;

export function decodeL1Substates(place: CapabilityPlace): L1SubstatesFields | null {
  const { config, offset } = place;
  if (!fits(place, 0x10, 'L1 PM Substates')) return null;
  const capabilities = config.getUInt32(offset + 0x04);
  const control1 = config.getUInt32(offset + 0x08);
  const control2 = config.getUInt32(offset + 0x0c);
  return {
    kind: 'l1-pm-substates',
    capabilities: {
      ...decodeSubstates(capabilities),
      l1PmSubstates: (capabilities & 0x10) !== 0,
      commonModeRestoreTimeUs: bits(capabilities, 8, 8),
      powerOnTimeUs: powerOnTimeUs(bits(capabilities, 16, 2), bits(capabilities, 19, 5)),
    },
    control: {
      ...decodeSubstates(control1),
      commonModeRestoreTimeUs: bits(control1, 8, 8),
      ltrThresholdNs: latencyNs(bits(control1, 29, 3), bits(control1, 16, 10)),
      powerOnTimeUs: powerOnTimeUs(bits(control2, 0, 2), bits(control2, 3, 5)),
    },
  };
}

export function decodeLatencyTolerance(place: CapabilityPlace): LatencyToleranceFields | null {
  const { config, offset } = place;
  if (!fits(place, 8, 'Latency Tolerance Reporting')) return null;
  const latency = (register: number) => latencyNs(bits(register, 10, 3), bits(register, 0, 10));
  return {
    kind: 'latency-tolerance-reporting',
    maxSnoopLatencyNs: latency(config.getUInt16(offset + 4)),
    maxNoSnoopLatencyNs: latency(config.getUInt16(offset + 6)),
  };
}

export function decodePrecisionTime(place: CapabilityPlace): PrecisionTimeFields | null {
  const { config, offset } = place;
  if (!fits(place, 12, 'Precision Time Measurement')) return null;
  return {
    kind: 'precision-time-measurement',
    capabilities: decodeTimeCapabilities(config.getUInt32(offset + 4)),
    control: decodeTimeControl(config.getUInt32(offset + 8)),
  };
}

function powerOnTimeUs(scale: number, value: number): number | null {
  const unit = POWER_ON_UNITS_US[scale];
  return unit === undefined ? null : unit * value;
}

function latencyNs(scale: number, value: number): number | null {
  return scale > MAX_LATENCY_SCALE ? null : value * 32 ** scale;
}
