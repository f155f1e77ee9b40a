import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { connect } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import {
  EDU_BAR_SIZE,
  EduDevice,
  EduRegister,
  RamDevice,
  serve,
  serveFd,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { ClosedError, RemoteError, UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { ScriptedDevice } from '../support/scripted-device.js';

let server: EmulatorServer;
let device: Device;

beforeEach(async () => {
  const [ours, theirs] = native().socketPair() as [number, number];
  server = serveFd(new EduDevice(), theirs);
  device = await connect({ fd: ours });
});

afterEach(async () => {
  await device.close();
  await server.close();
});

describe('a device', () => {
  test('says what it is', () => {
    expect(device.isPci).toBe(true);
    expect(device.canReset).toBe(true);
    expect([device.config.vendorId, device.config.deviceId]).toEqual([0x1234, 0x11e8]);
    expect(device.bar(0).size).toBe(EDU_BAR_SIZE);
    expect(device.negotiated).toMatchObject({ major: 0, minor: 2, twinSocket: true });
  });

  test('does what its registers say: liveness and factorial', async () => {
    const bar = device.bar(0);
    await device.enable();
    await bar.writeUInt32(EduRegister.LIVENESS, 0x12345678);
    expect(await bar.readUInt32(EduRegister.LIVENESS)).toBe(~0x12345678 >>> 0);
    await bar.writeUInt32(EduRegister.FACTORIAL, 10);
    await bar.waitFor(EduRegister.STATUS, 1, 0);
    expect(await bar.readUInt32(EduRegister.FACTORIAL)).toBe(3628800);
    await expect(bar.readUInt8(EduRegister.LIVENESS)).rejects.toThrow(RemoteError);
  });

  test.each([-1, 6, 0.5])('has no BAR %p', (index) => {
    expect(() => device.bar(index)).toThrow(RangeError);
  });

  test('has no BAR of size 0, and no region past the last', () => {
    expect(() => device.bar(3)).toThrow(/no BAR 3/);
    expect(() => device.region(device.regions.length)).toThrow(RangeError);
  });

  test('is closed once, and whoever waits hears of it', async () => {
    const waiting = device.bar(0).readUInt32(0);
    const refused = expect(waiting).rejects.toThrow(ClosedError);
    expect(device.isClosed).toBe(false);
    await device.close();
    expect(device.isClosed).toBe(true);
    await device.close();
    await refused;
    expect(await device.closed).toBeInstanceOf(ClosedError);
    await expect(device.bar(0).readUInt32(0)).rejects.toThrow(ClosedError);
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow(ClosedError);
    await expect(device.reset()).rejects.toThrow(ClosedError);
    await expect(device.dma.alloc(4096)).rejects.toThrow(ClosedError);
  });

  test('that lost its server says why, and can be closed', async () => {
    await server.close();
    expect(await device.closed).toBeInstanceOf(ClosedError);
    expect(device.isClosed).toBe(true);
    await expect(device.bar(0).readUInt32(0)).rejects.toMatchObject({ cause: await device.closed });
  });

  test('is closed at the end of its block', async () => {
    const model = new RamDevice({ sharedSize: 0 });
    const [ours, theirs] = native().socketPair() as [number, number];
    const other = serveFd(model, theirs);
    const opened = await connect({ fd: ours });
    await opened[Symbol.asyncDispose]();
    await expect(opened.bar(0).readUInt32(0)).rejects.toThrow(ClosedError);
    expect(await other.closed).toBeInstanceOf(ClosedError);
  });
});

test('a device that cannot be reset says so, and is asked nothing', async () => {
  const scripted = new ScriptedDevice({ flags: 2 });
  const opened = await connect(scripted.endpoint);
  await expect(opened.reset()).rejects.toThrow(UnsupportedError);
  expect(scripted.count(13)).toBe(0);
  await opened.close();
  scripted.close();
});

describe('a process with a device', () => {
  const LIBRARY = new URL('../../dist/index.js', import.meta.url).href;

  /** Runs a script that has `device`; gives its exit code, null where it had to be ended. */
  async function run(script: string, patienceMs: number): Promise<number | null> {
    const path = `\0vfio-user-device-spec-${process.pid}-${Math.random()}`;
    const model = new RamDevice({ sharedSize: 0 });
    const listening = await serve(model, { path });
    const source = `
      import { connect } from ${JSON.stringify(LIBRARY)};
      const device = await connect(${JSON.stringify(path)});
      ${script}
      process.stdout.write('ready');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(child, 'exit') as Promise<[number | null]>;
    await Promise.race([once(child.stdout, 'data'), exit]);
    const timer = setTimeout(() => child.kill(), patienceMs);
    const [code] = await exit;
    clearTimeout(timer);
    await listening.close();
    return code;
  }

  test('ends when the device is unreferenced, its vectors too', async () => {
    const armed = 'await device.irqs.msix.enable(1); await device.dma.alloc(4096); device.unref();';
    expect(await run(armed, 10_000)).toBe(0);
  }, 20_000);

  test('ends when the device is closed', async () => {
    expect(await run('await device.irqs.msix.enable(1); await device.close();', 10_000)).toBe(0);
  }, 20_000);

  test('goes on while the device is open, and when it is referenced again', async () => {
    expect(await run('device.unref().ref();', 300)).toBeNull();
  }, 20_000);
});
