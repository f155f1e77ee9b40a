/** `vfio-user serve` of functions that vfio-pci has: who may come in, and what is left of those who went. In a guest alone. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { EduDma, EduRegister, serve, type ServeOptions } from '../../lib/emulator/index.js';
import { connect, type Device } from '../../lib/index.js';
import { NvmeController } from '../../lib/nvme/index.js';
import { PciCommand, PciConfig } from '../../lib/pci/index.js';
import { KernelDevice } from '../../lib/vfio/index.js';
import { FUNCTIONS, NOBODY, script, start, vfioUserAs } from './cli.js';
import { PATIENT } from './subjects.js';

jest.setTimeout(300_000);

const SOCKET = '/var/tmp/served.sock';
/** Everybody may connect, which is meant. */
const OPTIONS = { ...PATIENT, socketPermissions: 'ignore' } as const;
const [EDU, NVME] = FUNCTIONS;
const inGuest = FUNCTIONS.length === 0 ? describe.skip : describe;

const children: ChildProcess[] = [];
const devices: Device[] = [];
const cleanups: (() => unknown)[] = [];
/** Of the devices: a reset that did not work, for one. */
const errors: unknown[] = [];

afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
  for (const run of cleanups.splice(0).reverse()) await run();
  expect(errors.splice(0)).toEqual([]);
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill();
    await once(child, 'exit');
  }
});

/** By the command line, which takes an emulated processor long to start. */
async function serveByVerb(address: string, ...options: string[]): Promise<ChildProcess> {
  const args = ['serve', `pci:${address}`, '--socket', SOCKET, '--ready-fd', '3', ...options];
  const child = start(args, { stdio: ['ignore', 'pipe', 'inherit', 'pipe'] });
  children.push(child);
  let said = '';
  child.stdio[3]!.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await once(child.stdio[3]!, 'close');
  expect(said).toBe('ready\n');
  return child;
}

/** In this process. */
async function serveHere(address: string, options: Omit<ServeOptions, 'path'> = {}): Promise<void> {
  const device = new KernelDevice(address);
  cleanups.push(() => device.close());
  const server = await serve(device, {
    path: SOCKET,
    mode: 0o666,
    onError: (error) => errors.push(error),
    ...options,
  });
  cleanups.push(() => server.close());
}

async function open(): Promise<Device> {
  const device = await connect(SOCKET, OPTIONS);
  devices.push(device);
  return device;
}

/** A client of another user: runs until it says `there`. */
async function clientSaying(text: string): Promise<ChildProcess> {
  const child = script(text, SOCKET, NOBODY);
  children.push(child);
  let said = '';
  child.stdout!.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  expect(said).toBe('there\n');
  return child;
}

/** Has interrupts, memory, and a DMA under way. */
const BUSY_EDU = `
const device = await connect(ARGUMENT, ${JSON.stringify(OPTIONS)});
await device.enable();
await device.irqs.msi.enable(1);
const buffer = await device.dma.alloc(4096, { addressBits: 28 });
const bar = device.bar(0);
await bar.writeUInt64(${EduRegister.DMA_SOURCE}, buffer.iova);
await bar.writeUInt64(${EduRegister.DMA_DESTINATION}, 0x40000n);
await bar.writeUInt64(${EduRegister.DMA_COUNT}, 1024n);
await bar.writeUInt64(${EduRegister.DMA_COMMAND}, ${EduDma.START}n);
console.log('there');
setInterval(() => {}, 1000);
`;

inGuest('a function that is served', () => {
  test('is for whom the socket is, and given back in the end', async () => {
    const child = await serveByVerb(EDU!, '--mode', '660', '--group', 'nogroup');
    const { mode, gid, uid } = statSync(SOCKET);
    expect([(mode & 0o777).toString(8), gid, uid]).toEqual(['660', NOBODY.gid, 0]);
    expect(() => new KernelDevice(EDU!)).toThrow(/EBUSY \(another process has a device of this group open\)/);
    const read = ['read', SOCKET, 'bar0', '0', '--enable', '--timeout', `${PATIENT.timeoutMs}`];
    expect(await vfioUserAs(NOBODY, ...read)).toMatchObject({ status: 0, stdout: '0x010000ed\n' });
    const other = await vfioUserAs({ uid: 1234, gid: 1234 }, ...read);
    expect(other).toMatchObject({ status: 1, stdout: '' });
    expect(other.stderr).toMatch(/EACCES/);
    child.kill('SIGTERM');
    expect(((await once(child, 'exit')) as [number])[0]).toBe(0);
    expect(existsSync(SOCKET)).toBe(false);
    new KernelDevice(EDU!).close();
  });

  test('has nothing left of a client that is killed, for whom the next one waits', async () => {
    await serveHere(EDU!);
    const first = await clientSaying(BUSY_EDU);
    let isInside = false;
    const next = open().then((device) => {
      isInside = true;
      return device;
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(isInside).toBe(false);
    first.kill('SIGKILL');
    const device = await next;
    expect(device.config.getUInt16(PciConfig.COMMAND) & PciCommand.BUS_MASTER).toBe(0);
    await device.enable();
    // All addresses are free again, and so are the interrupts.
    const buffer = await device.dma.alloc(4096, { addressBits: 28 });
    buffer.bytes.fill(0);
    const [vector] = await device.irqs.msi.enable(1);
    await device.irqs.msi.trigger();
    expect(await vector.wait()).toBe(1);
  });

  test('goes on when a client hangs up within a message', async () => {
    await serveHere(EDU!);
    const socket = connectSocket(SOCKET);
    await once(socket, 'connect');
    const version = Buffer.from('{"capabilities":{}}\0');
    const header = Buffer.alloc(20);
    header.writeUInt16LE(1, 0);
    header.writeUInt16LE(1, 2);
    header.writeUInt32LE(header.length + version.length, 4);
    header.writeUInt16LE(1, 18);
    socket.write(Buffer.concat([header, version]));
    await once(socket, 'data');
    socket.write(header.subarray(0, 7));
    const next = open();
    await new Promise((resolve) => setTimeout(resolve, 200));
    socket.destroy();
    expect((await next).config.vendorId).toBe(0x1234);
  });

  test('is not mapped with mmap: never, and works', async () => {
    await serveHere(NVME!, { mmap: 'never' });
    const device = await open();
    expect(device.regions.flatMap(({ areas }) => areas)).toEqual([]);
    const controller = await NvmeController.open(device);
    const queue = await controller.createQueue();
    const data = Buffer.alloc(queue.namespace.blockSize, 0x5a);
    await queue.write(7, data);
    expect((await queue.read(7, 1)).equals(data)).toBe(true);
    await controller.close();
  });

  test('is one client’s at a time', async () => {
    const device = new KernelDevice(EDU!);
    cleanups.push(() => device.close());
    await expect(serve(device, { path: SOCKET, clients: 'many' })).rejects.toThrow(
      /clients must be 'one' for hardware/,
    );
  });
});
