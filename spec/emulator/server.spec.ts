/** Where clients come from: sockets and their files, streams, several devices and several clients. */
import { mkdtempSync, rmSync, statSync, writeFileSync, existsSync, readFileSync } from 'node:fs';
import { createServer, connect as connectStream, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  EduDevice,
  RamDevice,
  RamRegister,
  serve,
  serveFd,
  serveStream,
  type ConnectedClient,
  type DeviceModel,
  type ServeOptions,
} from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  deviceGetInfoRequest,
  dmaMapRequest,
  regionInfoRequest,
  regionReadRequest,
  setIrqsRequest,
  versionRequest,
} from '../support/wire.js';
import { cleanup, eventFd, until } from './fixture.js';
import { RawClient } from './raw-client.js';

const IDENTIFICATION = 0x314d4152;

function socketPath(name = 'device.sock'): string {
  const directory = mkdtempSync(join(tmpdir(), 'emulator-'));
  cleanup(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, name);
}

function ram(): RamDevice {
  const device = new RamDevice();
  cleanup(() => device.close());
  return device;
}

async function listening(device: DeviceModel, options: Partial<ServeOptions> = {}) {
  const path = options.path ?? socketPath();
  const server = await serve(device, { path, ...options });
  cleanup(() => server.close());
  return { server, path };
}

function client(path: string): RawClient {
  const raw = RawClient.connect(path);
  cleanup(() => raw.close());
  return raw;
}

