/**
 * L1 PM Substates, Latency Tolerance Reporting and Precision Time Measurement (PCI Express Base 6.0 sections 7.8.3, 7.8.2
 * and 7.9.15).
 */
import { fits, type CapabilityPlace } from './capability-list.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

export interface L1SubstatesFields {
  readonly kind: 'l1-pm-substates';
  readonly capabilities: RegisterFields<typeof decodeSubstates> & {
    readonly l1PmSubstates: boolean;
    /** Microseconds. */
    readonly commonModeRestoreTimeUs: number;
    /** Microseconds; null for a scale that is reserved. */
    readonly powerOnTimeUs: number | null;
  };
  readonly control: RegisterFields<typeof decodeSubstates> & {
    /** Microseconds. */
    readonly commonModeRestoreTimeUs: number;
    /** Nanoseconds; null for a scale that is reserved. */
    readonly ltrThresholdNs: number | null;
    /** Microseconds; null for a scale that is reserved. */
    readonly powerOnTimeUs: number | null;
  };
}

export interface LatencyToleranceFields {
  readonly kind: 'latency-tolerance-reporting';
  /** Nanoseconds; null for a scale that is reserved. */
  readonly maxSnoopLatencyNs: number | null;
  /** Nanoseconds; null for a scale that is reserved. */
  readonly maxNoSnoopLatencyNs: number | null;
}

export interface PrecisionTimeFields {
  readonly kind: 'precision-time-measurement';
  readonly capabilities: RegisterFields<typeof decodeTimeCapabilities>;
  readonly control: RegisterFields<typeof decodeTimeControl>;
}

function decodeSubstates(register: number) {
  return {
    pciPmL12: bit(register, 0),
    pciPmL11: bit(register, 1),
    aspmL12: bit(register, 2),
    aspmL11: bit(register, 3),
  };
}

function decodeTimeCapabilities(register: number) {
  return {
    requester: bit(register, 0),
    responder: bit(register, 1),
    root: bit(register, 2),
    /** Nanoseconds: 0 where it has no clock of its own, 255 for more than 254. */
    localClockGranularityNs: bits(register, 8, 8),
  };
}

function decodeTimeControl(register: number) {
  return {
    enabled: bit(register, 0),
    rootSelect: bit(register, 1),
    /** Nanoseconds: 0 where it is not known, 255 for more than 254. */
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
