/**
 * Hot reset: of the bus or slot that a function is on, with all functions there (VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
 * VFIO_DEVICE_PCI_HOT_RESET). The kernel does it for whoever owns the groups of all of them.
 *
 * ```
 *  0           4           8           12
 *  | argsz u32 | flags u32 | count u32 | functions: group u32, segment u16, bus u8, devfn u8
 * ```
 */
import { ProtocolError, errnoName } from '../errors.js';
import { native } from '../native.js';
import { ENODEV } from '../system-numbers.js';

const HEADER_SIZE = 12;
const FUNCTION_SIZE = 8;
/** More functions than any bus with all that is behind it has. */
const ROOM = 65_536;

/** A function that a hot reset is also for. */
export interface AffectedFunction {
  readonly group: string;
  /** As Linux writes it. */
  readonly address: string;
}

/** The functions that a hot reset is for, or why there is none. */
export type HotReset = { readonly functions: readonly AffectedFunction[] } | { readonly why: string };

/** @throws ProtocolError where there are more than the answer has room for. */
export function decodeHotResetInfo(bytes: Buffer, count: number): AffectedFunction[] {
  if (count > (bytes.length - HEADER_SIZE) / FUNCTION_SIZE) {
    throw new ProtocolError(
      `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: ${count} functions in ${bytes.length} bytes`,
    );
  }
  return Array.from({ length: count }, (_, i) => {
    const at = HEADER_SIZE + i * FUNCTION_SIZE;
    const [segment, bus, devfn] = [
      bytes.readUInt16LE(at + 4),
      bytes.readUInt8(at + 6),
      bytes.readUInt8(at + 7),
    ];
    return {
      group: String(bytes.readUInt32LE(at)),
      address: `${hex(segment, 4)}:${hex(bus, 2)}:${hex(devfn >>> 3, 2)}.${devfn & 7}`,
    };
  });
}

/** Whether the owner of `group` alone can do it. */
export function hotResetOf(device: number, group: string): HotReset {
  const into = Buffer.alloc(ROOM);
  const count = native().vfioHotResetInfo(device, into);
  if (count === -ENODEV) return { why: 'it is on a bus that cannot be reset (the root bus)' };
  if (count < 0) return { why: `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: ${errnoName(-count)}` };
  return judge(decodeHotResetInfo(into, count), group);
}

/** A reset takes away what others are doing: all functions must be in our own group, which nobody else has open. */
export function judge(functions: readonly AffectedFunction[], group: string): HotReset {
  const others = functions.filter((one) => one.group !== group);
  if (others.length === 0) return { functions };
  const names = others.map((one) => `${one.address} (group ${one.group})`).join(', ');
  return { why: `a reset of its bus would reset others as well: ${names}` };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
