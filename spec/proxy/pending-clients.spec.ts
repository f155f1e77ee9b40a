/** Clients that come to a proxy: who gets a place, who waits, and who goes. */
import { describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { connect as connectTcp, type Socket } from 'node:net';
import { once } from 'node:events';
import { PassThrough, type Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { proxy, type ProxyEvent, type ProxyOptions, type ProxyServer } from '../../lib/proxy/index.js';
import { outcomeOf } from '../cli/cli.js';
import { eventFd } from '../emulator/fixture.js';
import { RawClient } from '../emulator/raw-client.js';
import { openFds } from '../support/fds.js';
import { deviceGetInfoRequest, setIrqsRequest, versionRequest } from '../support/wire.js';
import { between, cleanup, endOf, proxyTo, scratch, until, withDevice } from './fixture.js';

jest.setTimeout(60_000);

/** So long that nothing of it is seen in a test. */
const FOREVER = { versionTimeoutMs: 600_000 };

function raw(path: string, said?: Uint8Array, fds?: readonly number[]): RawClient {
  const client = RawClient.connect(path);
  cleanup(() => client.close());
  if (said !== undefined) client.send(said, fds);
  return client;
}

/** Throws when it is first to be read. */
class Unreadable extends PassThrough {
  #hasThrown = false;

  override resume(): this {
    if (this.#hasThrown) return super.resume();
    this.#hasThrown = true;
    throw new Error('resume failed');
  }
}

/** A proxy on a TCP port, before a device. */
async function onTcp(options: Partial<ProxyOptions>) {
  const { devicePath } = await withDevice();
  const events: ProxyEvent[] = [];
  const front = await proxy({
    listen: { port: 0 },
    connect: devicePath,
    onEvent: (event) => events.push(event),
    ...options,
  });
  cleanup(() => front.close());
  return { front, events };
}

async function tcp({ address }: ProxyServer): Promise<Socket> {
  const [host, port] = address.split(':');
  const socket = connectTcp(Number(port), host);
  socket.on('error', () => undefined);
  cleanup(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

const open = async (front: ProxyServer) => {
  const device = await connect({ stream: await tcp(front) }, { timeoutMs: 30_000 });
  cleanup(() => device.close());
  return device;
};

describe('clients that say nothing', () => {
  test.each([80, 300])('%i of them, on TCP, lock nobody out', async (count) => {
    const { front, events } = await onTcp({ ...FOREVER, maxClients: 4 });
    const silent: Socket[] = [];
    for (let i = 0; i < count; i++) {
      const [host, port] = front.address.split(':');
      const socket = connectTcp(Number(port), host);
      socket.on('error', () => undefined);
      cleanup(() => socket.destroy());
      silent.push(socket);
    }
    const device = await open(front);
    expect(await device.bar(0).readUInt32(0)).toBe(0x314d4152);
    expect(silent.length).toBe(count);
    expect(events.filter(({ type }) => type === 'notice').length).toBeLessThanOrEqual(1);
  });

  test('100 of them on a Unix socket lock nobody out, and the device hears nothing of them', async () => {
    let dialled = 0;
    const { devicePath } = await withDevice();
    const dial = (): number => {
      dialled++;
      return native().connectUnix(devicePath);
    };
    const { path, proxy: server } = await proxyTo({ dial }, { ...FOREVER, maxClients: 1 });
    const silent: RawClient[] = [];
    for (let i = 0; i < 100; i++) {
      silent.push(raw(path));
      // As many wait to be accepted at once as the backlog has room for.
      if (i % 30 === 29) await until(() => server.counters.open > i || silent.some(({ ended }) => ended));
    }
    const half = raw(path, versionRequest().subarray(0, 20));
    const client = raw(path);
    await client.negotiate();
    expect(dialled).toBe(1);
    expect(silent.some(({ ended }) => ended)).toBe(true);
    expect(half.ended).toBe(false);
  });

  test.each<[string, Uint8Array | undefined]>([
    ['nothing', undefined],
    ['a byte', Buffer.alloc(1)],
    ['half a VERSION', versionRequest().subarray(0, 20)],
  ])('but %s are sent away by name, with what came along', async (_what, said) => {
    const { path, events, proxy: server } = await withDevice({ versionTimeoutMs: 50 });
    const fd = eventFd().fd;
    const before = openFds();
    const client = raw(path, said, said && [fd, fd]);
    await client.end();
    client.close();
    await until(() => server.counters.open === 0);
    expect(endOf(events)).toBe('recvmsg: ETIMEDOUT (the client sent no VERSION within 50 ms)');
    await until(() => openFds() <= before, 'as many fds as before');
  });

  test.each<[string, (client: RawClient, fd: number) => void]>([
    ['one message', (client, fd) => client.send(versionRequest(), [fd, fd, fd, fd, fd])],
    [
      'parts of one',
      (client, fd) => {
        for (let at = 0; at < 12; at += 4) client.send(versionRequest().subarray(at, at + 4), [fd, fd]);
      },
    ],
  ])('but hand over more fds with %s than a client may are sent away by name', async (_what, send) => {
    const { path, events, proxy: server } = await withDevice(FOREVER);
    const { fd } = eventFd();
    const before = openFds();
    const client = raw(path);
    send(client, fd);
    await client.end();
    client.close();
    await until(() => server.counters.open === 0);
    expect(endOf(events)).toMatch(
      /^recvmsg: EMFILE \(the client sent [56] file descriptors before it had an answer/,
    );
    expect(server.counters.refused).toBe(0);
    await until(() => openFds() <= before, 'as many fds as before');
  });

  test('and go are no clients of the device', async () => {
    const { path, events, proxy: server } = await withDevice(FOREVER);
    raw(path).close();
    await until(() => endOf(events) === 'the client closed its end');
    expect(server.counters).toMatchObject({ clients: 1, open: 0, refused: 0 });
  });
});

describe('those who wait', () => {
  test('for the only place, on TCP, are served in the order of their VERSIONs', async () => {
    const { front } = await onTcp({ ...FOREVER, maxClients: 1 });
    const first = await open(front);
    const order: number[] = [];
    const rest = [];
    for (const number of [2, 3, 4]) {
      const socket = await tcp(front);
      rest.push(
        connect({ stream: socket }, { timeoutMs: 30_000 }).then((device) => {
          order.push(number);
          return device.close();
        }),
      );
      await until(() => front.counters.open === number);
    }
    await first.close();
    await Promise.all(rest);
    expect(order).toEqual([2, 3, 4]);
  });

  test('and go meanwhile do not get a place', async () => {
    const { path, events, proxy: server } = await withDevice({ ...FOREVER, maxClients: 1 });
    const first = raw(path);
    await first.negotiate();
    const gone = raw(path, versionRequest({}, { id: 1 }));
    await until(() => server.counters.open === 2);
    gone.close();
    await until(() => endOf(events) === 'the client closed its end');
    expect(server.counters).toMatchObject({ open: 1, refused: 0 });
    await first.read32(0, 0);
  });

  test('are sent away when the proxy is closed, and their fds are closed', async () => {
    const { path, events, proxy: server } = await withDevice({ ...FOREVER, maxClients: 1 });
    const first = raw(path);
    await first.negotiate();
    const { fd } = eventFd();
    const before = openFds();
    const waits = raw(path, versionRequest({}, { id: 1 }), [fd, fd, fd]);
    await until(() => server.counters.open === 2);
    await server.close();
    await waits.end();
    waits.close();
    expect(events.filter(({ type }) => type === 'ended')).toHaveLength(2);
    await until(() => openFds() <= before);
  });
});

describe.each(['a path', 'TCP'])('a proxy on %s that its owner closes upon an event', (kind) => {
  /** One who has it closed upon the first event of that type, and connects to it. */
  async function closedUpon(type: ProxyEvent['type'], options: Partial<ProxyOptions> = {}) {
    const events: string[] = [];
    const listen = kind === 'TCP' ? { port: 0 } : scratch().path('front');
    const front = await proxy({
      listen,
      connect: scratch().path('nobody'),
      ...options,
      onEvent: (event) => {
        events.push(event.type);
        if (event.type === type) void front.close();
      },
    });
    cleanup(() => front.close());
    const [host, port] = front.address.split(':');
    const come = (): Socket => {
      const socket = typeof listen === 'string' ? connectTcp(listen) : connectTcp(Number(port), host);
      socket.on('error', () => undefined);
      cleanup(() => socket.destroy());
      return socket;
    };
    return { front, events, come };
  }

  test('of somebody who makes room while it is full lets nobody in any more', async () => {
    const { front, events, come } = await closedUpon('ended', { ...FOREVER, maxClients: 1 });
    const before = openFds();
    const sockets: Socket[] = [];
    // One place, and 64 who may be there without one: another one has the first of them go.
    for (let i = 1; i <= 65; i++) {
      sockets.push(come());
      await until(() => front.counters.open === i || front.isClosed);
    }
    // Long enough for the first one to have been silent for too long.
    await sleep(300);
    sockets.push(come());
    await until(() => front.isClosed, 'the first to go');
    await until(() => sockets.every(({ closed }) => closed), 'the end of all connections');
    expect(events.filter((type) => type === 'connected')).toHaveLength(65);
    expect(events.filter((type) => type === 'ended')).toHaveLength(65);
    expect(front.counters.open).toBe(0);
    await until(() => openFds() <= before, 'their fds');
  });

  test('of the first who comes', async () => {
    const { front, events, come } = await closedUpon('connected', FOREVER);
    const socket = come();
    await until(() => socket.closed, 'its end');
    expect([events, front.counters.open]).toEqual([['connected', 'ended'], 0]);
  });
});

describe('a first message', () => {
  test('arrives whole, in one piece, with the fds that came before its end', async () => {
    const { client, server } = await between();
    const bytes = versionRequest({}, { id: 9 });
    const { fd } = eventFd();
    for (const [i, byte] of bytes.entries()) client.send(Buffer.of(byte), i === 3 ? [fd] : []);
    const came = await server.receive();
    expect(came).toMatchObject({ id: 9, payload: bytes.subarray(16) });
    expect(came.fds).toHaveLength(1);
    for (const one of came.fds) native().closeFd(one);
  });

  test('and what came with it are passed on in order', async () => {
    const { client, server } = await between();
    const later = Array.from({ length: 50 }, (_, i) => deviceGetInfoRequest({}, { id: i + 2 }));
    client.send(Buffer.concat([versionRequest({}, { id: 1 }), ...later, Buffer.alloc(5)]));
    for (let id = 1; id <= 51; id++) expect((await server.receive()).id).toBe(id);
  });

  test('of a client whose server cannot be had ends in that', async () => {
    const { path, events, proxy: server } = await proxyTo({ dial: () => Promise.reject(new Error('no')) });
    const before = openFds();
    const { fd } = eventFd();
    const client = raw(path, versionRequest(), [fd]);
    await client.end();
    client.close();
    await until(() => server.counters.open === 0);
    expect(endOf(events)).toBe('no');
    expect(server.counters).toMatchObject({ clients: 1, refused: 1 });
    await until(() => openFds() <= before + 1);
  });

  test('of a client whose server cannot be read ends in that, with both sides closed', async () => {
    const sides: Duplex[] = [];
    const dial = (): Duplex => {
      sides.push(sides.length === 0 ? new Unreadable() : new PassThrough());
      return sides.at(-1)!;
    };
    const { path, events, proxy: server } = await proxyTo({ dial }, { maxClients: 1 });
    const before = openFds();
    const { fd } = eventFd();
    const client = raw(path, versionRequest(), [fd]);
    await client.end();
    client.close();
    await until(() => server.counters.open === 0);
    expect(events.filter(({ type }) => type === 'ended')).toEqual([
      { type: 'ended', client: 1, reason: 'resume failed', code: 'ERR_VFIO_USER_CLOSED' },
    ]);
    expect(server.counters).toMatchObject({ clients: 1, refused: 0 });
    await until(() => sides[0]!.destroyed && openFds() <= before + 1);
    // Its place is free again: the next one is passed on, and gets back what it has sent.
    const next = raw(path, versionRequest({}, { id: 7 }));
    expect((await next.take(() => true, 'what came back')).id).toBe(7);
  });
});

test('more interrupts than are seen pass unseen, and a notice says so', async () => {
  const { path, events, proxy: server } = await withDevice({ interrupts: true, maxEventFds: 2 });
  const client = raw(path);
  await client.negotiate({ max_msg_fds: 8 });
  const vectors = Array.from({ length: 4 }, () => eventFd());
  const arm = (start: number, count: number) =>
    client.answer(
      setIrqsRequest({ flags: 0x24, index: 2, start, count }),
      vectors.slice(start, start + count).map(({ fd }) => fd),
    );
  const before = openFds();
  // More than once: what takes another one's place does not count twice.
  for (let i = 0; i < 3; i++) await arm(0, 4);
  expect(events.filter(({ type }) => type === 'notice')).toEqual([
    { type: 'notice', client: 1, text: 'more than 2 interrupts: the others are not seen' },
  ]);
  for (let i = 0; i < 4; i++) await client.write32(0, 0x0c, (2 << 16) | i);
  for (const { count } of vectors) await until(() => count() > 0, 'an interrupt');
  // In our process are the device's four, and two for each of those that are seen.
  expect(openFds()).toBeLessThanOrEqual(before + 4 + 4);
  expect(server.counters.interrupts).toBe(2);
});

/** Serves clients one after the other, each with a place, while `onEvent` throws at each event. */
const THROWING = `
  const { proxy } = await import('vfio-user/proxy');
  const { EduDevice, serve } = await import('vfio-user/emulator');
  const { connect } = await import('vfio-user');
  const [path] = process.argv.slice(1);
  const uncaught = [];
  process.on('uncaughtException', ({ message }) => uncaught.push(message));
  const server = await serve(new EduDevice(), { path: path + '.device', clients: 'many' });
  const front = await proxy({
    listen: path,
    connect: path + '.device',
    maxClients: 1,
    onEvent: ({ type }) => {
      throw new Error(type);
    },
  });
  const read = [];
  for (let i = 0; i < 3; i++) {
    const device = await connect(path, { timeoutMs: 30_000 });
    read.push(await device.bar(0).readUInt32(0));
    await device.close();
  }
  while (front.counters.open > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const ended = uncaught.length;
  await server.close();
  await connect(path, { timeoutMs: 30_000 }).catch(() => undefined);
  while (front.counters.open > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await front.close();
  console.log(JSON.stringify({ read, uncaught, ended, refused: front.counters.refused }));
`;

test('what onEvent throws is uncaught, and keeps nobody’s place', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', THROWING, scratch().path('front')], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { status, stdout, stderr } = await outcomeOf(child, 50_000);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const each = ['connected', 'ended'];
  expect(JSON.parse(stdout)).toEqual({
    read: [0x010000ed, 0x010000ed, 0x010000ed],
    uncaught: [...each, ...each, ...each, ...each],
    ended: 6,
    refused: 1,
  });
});
