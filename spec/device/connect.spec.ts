import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { connect, type ConnectOptions } from '../../lib/device/connect.js';
import type { Device } from '../../lib/device/device.js';
import { RamDevice, serve, serveFd, type EmulatorOptions } from '../../lib/emulator/index.js';
import {
  ClosedError,
  ProtocolError,
  RemoteError,
  TimeoutError,
  TransportError,
  UnsupportedError,
} from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { ScriptedDevice, type ScriptedDeviceOptions } from '../support/scripted-device.js';
import { ScriptedPeer, message } from '../support/scripted-peer.js';
import { capability, sparseMmap } from '../support/wire.js';
import { until } from '../support/until.js';

const cleanups: (() => unknown)[] = [];
let fdsBefore: number;

function turn(ms = 5): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function scripted(options?: ScriptedDeviceOptions): ScriptedDevice {
  const server = new ScriptedDevice(options);
  cleanups.push(() => server.close());
  return server;
}

async function open(server: ScriptedDevice, options?: ConnectOptions): Promise<Device> {
  const device = await connect(server.endpoint, options);
  cleanups.push(() => device.close());
  return device;
}

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  cleanups.push(() => rmSync(path, { recursive: true }));
  return path;
}

function memfd(size = 8192): number {
  const fd = native().memfd('spec', size, false);
  cleanups.push(() => native().closeFd(fd));
  return fd;
}

beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
});

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

const CONFIG = Buffer.alloc(4096, 0x11);
const PCI: ScriptedDeviceOptions = {
  regions: { 0: { size: 4096 }, 7: { size: 4096, bytes: CONFIG } },
  irqs: [{ count: 1 }, { count: 0 }, { count: 8 }, { count: 1 }, { count: 1 }],
};

describe('opening a device', () => {
  test('takes four round trips: VERSION, GET_INFO, everything else at once, config space', async () => {
    const server = scripted(PCI);
    const device = await open(server);
    expect(server.roundTrips).toBe(4);
    expect([1, 4, 5, 7, 9].map((command) => server.count(command))).toEqual([1, 1, 9, 5, 1]);
    expect(device.config.bytes().equals(CONFIG)).toBe(true);
    expect(device.regions.map(({ size }) => size)).toEqual([4096, 0, 0, 0, 0, 0, 0, 4096, 0]);
    expect(device.irqs.msix.count).toBe(8);
  });

  test('takes three where there is no config space, on PCI or not', async () => {
    const server = scripted({ flags: 1, regions: { 0: { size: 64 } }, numRegions: 1, irqs: [{ count: 2 }] });
    const device = await open(server);
    expect(server.roundTrips).toBe(3);
    expect(device.isPci).toBe(false);
    expect(device.hasConfig).toBe(false);
    expect(() => device.config).toThrow(UnsupportedError);
    expect(device.regions).toHaveLength(1);
    expect(device.irqs.byIndex(0).count).toBe(2);
    await device.region(0).writeUInt32(0, 1);
    await device.enable();
  });

  test('a device without regions and interrupts opens', async () => {
    const device = await open(scripted({ flags: 1, numRegions: 0 }));
    expect(device.regions).toEqual([]);
    expect(() => device.region(0)).toThrow(RangeError);
    expect(() => device.bar(0)).toThrow(RangeError);
  });

  test('asks again for a region whose answer needs more room, and closes the fd of the first answer', async () => {
    const areas = Array.from({ length: 300 }, (_, i): [number, number] => [i * 8192, 4096]);
    const [one, two] = [memfd(), memfd()];
    const server = scripted({
      regions: {
        1: { size: 300 * 8192, flags: 7, capabilities: sparseMmap(areas), fds: [one] },
        2: { size: 4096, flags: 7, capabilities: sparseMmap([[0, 4096]]), fds: [two, one] },
      },
    });
    const before = openFds();
    const device = await open(server);
    expect(server.count(5)).toBe(10);
    expect(device.region(1).areas).toHaveLength(300);
    expect(device.region(2).areas).toEqual([{ offset: 0, size: 4096 }]);
    // One behind each of the two regions; what was not needed has gone.
    expect(openFds()).toBe(before + 2);
  });

  test('a server that keeps asking for more room is asked twice and no more', async () => {
    const server = scripted({ regions: { 1: { size: 4096 } } });
    server.twist = (asked, answer) => {
      if (asked.command !== 5 || asked.payload.readUInt32LE(8) !== 1) return answer;
      answer.bytes.writeUInt32LE(Math.min(65536, asked.payload.readUInt32LE(0) + 4096), 16);
      return answer;
    };
    const device = await open(server);
    expect(server.count(5)).toBe(10);
    expect(device.region(1).areas).toEqual([]);
  });

  test('regions and interrupts that the server refuses to describe are absent', async () => {
    const server = scripted(PCI);
    server.twist = (asked, answer) => {
      const index = asked.payload.length > 8 ? asked.payload.readUInt32LE(8) : 0;
      const isRefused = (asked.command === 5 && index === 8) || (asked.command === 7 && index === 4);
      if (!isRefused) return answer;
      return { bytes: message(asked.id, asked.command, 0x21, 22, Buffer.alloc(0)), fds: [] };
    };
    const device = await open(server);
    expect(device.region(8).size).toBe(0);
    expect(device.irqs.req.count).toBe(0);
    await expect(device.region(8).read(0, 1)).rejects.toThrow(RangeError);
  });

  test('an area whose fd did not come cannot be mapped', async () => {
    const server = scripted({
      regions: { 0: { size: 8192, flags: 7, capabilities: capability(99, 0, Buffer.alloc(8)) } },
    });
    const device = await open(server);
    expect(device.region(0).mappable).toBe(false);
    expect(() => device.region(0).map()).toThrow(RangeError);
  });

  test.each([0, 1, 2])('a server that answers minor %i is accepted', async (minor) => {
    const device = await open(scripted({ minor }));
    expect(device.negotiated).toMatchObject({ major: 0, minor });
  });

  test.each([
    ['a newer minor than the one proposed', 3, ProtocolError],
    ['another major', 256, UnsupportedError],
  ])('%s is refused', async (_, value, kind) => {
    const server = scripted();
    server.twist = (asked, answer) => {
      if (value === 256) answer.bytes.writeUInt16LE(1, 16);
      else answer.bytes.writeUInt16LE(value, 18);
      return answer;
    };
    await expect(connect(server.endpoint)).rejects.toThrow(kind);
  });
});

