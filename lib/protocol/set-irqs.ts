/**
 * DEVICE_SET_IRQS: arms, masks and triggers interrupts ("VFIO_USER_DEVICE_SET_IRQS"). The reply has no payload.
 *
 * ```
 *  0            4            8            12           16           20
 *  |  argsz u32 |  flags u32 |  index u32 |  start u32 |  count u32 |  data: count bytes, with DATA_BOOL only
 * ```
 *
 * The fds of DATA_EVENTFD travel beside the message; without any, the interrupts are de-assigned.
 */
import { ProtocolError } from '../errors.js';
import { byteArray, UINT32_MAX } from '../fields.js';
import { atLeast, checkObject, copy, readArgsz, writeUInt32 } from './bytes.js';
import {
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_BOOL,
  IRQ_SET_DATA_EVENTFD,
  IRQ_SET_DATA_NONE,
} from './constants.js';

const SET_IRQS_SIZE = 20;
const DATA_FLAGS = IRQ_SET_DATA_NONE | IRQ_SET_DATA_BOOL | IRQ_SET_DATA_EVENTFD;
const ACTION_FLAGS = IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK | IRQ_SET_ACTION_TRIGGER;

/** VFIO_USER_DEVICE_SET_IRQS. */
export interface SetIrqs {
  /** `PciIrq` numbers for a PCI device. */
  index: number;
  /** The first interrupt of the range. */
  start: number;
  /** Interrupts in the range; 0 with DATA_NONE and ACTION_TRIGGER disables the whole index. */
  count: number;
  /** One `IRQ_SET_DATA_…` and one `IRQ_SET_ACTION_…`. */
  flags: number;
  /** With DATA_BOOL only: one byte for each interrupt, non-zero where the action is to be done. */
  data?: Uint8Array | undefined;
}

/**
 * The payload of the request.
 *
 * @throws TypeError where the flags or the data break a rule of the message; TypeError, RangeError for what a field
 * cannot hold.
 */
export function encodeSetIrqs(request: SetIrqs): Buffer {
  checkObject('request', request);
  const message = 'DEVICE_SET_IRQS';
  const { index, start, count, flags, data = new Uint8Array(0) } = request;
  const payload = Buffer.alloc(SET_IRQS_SIZE + byteArray(`${message}: data`, data).length);
  writeUInt32(payload, 0, payload.length, `${message}: argsz`);
  writeUInt32(payload, 4, flags, `${message}: flags`);
  writeUInt32(payload, 8, index, `${message}: index`);
  writeUInt32(payload, 12, start, `${message}: start`);
  writeUInt32(payload, 16, count, `${message}: count`);
  const broken = brokenRule(request, data.length);
  if (broken !== undefined) throw new TypeError(`${message}: ${broken}`);
  payload.set(data, SET_IRQS_SIZE);
  return payload;
}

/**
 * Reads the request. `data` is there with DATA_BOOL only. How many fds go with it, and whether the device has such
 * interrupts, is for the caller to check.
 *
 * @throws ProtocolError where the payload or its argsz is less than the structure, or a rule of the message is broken.
 */
export function decodeSetIrqs(bytes: Buffer, start: number, end: number): SetIrqs {
  atLeast('DEVICE_SET_IRQS', 'the IRQ set structure', bytes, start, end, SET_IRQS_SIZE);
  // Clients derived from VFIO count the fds into argsz, so it can be more than the payload.
  readArgsz('DEVICE_SET_IRQS', bytes, start, SET_IRQS_SIZE);
  const request: SetIrqs = {
    flags: bytes.readUInt32LE(start + 4),
    index: bytes.readUInt32LE(start + 8),
    start: bytes.readUInt32LE(start + 12),
    count: bytes.readUInt32LE(start + 16),
  };
  const data = start + SET_IRQS_SIZE;
  const broken = brokenRule(request, end - data);
  if (broken !== undefined) throw new ProtocolError(`DEVICE_SET_IRQS: ${broken}`);
  if ((request.flags & IRQ_SET_DATA_BOOL) !== 0) request.data = copy(bytes, data, end);
  return request;
}

/** The rules that tie the fields together, in the specification's order; says which one is broken. */
function brokenRule({ flags, start, count }: SetIrqs, dataLength: number): string | undefined {
  const shown = `0x${flags.toString(16)}`;
  const data = flags & DATA_FLAGS;
  const action = flags & ACTION_FLAGS;
  if ((flags & ~(DATA_FLAGS | ACTION_FLAGS)) !== 0) return `flags ${shown} have unknown bits`;
  if (!isOneBit(data)) return `flags ${shown} must have exactly one DATA bit`;
  if (!isOneBit(action)) return `flags ${shown} must have exactly one ACTION bit`;
  if (start + count > UINT32_MAX) return `start ${start} and count ${count} run past 32 bits`;
  if (count === 0 && start !== 0) return `start is ${start}, a count of 0 goes with a start of 0`;
  if (count === 0 && (data !== IRQ_SET_DATA_NONE || action !== IRQ_SET_ACTION_TRIGGER)) {
    return `flags ${shown} with a count of 0, which goes with DATA_NONE and ACTION_TRIGGER only`;
  }
  const due = data === IRQ_SET_DATA_BOOL ? count : 0;
  if (dataLength !== due)
    return `${dataLength} bytes of data, ${due} are due for flags ${shown} and count ${count}`;
  return undefined;
}

function isOneBit(bits: number): boolean {
  return bits !== 0 && (bits & (bits - 1)) === 0;
}
