/** Slot and root registers of the PCI Express capability (PCI Express Base 6.0 sections 7.5.3.9 to 7.5.3.14). */
import type { CapabilityPlace } from './capability-list.js';
import { bit, bits, type RegisterFields } from './register-bits.js';

export type Indicator = 'on' | 'blink' | 'off' | 'reserved';

/** Slot Capabilities, Control and Status. */
export interface SlotFields {
  readonly physicalSlotNumber: number;
  /** Milliwatts; null for more than 600 W. */
  readonly powerMilliwatts: number | null;
  readonly capabilities: RegisterFields<typeof decodeSlotCapabilities>;
  readonly control: RegisterFields<typeof decodeSlotControl>;
  readonly status: RegisterFields<typeof decodeSlotStatus>;
}

/** Root Capabilities, Control and Status. */
export interface RootFields {
  readonly capabilities: RegisterFields<typeof decodeRootCapabilities>;
  readonly control: RegisterFields<typeof decodeRootControl>;
  readonly status: RegisterFields<typeof decodeRootStatus>;
}

function decodeSlotCapabilities(register: number) {
  return {
    attentionButton: bit(register, 0),
    powerController: bit(register, 1),
    mrlSensor: bit(register, 2),
    attentionIndicator: bit(register, 3),
    powerIndicator: bit(register, 4),
    hotPlugSurprise: bit(register, 5),
    hotPlugCapable: bit(register, 6),
    electromechanicalInterlock: bit(register, 17),
    noCommandCompleted: bit(register, 18),
  };
}

function decodeSlotControl(register: number) {
  return {
    attentionButtonEnable: bit(register, 0),
    powerFaultEnable: bit(register, 1),
    mrlSensorEnable: bit(register, 2),
    presenceDetectEnable: bit(register, 3),
    commandCompletedEnable: bit(register, 4),
    hotPlugInterruptEnable: bit(register, 5),
    /** Set: power is off. */
    powerOff: bit(register, 10),
    electromechanicalInterlock: bit(register, 11),
    dataLinkStateEnable: bit(register, 12),

    attentionIndicator: INDICATORS[bits(register, 6, 2)]!,
    powerIndicator: INDICATORS[bits(register, 8, 2)]!,
  };
}

function decodeSlotStatus(register: number) {
  return {
    attentionButtonPressed: bit(register, 0),
    powerFault: bit(register, 1),
    mrlSensorChanged: bit(register, 2),
    presenceDetectChanged: bit(register, 3),
    commandCompleted: bit(register, 4),
    mrlOpen: bit(register, 5),
    presence: bit(register, 6),
    electromechanicalInterlock: bit(register, 7),
    dataLinkStateChanged: bit(register, 8),
  };
}

function decodeRootCapabilities(register: number) {
  return { configurationRetryVisible: bit(register, 0) };
}

function decodeRootControl(register: number) {
  return {
    correctableSystemError: bit(register, 0),
    nonFatalSystemError: bit(register, 1),
    fatalSystemError: bit(register, 2),
    pmeInterrupt: bit(register, 3),
    configurationRetryVisible: bit(register, 4),
  };
}

function decodeRootStatus(register: number) {
  return {
    pme: bit(register, 16),
    pmePending: bit(register, 17),
    /** Bus, device and function of the last that signalled PME. */
    pmeRequesterId: register & 0xffff,
  };
}

const INDICATORS: readonly Indicator[] = ['reserved', 'on', 'blink', 'off'];

export function decodeSlot({ config, offset }: CapabilityPlace): SlotFields {
  const capabilities = config.getUInt32(offset + 0x14);
  return {
    physicalSlotNumber: capabilities >>> 19,
    powerMilliwatts: slotPowerMilliwatts(bits(capabilities, 7, 8), bits(capabilities, 15, 2)),
    capabilities: decodeSlotCapabilities(capabilities),
    control: decodeSlotControl(config.getUInt16(offset + 0x18)),
    status: decodeSlotStatus(config.getUInt16(offset + 0x1a)),
  };
}

export function decodeRoot({ config, offset }: CapabilityPlace): RootFields {
  return {
    capabilities: decodeRootCapabilities(config.getUInt16(offset + 0x1e)),
    control: decodeRootControl(config.getUInt16(offset + 0x1c)),
    status: decodeRootStatus(config.getUInt32(offset + 0x20)),
  };
}

/** Slot Power Limit Value and Scale (7.5.3.9): above 239 W at scale 0 the values stand for powers in steps. */
export function slotPowerMilliwatts(value: number, scale: number): number | null {
  if (scale === 0 && value === 0xff) return null;
  const watts = scale === 0 && value >= 0xf0 ? 250 + 25 * (value - 0xf0) : value;
  return watts * 10 ** (3 - scale);
}
