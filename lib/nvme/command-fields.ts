/** The fields of a command, which are checked where they are encoded. */
import { notInteger } from '../fields.js';

/** `value`, which goes into a field of so many bits, 32 at most. @throws TypeError and RangeError, which name the field. */
export function field(name: string, value: number, bits: number): number {
  if (typeof value === 'number' && value >>> 0 === value && (bits === 32 || value < 1 << bits)) return value;
  throw notInteger(name, value, 0, 2 ** bits - 1);
}
