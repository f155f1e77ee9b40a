/**
 * A device has one driver at a time: a second one would reset it under the commands of the first, which would later disable
 * what is the second's.
 */
import type { Device } from '../index.js';

interface Driver {
  /** It has failed or is closed: it sends nothing any more, but for leaving the device. */
  readonly hasEnded: boolean;
  /** Resolves when it does not touch the device any more, and never will; whoever disables it gives its memory back. */
  handOver(): Promise<void>;
}

/** Who drives each device; undefined while that one is being made. */
const seats = new WeakMap<Device, Driver | undefined>();

/**
 * Runs `open`, which says by `sit` who drives the device from then on.
 * @throws TypeError while another one does; what `open` throws.
 */
export async function withSeat<T>(
  caller: string,
  device: Device,
  open: (sit: (driver: Driver) => void) => Promise<T>,
): Promise<T> {
  const before = seats.get(device);
  if (seats.has(device) && before?.hasEnded !== true) {
    throw new TypeError(
      `${caller}: the device has a driver that is open, or being opened or closed: close it, and wait for that, or connect again`,
    );
  }
  seats.set(device, undefined);
  try {
    await before?.handOver();
    return await open((driver) => seats.set(device, driver));
  } finally {
    // Whoever did not sit down has failed, or only wanted to look.
    if (seats.get(device) === undefined) seats.delete(device);
  }
}