describe('the socket file', () => {
  test('is there while the server listens, with the mode that was asked for', async () => {
    const { server, path } = await listening(ram(), { mode: 0o640 });
    expect(server.path).toBe(path);
    expect(statSync(path).mode & 0o7777).toBe(0o640);
    await server.close();
    expect(existsSync(path)).toBe(false);
  });

  test('is for its owner alone by default', async () => {
    const { path } = await listening(ram());
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('that nobody listens on is replaced', async () => {
    const path = socketPath();
    const fd = native().listenUnix(path, 1, 0o600);
    native().closeFd(fd);
    expect(statSync(path).isSocket()).toBe(true);
    await listening(ram(), { path });
    await client(path).negotiate();
  });

  test('that somebody listens on is left alone', async () => {
    const { path } = await listening(ram());
    await expect(serve(ram(), { path })).rejects.toMatchObject({ code: 'EADDRINUSE', syscall: 'bind' });
    await client(path).negotiate();
  });

  test('under another name is found to be listened on', async () => {
    const { path } = await listening(ram());
    const other = join(path, '..', '.', 'device.sock');
    await expect(serve(ram(), { path: `${join(path, '..')}/./device.sock` })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    expect(statSync(other).isSocket()).toBe(true);
  });

  test('that is no socket is left alone', async () => {
    const path = socketPath();
    writeFileSync(path, 'a letter');
    await expect(serve(ram(), { path })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    expect(readFileSync(path, 'utf8')).toBe('a letter');
  });

  test('of another server at the same place is not removed', async () => {
    const { server, path } = await listening(ram());
    rmSync(path);
    await listening(ram(), { path });
    await server.close();
    await client(path).negotiate();
  });

  test('cannot be where there is no directory', async () => {
    await expect(serve(ram(), { path: '/nonexistent/device.sock' })).rejects.toMatchObject({
      code: 'ENOENT',
    });
  });

  test.each(['', 'with\0inside'])('cannot be at %j', async (path) => {
    await expect(serve(ram(), { path })).rejects.toThrow(TypeError);
  });

  test('is not needed for an abstract name', async () => {
    const path = `\0emulator-spec-${process.pid}`;
    const { server } = await listening(ram(), { path });
    await client(path).negotiate();
    await expect(serve(ram(), { path })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await server.close();
    expect(native().connectUnix(path)).toBeLessThan(0);
  });
});

describe('clients', () => {
  test('come one at a time: the next is served when the one before has gone', async () => {
    const { server, path } = await listening(ram());
    const first = client(path);
    await first.negotiate();
    const second = client(path);
    const waiting = second.ask(versionRequest());
    await first.answer(deviceGetInfoRequest());
    expect([server.clientCount, second.inbox.length]).toEqual([1, 0]);
    first.close();
    expect((await waiting).flags).toBe(1);
    expect(server.clientCount).toBe(1);
  });

  test('come together where that is allowed, each with its own interrupts and memory', async () => {
    const { server, path } = await listening(ram(), { clients: 'many' });
    const [first, second] = [client(path), client(path)];
    await Promise.all([first.negotiate(), second.negotiate()]);
    expect(server.clientCount).toBe(2);
    await first.write32(0, RamRegister.SCRATCH, 5);
    expect(await second.read32(0, RamRegister.SCRATCH)).toBe(5);
    await first.answer(dmaMapRequest({}));
    await second.answer(dmaMapRequest({}));
    const [mine, yours] = [eventFd(), eventFd()];
    const arm = setIrqsRequest({ index: 2, count: 1, flags: 0x24 });
    await first.answer(arm, [mine.fd]);
    await second.answer(arm, [yours.fd]);
    await first.write32(0, RamRegister.TRIGGER, 2 << 16);
    expect([mine.count(), yours.count()]).toEqual([1, 1]);
    first.close();
    await until(() => server.clientCount === 1, 'the first client to go');
    await second.write32(0, RamRegister.TRIGGER, 2 << 16);
    expect([mine.count(), yours.count()]).toEqual([0, 1]);
  });

  test('are told of, and can be sent away', async () => {
    const seen: ConnectedClient[] = [];
    const { path } = await listening(ram(), { onClient: (connected) => seen.push(connected) });
    const raw = client(path);
    await raw.negotiate();
    expect(seen).toHaveLength(1);
    seen[0]!.close();
    await raw.end();
    expect(await seen[0]!.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await client(path).negotiate();
  });

  test('that break the protocol leave the server as it is', async () => {
    const { path } = await listening(ram());
    const bad = client(path);
    bad.send(Buffer.alloc(16));
    await bad.end();
    await client(path).negotiate();
  });
});

describe('servers', () => {
  test('of several devices live in one process', async () => {
    const [one, other] = [await listening(ram()), await listening(new EduDevice())];
    const [first, second] = [client(one.path), client(other.path)];
    await Promise.all([first.negotiate(), second.negotiate()]);
    expect(await first.read32(0, 0)).toBe(IDENTIFICATION);
    expect(await second.read32(0, 0)).toBe(0x010000ed);
  });

  test('close their connections, and leave no fds', async () => {
    const device = ram();
    const before = openFds();
    const { server, path } = await listening(device);
    const raw = RawClient.connect(path);
    await raw.negotiate();
    await server.close();
    await server.close();
    await raw.end();
    raw.close();
    expect(await server.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(openFds()).toBe(before);
  });

  test('close when they go out of scope', async () => {
    const path = socketPath();
    {
      await using server = await serve(ram(), { path });
      expect(existsSync(server.path!)).toBe(true);
    }
    expect(existsSync(path)).toBe(false);
  });

  test.each([
    ['a minor version that does not exist', { minor: 3 }],
    ['transfers above the limit', { maxDataXferSize: (1 << 20) + 1 }],
    ['transfers of nothing', { maxDataXferSize: 0 }],
    ['more fds than a message brings', { maxMsgFds: 65 }],
    ['no page sizes', { pgsizes: 0n }],
    ['no time for DMA', { dmaTimeoutMs: 0 }],
  ])('cannot have %s', async (_what, options) => {
    await expect(serve(ram(), { path: socketPath(), ...options })).rejects.toThrow(RangeError);
  });

  test('cannot serve a device that contradicts itself', async () => {
    const bytes = Buffer.alloc(8);
    const errors: unknown[] = [];
    for (const region of [
      { index: 0, size: 16 },
      { index: 0, size: 16, memory: { bytes } },
      { index: 0, size: 8, memory: { bytes }, mappable: [{ offset: 0, size: 8 }] },
      { index: 0, size: 8, memory: { bytes, fd: 0 }, mappable: [{ offset: 4, size: 8 }] },
    ]) {
      await serve({ regions: [region], irqs: [] }, { path: socketPath() }).catch((error) =>
        errors.push(error),
      );
    }
    expect(errors.map((error) => (error as Error).name)).toEqual([
      'TypeError',
      'RangeError',
      'TypeError',
      'RangeError',
    ]);
  });
});

describe('an fd', () => {
  test('that is no socket is refused, and closed', () => {
    const fd = native().eventfd(0);
    expect(() => serveFd(ram(), fd)).toThrow(expect.objectContaining({ code: 'ENOTSOCK' }));
    expect(native().fdInfo(fd)).toBeLessThan(0);
  });
});

describe('a stream', () => {
  /** A TCP connection, the device at one end. */
  async function overTcp(device: DeviceModel): Promise<{ socket: Socket; closed: Promise<unknown> }> {
    const tcp = createServer();
    cleanup(() => tcp.close());
    await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve));
    const accepted = new Promise<Socket>((resolve) => tcp.once('connection', resolve));
    const socket = connectStream((tcp.address() as AddressInfo).port, '127.0.0.1');
    cleanup(() => socket.destroy());
    const server = serveStream(device, await accepted);
    cleanup(() => server.close());
    return { socket, closed: server.closed };
  }

  async function receive(socket: Socket, bytes: number): Promise<Buffer> {
    let all = Buffer.alloc(0);
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      all = Buffer.concat([all, chunk as Buffer]);
      if (all.byteLength >= bytes) break;
    }
    return all;
  }

  test('carries a device, without fds', async () => {
    const { socket, closed } = await overTcp(ram());
    socket.write(versionRequest({ data: { capabilities: { twin_socket: { supported: true } } } }));
    const version = await receive(socket, 20);
    expect(version.toString()).not.toContain('twin_socket');
    socket.write(regionInfoRequest({ index: 1, argsz: 256 }));
    expect((await receive(socket, 48)).readUInt32LE(20)).toBe(3);
    socket.write(regionReadRequest({ count: 4 }));
    expect((await receive(socket, 36)).readUInt32LE(32)).toBe(IDENTIFICATION);
    socket.destroy();
    expect(await closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  });

  test('brings the error before it is closed', async () => {
    const { socket } = await overTcp(ram());
    socket.write(versionRequest({ major: 7 }));
    const reply = await receive(socket, 16);
    expect([reply.readUInt32LE(8), reply.readUInt32LE(12)]).toEqual([0x21, 22]);
    await new Promise((resolve) => socket.once('close', resolve).resume());
  });
});