describe('the shadow of config space', () => {
  test.each([
    [0, 1024],
    [1, 1],
  ])('on a server of minor %i is read in %i messages', async (minor, reads) => {
    const server = scripted({ ...PCI, minor });
    const device = await open(server);
    expect(server.count(9)).toBe(reads);
    expect(server.roundTrips).toBeLessThanOrEqual(minor === 0 ? 16 : 4);
    expect(device.config.bytes().equals(CONFIG)).toBe(true);
  });

  test('is read in dwords where the server refuses the whole', async () => {
    const server = scripted(PCI);
    server.twist = (asked, answer) =>
      asked.command === 9 && asked.payload.readUInt32LE(12) !== 4
        ? { bytes: message(asked.id, 9, 0x21, 22, Buffer.alloc(0)), fds: [] }
        : answer;
    const device = await open(server);
    expect(server.count(9)).toBe(1 + 1024);
    expect(device.config.bytes().equals(CONFIG)).toBe(true);
  });

  test('a server that refuses dwords too refuses the device', async () => {
    const server = scripted(PCI);
    server.twist = (asked, answer) =>
      asked.command === 9 ? { bytes: message(asked.id, 9, 0x21, 5, Buffer.alloc(0)), fds: [] } : answer;
    await expect(connect(server.endpoint)).rejects.toMatchObject({ name: 'RemoteError', code: 'EIO' });
  });

  test.each([
    ['is larger than any', { size: 2 ** 40 }, 4096],
    ['has the header alone', { size: 64 }, 64],
  ])('whose region %s is read as far as it makes sense', async (_, region, size) => {
    const device = await open(scripted({ regions: { 7: region } }));
    expect(device.config.size).toBe(size);
  });

  test.each([
    ['is too small', { size: 63 }],
    ['cannot be read', { size: 256, flags: 2 }],
  ])('whose region %s is none', async (_, region) => {
    expect((await open(scripted({ regions: { 7: region } }))).hasConfig).toBe(false);
  });
});

