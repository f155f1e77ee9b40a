/** What the status field of a completion means (NVM Express Base 2.0, section 4.2.3). */
import { brand } from '../brand.js';
import { VfioUserError } from '../index.js';

/** Status code types. */
export const StatusCodeType = {
  GENERIC: 0,
  COMMAND_SPECIFIC: 1,
  MEDIA: 2,
  PATH: 3,
  VENDOR: 7,
} as const;

const GENERIC: Readonly<Record<number, string>> = {
  0x00: 'SUCCESS',
  0x01: 'INVALID_OPCODE',
  0x02: 'INVALID_FIELD',
  0x03: 'COMMAND_ID_CONFLICT',
  0x04: 'DATA_TRANSFER_ERROR',
  0x05: 'ABORTED_POWER_LOSS',
  0x06: 'INTERNAL_ERROR',
  0x07: 'ABORT_REQUESTED',
  0x08: 'ABORTED_SQ_DELETION',
  0x09: 'ABORTED_FAILED_FUSED',
  0x0a: 'ABORTED_MISSING_FUSED',
  0x0b: 'INVALID_NAMESPACE_OR_FORMAT',
  0x0c: 'COMMAND_SEQUENCE_ERROR',
  0x0d: 'INVALID_SGL_SEGMENT_DESCRIPTOR',
  0x0e: 'INVALID_NUMBER_OF_SGL_DESCRIPTORS',
  0x0f: 'DATA_SGL_LENGTH_INVALID',
  0x10: 'METADATA_SGL_LENGTH_INVALID',
  0x11: 'SGL_DESCRIPTOR_TYPE_INVALID',
  0x12: 'INVALID_USE_OF_CMB',
  0x13: 'PRP_OFFSET_INVALID',
  0x14: 'ATOMIC_WRITE_UNIT_EXCEEDED',
  0x15: 'OPERATION_DENIED',
  0x16: 'SGL_OFFSET_INVALID',
  0x18: 'HOST_IDENTIFIER_INCONSISTENT_FORMAT',
  0x19: 'KEEP_ALIVE_EXPIRED',
  0x1a: 'KEEP_ALIVE_TIMEOUT_INVALID',
  0x1b: 'ABORTED_PREEMPT_AND_ABORT',
  0x1c: 'SANITIZE_FAILED',
  0x1d: 'SANITIZE_IN_PROGRESS',
  0x1e: 'SGL_DATA_BLOCK_GRANULARITY_INVALID',
  0x1f: 'COMMAND_NOT_SUPPORTED_FOR_CMB_QUEUE',
  0x20: 'NAMESPACE_WRITE_PROTECTED',
  0x21: 'COMMAND_INTERRUPTED',
  0x22: 'TRANSIENT_TRANSPORT_ERROR',
  0x23: 'PROHIBITED_BY_LOCKDOWN',
  0x24: 'ADMIN_COMMAND_MEDIA_NOT_READY',
  0x80: 'LBA_OUT_OF_RANGE',
  0x81: 'CAPACITY_EXCEEDED',
  0x82: 'NAMESPACE_NOT_READY',
  0x83: 'RESERVATION_CONFLICT',
  0x84: 'FORMAT_IN_PROGRESS',
};

const COMMAND_SPECIFIC: Readonly<Record<number, string>> = {
  0x00: 'COMPLETION_QUEUE_INVALID',
  0x01: 'INVALID_QUEUE_IDENTIFIER',
  0x02: 'INVALID_QUEUE_SIZE',
  0x03: 'ABORT_COMMAND_LIMIT_EXCEEDED',
  0x05: 'ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED',
  0x06: 'INVALID_FIRMWARE_SLOT',
  0x07: 'INVALID_FIRMWARE_IMAGE',
  0x08: 'INVALID_INTERRUPT_VECTOR',
  0x09: 'INVALID_LOG_PAGE',
  0x0a: 'INVALID_FORMAT',
  0x0b: 'FIRMWARE_ACTIVATION_REQUIRES_CONVENTIONAL_RESET',
  0x0c: 'INVALID_QUEUE_DELETION',
  0x0d: 'FEATURE_NOT_SAVEABLE',
  0x0e: 'FEATURE_NOT_CHANGEABLE',
  0x0f: 'FEATURE_NOT_NAMESPACE_SPECIFIC',
  0x10: 'FIRMWARE_ACTIVATION_REQUIRES_SUBSYSTEM_RESET',
  0x11: 'FIRMWARE_ACTIVATION_REQUIRES_CONTROLLER_RESET',
  0x12: 'FIRMWARE_ACTIVATION_REQUIRES_MAXIMUM_TIME_VIOLATION',
  0x13: 'FIRMWARE_ACTIVATION_PROHIBITED',
  0x14: 'OVERLAPPING_RANGE',
  0x15: 'NAMESPACE_INSUFFICIENT_CAPACITY',
  0x16: 'NAMESPACE_IDENTIFIER_UNAVAILABLE',
  0x18: 'NAMESPACE_ALREADY_ATTACHED',
  0x19: 'NAMESPACE_IS_PRIVATE',
  0x1a: 'NAMESPACE_NOT_ATTACHED',
  0x1b: 'THIN_PROVISIONING_NOT_SUPPORTED',
  0x1c: 'CONTROLLER_LIST_INVALID',
  0x1d: 'SELF_TEST_IN_PROGRESS',
  0x1e: 'BOOT_PARTITION_WRITE_PROHIBITED',
  0x1f: 'INVALID_CONTROLLER_IDENTIFIER',
  0x20: 'INVALID_SECONDARY_CONTROLLER_STATE',
  0x21: 'INVALID_NUMBER_OF_CONTROLLER_RESOURCES',
  0x22: 'INVALID_RESOURCE_IDENTIFIER',
  0x23: 'SANITIZE_PROHIBITED',
  0x24: 'ANA_GROUP_IDENTIFIER_INVALID',
  0x25: 'ANA_ATTACH_FAILED',
  0x29: 'IO_COMMAND_SET_NOT_SUPPORTED',
  0x2a: 'IO_COMMAND_SET_NOT_ENABLED',
  0x2b: 'IO_COMMAND_SET_COMBINATION_REJECTED',
  0x2c: 'INVALID_IO_COMMAND_SET',
  0x2d: 'IDENTIFIER_UNAVAILABLE',
  0x80: 'CONFLICTING_ATTRIBUTES',
  0x81: 'INVALID_PROTECTION_INFORMATION',
  0x82: 'ATTEMPTED_WRITE_TO_READ_ONLY_RANGE',
  0x83: 'COMMAND_SIZE_LIMIT_EXCEEDED',
};

