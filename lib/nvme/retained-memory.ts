/**
 * Memory of controllers that could not be disabled when they were closed, as the connection was lost or CSTS.RDY stayed:
 * the device may use it until its controller is disabled by whoever opens it next, or the device is closed.
 */
import type { Device } from '../index.js';
import { allOf } from './queue-memory.js';

const retained = new WeakMap<Device, (() => Promise<void>)[]>();

/** `free` is called when the device's controller is disabled. */
export function retain(device: Device, free: () => Promise<void>): void {
  const left = retained.get(device);
  if (left === undefined) retained.set(device, [free]);
  else left.push(free);
}

/** The device's controller is disabled. */
export async function freeRetained(device: Device): Promise<void> {
  const left = retained.get(device) ?? [];
  retained.delete(device);
  await allOf(left);
}
