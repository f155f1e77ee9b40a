/** A driver and an emulated controller at the two ends of a socket pair; all of it is closed after each test. */
import { afterEach } from '@jest/globals';
import {
  MemoryStore,
  NvmeDevice,
  serveFd,
  type EmulatorOptions,
  type NvmeDeviceOptions,
} from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { NvmeController, type NvmeOptions } from '../../lib/nvme/index.js';
import { socketPair } from '../emulator/raw-client.js';

export { until } from '../support/until.js';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

export interface Setup {
  /** What the emulated controller is; a namespace of 4 MiB with blocks of 512 bytes by default. */
  emulated?: Partial<NvmeDeviceOptions>;
  serve?: EmulatorOptions;
  connect?: ConnectOptions;
  nvme?: NvmeOptions;
}

export interface Pair {
  emulated: NvmeDevice;
  device: Device;
  /** Ends the connection, as a server does that dies. */
  cut: () => Promise<void>;
}

export const NAMESPACE_BYTES = 4 << 20;

/** An emulated controller, and the device at the other end. */
export async function connected(setup: Setup = {}): Promise<Pair> {
  const namespaces = [{ store: new MemoryStore(NAMESPACE_BYTES) }];
  const emulated = new NvmeDevice({ namespaces, ...setup.emulated });
  cleanup(() => emulated.close());
  const [ours, theirs] = socketPair();
  const server = serveFd(emulated, theirs, setup.serve);
  const device = await connect({ fd: ours }, setup.connect);
  cleanup(async () => {
    await device.close();
    await server.close();
  });
  return { emulated, device, cut: () => server.close() };
}

/** The same, with a controller that is up. */
export async function opened(setup: Setup = {}): Promise<Pair & { controller: NvmeController }> {
  const pair = await connected(setup);
  const controller = await NvmeController.open(pair.device, setup.nvme);
  cleanup(() => controller.close().catch(() => undefined));
  return { ...pair, controller };
}

/** Bytes that say where they are from. */
export function pattern(length: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed | 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    words[i] = state ^ (state >>> 15);
  }
  return Buffer.from(words.buffer, 0, length);
}

/** What the promise is rejected with. */
export async function errorOf(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was not rejected');
}
