/**
 * What the hostile specs share: a scripted server, a session that uses all that a device has, and the promises that must
 * hold whatever the server does: a named error in time, no fd left, another device that goes on.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import { RAM_IDENTIFICATION, RamDevice, serveFd, type EmulatorServer } from '../../lib/emulator/index.js';
import { VfioUserError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { ScriptedDevice, type ScriptedDeviceOptions, type Twist } from '../support/scripted-device.js';

/** The deadline where the server is not going to answer. */
export const SHORT_MS = 100;
/** The deadline where it is: a loaded machine, or one with a sanitizer, takes its time. */
const LONG_MS = 4_000;
/** How much later than its deadline a session may end: it has several calls, and the machine other things to do. */
const PATIENCE_MS = 3_000;

/** With all of the session's messages, and short answers. */
export const SESSION: ScriptedDeviceOptions = {
  regions: { 0: { size: 4096 }, 7: { size: 64 } },
  numRegions: 8,
  irqs: [{ count: 1 }],
};

let neighbour: Device;
let neighbourServer: EmulatorServer;
let neighbourModel: RamDevice;
/** What sessions let their devices use. */
let memory: number;
let fdsBefore: number;
let rejections = 0;
const cleanups: (() => unknown)[] = [];

function countRejection(): void {
  rejections++;
}

/** Runs after the test, the last one first. */
export function cleanup(run: () => unknown): void {
  cleanups.push(run);
}

export function turn(ms = 2): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The promises that every test of a hostile spec keeps. */
export function keepPromises(): void {
  beforeAll(async () => {
    process.on('unhandledRejection', countRejection);
    const [ours, theirs] = native().socketPair() as [number, number];
    neighbourModel = new RamDevice({ sharedSize: 0 });
    neighbourServer = serveFd(neighbourModel, theirs);
    neighbour = await connect({ fd: ours });
    memory = native().memfd('spec', 4096, false);
    // The test runner itself opens and closes files while it starts.
    await turn(200);
  });

  beforeEach(() => {
    fdsBefore = openFds();
  });

  afterEach(async () => {
    for (const run of cleanups.splice(0).reverse()) await run();
    await turn();
    expect(await neighbour.bar(0).readUInt32(0)).toBe(RAM_IDENTIFICATION);
    expect(neighbour.counters).toMatchObject({ unknown: 0, late: 0, inFlight: 0 });
    expect(openFds()).toBe(fdsBefore);
    expect(rejections).toBe(0);
  });

  afterAll(async () => {
    process.off('unhandledRejection', countRejection);
    await neighbour.close();
    await neighbourServer.close();
    neighbourModel.close();
    native().closeFd(memory);
  });
}

/** A file, closed after the test. */
export function file(size: number): number {
  const fd = native().memfd('spec', size, false);
  cleanup(() => native().closeFd(fd));
  return fd;
}

/** A connected pair, both ends closed after the test. */
export function pair(): [number, number] {
  const fds = native().socketPair() as [number, number];
  cleanup(() => fds.forEach((fd) => native().closeFd(fd)));
  return fds;
}

/** A server that twists what it answers, closed after the test. */
export function hostile(twist: Twist | undefined, options: ScriptedDeviceOptions = SESSION): ScriptedDevice {
  const server = new ScriptedDevice(options);
  server.twist = twist;
  cleanup(() => server.close());
  return server;
}

/** A device of such a server, closed after the test. */
export async function opened(server: ScriptedDevice, options: ConnectOptions = {}): Promise<Device> {
  const device = await connect(server.endpoint, { timeoutMs: LONG_MS, ...options });
  cleanup(() => device.close());
  return device;
}

/** One message of each kind. */
export async function session(server: ScriptedDevice, timeoutMs = LONG_MS): Promise<void> {
  const device = await connect(server.endpoint, { timeoutMs });
  try {
    await device.region(0).readUInt32(4);
    await device.region(0).writeUInt32(4, 1);
    await device.irqs.intx.enable(1);
    const mapping = await device.dma.map({ fd: memory, size: 4096 });
    await device.fence();
    await device.reset();
    await mapping.unmap();
    await device.fence();
  } finally {
    await device.close();
  }
}

/** What the session with a server ended in; undefined where it was well. */
export async function outcome(server: ScriptedDevice, timeoutMs = LONG_MS): Promise<unknown> {
  const began = performance.now();
  const error: unknown = await session(server, timeoutMs).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(performance.now() - began).toBeLessThan(timeoutMs + PATIENCE_MS);
  server.close();
  return error;
}

/** The session with a server ends in an error of this library; where its kind is not said it may be a TimeoutError. */
export async function expectNamedError(server: ScriptedDevice, name?: string): Promise<void> {
  const mayStall = name === undefined || name === 'TimeoutError';
  const error = await outcome(server, mayStall ? SHORT_MS : LONG_MS);
  expect(error).toBeInstanceOf(VfioUserError);
  if (name !== undefined) expect(error).toHaveProperty('name', name);
}
