/** `connect` takes the addresses that the command line takes; and says what to do where nobody is there. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { existsSync } from 'node:fs';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { EduDevice, RamDevice, serve, serveFd, serveStream } from '../../lib/emulator/index.js';
import { connect, type ConnectOptions, type Device } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { diagnose } from '../../lib/doctor/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { parseAddress } from '../../lib/transport/index.js';
import { Scratch } from '../cli/cli.js';

const cleanups: (() => unknown)[] = [];
let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
  scratch.remove();
});

async function open(endpoint: string, options?: ConnectOptions): Promise<Device> {
  const device = await connect(endpoint, options);
  cleanups.push(() => device.close());
  return device;
}

async function identify(endpoint: string, options?: ConnectOptions): Promise<number> {
  return (await open(endpoint, options)).bar(0).readUInt32(0);
}

function tcpServer(): Server {
  const server = createServer((socket) => void serveStream(new EduDevice(), socket));
  cleanups.push(() => new Promise((resolve) => server.close(resolve)));
  return server;
}

async function listening(server: Server, port = 0): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const EDU = 0x010000ed;

describe('connect takes', () => {
  test('tcp:PORT, tcp:HOST:PORT', async () => {
    const port = await listening(tcpServer());
    expect(await identify(`tcp:${port}`)).toBe(EDU);
    expect(await identify(`tcp:127.0.0.1:${port}`)).toBe(EDU);
  });

  test('tcp: with waitForSocket, before the server listens', async () => {
    const free = tcpServer();
    const port = await listening(free);
    await new Promise((resolve) => free.close(resolve));
    const opening = identify(`tcp:${port}`, { waitForSocket: true });
    await listening(tcpServer(), port);
    expect(await opening).toBe(EDU);
  });

  test('tcp: with reconnect', async () => {
    const port = await listening(tcpServer());
    expect(await identify(`tcp:${port}`, { reconnect: true })).toBe(EDU);
  });

  test('@name, in a string or as a path, as servers do', async () => {
    const name = `@vfio-user-address-${process.pid}`;
    const server = await serve(new EduDevice(), { path: name, clients: 'many' });
    cleanups.push(() => server.close());
    expect(existsSync(name)).toBe(false);
    expect(await identify(name)).toBe(EDU);
    expect(await identify(`\0${name.slice(1)}`)).toBe(EDU);
    await using byPath = await connect({ path: name });
    expect(await byPath.bar(0).readUInt32(0)).toBe(EDU);
  });

  test('fd:N, which is its own from then on', async () => {
    const [ours, theirs] = native().socketPair() as [number, number];
    const server = serveFd(new EduDevice(), theirs);
    cleanups.push(() => server.close());
    expect(await identify(`fd:${ours}`)).toBe(EDU);
    await expect(connect(`fd:${ours}`, { reconnect: true })).rejects.toThrow('opened again');
  });

  test('a file whose name looks like an address, by its directory', async () => {
    const path = scratch.path('@x');
    const server = await serve(new EduDevice(), { path });
    cleanups.push(() => server.close());
    expect(existsSync(path)).toBe(true);
    expect(await identify(path)).toBe(EDU);
  });
});

describe('the same words', () => {
  test('are taken by proxies, on both sides', async () => {
    const port = await listening(tcpServer());
    const front = `@vfio-user-front-${process.pid}`;
    const first = await proxy({ listen: front, connect: `tcp:${port}` });
    cleanups.push(() => first.close());
    const second = await proxy({ listen: 'tcp:0', connect: front });
    cleanups.push(() => second.close());
    expect(await identify(`tcp:${second.address}`)).toBe(EDU);
    await expect(proxy({ listen: scratch.path('x'), connect: 'fd:3' })).rejects.toThrow(TypeError);
    await expect(proxy({ listen: front, connect: `\0${front.slice(1)}` })).rejects.toThrow(
      'where its server is',
    );
  });

  test('are taken by diagnose, again and again', async () => {
    const port = await listening(tcpServer());
    const { rules } = await diagnose(`tcp:${port}`, { only: ['version'] });
    expect(rules.filter(({ verdict }) => verdict !== 'not run').length).toBeGreaterThan(1);
  });

  test('are no files that a server makes', async () => {
    await expect(serve(new EduDevice(), { path: 'tcp:4420' })).rejects.toThrow(
      'path must be a Unix socket\'s path or @name, got "tcp:4420"',
    );
    expect(existsSync('tcp:4420')).toBe(false);
  });
});

describe('addresses as URLs', () => {
  const ssh = { kind: 'ssh', user: undefined, port: undefined };
  test.each([
    ['unix:/run/a.sock', { kind: 'unix', path: '/run/a.sock' }],
    ['unix:///run/a.sock', { kind: 'unix', path: '/run/a.sock' }],
    ['unix:@name', { kind: 'unix', path: '\0name' }],
    ['./ssh:', { kind: 'unix', path: './ssh:' }],
    ['tcp://lab:4420', { kind: 'tcp', host: 'lab', port: 4420 }],
    ['tls://[::1]:4433', { kind: 'tls', host: '::1', port: 4433 }],
    ['vsock://2:4420', { kind: 'vsock', cid: 2, port: 4420 }],
    ['ssh://lab/run/dev.sock', { ...ssh, host: 'lab', path: '/run/dev.sock' }],
    [
      'ssh://me@lab:2222/run/dev.sock',
      { kind: 'ssh', user: 'me', host: 'lab', port: 2222, path: '/run/dev.sock' },
    ],
    ['ssh://[fe80::1%eth0]/a', { ...ssh, host: 'fe80::1%eth0', path: '/a' }],
  ])('%s', (text, address) => {
    expect(parseAddress('x', text)).toEqual(address);
  });

  test.each([
    ['ssh://-oProxyCommand=id/a', 'the host of ssh:// begins with a letter or digit'],
    ['ssh://-l@lab/a', 'the user of ssh:// begins with a letter or digit'],
    ['ssh://@lab/a', 'the user of ssh://'],
    ['ssh://a b@lab/a', 'the user of ssh://'],
    ['ssh://[-oProxyCommand]/a', 'the host of ssh://'],
    ['ssh://lab', 'must be ssh://[USER@]HOST[:PORT]/PATH'],
    ['ssh://lab/', 'must be ssh://[USER@]HOST[:PORT]/PATH'],
    ['ssh://:22/a', 'must be ssh://[USER@]HOST[:PORT]/PATH'],
    ['ssh://lab:99999/a', 'must be ssh://[USER@]HOST[:PORT]/PATH'],
    ['ssh://lab/a:b', 'the path of ssh:// has letters'],
    ['ssh://lab/${HOME}', 'the path of ssh:// has letters'],
    ['ssh://lab/%h', 'the path of ssh:// has letters'],
    ['ssh://lab/a\nb', 'must be ssh://[USER@]HOST[:PORT]/PATH'],
    ['tls://lab', 'must be tls://HOST:PORT or tls://[IPV6]:PORT'],
    ['tls://lab:99999', 'must be tls://HOST:PORT'],
    ['tcp://:80', 'must be tcp://HOST:PORT'],
    ['vsock://x:1', 'must be vsock://CID:PORT'],
    ['vsock://4294967296:1', 'must be vsock://CID:PORT'],
    ['http://lab/', 'must be a path, or begin with unix:, tcp:, tls://, ssh://, vsock:// or fd:'],
  ])('%j is none, and says so', (text, message) => {
    expect(() => parseAddress('x', text)).toThrow(TypeError);
    expect(() => parseAddress('x', text)).toThrow(message);
  });

  test('unix: reaches a server, and is listened at', async () => {
    const path = scratch.path('u');
    const server = await serve(new EduDevice(), { path: `unix:${path}` });
    cleanups.push(() => server.close());
    expect(await identify(`unix://${path}`)).toBe(EDU);
    for (const text of ['tls://a:1', 'ssh://a/b', 'pci:0:0']) {
      await expect(serve(new EduDevice(), { path: text })).rejects.toThrow("must be a Unix socket's path");
    }
    await expect(connect('tls://lab:0')).rejects.toThrow('must have a port to connect to');
  });
});

describe('what is no address', () => {
  test.each([
    '',
    '@',
    '\0',
    'a\0b',
    'fd:',
    'fd:x',
    'fd:1',
    'fd:99999999999',
    'tcp:',
    'tcp:99999',
    'tcp:::1:80',
  ])('%j is a TypeError that says so', async (text) => {
    await expect(connect(text)).rejects.toThrow(TypeError);
    await expect(connect(text)).rejects.toThrow(/^connect: endpoint must (be|have) /);
  });

  test('port 0 can be listened at, and not be connected to', async () => {
    expect(parseAddress('x', 'tcp:0')).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    await expect(connect('tcp:0')).rejects.toThrow('connect: endpoint must have a port to connect to');
  });

  test('a path that is too long', async () => {
    await expect(connect('x'.repeat(108))).rejects.toThrow('must have at most 107 bytes (sun_path), got 108');
  });
});

describe('nobody there', () => {
  const HINT = '; is the server running? waitForSocket, on the command line --wait, waits for it';

  test('no file', async () => {
    const path = scratch.path('none');
    await expect(connect(path)).rejects.toMatchObject({
      code: 'ENOENT',
      message: `connect: ENOENT (${path} does not exist${HINT})`,
    });
  });

  test('an abstract name', async () => {
    await expect(connect('@vfio-user-nobody')).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      message: `connect: ECONNREFUSED (@vfio-user-nobody: nobody listens there${HINT})`,
    });
  });

  test('a TCP port', async () => {
    await expect(connect('tcp:1')).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      message: `connect: ECONNREFUSED (tcp:1: nobody listens there${HINT})`,
    });
  });

  test('whoever has waited is not told to wait', async () => {
    const path = scratch.path('none');
    const error = await connect(path, { waitForSocket: true, timeoutMs: 30 }).catch((e: unknown) => e);
    expect(error).toMatchObject({
      code: 'ETIMEDOUT',
      cause: { message: `connect: ENOENT (${path} does not exist)` },
    });
  });
});

describe('regions by name', () => {
  test('are those of the index', async () => {
    const server = await serve(new RamDevice(), { path: scratch.path('s') });
    cleanups.push(() => server.close());
    const device = await open(scratch.path('s'));
    expect(device.region('bar0')).toBe(device.region(0));
    expect(device.region('config')).toBe(device.region(7));
    expect(device.region('rom').size).toBe(0);
    expect(device.region('BAR5' as 'bar5')).toBe(device.region(5));
    expect(() => device.region('bar6' as 'bar5')).toThrow(TypeError);
    expect(() => device.region('bar6' as 'bar5')).toThrow(
      'region: which must be an index, or one of bar0, bar1, bar2, bar3, bar4, bar5, rom, config, vga, migration, got "bar6"',
    );
    expect(() => device.region('migration')).toThrow('the device has regions 0 to 8, not migration');
  });

  test('are those of PCI', async () => {
    const model = {
      flags: 0x10,
      regions: [{ index: 0, size: 4096, memory: { bytes: Buffer.alloc(4096) } }],
      irqs: [],
    };
    const server = await serve(model, { path: scratch.path('s') });
    cleanups.push(() => server.close());
    const device = await open(scratch.path('s'));
    expect(device.region(0).size).toBe(4096);
    expect(() => device.region('bar0')).toThrow('not on PCI');
  });
});
