/**
 * Migration: the features MIGRATION and MIG_DEVICE_STATE, and the stream of MIG_DATA_READ and MIG_DATA_WRITE.
 *
 * ```
 *  MIGRATION, data of GET's reply         | flags u64 |
 *  MIG_DEVICE_STATE, data of SET and GET  | device_state u32 | data_fd u32, unused |
 *  MIG_DATA_READ, MIG_DATA_WRITE          | argsz u32 | size u32 | data |
 * ```
 *
 * MIG_DATA_READ's data is in its reply; its request says how much is wanted, and less than that ends the stream.
 * MIG_DATA_WRITE's data is in the request; its reply has no payload.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer, UINT32_MAX } from '../fields.js';
import {
  atLeast,
  checkBuffer,
  copy,
  exactly,
  readArgsz,
  readSize,
  writeSize,
  writeUInt32,
  writeUInt32Within,
} from './bytes.js';
import {
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_SET,
  Feature,
  MIGRATION_STOP_COPY,
  MigrationState,
  migrationStateName,
} from './constants.js';
import {
  decodeDeviceFeatureReply,
  DEVICE_FEATURE_SIZE,
  encodeDeviceFeature,
  encodeDeviceFeatureReply,
} from './device-feature.js';

const MIGRATION_BYTES = 8;
const STATE_BYTES = 8;
const LAST_STATE = MigrationState.PRE_COPY_P2P;

/** Bytes before the data of MIG_DATA_READ's reply and of MIG_DATA_WRITE. */
export const MIG_DATA_SIZE = 8;

/** The payload of the request that gets the MIGRATION feature. */
export function encodeGetMigration(): Buffer {
  const argsz = DEVICE_FEATURE_SIZE + MIGRATION_BYTES;
  return encodeDeviceFeature({ feature: Feature.MIGRATION, flags: DEVICE_FEATURE_GET, argsz });
}

/** The payload of its reply; `flags` are `MIGRATION_…` bits. */
export function encodeMigrationReply(flags: number): Buffer {
  const data = Buffer.alloc(MIGRATION_BYTES);
  writeSize(data, 0, flags, 'MIGRATION reply: flags');
  return encodeDeviceFeatureReply({ feature: Feature.MIGRATION, flags: DEVICE_FEATURE_GET, data });
}

/**
 * Reads its reply: the `MIGRATION_…` bits. `<linux/vfio.h>` defines no combination without STOP_COPY; bits that it does not
 * define are let through.
 *
 * @throws ProtocolError where it is not a reply to that request, its data is not exactly 8 bytes of at most 53 bits, or
 * STOP_COPY is not among them.
 */
export function decodeMigrationReply(bytes: Buffer, start: number, end: number): number {
  const { data } = decodeDeviceFeatureReply(bytes, start, end, Feature.MIGRATION, DEVICE_FEATURE_GET);
  exactly('DEVICE_FEATURE MIGRATION reply', 'the data', data, 0, data.length, MIGRATION_BYTES);
  const flags = readSize('DEVICE_FEATURE MIGRATION reply', 'flags', data, 0);
  if (flags % 2 !== MIGRATION_STOP_COPY) {
    throw new ProtocolError(
      `DEVICE_FEATURE MIGRATION reply: flags is 0x${flags.toString(16)}, STOP_COPY (0x1) must be set`,
    );
  }
  return flags;
}

/** The payload of the request that gets the device's migration state. */
export function encodeGetMigState(): Buffer {
  const argsz = DEVICE_FEATURE_SIZE + STATE_BYTES;
  return encodeDeviceFeature({ feature: Feature.MIG_DEVICE_STATE, flags: DEVICE_FEATURE_GET, argsz });
}

/** The payload of the request that sets it. @throws TypeError, RangeError for what is no state. */
export function encodeSetMigState(state: MigrationState): Buffer {
  const data = stateData('MIG_DEVICE_STATE', state);
  return encodeDeviceFeature({ feature: Feature.MIG_DEVICE_STATE, flags: DEVICE_FEATURE_SET, data });
}

/** The payload of the reply to either; `flags` is the request's operation. */
export function encodeMigStateReply(flags: number, state: MigrationState): Buffer {
  const data = stateData('MIG_DEVICE_STATE reply', state);
  return encodeDeviceFeatureReply({ feature: Feature.MIG_DEVICE_STATE, flags, data });
}

/**
 * Reads the reply to either; `flags` is the request's operation.
 *
 * @throws ProtocolError where it is not a reply to that request, or its data is no state.
 */
export function decodeMigStateReply(
  bytes: Buffer,
  start: number,
  end: number,
  flags: number,
): MigrationState {
  const { data } = decodeDeviceFeatureReply(bytes, start, end, Feature.MIG_DEVICE_STATE, flags);
  return decodeMigState(data, 'DEVICE_FEATURE MIG_DEVICE_STATE reply');
}

