/**
 * The devices that the specs of this folder run on, all of them the same: emulated in process and by socket, and, where the
 * environment names them, others. `npm run test:vm` has those of a guest's vfio-pci.
 */
import { afterEach } from '@jest/globals';
import { serveFd, type DeviceModel } from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { socketPair } from '../emulator/raw-client.js';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

/** An emulated processor takes its time to load what it runs. */
export const PATIENT = { timeoutMs: 60_000 };

/** Opens a device, which is closed after the test. */
export type Open = (options?: ConnectOptions) => Promise<Device>;

/**
 * What there is to test: by name, for `describe.each`. An environment variable with endpoints, one after the other and
 * separated by spaces, takes the place of the emulated ones.
 */
export function subjects(variable: string, model: () => DeviceModel): [name: string, open: Open][] {
  const named = (process.env[variable] ?? '').split(' ').filter((endpoint) => endpoint !== '');
  if (named.length > 0) {
    return named.map((endpoint) => [
      endpoint,
      async (options) => closing(await connect(endpoint, { ...PATIENT, ...options })),
    ]);
  }
  return [
    ['emulated, in process', async (options) => closing(await connect({ model: model() }, options))],
    [
      'emulated, by socket',
      async (options) => {
        const [ours, theirs] = socketPair();
        const server = serveFd(model(), theirs);
        cleanup(() => server.close());
        return closing(await connect({ fd: ours }, options));
      },
    ],
  ];
}

function closing(device: Device): Device {
  cleanup(() => device.close());
  return device;
}
