/**
 * DEVICE_GET_INFO: what kind of device this is and how much of it ("VFIO_USER_DEVICE_GET_INFO"). Request and reply
 * have the same layout; in a request everything but `argsz` is zero.
 *
 * ```
 *  0            4            8                 12             16
 *  |  argsz u32 |  flags u32 |  num_regions u32 |  num_irqs u32 |
 * ```
 */
import { ProtocolError } from '../errors.js';
import { atLeast, checkObject, readArgsz, writeUInt32, writeUInt32Within } from './bytes.js';

const DEVICE_INFO_SIZE = 16;
/**
 * The most regions and interrupt types that a device may have. PCI has 9 and 5, device-specific ones come on top;
 * a client asks about each one, so a bound is needed and this one leaves room.
 */
export const MAX_REGIONS = 1024;
/** The most interrupt types that a device may have here. */
export const MAX_IRQ_TYPES = 1024;

/** What VFIO_USER_DEVICE_GET_INFO is answered with. */
export interface DeviceInfo {
  /** `DEVICE_FLAG_…` bits. */
  flags: number;
  /** Region indexes run from 0 to here. */
  numRegions: number;
  /** Interrupt indexes run from 0 to here. */
  numIrqs: number;
}

/** The payload of the request. */
export function encodeGetInfo(): Buffer {
  const payload = Buffer.alloc(DEVICE_INFO_SIZE);
  writeUInt32(payload, 0, DEVICE_INFO_SIZE, 'DEVICE_GET_INFO: argsz');
  return payload;
}

/**
 * Reads the request.
 *
 * @throws ProtocolError where the payload or its argsz is less than the 16 bytes of the structure.
 */
export function decodeGetInfo(bytes: Buffer, start: number, end: number): { argsz: number } {
  atLeast('DEVICE_GET_INFO', 'the device info structure', bytes, start, end, DEVICE_INFO_SIZE);
  return { argsz: readArgsz('DEVICE_GET_INFO', bytes, start, DEVICE_INFO_SIZE) };
}

/** The payload of the reply. @throws TypeError, RangeError for what a field cannot hold. */
export function encodeDeviceInfo(info: DeviceInfo): Buffer {
  checkObject('info', info);
  const message = 'DEVICE_GET_INFO reply';
  const payload = Buffer.alloc(DEVICE_INFO_SIZE);
  writeUInt32(payload, 0, DEVICE_INFO_SIZE, `${message}: argsz`);
  writeUInt32(payload, 4, info.flags, `${message}: flags`);
  writeUInt32Within(payload, 8, info.numRegions, `${message}: numRegions`, 0, MAX_REGIONS);
  writeUInt32Within(payload, 12, info.numIrqs, `${message}: numIrqs`, 0, MAX_IRQ_TYPES);
  return payload;
}

/**
 * Reads the reply. What a longer structure of a later version would bring is not looked at.
 *
 * @throws ProtocolError where payload or argsz are less than the structure, or there are more than 1024 regions or
 * interrupt types.
 */
export function decodeDeviceInfo(bytes: Buffer, start: number, end: number): DeviceInfo {
  const message = 'DEVICE_GET_INFO reply';
  atLeast(message, 'the device info structure', bytes, start, end, DEVICE_INFO_SIZE);
  readArgsz(message, bytes, start, DEVICE_INFO_SIZE);
  return {
    flags: bytes.readUInt32LE(start + 4),
    numRegions: bounded(message, 'num_regions', bytes.readUInt32LE(start + 8), MAX_REGIONS),
    numIrqs: bounded(message, 'num_irqs', bytes.readUInt32LE(start + 12), MAX_IRQ_TYPES),
  };
}

function bounded(message: string, field: string, value: number, most: number): number {
  if (value <= most) return value;
  throw new ProtocolError(`${message}: ${field} is ${value}, more than the ${most} that are accepted`);
}
