/**
 * libvfio-user's `server` sample, of the libraries that are there. Its timer, set by a write to BAR0, signals INTx, stores
 * to the second region of memory that was mapped, through its own mapping, and then writes and reads the first one by
 * message; it exits where bytes do not come back.
 */
import { describe } from '@jest/globals';
import path from 'node:path';
import type { ConnectOptions, Device, DmaBuffer } from '../../lib/index.js';
import { ServerProcess } from './server-process.js';
import { until } from '../support/until.js';

export { until } from '../support/until.js';

/** The directory of the samples of commit ca9943b. */
export const SAMPLES = process.env['VFIO_USER_LVU_SAMPLES'] ?? '';

/** One library's sample. */
export interface LvuServer {
  readonly program: string;
  /** Bytes; the first and the third page can be mapped. */
  readonly bar1Size: number;
  /** How many mappings it takes; it does not say so. */
  readonly maxMaps: number;
}

const SERVERS = [
  {
    title: 'ca9943b (VFIO_USER_LVU_SAMPLES names the directory of the samples)',
    program: SAMPLES === '' ? '' : path.join(SAMPLES, 'server'),
    bar1Size: 0x3000,
    maxMaps: 64,
  },
  {
    // The newest library takes no BAR of 0x3000 bytes, and its own sample does not start.
    title:
      'the newest library (VFIO_USER_LVU_HEAD_SERVER names its sample, built with a bar1_size of 0x4000)',
    program: process.env['VFIO_USER_LVU_HEAD_SERVER'] ?? '',
    bar1Size: 0x4000,
    maxMaps: Infinity,
  },
];

/** Specs for each library's sample; skipped, and seen to be, where it is not there. */
export function describeServers(what: string, specs: (server: LvuServer) => void): void {
  for (const { title, ...server } of SERVERS) {
    (server.program === '' ? describe.skip : describe)(`${what}: ${title}`, () => specs(server));
  }
}

export function start(program: string): ServerProcess {
  return new ServerProcess(program, (socket) => ['-v', socket]);
}

export async function withServer(
  { program }: Pick<LvuServer, 'program'>,
  work: (device: Device, server: ServerProcess) => Promise<void>,
  options?: ConnectOptions,
): Promise<void> {
  await using server = start(program);
  const device = await server.connect(options);
  try {
    await work(device, server);
  } finally {
    await device.close();
  }
}

/** What its timer writes, at the beginning of both regions. */
export const WRITTEN = Buffer.concat([...'ABCD'].map((letter) => Buffer.alloc(1024, letter)));

/** Large enough for a mapping of their own each. */
export const OWN_MAPPING = 8 << 20;

/** In two seconds: the next second would be the same one by the time that the sample looks. */
export async function setTimer(device: Device): Promise<void> {
  await device.bar(0).writeUInt64(0, BigInt(Math.floor(Date.now() / 1000) + 2));
}

export async function arrives(bytes: Buffer): Promise<void> {
  await until(() => bytes.subarray(0, WRITTEN.length).equals(WRITTEN));
}

/** The timer runs out, and both buffers get what it writes. */
export async function expectTransfer(
  device: Device,
  server: ServerProcess,
  byMessage: DmaBuffer,
  byFd: DmaBuffer,
): Promise<void> {
  const { served } = device.counters;
  const [vector] = await device.irqs.intx.enable(1);
  const done = server.log.split('MESSAGE success').length;
  await setTimer(device);
  if ((await vector.wait({ timeoutMs: 10_000 })) !== 1) throw new Error('more than one interrupt');
  await arrives(byFd.bytes);
  await arrives(byMessage.bytes);
  // Four writes and two reads of the same bytes.
  await until(() => server.log.split('MESSAGE success').length === done + 1);
  if (device.counters.served !== served + 6) throw new Error(`${device.counters.served - served} requests`);
}
