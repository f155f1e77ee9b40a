/** Log pages that every controller has (NVM Express Base 2.0, section 5.16.1). */
import { requireBytes, text, uint128 } from './identify.js';
import { decodeStatus, type NvmeStatus } from './status.js';

export const ERROR_ENTRY_SIZE = 64;
export const SMART_LOG_SIZE = 512;
export const FIRMWARE_LOG_SIZE = 512;

/** An entry of the error log (NVM Express Base 2.0, section 5.16.1.2). */
export interface ErrorLogEntry {
  /** Counts all errors of the controller's life; 0 for an entry that is not in use. */
  errorCount: bigint;
  /** The queue; 0xffff where the error is of none. */
  submissionQueue: number;
  /** 0xffff where the error is of none. */
  commandId: number;
  /** The status of the command. */
  status: NvmeStatus;
  /** The byte and bit of the command that is wrong; 0xffff where none is. */
  parameterErrorLocation: number;
  /** The first block with the error, where it is one of blocks. */
  lba: bigint;
  /** NSID, where the error is of a namespace. */
  namespace: number;
  /** The log page with more about it; 0 for none. */
  vendorLogPage: number;
  /** Command Specific Information: what it means depends on the command. */
  commandSpecific: bigint;
}

/** Decodes log page 01h: the entries in use, newest first. Bytes after the last whole entry are ignored. */
export function decodeErrorLog(bytes: Buffer): ErrorLogEntry[] {
  const entries: ErrorLogEntry[] = [];
  for (let at = 0; at + ERROR_ENTRY_SIZE <= bytes.byteLength; at += ERROR_ENTRY_SIZE) {
    const entry = decodeErrorEntry(bytes.subarray(at, at + ERROR_ENTRY_SIZE));
    if (entry.errorCount !== 0n) entries.push(entry);
  }
  return entries;
}

function decodeErrorEntry(bytes: Buffer): ErrorLogEntry {
  return {
    errorCount: bytes.readBigUInt64LE(0),
    submissionQueue: bytes.readUInt16LE(8),
    commandId: bytes.readUInt16LE(10),
    status: decodeStatus(bytes.readUInt16LE(12) >>> 1),
    parameterErrorLocation: bytes.readUInt16LE(14),
    lba: bytes.readBigUInt64LE(16),
    namespace: bytes.readUInt32LE(24),
    vendorLogPage: bytes.readUInt8(28),
    commandSpecific: bytes.readBigUInt64LE(32),
  };
}

/** SMART / Health Information (NVM Express Base 2.0, section 5.16.1.3). Counts are of the controller's whole life. */
export interface SmartLog {
  /** Critical Warning: what is wrong now. */
  criticalWarning: {
    /** The available spare is below its threshold. */
    spareBelowThreshold: boolean;
    /** The temperature is beyond a threshold. */
    temperature: boolean;
    /** The NVM subsystem is less reliable, by media or internal errors. */
    reliabilityDegraded: boolean;
    /** The media is read-only. */
    readOnly: boolean;
    /** The volatile memory backup device has failed. */
    backupFailed: boolean;
    /** The persistent memory region is read-only or unreliable. */
    persistentMemoryReadOnly: boolean;
  };
  /** Composite temperature, kelvin. */
  temperatureKelvin: number;
  /** Spare capacity that is left, 0 to 100. */
  availableSparePercent: number;
  /** Below that a critical warning is set, 0 to 100. */
  availableSpareThresholdPercent: number;
  /** How much of the NVM subsystem's life is used, percent; may be over 100. */
  percentageUsed: number;
  /** Data read by hosts, in thousands of 512 bytes, rounded up. */
  dataUnitsRead: bigint;
  /** Data written by hosts, in thousands of 512 bytes, rounded up. */
  dataUnitsWritten: bigint;
  /** Read commands completed. */
  hostReadCommands: bigint;
  /** Write commands completed. */
  hostWriteCommands: bigint;
  /** How long commands were outstanding, minutes. */
  controllerBusyMinutes: bigint;
  /** How many times power was turned on. */
  powerCycles: bigint;
  /** How long power was on, hours. */
  powerOnHours: bigint;
  /** How many times power was lost without a shutdown. */
  unsafeShutdowns: bigint;
  /** Unrecovered data integrity errors. */
  mediaErrors: bigint;
  /** Entries that the error log has ever had. */
  errorLogEntries: bigint;
  /** Time at WCTEMP and above, below CCTEMP, minutes. */
  warningTemperatureMinutes: number;
  /** Time at CCTEMP and above, minutes. */
  criticalTemperatureMinutes: number;
  /**
   * Kelvin: sensor n at `[n - 1]`, up to the last that the controller has; undefined (in JSON null) for those before it
   * that it has not.
   */
  temperatureSensors: (number | undefined)[];
}