/**
 * Reads the data of a request that sets the state, or of a reply.
 *
 * @throws ProtocolError unless it is exactly 8 bytes, the first four of them a state.
 */
export function decodeMigState(data: Buffer, message = 'DEVICE_FEATURE MIG_DEVICE_STATE'): MigrationState {
  checkBuffer('data', data);
  exactly(message, 'the data', data, 0, data.length, STATE_BYTES);
  const state = data.readUInt32LE(0);
  if (state > LAST_STATE) {
    throw new ProtocolError(
      `${message}: device_state is ${migrationStateName(state)}, 0 to ${LAST_STATE} are defined`,
    );
  }
  return state as MigrationState;
}

function stateData(message: string, state: MigrationState): Buffer {
  const data = Buffer.alloc(STATE_BYTES);
  writeUInt32Within(data, 0, state, `${message}: state`, 0, LAST_STATE);
  return data;
}

/**
 * Writes the 8 bytes in front of migration data, for callers that send the data from where it lies.
 *
 * @throws TypeError, RangeError for what a field cannot hold.
 */
export function writeMigData(into: Buffer, at: number, argsz: number, size: number): void {
  writeUInt32(into, at + 4, size, 'migration data: size');
  writeUInt32(into, at, argsz, 'migration data: argsz');
}

/** The payload of MIG_DATA_READ. @throws TypeError, RangeError where structure and data do not fit 32 bits. */
export function encodeMigDataRead(size: number): Buffer {
  const payload = Buffer.alloc(MIG_DATA_SIZE);
  integer('MIG_DATA_READ: size', size, 0, UINT32_MAX - MIG_DATA_SIZE);
  writeMigData(payload, 0, MIG_DATA_SIZE + size, size);
  return payload;
}

/**
 * Reads MIG_DATA_READ.
 *
 * @throws ProtocolError unless the payload is exactly 8 bytes and its argsz has room for the data.
 */
export function decodeMigDataRead(
  bytes: Buffer,
  start: number,
  end: number,
): { argsz: number; size: number } {
  exactly('MIG_DATA_READ', 'the migration data structure', bytes, start, end, MIG_DATA_SIZE);
  const size = bytes.readUInt32LE(start + 4);
  return { argsz: readArgsz('MIG_DATA_READ', bytes, start, MIG_DATA_SIZE + size), size };
}

/** The payload of MIG_DATA_READ's reply. */
export function encodeMigDataReadReply(data: Uint8Array): Buffer {
  return withData('MIG_DATA_READ reply', data);
}

/**
 * Reads MIG_DATA_READ's reply: the data, fewer bytes than `wanted` at the stream's end. libvfio-user pads a short
 * reply to the size that was wanted; `size` says how much of it counts.
 *
 * @throws ProtocolError where there is more data than was wanted, or less than `size` says.
 */
export function decodeMigDataReadReply(bytes: Buffer, start: number, end: number, wanted: number): Buffer {
  integer('wanted', wanted, 0, Number.MAX_SAFE_INTEGER);
  const message = 'MIG_DATA_READ reply';
  atLeast(message, 'the migration data structure', bytes, start, end, MIG_DATA_SIZE);
  const size = bytes.readUInt32LE(start + 4);
  if (size > wanted) throw new ProtocolError(`${message}: size is ${size}, ${wanted} was asked for`);
  atLeast(message, `a size of ${size}`, bytes, start, end, MIG_DATA_SIZE + size);
  return copy(bytes, start + MIG_DATA_SIZE, start + MIG_DATA_SIZE + size);
}

/** The payload of MIG_DATA_WRITE. Servers want an argsz of the whole payload although the reply has none. */
export function encodeMigDataWrite(data: Uint8Array): Buffer {
  return withData('MIG_DATA_WRITE', data);
}

/**
 * Reads MIG_DATA_WRITE: the data.
 *
 * @throws ProtocolError unless exactly `size` bytes follow the 8, and argsz counts them.
 */
export function decodeMigDataWrite(bytes: Buffer, start: number, end: number): Buffer {
  const message = 'MIG_DATA_WRITE';
  atLeast(message, 'the migration data structure', bytes, start, end, MIG_DATA_SIZE);
  const size = bytes.readUInt32LE(start + 4);
  exactly(message, `a size of ${size}`, bytes, start, end, MIG_DATA_SIZE + size);
  readArgsz(message, bytes, start, MIG_DATA_SIZE + size);
  return copy(bytes, start + MIG_DATA_SIZE, end);
}

function withData(message: string, data: Uint8Array): Buffer {
  const payload = Buffer.alloc(MIG_DATA_SIZE + byteArray(`${message}: data`, data).length);
  writeMigData(payload, 0, payload.length, data.length);
  payload.set(data, MIG_DATA_SIZE);
  return payload;
}
