/** Memory that a driver has for its device: given back as a whole, or kept reserved. */
import type { Device, DmaBuffer } from '../index.js';

/** Gives back each of them, as far as the server lets go of it. @throws what the first one that it keeps throws. */
export async function freeAll(buffers: readonly (DmaBuffer | undefined)[]): Promise<void> {
  await allOf(buffers.map((buffer) => () => buffer?.free()));
}

/** Runs all of them, one after the other. @throws what the first one that throws does, after the last one. */
export async function allOf(steps: readonly (() => Promise<void> | undefined)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/**
 * Memory of drivers whose device could not be disabled when they were closed, as the connection was lost or it did not obey:
 * the device may use it until whoever opens it next has disabled it, or it is closed.
 */

const retained = new WeakMap<Device, (() => Promise<void>)[]>();

/** `free` is called when the device is disabled. */
export function retain(device: Device, free: () => Promise<void>): void {
  const left = retained.get(device);
  if (left === undefined) retained.set(device, [free]);
  else left.push(free);
}

/** The device is disabled. */
export async function freeRetained(device: Device): Promise<void> {
  const left = retained.get(device) ?? [];
  retained.delete(device);
  await allOf(left);
}