/** Decodes log page 02h. @throws ProtocolError for fewer than 512 bytes. */
export function decodeSmartLog(bytes: Buffer): SmartLog {
  requireBytes(bytes, SMART_LOG_SIZE, 'the SMART log');
  const warning = bytes.readUInt8(0);
  return {
    criticalWarning: {
      spareBelowThreshold: (warning & 0x01) !== 0,
      temperature: (warning & 0x02) !== 0,
      reliabilityDegraded: (warning & 0x04) !== 0,
      readOnly: (warning & 0x08) !== 0,
      backupFailed: (warning & 0x10) !== 0,
      persistentMemoryReadOnly: (warning & 0x20) !== 0,
    },
    temperatureKelvin: bytes.readUInt16LE(1),
    availableSparePercent: bytes.readUInt8(3),
    availableSpareThresholdPercent: bytes.readUInt8(4),
    percentageUsed: bytes.readUInt8(5),
    dataUnitsRead: uint128(bytes, 32),
    dataUnitsWritten: uint128(bytes, 48),
    hostReadCommands: uint128(bytes, 64),
    hostWriteCommands: uint128(bytes, 80),
    controllerBusyMinutes: uint128(bytes, 96),
    powerCycles: uint128(bytes, 112),
    powerOnHours: uint128(bytes, 128),
    unsafeShutdowns: uint128(bytes, 144),
    mediaErrors: uint128(bytes, 160),
    errorLogEntries: uint128(bytes, 176),
    warningTemperatureMinutes: bytes.readUInt32LE(192),
    criticalTemperatureMinutes: bytes.readUInt32LE(196),
    temperatureSensors: decodeSensors(bytes),
  };
}

/** Temperature sensors 1 to 8; 0 stands for one that is not implemented. */
function decodeSensors(bytes: Buffer): (number | undefined)[] {
  const sensors = Array.from({ length: 8 }, (_, i) => bytes.readUInt16LE(200 + 2 * i) || undefined);
  while (sensors.length > 0 && sensors.at(-1) === undefined) sensors.pop();
  return sensors;
}

/** Firmware Slot Information (NVM Express Base 2.0, section 5.16.1.4). */
export interface FirmwareLog {
  /** The slot that runs. */
  activeSlot: number;
  /** The slot that runs after the next controller level reset; 0 where that is not known. */
  nextSlot: number;
  /** Slots 1 to 7; empty text where there is nothing. */
  revisions: string[];
}

/** Decodes log page 03h. @throws ProtocolError for fewer than 512 bytes. */
export function decodeFirmwareLog(bytes: Buffer): FirmwareLog {
  requireBytes(bytes, FIRMWARE_LOG_SIZE, 'the firmware log');
  return {
    activeSlot: bytes.readUInt8(0) & 7,
    nextSlot: (bytes.readUInt8(0) >>> 4) & 7,
    revisions: Array.from({ length: 7 }, (_, i) => text(bytes, 8 + 8 * i, 8)),
  };
}
