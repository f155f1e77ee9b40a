/** A driver and an emulated virtio device at the two ends of a socket pair; all of it is closed after each test. */
import { afterEach } from '@jest/globals';
import {
  MemoryStore,
  serveFd,
  VirtioBlkDevice,
  type EmulatorOptions,
  type VirtioBlkDeviceOptions,
  type VirtioPciDevice,
} from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { VirtioBlk, type VirtioBlkOptions } from '../../lib/virtio/index.js';
import { socketPair } from '../emulator/raw-client.js';

export { errorOf, pattern } from '../nvme/fixture.js';
export { until } from '../support/until.js';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

export interface Link {
  device: Device;
  /** Ends the connection, as a server does that dies. */
  cut: () => Promise<void>;
}

/** The device at the other end of a socket from `emulated`. */
export async function linked(
  emulated: VirtioPciDevice,
  options: { serve?: EmulatorOptions; connect?: ConnectOptions } = {},
): Promise<Link> {
  cleanup(() => emulated.close());
  const [ours, theirs] = socketPair();
  const server = serveFd(emulated, theirs, options.serve);
  const device = await connect({ fd: ours }, options.connect);
  cleanup(async () => {
    await device.close();
    await server.close();
  });
  return { device, cut: () => server.close() };
}

export interface BlkSetup {
  emulated?: Partial<VirtioBlkDeviceOptions>;
  serve?: EmulatorOptions;
  connect?: ConnectOptions;
  driver?: VirtioBlkOptions;
}

export const DISK_BYTES = 4 << 20;

/** An emulated disk, and the device at the other end. */
export async function connectedBlk(setup: BlkSetup = {}): Promise<Link & { emulated: VirtioBlkDevice }> {
  const emulated = new VirtioBlkDevice({ store: new MemoryStore(DISK_BYTES), ...setup.emulated });
  return { emulated, ...(await linked(emulated, setup)) };
}

/** The same, with a driver that runs. */
export async function openedBlk(
  setup: BlkSetup = {},
): Promise<Link & { emulated: VirtioBlkDevice; disk: VirtioBlk }> {
  const pair = await connectedBlk(setup);
  const disk = await VirtioBlk.open(pair.device, setup.driver);
  cleanup(() => disk.close().catch(() => undefined));
  return { ...pair, disk };
}
