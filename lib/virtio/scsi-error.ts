/** A SCSI command that was not carried out. */
import { brand } from '../brand.js';
import { VfioUserError } from '../index.js';
import { decodeSense, type ScsiSense } from './scsi-sense.js';

export const ScsiStatus = { GOOD: 0, CHECK_CONDITION: 2 } as const;
const STATUS_NAMES: Readonly<Record<number, string>> = {
  0x00: 'GOOD',
  0x02: 'CHECK_CONDITION',
  0x04: 'CONDITION_MET',
  0x08: 'BUSY',
  0x18: 'RESERVATION_CONFLICT',
  0x28: 'TASK_SET_FULL',
  0x30: 'ACA_ACTIVE',
  0x40: 'TASK_ABORTED',
};

/** Section 5.6.6.1.1: what became of the request on its way to the logical unit. */
const RESPONSE_NAMES: Readonly<Record<number, string>> = {
  0: 'OK',
  1: 'OVERRUN',
  2: 'ABORTED',
  3: 'BAD_TARGET',
  4: 'RESET',
  5: 'BUSY',
  6: 'TRANSPORT_FAILURE',
  7: 'TARGET_FAILURE',
  8: 'NEXUS_FAILURE',
  9: 'FAILURE',
};
export const BAD_TARGET = 3;

/** The name of a response of the host: `BAD_TARGET`; `RESPONSE_77` where there is none. */
export function scsiResponseName(response: number): string {
  return RESPONSE_NAMES[response] ?? `RESPONSE_${response}`;
}

/**
 * A logical unit completed a command with another status than GOOD. `code` is `ERR_SCSI_` and the sense key's name, or the
 * status's where there is no sense data: `ERR_SCSI_ILLEGAL_REQUEST`, `ERR_SCSI_BUSY`.
 * @example
 * ```ts
 * if (error.code === 'ERR_SCSI_MEDIUM_ERROR') console.error(error.sense?.meaning, error.sense?.information);
 * ```
 */
export class ScsiError extends VfioUserError {
  /** What was asked for. */
  readonly request: string;
  /** The status as the unit gave it. */
  readonly status: number;
  /** Its name: `CHECK_CONDITION`, `BUSY`; `STATUS_7` where there is none. */
  readonly statusName: string;
  /** Why, where the unit says so. */
  readonly sense: ScsiSense | undefined;

  /**
   * @param request - its name, for people
   * @param status - as the unit gave it
   * @param senseData - as the unit gave it; empty for none
   */
  constructor(request: string, status: number, senseData: Uint8Array, options?: ErrorOptions) {
    const statusName = STATUS_NAMES[status] ?? `STATUS_${status}`;
    const sense = decodeSense(senseData);
    const why =
      sense === undefined
        ? `${statusName} (${status})`
        : `${sense.keyName}: ${sense.meaning} (${[sense.key, sense.asc, sense.ascq].map(hex).join('/')})`;
    super(`ERR_SCSI_${sense?.keyName ?? statusName}`, `${request}: the unit answered ${why}`, options);
    this.request = request;
    this.status = status;
    this.statusName = statusName;
    this.sense = sense;
  }

  static {
    brand(this, 'ScsiError');
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
