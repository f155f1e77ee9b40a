/** A served device and a raw client at the other end of a socket pair; all of it is closed after each test. */
import { afterEach } from '@jest/globals';
import {
  serveFd,
  type DeviceModel,
  type EmulatorOptions,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { RawClient, socketPair } from './raw-client.js';

export { until } from '../support/until.js';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** Serves `device`; the client has not negotiated yet. */
export function served(
  device: DeviceModel,
  options?: EmulatorOptions,
): { client: RawClient; server: EmulatorServer } {
  const [ours, theirs] = socketPair();
  const server = serveFd(device, theirs, options);
  const client = new RawClient(ours);
  cleanup(() => {
    client.close();
    return server.close();
  });
  return { client, server };
}

/** Serves `device` to a client that has negotiated. */
export async function connected(
  device: DeviceModel,
  options?: EmulatorOptions,
  capabilities: object = {},
): Promise<RawClient> {
  const { client } = served(device, options);
  await client.negotiate(capabilities);
  return client;
}

/** An eventfd, closed after the test; give its number to `setIrqs`. */
export function eventFd(): { fd: number; count(): number } {
  const fd = native().eventfd(0);
  const event = new (native().EventFd)(fd, () => {});
  cleanup(() => event.close());
  return { fd, count: () => Math.max(0, event.read()) };
}

/** A memfd, closed after the test. */
export function memory(size: number): number {
  const fd = native().memfd('spec', size, false);
  if (fd < 0) throw new Error(`memfd: errno ${-fd}`);
  cleanup(() => native().closeFd(fd));
  return fd;
}
