/**
 * Memory of controllers that could not be disabled when they were closed, as the connection was lost or CSTS.RDY stayed:
 * the device may use it until its controller is disabled by whoever opens it next, or the device is closed.
 */
import type { Device } from '../index.js';

const leftovers = new WeakMap<Device, (() => Promise<void>)[]>();

/** `giveBack` is called when the device's controller is disabled. */
export function leave(device: Device, giveBack: () => Promise<void>): void {
  const left = leftovers.get(device);
  if (left === undefined) leftovers.set(device, [giveBack]);
  else left.push(giveBack);
}

/** The device's controller is disabled. */
export async function giveBackLeftovers(device: Device): Promise<void> {
  const left = leftovers.get(device) ?? [];
  leftovers.delete(device);
  for (const giveBack of left) await giveBack();
}
