/** Accesses to a region: how their arguments are checked, how values become bytes, and replies values. */
import {
  checkAttached,
  lostMemory,
  type Access,
  type CallOptions,
  type RegionAccess,
} from '../connection/index.js';
import { notBigInteger, notInteger, outOfRange, UINT64_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import { readUInt16, readUInt32 } from '../protocol/bytes.js';
import { Command } from '../protocol/constants.js';

/** The value's width in bytes. */
export type Width = 1 | 2 | 4 | 8;

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

// Plain functions, so that a call allocates no closure for what becomes of its reply.

/** An access that reads; `take` makes the result of the data. */
export function readOf<T>(
  region: number,
  offset: number,
  count: number,
  take: RegionAccess<T>['take'],
): RegionAccess<T> {
  return { command: Command.REGION_READ, region, offset, count, body: null, target: undefined, take };
}

/** An access that reads as many bytes as `target` has into it. */
export function readToOf(region: number, offset: number, target: Uint8Array): RegionAccess<void> {
  const { length: count } = target;
  return { command: Command.REGION_READ, region, offset, count, body: null, target, take: copyToTarget };
}

/** An access that writes. */
export function writeOf(region: number, offset: number, body: Uint8Array): RegionAccess<void> {
  const { length: count } = body;
  return { command: Command.REGION_WRITE, region, offset, count, body, target: undefined, take: takeNothing };
}

export function takeUInt8(bytes: Buffer, at: number): number {
  // The connection has checked that the reply has the bytes that were asked for.
  return bytes[at]!;
}

export function takeUInt16(bytes: Buffer, at: number): number {
  return readUInt16(bytes, at);
}

export function takeUInt32(bytes: Buffer, at: number): number {
  return readUInt32(bytes, at);
}

export function takeUInt64(bytes: Buffer, at: number): bigint {
  return bytes.readBigUInt64LE(at);
}

/** @throws TypeError where the target's memory is gone. */
function copyToTarget(bytes: Buffer, at: number, { command, target, count }: Access): void {
  if (target?.length !== count) throw lostMemory(command);
  bytes.copy(target, 0, at, at + count);
}

function takeNothing(): void {}
