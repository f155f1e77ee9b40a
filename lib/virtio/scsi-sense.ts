/** Sense data (SCSI Primary Commands 4, section 4.5): why a command was not carried out, in the fixed or the descriptor format. */

const FIXED = 0x70;
const FIXED_DEFERRED = 0x71;
const DESCRIPTOR = 0x72;
const DESCRIPTOR_DEFERRED = 0x73;
const VALID = 0x80;
const KEY_MASK = 0x0f;
const INFORMATION = 0;
const FIXED_LEAST = 3;
const DESCRIPTOR_HEADER = 8;

/** By their numbers, 0 to 15. */
const KEYS = [
  'NO_SENSE',
  'RECOVERED_ERROR',
  'NOT_READY',
  'MEDIUM_ERROR',
  'HARDWARE_ERROR',
  'ILLEGAL_REQUEST',
  'UNIT_ATTENTION',
  'DATA_PROTECT',
  'BLANK_CHECK',
  'VENDOR_SPECIFIC',
  'COPY_ABORTED',
  'ABORTED_COMMAND',
  'RESERVED',
  'VOLUME_OVERFLOW',
  'MISCOMPARE',
  'COMPLETED',
];

export const SenseKey = { RECOVERED_ERROR: 1, ILLEGAL_REQUEST: 5, UNIT_ATTENTION: 6 } as const;

/** ASC and ASCQ, as 16 bits: those that a disk is likely to say. */
const ADDITIONAL: Readonly<Record<number, string>> = {
  0x0000: 'no additional sense information',
  0x0401: 'logical unit is in process of becoming ready',
  0x0402: 'logical unit not ready, initializing command required',
  0x0403: 'logical unit not ready, manual intervention required',
  0x0404: 'logical unit not ready, format in progress',
  0x0500: 'logical unit does not respond to selection',
  0x0800: 'logical unit communication failure',
  0x0c00: 'write error',
  0x0e03: 'invalid field in command information unit',
  0x1000: 'id CRC or ECC error',
  0x1100: 'unrecovered read error',
  0x1a00: 'parameter list length error',
  0x1d00: 'miscompare during verify operation',
  0x2000: 'invalid command operation code',
  0x2100: 'logical block address out of range',
  0x2400: 'invalid field in CDB',
  0x2500: 'logical unit not supported',
  0x2600: 'invalid field in parameter list',
  0x2700: 'write protected',
  0x2800: 'not ready to ready change, medium may have changed',
  0x2900: 'power on, reset, or bus device reset occurred',
  0x2901: 'power on occurred',
  0x2902: 'SCSI bus reset occurred',
  0x2903: 'bus device reset function occurred',
  0x2904: 'device internal reset',
  0x2907: 'I_T nexus loss occurred',
  0x2a00: 'parameters changed',
  0x2a01: 'mode parameters changed',
  0x2a09: 'capacity data has changed',
  0x2c00: 'command sequence error',
  0x2f00: 'commands cleared by another initiator',
  0x3100: 'medium format corrupted',
  0x3a00: 'medium not present',
  0x3f01: 'microcode has been changed',
  0x3f03: 'inquiry data has changed',
  0x3f0e: 'reported LUNs data has changed',
  0x4400: 'internal target failure',
  0x4700: 'SCSI parity error',
  0x4b00: 'data phase error',
  0x4e00: 'overlapped commands attempted',
  0x5300: 'media load or eject failed',
  0x5500: 'system resource failure',
};

/** What a device says of a command that it has not carried out. */
export interface ScsiSense {
  /** The sense key, 0 to 15. */
  readonly key: number;
  /** Its name: `ILLEGAL_REQUEST`. */
  readonly keyName: string;
  /** The additional sense code. */
  readonly asc: number;
  /** Its qualifier. */
  readonly ascq: number;
  /** What those two mean, in the standard's words; `ASC 0x.. ASCQ 0x..` where that is not known here. */
  readonly meaning: string;
  /** It is about an earlier command, which had been completed. */
  readonly isDeferred: boolean;
  /** The INFORMATION field, where it is valid: often the block. */
  readonly information: bigint | undefined;
}

/**
 * Decodes sense data of either format. Fields beyond its end are 0.
 * @param bytes - as the device gave it
 * @returns undefined for what is no sense data, or vendor specific.
 * @example
 * ```ts
 * console.log(decodeSense(Buffer.from('700005000000000a000000002100', 'hex'))?.meaning);
 * // logical block address out of range
 * ```
 */
export function decodeSense(bytes: Uint8Array): ScsiSense | undefined {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const code = (data[0] ?? 0) & ~VALID;
  if ((code === FIXED || code === FIXED_DEFERRED) && data.length >= FIXED_LEAST) {
    const isValid = (data[0]! & VALID) !== 0 && data.length >= 7;
    const information = isValid ? BigInt(data.readUInt32BE(3)) : undefined;
    return sense(data[2]!, data[12] ?? 0, data[13] ?? 0, code === FIXED_DEFERRED, information);
  }
  if ((code === DESCRIPTOR || code === DESCRIPTOR_DEFERRED) && data.length >= 4)
    return sense(data[1]!, data[2]!, data[3]!, code === DESCRIPTOR_DEFERRED, informationOf(data));
  return undefined;
}

/** Of the descriptors. */
function informationOf(data: Buffer): bigint | undefined {
  const end = Math.min(data.length, DESCRIPTOR_HEADER + (data[7] ?? 0));
  for (let at = DESCRIPTOR_HEADER; at + 2 <= end; at += 2 + data[at + 1]!)
    if (data[at] === INFORMATION && at + 12 <= end && (data[at + 2]! & VALID) !== 0)
      return data.readBigUInt64BE(at + 4);
  return undefined;
}

function sense(
  keyByte: number,
  asc: number,
  ascq: number,
  isDeferred: boolean,
  information: bigint | undefined,
): ScsiSense {
  const key = keyByte & KEY_MASK;
  const hex = (value: number) => `0x${value.toString(16).padStart(2, '0')}`;
  const meaning = ADDITIONAL[(asc << 8) | ascq] ?? `ASC ${hex(asc)} ASCQ ${hex(ascq)}`;
  return { key, keyName: KEYS[key]!, asc, ascq, meaning, isDeferred, information };
}
