/** Slot and root registers of the PCI Express capability (PCI Express Base 6.0 sections 7.5.3.9 to 7.5.3.14). */
import type { CapabilityPlace } from './capability-list.js';
import { bit, bits, coded } from './register-bits.js';

/** Slot Capabilities (7.5.3.9). */
export interface SlotCapabilities {
  /** The chassis has an attention button for the slot. */
  readonly attentionButton: boolean;
  /** Software can control the power of the slot. */
  readonly powerController: boolean;
  /** The slot has a manually operated retention latch (MRL) sensor. */
  readonly mrlSensor: boolean;
  /** The chassis has an attention indicator for the slot. */
  readonly attentionIndicator: boolean;
  /** The chassis has a power indicator for the slot. */
  readonly powerIndicator: boolean;
  /** An adapter may be removed without notice. */
  readonly hotPlugSurprise: boolean;
  /** The slot supports hot-plug. */
  readonly hotPlugCapable: boolean;
  /** The slot has an electromechanical interlock. */
  readonly electromechanicalInterlock: boolean;
  /** The slot does not tell when a command is completed. */
  readonly noCommandCompleted: boolean;
}

/** Slot Control (7.5.3.10). */
export interface SlotControl {
  /** Attention button presses are notified. */
  readonly attentionButtonEnable: boolean;
  /** Power faults are notified. */
  readonly powerFaultEnable: boolean;
  /** Changes of the MRL sensor are notified. */
  readonly mrlSensorEnable: boolean;
  /** Changes of presence are notified. */
  readonly presenceDetectEnable: boolean;
  /** Completed commands are notified. */
  readonly commandCompletedEnable: boolean;
  /** Hot-plug events interrupt. */
  readonly hotPlugInterruptEnable: boolean;
  /** The power of the slot is off. */
  readonly powerOff: boolean;
  /** Writing 1 toggles the interlock; reads 0. */
  readonly electromechanicalInterlock: boolean;
  /** Changes of the data link layer state are notified. */
  readonly dataLinkStateEnable: boolean;
  /** What the attention indicator shows. */
  readonly attentionIndicator: Indicator;
  /** What the power indicator shows. */
  readonly powerIndicator: Indicator;
}

/** Slot Status (7.5.3.11). */
export interface SlotStatus {
  /** The attention button was pressed. */
  readonly attentionButtonPressed: boolean;
  /** A power fault was detected. */
  readonly powerFault: boolean;
  /** The MRL sensor has changed. */
  readonly mrlSensorChanged: boolean;
  /** Presence has changed. */
  readonly presenceDetectChanged: boolean;
  /** A command was completed. */
  readonly commandCompleted: boolean;
  /** The MRL is open. */
  readonly mrlOpen: boolean;
  /** An adapter is in the slot. */
  readonly presence: boolean;
  /** The interlock is engaged. */
  readonly electromechanicalInterlock: boolean;
  /** The data link layer state has changed. */
  readonly dataLinkStateChanged: boolean;
}

/** Root Capabilities (7.5.3.13). */
export interface RootCapabilities {
  /** Request Retry Status can be returned to software. */
  readonly configurationRetryVisible: boolean;
}

/** Root Control (7.5.3.12). */
export interface RootControl {
  /** Correctable errors below the port raise a system error. */
  readonly correctableSystemError: boolean;
  /** Non-fatal errors below the port raise a system error. */
  readonly nonFatalSystemError: boolean;
  /** Fatal errors below the port raise a system error. */
  readonly fatalSystemError: boolean;
  /** PME interrupts. */
  readonly pmeInterrupt: boolean;
  /** Request Retry Status is returned to software. */
  readonly configurationRetryVisible: boolean;
}

/** Root Status (7.5.3.14). */
export interface RootStatus {
  /** A PME was asserted by the requester below. */
  readonly pme: boolean;
  /** Another PME is pending. */
  readonly pmePending: boolean;
  /** Bus, device and function of the last that signalled PME. */
  readonly pmeRequesterId: number;
}

/** What an indicator of a slot shows. */
export type Indicator = 'on' | 'blink' | 'off' | 'reserved';

/** Slot Capabilities, Control and Status. */
export interface SlotFields {
  /** The slot's number in the chassis. */
  readonly physicalSlotNumber: number;
  /** Milliwatts; null for more than 600 W. */
  readonly powerMilliwatts: number | null;
  /** The capabilities register. */
  readonly capabilities: SlotCapabilities;
  /** The control register. */
  readonly control: SlotControl;
  /** The status register. */
  readonly status: SlotStatus;
}

/** Root Capabilities, Control and Status. */
export interface RootFields {
  /** The capabilities register. */
  readonly capabilities: RootCapabilities;
  /** The control register. */
  readonly control: RootControl;
  /** The status register. */
  readonly status: RootStatus;
}

function decodeSlotCapabilities(register: number): SlotCapabilities {
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

function decodeSlotControl(register: number): SlotControl {
  return {
    attentionButtonEnable: bit(register, 0),
    powerFaultEnable: bit(register, 1),
    mrlSensorEnable: bit(register, 2),
    presenceDetectEnable: bit(register, 3),
    commandCompletedEnable: bit(register, 4),
    hotPlugInterruptEnable: bit(register, 5),
    powerOff: bit(register, 10),
    electromechanicalInterlock: bit(register, 11),
    dataLinkStateEnable: bit(register, 12),
    attentionIndicator: coded(INDICATORS, register, 6, 2),
    powerIndicator: coded(INDICATORS, register, 8, 2),
  };
}

function decodeSlotStatus(register: number): SlotStatus {
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

function decodeRootCapabilities(register: number): RootCapabilities {
  return { configurationRetryVisible: bit(register, 0) };
}

function decodeRootControl(register: number): RootControl {
  return {
    correctableSystemError: bit(register, 0),
    nonFatalSystemError: bit(register, 1),
    fatalSystemError: bit(register, 2),
    pmeInterrupt: bit(register, 3),
    configurationRetryVisible: bit(register, 4),
  };
}

function decodeRootStatus(register: number): RootStatus {
  return {
    pme: bit(register, 16),
    pmePending: bit(register, 17),
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
