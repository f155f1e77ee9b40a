/** Numbers and bytes in JSON: what JavaScript's numbers do not hold is `"0x…"`, bytes are base64. */
import { outOfRange, wrongType } from '../../fields.js';
import type { Check } from '../../options.js';

/** Of one request, either way. */
export const MOST_BYTES = 1 << 20;

const INTEGER = /^(?:0x[\da-f]{1,16}|\d{1,20})$/i;
const BASE64 = /^[A-Za-z\d+/]*={0,2}$/;
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** A number, or a string of decimal digits or of hexadecimal ones after 0x: up to 64 bits. */
export const integer: Check = (value, caller, name) =>
  asInteger(value) === undefined
    ? wrongType(`${caller}: ${name}`, 'an unsigned integer of 64 bits, as a number or "0x…"', value)
    : undefined;

export function asInteger(value: unknown): bigint | undefined {
  const isNumber = Number.isSafeInteger(value);
  if (!isNumber && !(typeof value === 'string' && INTEGER.test(value))) return undefined;
  const integer = BigInt(value as number | string);
  return integer >= 0n && integer <= UINT64_MAX ? integer : undefined;
}

/** The value of what `integer` has checked. */
export function integerOf(value: unknown): bigint {
  return asInteger(value) ?? 0n;
}

export const base64: Check = (value, caller, name) => {
  if (typeof value !== 'string' || value.length % 4 !== 0 || !BASE64.test(value)) {
    return wrongType(`${caller}: ${name}`, 'bytes in base64', value);
  }
  if ((value.length / 4) * 3 <= MOST_BYTES + 2) return undefined;
  return outOfRange(`${caller}: ${name} must be at most ${MOST_BYTES} bytes`);
};

/** As JSON has it. */
export function shown(value: number | bigint): number | string {
  if (typeof value === 'number') return value;
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;
}