describe('waiting for the socket', () => {
  async function served(path: string, options?: EmulatorOptions): Promise<void> {
    const device = new RamDevice();
    const server = await serve(device, { path, ...options });
    cleanups.push(async () => {
      await server.close();
      device.close();
    });
  }

  test('the device opens when the socket has appeared', async () => {
    const path = join(directory(), 'late.sock');
    const opening = connect(path, { waitForSocket: true });
    await turn(20);
    await served(path);
    await (await opening).close();
  });

  test('a socket file that nobody listens on is waited for too', async () => {
    const path = join(directory(), 'stale.sock');
    const stale = native().listenUnix(path, 1, 0o600);
    native().closeFd(stale);
    await expect(connect(path)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const opening = connect(path, { waitForSocket: true });
    await turn(20);
    await served(path);
    await (await opening).close();
  });

  test('a socket that does not appear is a TimeoutError, whose cause says what was there', async () => {
    const path = join(directory(), 'never.sock');
    const error = await connect(path, { waitForSocket: true, timeoutMs: 30 }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TimeoutError);
    expect((error as TimeoutError).cause).toMatchObject({ code: 'ENOENT', syscall: 'connect' });
  });

  test('without the option a missing socket is said at once, and a file that is none is named', async () => {
    const path = join(directory(), 'file');
    await expect(connect(path)).rejects.toMatchObject({ code: 'ENOENT' });
    writeFileSync(path, '');
    await expect(connect(path)).rejects.toThrow(/is not a socket/);
  });

  test('an abort ends the wait with its reason', async () => {
    const controller = new AbortController();
    const opening = connect(join(directory(), 'x'), { waitForSocket: true, signal: controller.signal });
    await turn(10);
    controller.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
  });
});

describe('a server that stops answering while the device is opened', () => {
  /** Which message is not answered. */
  const phases: [name: string, command: number][] = [
    ['VERSION', 1],
    ['GET_INFO', 4],
    ['GET_REGION_INFO', 5],
    ['GET_IRQ_INFO', 7],
    ['the config space', 9],
  ];

  function stuckAt(command: number): ScriptedDevice {
    const server = scripted({
      ...PCI,
      regions: { ...PCI.regions, 1: { size: 4096, flags: 7, fds: [memfd()] } },
    });
    server.twist = (asked, answer) => (asked.command === command ? undefined : answer);
    return server;
  }

  test.each(phases)('at %s is given up at the deadline', async (_, command) => {
    const server = stuckAt(command);
    const before = openFds();
    const began = performance.now();
    await expect(connect(server.endpoint, { timeoutMs: 60 })).rejects.toThrow(TimeoutError);
    expect(performance.now() - began).toBeLessThan(2_000);
    await turn();
    // The client's own end has been closed as well.
    expect(openFds()).toBe(before - 1);
  });

  test.each(phases)('at %s is given up when the caller aborts', async (_, command) => {
    const server = stuckAt(command);
    const before = openFds();
    const controller = new AbortController();
    const opening = connect(server.endpoint, { signal: controller.signal });
    opening.catch(() => undefined);
    await until(() => server.count(command) > 0);
    controller.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
    await turn();
    expect(openFds()).toBe(before - 1);
  });

  test.each(phases)('at %s because it has gone ends in a ClosedError', async (_, command) => {
    const server = stuckAt(command);
    server.twist = (asked, answer) => {
      if (asked.command === command) server.close();
      return asked.command === command ? undefined : answer;
    };
    await expect(connect(server.endpoint)).rejects.toThrow(ClosedError);
  });

  test.each(phases)('at %s with an error is heard', async (name, command) => {
    const server = stuckAt(command);
    server.twist = (asked, answer) =>
      asked.command === command
        ? { bytes: message(asked.id, command, 0x21, 71, Buffer.alloc(0)), fds: [] }
        : answer;
    const opening = connect(server.endpoint);
    // Regions and interrupts that are refused are absent.
    if (command === 5 || command === 7) await (await opening).close();
    else await expect(opening).rejects.toThrow(RemoteError);
  });

  test('an abort before anything is sent closes what was handed over', async () => {
    const peer = new ScriptedPeer();
    const options = { signal: AbortSignal.abort(new Error('enough')) };
    await expect(connect({ fd: peer.clientFd }, options)).rejects.toThrow('enough');
    peer.close();
  });

  test('a wrong answer about an interrupt that overtakes those about regions is heard', async () => {
    const server = scripted(PCI);
    server.twist = (asked, answer, { peer }) => {
      if (asked.command === 5) return undefined;
      if (asked.command !== 7) return answer;
      peer.send(message(asked.id, 7, 1, 0, Buffer.alloc(3)));
      return undefined;
    };
    await expect(connect(server.endpoint, { timeoutMs: 60 })).rejects.toThrow(TimeoutError);
  });
});

describe('a stream that is dialled', () => {
  test('and does not come is given up at the deadline, and told so', async () => {
    const late = new PassThrough();
    let told: AbortSignal | undefined;
    let come!: (stream: PassThrough) => void;
    const dial = (signal: AbortSignal): Promise<PassThrough> => {
      told = signal;
      return new Promise((resolve) => (come = resolve));
    };
    await expect(connect({ dial, name: 'far' }, { timeoutMs: 20 })).rejects.toThrow(
      /dial far: no answer within/,
    );
    expect(told!.aborted).toBe(true);
    come(late);
    await turn();
    expect(late.destroyed).toBe(true);
  });

  test('is given up when the caller aborts', async () => {
    const controller = new AbortController();
    const opening = connect({ dial: () => new Promise(() => undefined) }, { signal: controller.signal });
    await turn();
    controller.abort(new Error('enough'));
    await expect(opening).rejects.toThrow('enough');
  });

  test('may fail, at once or later', async () => {
    const fails = (): never => {
      throw new Error('no line');
    };
    await expect(connect({ dial: fails })).rejects.toThrow('no line');
    await expect(connect({ dial: () => Promise.reject(new Error('no answer')) })).rejects.toThrow(
      'no answer',
    );
  });
});

describe('the twin socket', () => {
  test('that comes with the server’s last word is closed', async () => {
    const peer = new ScriptedPeer();
    cleanups.push(() => peer.close());
    const [ours, theirs] = native().socketPair() as [number, number];
    const opening = connect({ fd: peer.clientFd });
    await peer.handshake({ capabilities: { twin_socket: { supported: true, fd_index: 0 } } }, [theirs]);
    peer.close();
    await expect(opening).rejects.toThrow(ClosedError);
    native().closeFd(ours);
    native().closeFd(theirs);
  });
});

describe('options', () => {
  test.each<[keyof ConnectOptions, unknown, typeof RangeError | typeof TypeError]>([
    ['timeoutMs', 0, RangeError],
    ['timeoutMs', '5', TypeError],
    ['inFlight', 0, RangeError],
    ['inFlight', 1e6, RangeError],
    ['writeChunkBytes', 0, RangeError],
    ['writeChunkBytes', 1.5, RangeError],
    ['spinUs', -1, RangeError],
    ['spinUs', 50_001, RangeError],
    ['mmap', 'sometimes', TypeError],
    ['version', { major: 0, minor: 70_000 }, RangeError],
    ['socketPermissions', 'sometimes', TypeError],
    ['serverUid', -1, RangeError],
  ])('%s: %p is refused', async (name, value, kind) => {
    const path = join(directory(), 's');
    const device = new RamDevice({ sharedSize: 0 });
    const server = await serve(device, { path });
    const before = openFds();
    await expect(connect(path, { [name]: value })).rejects.toThrow(kind);
    await turn();
    expect(openFds()).toBe(before);
    await server.close();
  });

  test.each<[unknown, typeof RangeError | typeof TypeError]>([
    ['', TypeError],
    ['a\0b', TypeError],
    ['x'.repeat(108), RangeError],
    [undefined, TypeError],
    [7, TypeError],
    [{}, TypeError],
    [{ path: 7 }, TypeError],
    [{ fd: -1 }, RangeError],
  ])('the endpoint %p is refused', async (endpoint, kind) => {
    await expect(connect(endpoint as string)).rejects.toThrow(kind);
  });

  test('an fd that is no socket is named, and closed', async () => {
    const fd = native().memfd('spec', 4096, false);
    await expect(connect({ fd })).rejects.toThrow(TransportError);
  });

  test('all of them together open a device', async () => {
    const [ours, theirs] = native().socketPair() as [number, number];
    const model = new RamDevice();
    const server = serveFd(model, theirs);
    const device = await connect(
      { fd: ours },
      { inFlight: 2, writeChunkBytes: 100, spinUs: 0, mmap: 'never', twinSocket: false, secureDma: true },
    );
    expect(device.negotiated.twinSocket).toBe(false);
    await device.bar(2).write(0, Buffer.alloc(1000, 7));
    expect(model.ram.subarray(0, 1001)).toEqual(Buffer.concat([Buffer.alloc(1000, 7), Buffer.alloc(1)]));
    await device.close();
    await server.close();
    model.close();
  });
});
