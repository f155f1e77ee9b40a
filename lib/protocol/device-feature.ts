/**
 * DEVICE_FEATURE: gets, sets and probes features by number ("VFIO_USER_DEVICE_FEATURE"). Request and reply have the
 * same layout.
 *
 * ```
 *  0            4                                      8
 *  |  argsz u32 |  feature, low 16 bits | GET SET PROBE |  data, by feature
 * ```
 *
 * A request's argsz is the most that the reply may take. Set and probe are answered with the request itself, get with
 * the data behind it. What the data is for each feature: `migration.ts` and `dma-logging.ts`.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, integer, UINT32_MAX } from '../fields.js';
import { atLeast, checkObject, copy, readArgsz, writeUInt32, writeUInt32Within } from './bytes.js';
import {
  DEVICE_FEATURE_GET,
  DEVICE_FEATURE_MASK,
  DEVICE_FEATURE_PROBE,
  DEVICE_FEATURE_SET,
  deviceFeatureFlagNames,
  featureName,
} from './constants.js';

/** Bytes before the data. */
export const DEVICE_FEATURE_SIZE = 8;

const OPERATIONS = DEVICE_FEATURE_GET | DEVICE_FEATURE_SET | DEVICE_FEATURE_PROBE;
const GET_AND_SET = DEVICE_FEATURE_GET | DEVICE_FEATURE_SET;

/** VFIO_USER_DEVICE_FEATURE. */
export interface DeviceFeature {
  /** `Feature` numbers. */
  feature: number;
  /** `DEVICE_FEATURE_…` operations: GET, SET, or PROBE with any of the two. */
  flags: number;
  /** In a request the most bytes that the reply may take, in a reply what the server put there. */
  argsz: number;
  /** The feature's data. */
  data: Buffer;
}

/**
 * The payload of a request. `argsz` is the payload's own size unless it is given.
 *
 * @throws TypeError where the operations do not go together or a probe has data; TypeError, RangeError for what a
 * field cannot hold.
 */
export function encodeDeviceFeature(request: {
  feature: number;
  flags: number;
  data?: Uint8Array | undefined;
  argsz?: number | undefined;
}): Buffer {
  checkObject('request', request);
  const { feature, flags, data = new Uint8Array(0) } = request;
  const broken = brokenRule(integer('DEVICE_FEATURE: flags', flags));
  if (broken !== undefined) throw new TypeError(`DEVICE_FEATURE: ${broken}`);
  if ((flags & DEVICE_FEATURE_PROBE) !== 0 && data.length > 0) {
    throw new TypeError('DEVICE_FEATURE: a probe has no data');
  }
  return build('DEVICE_FEATURE', feature, flags, data, request.argsz);
}

/** The payload of a request that asks whether the feature can be got, set, or both: `methods` are those bits. */
export function encodeProbe(feature: number, methods: number): Buffer {
  return encodeDeviceFeature({ feature, flags: methods | DEVICE_FEATURE_PROBE });
}

/**
 * The payload of a reply; its argsz is its size.
 *
 * @throws TypeError where flags have bits of the feature's number; TypeError, RangeError for what a field cannot hold.
 */
export function encodeDeviceFeatureReply(reply: {
  feature: number;
  flags: number;
  data?: Uint8Array | undefined;
}): Buffer {
  const message = 'DEVICE_FEATURE reply';
  checkObject('reply', reply);
  const { feature, flags, data = new Uint8Array(0) } = reply;
  if ((integer(`${message}: flags`, flags) & DEVICE_FEATURE_MASK) !== 0) {
    throw new TypeError(`${message}: flags 0x${flags.toString(16)} have bits of the feature's number`);
  }
  return build(message, feature, flags, data, undefined);
}

function build(
  message: string,
  feature: number,
  flags: number,
  data: Uint8Array,
  argsz: number | undefined,
): Buffer {
  integer(`${message}: feature`, feature, 0, DEVICE_FEATURE_MASK);
  const size = DEVICE_FEATURE_SIZE + byteArray(`${message}: data`, data).length;
  const payload = Buffer.alloc(size);
  writeUInt32Within(payload, 0, argsz === undefined ? size : argsz, `${message}: argsz`, size, UINT32_MAX);
  writeUInt32(payload, 4, (feature | flags) >>> 0, `${message}: flags`);
  payload.set(data, DEVICE_FEATURE_SIZE);
  return payload;
}

/**
 * Reads a request.
 *
 * @throws ProtocolError where payload or argsz are less than 8 bytes, or the operations do not go together.
 */
export function decodeDeviceFeature(bytes: Buffer, start: number, end: number): DeviceFeature {
  const request = read('DEVICE_FEATURE', bytes, start, end);
  const broken = brokenRule(request.flags);
  if (broken !== undefined) throw new ProtocolError(`DEVICE_FEATURE: ${broken}`);
  return request;
}

/**
 * Reads a reply. `feature` and `flags` are those of the request.
 *
 * @throws ProtocolError where payload or argsz are less than 8 bytes, or feature and flags are not the request's.
 */
export function decodeDeviceFeatureReply(
  bytes: Buffer,
  start: number,
  end: number,
  feature: number,
  flags: number,
): DeviceFeature {
  const message = `DEVICE_FEATURE ${featureName(feature)} reply`;
  const reply = read(message, bytes, start, end);
  if (reply.feature !== feature || reply.flags !== flags) {
    throw new ProtocolError(
      `${message}: flags say ${shown(reply.flags)} ${featureName(reply.feature)}, ${shown(flags)} was asked for`,
    );
  }
  return reply;
}

function read(message: string, bytes: Buffer, start: number, end: number): DeviceFeature {
  atLeast(message, 'the device feature structure', bytes, start, end, DEVICE_FEATURE_SIZE);
  const word = bytes.readUInt32LE(start + 4);
  return {
    argsz: readArgsz(message, bytes, start, DEVICE_FEATURE_SIZE),
    feature: word & DEVICE_FEATURE_MASK,
    flags: (word & ~DEVICE_FEATURE_MASK) >>> 0,
    data: copy(bytes, start + DEVICE_FEATURE_SIZE, end),
  };
}

function brokenRule(flags: number): string | undefined {
  if ((flags & ~OPERATIONS) !== 0) return `flags ${shown(flags)} have unknown bits`;
  if ((flags & OPERATIONS) === 0) return 'flags have no operation';
  if ((flags & DEVICE_FEATURE_PROBE) === 0 && (flags & GET_AND_SET) === GET_AND_SET) {
    return 'GET and SET exclude each other unless PROBE is set';
  }
  return undefined;
}

function shown(flags: number): string {
  return deviceFeatureFlagNames(flags).join('|') || 'nothing';
}
