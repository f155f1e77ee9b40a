/** How the replies of region accesses become values: plain functions, so that a call allocates no closure for them. */
import { lostMemory, type Access, type RegionAccess } from '../connection/index.js';
import { readUInt16, readUInt32 } from '../protocol/bytes.js';
import { Command } from '../protocol/constants.js';

/** The value's width in bytes. */
export type Width = 1 | 2 | 4 | 8;

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
