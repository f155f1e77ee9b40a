/**
 * Values that go into a field of a message, a structure or a register.
 *
 * Each is checked once, where it is encoded, so that no caller's value is cut: a value of another type is a TypeError
 * (`ERR_INVALID_ARG_TYPE`), one that the field cannot hold a RangeError (`ERR_OUT_OF_RANGE`). Both say which field, what
 * it takes and what was given.
 */

/** The most that an unsigned field of 8, 16, 32 and 64 bits holds. */
export const UINT8_MAX = 0xff;
export const UINT16_MAX = 0xffff;
export const UINT32_MAX = 0xffff_ffff;
export const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** An integer in a number, from `least` to `most`. */
export function integer(name: string, value: number, least = 0, most = UINT32_MAX): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw notInteger(name, value, least, most);
}

/** An integer in a bigint, from `least` to `most`. */
export function bigInteger(name: string, value: bigint, least = 0n, most = UINT64_MAX): bigint {
  if (typeof value === 'bigint' && value >= least && value <= most) return value;
  throw notBigInteger(name, value, least, most);
}

/** True or false: what is merely truthy may be a mistake. */
export function boolean(name: string, value: boolean): boolean {
  if (typeof value === 'boolean') return value;
  throw wrongType(name, 'true or false', value);
}

/** Bytes: the elements of other typed arrays and of plain arrays would be cut to eight bits. */
export function byteArray(name: string, value: Uint8Array): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw wrongType(name, 'a Uint8Array or Buffer', value);
}

/** Why `value` is no integer from `least` to `most`: made here, so that a hot path has the comparison alone. */
export function notInteger(name: string, value: unknown, least: number, most: number): Error {
  if (typeof value !== 'number') return wrongType(name, 'a number', value);
  return outOfRange(`${name} must be ${integers(least, most)}, got ${value}`);
}

/** As `notInteger`, for bigints. */
export function notBigInteger(name: string, value: unknown, least: bigint, most: bigint): Error {
  if (typeof value !== 'bigint') return wrongType(name, 'a bigint', value);
  const allowed =
    least === 0n && most === UINT64_MAX ? 'an unsigned 64-bit bigint' : `a bigint from ${least} to ${most}`;
  return outOfRange(`${name} must be ${allowed}, got ${value}`);
}

/** A RangeError with the code that Node's own functions give it. */
export function outOfRange(message: string): RangeError {
  return Object.assign(new RangeError(message), { code: 'ERR_OUT_OF_RANGE' });
}

/** A TypeError with the code that Node's own functions give it. */
export function wrongType(name: string, expected: string, value: unknown): TypeError {
  return Object.assign(new TypeError(`${name} must be ${expected}, got ${shown(value)}`), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
}

/** Which integers a field takes, in words. */
function integers(least: number, most: number): string {
  if (most === Number.MAX_SAFE_INTEGER) return `an integer >= ${least}`;
  const bits = least === 0 ? UNSIGNED_BITS.get(most) : undefined;
  return bits === undefined ? `an integer from ${least} to ${most}` : `an unsigned ${bits}-bit integer`;
}

/** By the largest value of such a field. */
const UNSIGNED_BITS: ReadonlyMap<number, number> = new Map([
  [UINT8_MAX, 8],
  [UINT16_MAX, 16],
  [UINT32_MAX, 32],
]);

const MOST_SHOWN = 40;

function shown(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.length > MOST_SHOWN ? `${value.slice(0, MOST_SHOWN)}…` : value);
    case 'bigint':
      return `${value}n`;
    case 'object':
      return value === null ? 'null' : `an instance of ${className(value)}`;
    case 'function':
      return 'a function';
    default:
      return String(value);
  }
}

function className(value: object): string {
  const { constructor } = value as { constructor?: unknown };
  return typeof constructor === 'function' && constructor.name !== '' ? constructor.name : 'Object';
}
