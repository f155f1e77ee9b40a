/** The configuration of a SCSI host (Virtual I/O Device 1.2, section 5.6.4). */
import { ProtocolError } from '../index.js';
import type { DeviceConfigReader, VirtioTransport } from './transport.js';

const Field = {
  NUM_QUEUES: 0,
  SEG_MAX: 4,
  MAX_SECTORS: 8,
  CMD_PER_LUN: 12,
  EVENT_INFO_SIZE: 16,
  SENSE_SIZE: 20,
  CDB_SIZE: 24,
  MAX_CHANNEL: 28,
  MAX_TARGET: 30,
  MAX_LUN: 32,
} as const;
const LEAST_CDB = 16;
const MOST_CDB = 260;
/** The longest sense data that there is (SPC-4, section 4.5.1). */
const MOST_SENSE = 252;
const MOST_LUN = 0x3fff;

/** What a SCSI host says of itself. */
export interface VirtioScsiConfig {
  /** Request queues. */
  readonly queues: number;
  /** The most segments of data of a request. */
  readonly maxSegments: number;
  /** The longest transfer that the device likes, in sectors of 512 bytes; 0 where it does not say. */
  readonly maxSectors: number;
  /** The most commands of one unit at a time that the device likes; 0 where it does not say. */
  readonly commandsPerUnit: number;
  /** The room for sense data in a request, bytes. */
  readonly senseBytes: number;
  /** The room for a command descriptor block, bytes. */
  readonly cdbBytes: number;
  /** The highest target number. */
  readonly maxTarget: number;
  /** The highest number of a logical unit. */
  readonly maxLun: number;
}

/** @throws ProtocolError for what no host can be; what registers throw. */
export function readScsiConfig(transport: VirtioTransport): Promise<VirtioScsiConfig> {
  return transport.readConfig(read);
}

async function read(config: DeviceConfigReader): Promise<VirtioScsiConfig> {
  const senseBytes = await config.uint32(Field.SENSE_SIZE);
  const cdbBytes = await config.uint32(Field.CDB_SIZE);
  if (cdbBytes < LEAST_CDB || cdbBytes > MOST_CDB)
    throw new ProtocolError(`cdb_size is ${cdbBytes}: it is ${LEAST_CDB} to ${MOST_CDB}`);
  if (senseBytes > MOST_SENSE)
    throw new ProtocolError(`sense_size is ${senseBytes}: it is at most ${MOST_SENSE}`);
  return {
    queues: Math.max(1, await config.uint32(Field.NUM_QUEUES)),
    maxSegments: Math.max(1, await config.uint32(Field.SEG_MAX)),
    maxSectors: await config.uint32(Field.MAX_SECTORS),
    commandsPerUnit: await config.uint32(Field.CMD_PER_LUN),
    senseBytes,
    cdbBytes,
    // One byte of an address.
    maxTarget: Math.min(255, await config.uint16(Field.MAX_TARGET)),
    maxLun: Math.min(MOST_LUN, await config.uint32(Field.MAX_LUN)),
  };
}
