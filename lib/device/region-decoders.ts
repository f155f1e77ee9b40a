/** How the replies of region accesses become values. Plain functions: a call allocates no closure for them. */
import { lostMemory, type Slot } from '../connection/index.js';
import { readUInt16, readUInt32 } from '../protocol/bytes.js';
import {
  REGION_ACCESS_SIZE,
  checkRegionReadReply,
  checkRegionWriteReply,
} from '../protocol/region-access.js';

/** The value's width in bytes. */
export type Width = 1 | 2 | 4 | 8;

export function decodeUInt8(slot: Slot, bytes: Buffer, start: number, end: number): number {
  if (!slot.isPlain) checkRead(slot, bytes, start, end);
  return bytes[start + REGION_ACCESS_SIZE]!;
}

export function decodeUInt16(slot: Slot, bytes: Buffer, start: number, end: number): number {
  if (!slot.isPlain) checkRead(slot, bytes, start, end);
  return readUInt16(bytes, start + REGION_ACCESS_SIZE);
}

export function decodeUInt32(slot: Slot, bytes: Buffer, start: number, end: number): number {
  if (!slot.isPlain) checkRead(slot, bytes, start, end);
  return readUInt32(bytes, start + REGION_ACCESS_SIZE);
}

export function decodeUInt64(slot: Slot, bytes: Buffer, start: number, end: number): bigint {
  if (!slot.isPlain) checkRead(slot, bytes, start, end);
  return bytes.readBigUInt64LE(start + REGION_ACCESS_SIZE);
}

/**
 * The data goes to the slot's target, where it may be already.
 * @throws TypeError where the target's memory is gone.
 */
export function decodeInto(slot: Slot, bytes: Buffer, start: number, end: number): void {
  const { target } = slot;
  if (target?.length !== slot.count) throw lostMemory(slot.command);
  if (slot.landed) {
    // Only the access structure stands here; the rest is in the target, and exactly as long (Framer).
    checkWritten(slot, bytes, start, end);
    return;
  }
  if (!slot.isPlain) checkRead(slot, bytes, start, end);
  const data = start + REGION_ACCESS_SIZE;
  bytes.copy(target, 0, data, data + slot.count);
}

export function decodeWritten(slot: Slot, bytes: Buffer, start: number, end: number): void {
  if (!slot.isPlain) checkWritten(slot, bytes, start, end);
}

function checkRead(slot: Slot, bytes: Buffer, start: number, end: number): void {
  checkRegionReadReply(bytes, start, end, slot.offset, slot.region, slot.count);
}

function checkWritten(slot: Slot, bytes: Buffer, start: number, end: number): void {
  checkRegionWriteReply(bytes, start, end, slot.offset, slot.region, slot.count);
}
