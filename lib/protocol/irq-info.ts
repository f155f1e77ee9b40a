/**
 * DEVICE_GET_IRQ_INFO: how many interrupts an index has ("VFIO_USER_DEVICE_GET_IRQ_INFO"). Request and reply have the
 * same layout; in a request `flags` and `count` are zero.
 *
 * ```
 *  0            4            8            12           16
 *  |  argsz u32 |  flags u32 |  index u32 |  count u32 |
 * ```
 */
import { ProtocolError } from '../errors.js';
import { atLeast, checkObject, readArgsz, writeUInt32, writeUInt32Within } from './bytes.js';

const IRQ_INFO_SIZE = 16;
/** The most interrupts of one index: MSI-X, the largest that PCI has, ends at 2048. */
export const MAX_IRQS = 65536;

/** What VFIO_USER_DEVICE_GET_IRQ_INFO is answered with. */
export interface IrqInfo {
  /** `PciIrq` numbers for a PCI device. */
  index: number;
  /** `IRQ_FLAG_…` bits. */
  flags: number;
  /** Interrupts of this index; 0 where the device has none. */
  count: number;
}

/** The payload of the request. @throws TypeError, RangeError for an index that is not 32 bits. */
export function encodeGetIrqInfo(index: number): Buffer {
  return encode('DEVICE_GET_IRQ_INFO', { index, flags: 0, count: 0 });
}

/**
 * Reads the request.
 *
 * @throws ProtocolError where the payload or its argsz is less than the 16 bytes of the structure.
 */
export function decodeGetIrqInfo(
  bytes: Buffer,
  start: number,
  end: number,
): { argsz: number; index: number } {
  atLeast('DEVICE_GET_IRQ_INFO', 'the IRQ info structure', bytes, start, end, IRQ_INFO_SIZE);
  return {
    argsz: readArgsz('DEVICE_GET_IRQ_INFO', bytes, start, IRQ_INFO_SIZE),
    index: bytes.readUInt32LE(start + 8),
  };
}

/** The payload of the reply. @throws TypeError, RangeError for what a field cannot hold. */
export function encodeIrqInfo(info: IrqInfo): Buffer {
  checkObject('info', info);
  return encode('DEVICE_GET_IRQ_INFO reply', info);
}

function encode(message: string, { flags, index, count }: IrqInfo): Buffer {
  const payload = Buffer.alloc(IRQ_INFO_SIZE);
  writeUInt32(payload, 0, IRQ_INFO_SIZE, `${message}: argsz`);
  writeUInt32(payload, 4, flags, `${message}: flags`);
  writeUInt32(payload, 8, index, `${message}: index`);
  writeUInt32Within(payload, 12, count, `${message}: count`, 0, MAX_IRQS);
  return payload;
}

/**
 * Reads the reply. That its index is the one that was asked for is checked where `asked` is given.
 *
 * @throws ProtocolError where payload or argsz are less than the structure, the index is another one, or the count
 * is above 65536.
 */
export function decodeIrqInfo(bytes: Buffer, start: number, end: number, asked?: number): IrqInfo {
  const message = 'DEVICE_GET_IRQ_INFO reply';
  atLeast(message, 'the IRQ info structure', bytes, start, end, IRQ_INFO_SIZE);
  readArgsz(message, bytes, start, IRQ_INFO_SIZE);
  const info: IrqInfo = {
    flags: bytes.readUInt32LE(start + 4),
    index: bytes.readUInt32LE(start + 8),
    count: bytes.readUInt32LE(start + 12),
  };
  if (asked !== undefined && info.index !== asked) {
    throw new ProtocolError(`${message}: index is ${info.index}, ${asked} was asked for`);
  }
  if (info.count > MAX_IRQS) {
    throw new ProtocolError(
      `${message}: count is ${info.count}, more than the ${MAX_IRQS} that are accepted`,
    );
  }
  return info;
}
