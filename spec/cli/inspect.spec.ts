/** `vfio-user inspect`: what its server answers, to its page and to strangers. */
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { request } from 'node:http';
import net from 'node:net';
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { defineDevice, serve, type EmulatorServer } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import type { RegisterMapData } from '../../lib/registers/index.js';
import { Scratch, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

const MAP = {
  format: 'vfio-user-registers/1',
  name: 'counters',
  blocks: [
    {
      name: 'C',
      children: [
        { name: 'CTRL', offset: 0, reset: 5, fields: [{ name: 'MODE', lsb: 0, bits: 4 }] },
        { name: 'EVENTS', offset: 4, reset: 7, fields: [{ name: 'COUNT', lsb: 0, bits: 8, access: 'RC' }] },
        { name: 'NAME', offset: 8, access: 'RO', reset: 1 },
        { name: 'KEY', offset: 12, access: 'WO' },
      ],
    },
  ],
};
const reads: Record<string, number> = {};
const counted = (name: string): (() => number) => {
  return () => {
    reads[name] = (reads[name] ?? 0) + 1;
    return 7;
  };
};

const scratch = new Scratch();
const socket = scratch.path('counters.sock');
const map = scratch.path('counters.json');
const capture = scratch.path('run.pcapng');
let server: EmulatorServer;
const children: ChildProcess[] = [];

beforeAll(async () => {
  writeFileSync(map, JSON.stringify(MAP));
  const model = defineDevice({
    id: { vendorId: 0x1234, deviceId: 0xd00d },
    map: MAP as unknown as RegisterMapData,
    interrupts: { msix: 2 },
    on: { EVENTS: { read: counted('EVENTS') }, CTRL: { write: (device) => device.raise(1) } },
  });
  server = await serve(model, { path: socket, clients: 'many' });
  await using device = await connect(socket, { capture });
  await device.enable();
  const buffer = await device.dma.alloc(4096);
  await device.bar(0).readUInt32(0);
  await device.bar(0).writeUInt32(0, 3);
  await buffer.free();
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
});

afterAll(async () => {
  await server.close();
  scratch.remove();
});

async function inspect(...args: string[]): Promise<URL> {
  const child = start(['inspect', ...args]);
  children.push(child);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const [line] = (await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')])) as [
    Buffer | number,
  ];
  if (typeof line === 'number') throw new Error(said);
  return new URL(line.toString().trim());
}

async function get<T = Record<string, unknown>>(url: URL, name: string): Promise<T> {
  return (await (await fetch(new URL(name, url))).json()) as T;
}

async function post(
  url: URL,
  name: string,
  body: unknown,
  headers = {},
): Promise<{ status: number; body: never }> {
  const response = await fetch(new URL(name, url), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as never };
}

describe('a device', () => {
  test('is described, with its config space, and its registers as the map has them', async () => {
    const url = await inspect(socket, '--map', map, '--enable');
    const subject = await get(url, 'api/device');
    expect(subject).toMatchObject({
      kind: 'device',
      source: socket,
      allowsWrites: false,
      device: { vendorId: 0x1234, deviceId: 0xd00d },
      registers: [
        { name: 'CTRL', offset: 0, isRead: true, isWritable: true },
        { name: 'EVENTS', isRead: false },
        { name: 'NAME', isRead: true, isWritable: false },
        { name: 'KEY', isRead: false, isWritable: true },
      ],
    });
    expect(await get(url, 'api/config')).toMatchObject({ header: { vendorId: 0x1234 }, problems: [] });
  });

  test('what reading changes is not read, whoever asks', async () => {
    delete reads['EVENTS'];
    const url = await inspect(socket, '--map', map, '--enable');
    const names = ['CTRL', 'EVENTS', 'NAME', 'KEY', 'NONE'];
    for (let i = 0; i < 3; i++) {
      const { body } = await post(url, 'api/registers', { names });
      expect(body).toMatchObject([
        { name: 'CTRL', fields: { mode: expect.any(Number) } },
        { name: 'NAME', value: '0x00000001' },
      ]);
    }
    await get(url, 'api/device');
    await get(url, 'api/config');
    expect(reads).toEqual({});
  });

  test('bytes are read where they are asked for, and no others', async () => {
    const url = await inspect(socket, '--enable');
    const range = { region: 'bar0', offset: 8, length: 4, width: 4 };
    expect(await post(url, 'api/memory', range)).toEqual({ status: 200, body: { hex: '01000000' } });
    for (const [wrong, message] of [
      [{ region: 'bar0', offset: 8, length: 4097, width: 1 }, /length must be from 1 to 4096/],
      [{ region: 'bar0', offset: 1, length: 4, width: 4 }, /must be multiples of 4/],
      [{ region: 'bar0', offset: -1, length: 4, width: 4 }, /offset must be a whole number/],
      [{ region: 'bar0', offset: 1e9, length: 4, width: 4 }, /out of bounds/],
      [{ region: 'bar9', offset: 0, length: 4, width: 4 }, /A region is an index, or one of bar0/],
      [{ region: 'bar0', offset: 0, length: 4, width: 3 }, /width must be 1, 2, 4 or 8/],
    ] as const) {
      expect(await post(url, 'api/memory', wrong)).toMatchObject({
        status: 400,
        body: { error: { message: expect.stringMatching(message) } },
      });
    }
  });

  test('writes are refused, unless they were allowed; then interrupts are in the log', async () => {
    const refused = await inspect(socket, '--map', map, '--enable');
    const write = { target: 'CTRL.MODE', value: '0x2' };
    expect(await post(refused, 'api/write', write)).toMatchObject({
      status: 403,
      body: { error: { message: expect.stringMatching(/without --allow-writes/) } },
    });
    const url = await inspect(socket, '--map', map, '--enable', '--allow-writes', '--irqs', 'msix');
    expect(await post(url, 'api/write', write)).toEqual({ status: 200, body: {} });
    expect(await post(url, 'api/write', { target: 'bar0:0x0.b', value: '3' })).toMatchObject({ status: 200 });
    expect((await post(url, 'api/registers', { names: ['CTRL'] })).body).toMatchObject([
      { value: '0x00000003' },
    ]);
    for (const [target, value] of [
      ['CTRL.MODE', '16'],
      ['CTRL', 'x'],
      ['NONE', '1'],
      ['bar0:0.b', '256'],
    ]) {
      expect(await post(url, 'api/write', { target, value })).toMatchObject({ status: 400 });
    }
    const { events } = await get<{ events: { kind: string; what: string; register?: string }[] }>(
      url,
      'api/events?from=0&count=1000',
    );
    expect(events.filter(({ kind }) => kind === 'interrupt')).toMatchObject([{ what: 'MSI-X 1' }, {}]);
    expect(events[0]).toMatchObject({ what: 'VERSION', kind: 'request' });
    expect(events.some(({ register }) => register?.startsWith('CTRL'))).toBe(true);
  });

  test('that is lost is said to be, and its registers are errors', async () => {
    const path = scratch.path('short.sock');
    const short = await serve(
      defineDevice({ id: { vendorId: 1, deviceId: 2 }, map: MAP as unknown as RegisterMapData }),
      {
        path,
      },
    );
    const url = await inspect(path, '--map', map, '--enable');
    expect(await get(url, 'api/events?from=0&count=0')).toMatchObject({ state: { isOver: false } });
    await short.close();
    const { state } = await get<{ state: object }>(url, 'api/events?from=0&count=0');
    expect(state).toMatchObject({ isOver: true, reason: expect.stringMatching(/closed/) });
    expect(await post(url, 'api/registers', { names: ['CTRL'] })).toMatchObject({ status: 502 });
  });
});

test('a capture: its messages, its DMA regions and the registers that were touched', async () => {
  const url = await inspect(capture, '--map', map);
  const subject = await get(url, 'api/device');
  expect(subject).toMatchObject({
    kind: 'capture',
    coverage: { touched: 1, registers: [{ name: 'CTRL', reads: 1, writes: 1, order: 1 }, {}, {}, {}] },
  });
  const page = await get<{ end: number; mappings: object[]; events: object[] }>(
    url,
    'api/events?from=0&count=5',
  );
  expect(page.events).toHaveLength(5);
  expect(page.end).toBeGreaterThan(10);
  expect(page.mappings).toMatchObject([{ address: expect.stringMatching(/^0x/), from: expect.any(Number) }]);
  expect(await post(url, 'api/write', { target: 'CTRL', value: '1' })).toMatchObject({ status: 403 });
  expect(await post(url, 'api/memory', { region: 'bar0', offset: 0, length: 4, width: 4 })).toMatchObject({
    status: 400,
  });
});

describe('strangers', () => {
  /** With any Host, which fetch does not let through. */
  function raw(url: URL, headers: Record<string, string>, path = url.pathname): Promise<number> {
    return new Promise((resolve, reject) => {
      const asked = request({ host: url.hostname, port: url.port, path, headers }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      asked.once('error', reject);
      asked.end();
    });
  }

  test('without the token there is nothing; another Host, Origin or type is refused', async () => {
    const url = await inspect(socket, '--allow-writes', '--map', map);
    for (const path of ['/', '/api/device', `/${'0'.repeat(32)}/api/device`, `/${'é'.repeat(16)}/`, '//'])
      expect(await raw(url, {}, encodeURI(path))).toBe(404);
    expect(await raw(url, {})).toBe(200);
    expect(await raw(url, { host: `localhost:${url.port}` })).toBe(200);
    expect(await raw(url, { host: `evil.example:${url.port}` })).toBe(403);
    expect(await raw(url, { host: 'localhost' })).toBe(403);
    const write = { target: 'CTRL', value: '1' };
    expect(await post(url, 'api/write', write, { origin: 'http://evil.example' })).toMatchObject({
      status: 403,
    });
    expect(await post(url, 'api/write', write, { 'content-type': 'text/plain' })).toMatchObject({
      status: 415,
    });
    const page = await fetch(url);
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
    expect(page.headers.get('content-security-policy')).not.toMatch(/unsafe/);
  });

  test.each([
    ['api/registers', '{', 400],
    ['api/registers', '[]', 400],
    ['api/registers', { names: 'CTRL' }, 400],
    ['api/registers', { names: Array.from({ length: 257 }, () => 'CTRL') }, 400],
    ['api/write', { target: 'x'.repeat(2_000), value: '1' }, 400],
    ['api/write', 'x'.repeat(100_000), 413],
    ['api/nothing', {}, 404],
  ])('%s with a wrong body (%#)', async (name, body, status) => {
    const url = await inspect(socket, '--map', map, '--allow-writes');
    expect(await post(url, name, body)).toMatchObject({
      status,
      body: { error: { message: expect.any(String) } },
    });
  });

  test.each(['app.js/../../server.js', '..%2fserver.js', 'server.js', 'api/events?from=x', 'x.js'])(
    '%s is not served',
    async (name) => {
      const url = await inspect(capture);
      const path = `${url.pathname}${name}`;
      expect(await raw(url, {}, path)).toBeGreaterThanOrEqual(400);
    },
  );

  test('silent ones do not keep it from ending', async () => {
    const url = await inspect(capture);
    const silent = net.connect(Number(url.port), url.hostname);
    await once(silent, 'connect');
    const [child] = children.splice(0);
    child!.kill('SIGTERM');
    expect(await once(child!, 'exit')).toEqual([0, null]);
    silent.destroy();
  });
});

test.each([
  [['/nowhere.sock'], 1, /nowhere/],
  [['--port', '65536', '/nowhere.sock'], 2, /at most 65535/],
  [['--irqs', 'nmi', '/nowhere.sock'], 2, /Allowed choices/],
  [[map], 1, /capture|pcap/],
  [[socket, '--irqs', 'msi'], 1, /the device has no MSI interrupts/],
])('%j ends at once', async (args, status, message) => {
  const outcome = await vfioUser('inspect', ...args);
  expect({ status: outcome.status, stdout: outcome.stdout }).toEqual({ status, stdout: '' });
  expect(outcome.stderr).toMatch(message);
});
