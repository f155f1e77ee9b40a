/** What the methods of a region take: how their arguments are checked, and how values become bytes. */
import { checkAttached, type CallOptions, type SyncCallOptions } from '../connection/index.js';
import { notBigInteger, notInteger, outOfRange, UINT64_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import type { Width } from './region-accesses.js';

/** Options of `Region.waitFor`. */
export interface WaitForOptions extends CallOptions {
  /** The register's width in bytes. Default 4, or 8 where the mask is a bigint. */
  width?: Width | undefined;
  /** The longest pause between two reads, in milliseconds. Default 10. */
  intervalMs?: number | undefined;
}

export const WAIT_OPTIONS = new option.OptionTable<WaitForOptions>({
  ...option.CALL_CHECKS,
  width: option.oneOf(1, 2, 4, 8),
  intervalMs: option.pause,
});

/** What is wrong with the options. Most accesses have none: then this is one comparison. */
export function optionsProblem(caller: string, options: CallOptions | undefined): Error | undefined {
  return options === undefined ? undefined : option.CALL_OPTIONS.problem(caller, options);
}

/** As `optionsProblem`, for a call that blocks: nobody can abort it. */
export function syncOptionsProblem(caller: string, options: SyncCallOptions | undefined): Error | undefined {
  return options === undefined ? undefined : option.SYNC_CALL_OPTIONS.problem(caller, options);
}

/** How many bytes there are. @throws TypeError for what has none, or has lost them: it would be a transfer of nothing. */
export function requireBytes(caller: string, name: string, bytes: Uint8Array): number {
  if (!(bytes instanceof Uint8Array)) throw wrongType(`${caller}: ${name}`, 'a Uint8Array or Buffer', bytes);
  const { length } = bytes;
  if (length === 0) checkAttached(`${caller}: ${name}`, bytes);
  return length;
}

/** The value's bytes. @throws TypeError, RangeError for one that does not fit. */
export function requireValue(caller: string, value: number | bigint, width: Width): Buffer {
  const bytes = encodeValue(caller, value, width);
  if (bytes instanceof Error) throw bytes;
  return bytes;
}

/** The value's bytes, or why it has none. */
export function encodeValue(caller: string, value: number | bigint, width: Width): Buffer | Error {
  const bytes = Buffer.allocUnsafe(width);
  if (width === 8) {
    if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) {
      return notBigInteger(`${caller}: value`, value, 0n, UINT64_MAX);
    }
    // eslint-disable-next-line no-restricted-syntax -- checked above
    bytes.writeBigUInt64LE(value);
  } else {
    const most = 2 ** (8 * width) - 1;
    if (!Number.isInteger(value) || value < 0 || value > most) {
      return notInteger(`${caller}: value`, value, 0, most);
    }
    // eslint-disable-next-line no-restricted-syntax -- checked above
    bytes.writeUIntLE(value as number, 0, width);
  }
  return bytes;
}

/** The little-endian value that is as wide as the bytes are many. */
export function valueOf(bytes: Buffer): number | bigint {
  return bytes.length === 8 ? bytes.readBigUInt64LE(0) : bytes.readUIntLE(0, bytes.length);
}

/**
 * What `waitFor` compares. @throws TypeError and RangeError for what a register of `width` bytes cannot hold, and for a value
 * that the mask hides: it would be waited for in vain.
 */
export function waitTarget(
  caller: string,
  mask: number | bigint,
  value: number | bigint,
  width: Width,
): { bits: bigint; wanted: bigint } {
  const bits = registerValue(`${caller}: mask`, mask, width);
  const wanted = registerValue(`${caller}: value`, value, width);
  if ((wanted & ~bits) === 0n) return { bits, wanted };
  const hex = (number: bigint): string => `0x${number.toString(16)}`;
  throw outOfRange(`${caller}: value must have no bits beside the mask ${hex(bits)}, got ${hex(wanted)}`);
}

function registerValue(name: string, value: number | bigint, width: Width): bigint {
  const most = 2n ** BigInt(8 * width) - 1n;
  if (typeof value !== 'bigint') {
    const mostNumber = Math.min(Number(most), Number.MAX_SAFE_INTEGER);
    if (!Number.isSafeInteger(value) || value < 0 || value > mostNumber) {
      throw notInteger(name, value, 0, mostNumber);
    }
    return BigInt(value);
  }
  if (value < 0n || value > most) throw notBigInteger(name, value, 0n, most);
  return value;
}
