/** Log pages that every controller has (NVM Express Base 2.0, section 5.16.1). */
import { requireBytes } from './identify.js';
import { ERROR_ENTRY, Fields, FIRMWARE, SMART } from './layouts.js';
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
  const at = new Fields(bytes, ERROR_ENTRY);
  return {
    errorCount: at.bigint('error_count'),
    submissionQueue: at.number('sqid'),
    commandId: at.number('cmdid'),
    status: decodeStatus(at.number('status_field') >>> 1),
    parameterErrorLocation: at.number('parm_error_location'),
    lba: at.bigint('lba'),
    namespace: at.number('nsid'),
    vendorLogPage: at.number('vs'),
    commandSpecific: at.bigint('cs'),
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
  const at = new Fields(bytes, SMART);
  const warning = at.number('critical_warning');
  return {
    criticalWarning: {
      spareBelowThreshold: (warning & 0x01) !== 0,
      temperature: (warning & 0x02) !== 0,
      reliabilityDegraded: (warning & 0x04) !== 0,
      readOnly: (warning & 0x08) !== 0,
      backupFailed: (warning & 0x10) !== 0,
      persistentMemoryReadOnly: (warning & 0x20) !== 0,
    },
    temperatureKelvin: at.number('temperature'),
    availableSparePercent: at.number('avail_spare'),
    availableSpareThresholdPercent: at.number('spare_thresh'),
    percentageUsed: at.number('percent_used'),
    dataUnitsRead: at.bigint('data_units_read'),
    dataUnitsWritten: at.bigint('data_units_written'),
    hostReadCommands: at.bigint('host_read_commands'),
    hostWriteCommands: at.bigint('host_write_commands'),
    controllerBusyMinutes: at.bigint('controller_busy_time'),
    powerCycles: at.bigint('power_cycles'),
    powerOnHours: at.bigint('power_on_hours'),
    unsafeShutdowns: at.bigint('unsafe_shutdowns'),
    mediaErrors: at.bigint('media_errors'),
    errorLogEntries: at.bigint('num_err_log_entries'),
    warningTemperatureMinutes: at.number('warning_temp_time'),
    criticalTemperatureMinutes: at.number('critical_comp_time'),
    temperatureSensors: decodeSensors(at.bytes('temp_sensor')),
  };
}

/** Temperature sensors 1 to 8; 0 stands for one that is not implemented. */
function decodeSensors(bytes: Buffer): (number | undefined)[] {
  const sensors = Array.from({ length: 8 }, (_, i) => bytes.readUInt16LE(2 * i) || undefined);
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
  const at = new Fields(bytes, FIRMWARE);
  const afi = at.number('afi');
  return {
    activeSlot: afi & 7,
    nextSlot: (afi >>> 4) & 7,
    revisions: firmwareSlots(bytes).map((slot) => new Fields(slot, { revision: [0, 8] }).text('revision')),
  };
}

/** The eight bytes of slots 1 to 7. */
export function firmwareSlots(bytes: Buffer): Buffer[] {
  const slots = new Fields(bytes, FIRMWARE).bytes('frs');
  return Array.from({ length: 7 }, (_, i) => slots.subarray(8 * i, 8 * i + 8));
}
