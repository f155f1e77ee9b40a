/** What a SCSI host says by itself, on its event queue (Virtual I/O Device 1.2, section 5.6.6.3). */
import type { ScsiAddress } from './scsi-host.js';

export const EVENT_BYTES = 16;
export const EVENT_QUEUE = 1;
const MISSED = 0x8000_0000;
const Event = { TRANSPORT_RESET: 1, PARAM_CHANGE: 3 } as const;
const REASONS = ['reset', 'added', 'removed'] as const;

/** A logical unit was reset, came, or went. */
export interface ScsiHotplugEvent {
  /** Where: the target. */
  readonly target: number;
  /** And the logical unit. */
  readonly lun: number;
  /** `added` is the specification's RESCAN: something is to be looked for there. */
  readonly reason: 'reset' | 'added' | 'removed';
}

/** Something about a logical unit has changed, as sense data would say it. */
export interface ScsiChangeEvent {
  /** Where: the target. */
  readonly target: number;
  /** And the logical unit. */
  readonly lun: number;
  /** The additional sense code: 0x2a with the qualifier 0x09 is the capacity. */
  readonly asc: number;
  /** Its qualifier. */
  readonly ascq: number;
}

/** The events of a `VirtioScsi`. */
export interface VirtioScsiEvents {
  /** HOTPLUG. */
  hotplug: [event: ScsiHotplugEvent];
  /** CHANGE. */
  change: [event: ScsiChangeEvent];
  /** The device has had events that it could not tell: scan again. */
  missed: [];
}

export type ScsiEventSink = <Name extends keyof VirtioScsiEvents>(
  name: Name,
  ...args: VirtioScsiEvents[Name]
) => void;

/** Tells what `bytes` says; nothing of what is not known. */
export function tellEvent(bytes: Buffer, tell: ScsiEventSink): void {
  const word = bytes.readUInt32LE(0);
  const reason = bytes.readUInt32LE(12);
  const { target, lun } = addressOf(bytes.subarray(4, 12));
  if ((word & MISSED) !== 0) tell('missed');
  const event = word & 0x7fff_ffff;
  if (event === Event.TRANSPORT_RESET) {
    const name = REASONS[reason];
    if (name !== undefined) tell('hotplug', { target, lun, reason: name });
  } else if (event === Event.PARAM_CHANGE)
    tell('change', { target, lun, asc: reason & 0xff, ascq: (reason >>> 8) & 0xff });
}

function addressOf(bytes: Buffer): ScsiAddress {
  return { target: bytes[1]!, lun: bytes.readUInt16BE(2) & 0x3fff };
}