const MEDIA: Readonly<Record<number, string>> = {
  0x80: 'WRITE_FAULT',
  0x81: 'UNRECOVERED_READ_ERROR',
  0x82: 'END_TO_END_GUARD_CHECK_ERROR',
  0x83: 'END_TO_END_APPLICATION_TAG_CHECK_ERROR',
  0x84: 'END_TO_END_REFERENCE_TAG_CHECK_ERROR',
  0x85: 'COMPARE_FAILURE',
  0x86: 'ACCESS_DENIED',
  0x87: 'DEALLOCATED_OR_UNWRITTEN_BLOCK',
  0x88: 'END_TO_END_STORAGE_TAG_CHECK_ERROR',
};

const PATH: Readonly<Record<number, string>> = {
  0x00: 'INTERNAL_PATH_ERROR',
  0x01: 'ASYMMETRIC_ACCESS_PERSISTENT_LOSS',
  0x02: 'ASYMMETRIC_ACCESS_INACCESSIBLE',
  0x03: 'ASYMMETRIC_ACCESS_TRANSITION',
  0x60: 'CONTROLLER_PATHING_ERROR',
  0x70: 'HOST_PATHING_ERROR',
  0x71: 'ABORTED_BY_HOST',
};

const TABLES: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  [StatusCodeType.GENERIC]: GENERIC,
  [StatusCodeType.COMMAND_SPECIFIC]: COMMAND_SPECIFIC,
  [StatusCodeType.MEDIA]: MEDIA,
  [StatusCodeType.PATH]: PATH,
};

/** Bits of the status field, the phase tag shifted out. */
const SC_MASK = 0xff;
const SCT_SHIFT = 8;
const SCT_MASK = 0x7;
const MORE = 1 << 13;
const DNR = 1 << 14;

/** Our own word for commands that a controller reset ended: Path Related, Command Aborted By Host. */
export const STATUS_ABORTED_BY_HOST = (StatusCodeType.PATH << SCT_SHIFT) | 0x71;
/** What Abort makes of the command that it meant. */
export const STATUS_ABORT_REQUESTED = 0x07;

/** `LBA_OUT_OF_RANGE`; `SCT_7_SC_c0` where there is no name. */
export function statusName(sct: number, sc: number): string {
  return TABLES[sct]?.[sc] ?? `SCT_${sct}_SC_${sc.toString(16).padStart(2, '0')}`;
}

/** A status field's parts. */
export interface NvmeStatus {
  /** Status code type. */
  readonly sct: number;
  /** Status code. */
  readonly sc: number;
  /** The status's name, as `statusName` has it. */
  readonly name: string;
  /** Do not retry: it would fail again. */
  readonly dnr: boolean;
  /** The error log has more. */
  readonly more: boolean;
}

/** Decodes a status field without its phase tag (15 bits), as `completedStatus` has it. */
export function decodeStatus(status: number): NvmeStatus {
  const sct = (status >>> SCT_SHIFT) & SCT_MASK;
  const sc = status & SC_MASK;
  return { sct, sc, name: statusName(sct, sc), dnr: (status & DNR) !== 0, more: (status & MORE) !== 0 };
}

/**
 * The controller completed a command with an error (NVM Express Base 2.0, section 4.2.3). `code` is `ERR_NVME_` and the
 * status's name.
 * @example
 * ```ts
 * if (error instanceof NvmeStatusError && !error.dnr) console.error(`${error.command}: ${error.statusName}, try again`);
 * ```
 */
export class NvmeStatusError extends VfioUserError {
  /** Status code type. */
  readonly sct: number;
  /** Status code. */
  readonly sc: number;
  /** The status's name, for example `LBA_OUT_OF_RANGE`. */
  readonly statusName: string;
  /** Do not retry: it would fail again. */
  readonly dnr: boolean;
  /** The error log has more. */
  readonly more: boolean;
  /** What was asked for. */
  readonly command: string;

  /** @internal `status` as in `decodeStatus`. */
  constructor(command: string, status: number, options?: ErrorOptions) {
    const { sct, sc, name, dnr, more } = decodeStatus(status);
    const numbers = `sct ${sct}, sc 0x${sc.toString(16).padStart(2, '0')}${dnr ? ', do not retry' : ''}`;
    super(`ERR_NVME_${name}`, `${command}: the controller answered ${name} (${numbers})`, options);
    this.sct = sct;
    this.sc = sc;
    this.statusName = name;
    this.dnr = dnr;
    this.more = more;
    this.command = command;
  }

  static {
    brand(this, 'NvmeStatusError');
  }
}
