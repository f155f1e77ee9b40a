/**
 * The devices that the specs of this folder run on, all of them the same: emulated in process and by socket, and, where the
 * environment names them, others. `npm run test:vm` has those of a guest's vfio-pci.
 */
import { afterEach, test } from '@jest/globals';
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

/** A server of others', where the environment names its socket. */
interface Other {
  readonly name: string;
  readonly variable: string;
  readonly socket: string | undefined;
}

/** SPDK's and QEMU's NVMe controllers. A target's directory is as for spec/interop. */
const NVME_SERVERS: readonly Other[] = [
  {
    name: 'SPDK',
    variable: 'VFIO_USER_SPDK',
    socket: process.env['VFIO_USER_SPDK'] && `${process.env['VFIO_USER_SPDK']}/malloc/cntrl`,
  },
  {
    name: 'QEMU’s vfio-user server',
    variable: 'VFIO_USER_TEST_NVME_QEMU',
    socket: process.env['VFIO_USER_TEST_NVME_QEMU'],
  },
];

/** NVMe controllers: `subjects`, and the servers of others that there are; a skipped test for each that there is not. */
export function nvmeSubjects(model: () => DeviceModel): [name: string, open: Open, isEmulated: boolean][] {
  const variable = 'VFIO_USER_TEST_NVME';
  const areNamed = (process.env[variable] ?? '') !== '';
  const list = subjects(variable, model).map(([name, open]): [string, Open, boolean] => [
    name,
    open,
    !areNamed,
  ]);
  // Those that are named are all that is wanted.
  for (const { name, variable: theirs, socket } of areNamed ? [] : NVME_SERVERS) {
    if (socket === undefined || socket === '') {
      test.skip(`NVMe, ${name}: ${theirs} names none`, () => undefined);
    } else {
      list.push([name, async (options) => closing(await connect(socket, { ...PATIENT, ...options })), false]);
    }
  }
  return list;
}

function closing(device: Device): Device {
  cleanup(() => device.close());
  return device;
}
