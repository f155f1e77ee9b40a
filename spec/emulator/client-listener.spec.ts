/** Clients that say nothing, or half of something, and those who come after them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { RamDevice, serve, serveFd, serveStream, type ServeOptions } from '../../lib/emulator/index.js';
import { openFds } from '../support/fds.js';
import { deviceGetInfoRequest, regionWriteRequest, versionRequest } from '../support/wire.js';
import { cleanup, until } from './fixture.js';
import { RawClient, socketPair } from './raw-client.js';

/** No deadline of this length ends within a test. */
const NEVER_MS = 600_000;
/** One that is over soon. */
const SOON_MS = 50;
const FOREVER = { versionTimeoutMs: NEVER_MS, messageTimeoutMs: NEVER_MS };

function ram(): RamDevice {
  const device = new RamDevice({ sharedSize: 0 });
  cleanup(() => device.close());
  return device;
}

async function listening(options: Partial<ServeOptions> = FOREVER) {
  const directory = mkdtempSync(join(tmpdir(), 'client-listener-'));
  cleanup(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'device.sock');
  const server = await serve(ram(), { path, backlog: 256, ...options });
  cleanup(() => server.close());
  return { server, path };
}

function client(path: string, said?: Uint8Array): RawClient {
  const raw = RawClient.connect(path);
  cleanup(() => raw.close());
  if (said !== undefined) raw.send(said);
  return raw;
}

const isReply = { flags: 1, command: 1 };

describe('a client that says nothing', () => {
  test.each<[string, Uint8Array | undefined]>([
    ['at all', undefined],
    ['but a byte', Buffer.alloc(1)],
    ['but half a VERSION', versionRequest().subarray(0, 20)],
  ])('%s keeps nobody from the only place', async (_what, said) => {
    const { path } = await listening();
    client(path, said);
    await client(path).negotiate();
  });

  test('is sent away', async () => {
    const { server, path } = await listening({ ...FOREVER, versionTimeoutMs: SOON_MS });
    const before = openFds();
    const silent = client(path);
    const half = client(path, versionRequest().subarray(0, 20));
    await Promise.all([silent.end(), half.end()]);
    expect(server.clientCount).toBe(0);
    silent.close();
    half.close();
    expect(openFds()).toBe(before);
  });

  test('is sent away from a stream and a socket of its own, and the server ends', async () => {
    const options = { ...FOREVER, versionTimeoutMs: SOON_MS };
    const reason = { code: 'ETIMEDOUT', message: expect.stringMatching(/no VERSION within 50 ms/) };
    const stream = serveStream(ram(), new PassThrough(), options);
    expect(await stream.closed).toMatchObject(reason);
    const [ours, theirs] = socketPair();
    const raw = new RawClient(ours);
    cleanup(() => raw.close());
    expect(await serveFd(ram(), theirs, options).closed).toMatchObject(reason);
    await raw.end();
  });

  test('makes room where too many do so', async () => {
    const { path } = await listening();
    const silent = Array.from({ length: 100 }, () => client(path));
    await client(path).negotiate();
    expect(silent.some(({ ended }) => ended)).toBe(true);
  });
});

describe('half a message', () => {
  test.each([
    ['of a header', 7],
    ['of a command', 30],
    ['of a long one', 100_000],
  ])('%s does not keep the place for ever', async (_what, length) => {
    const { path } = await listening({ ...FOREVER, messageTimeoutMs: SOON_MS });
    const first = client(path);
    await first.negotiate();
    const next = client(path);
    const version = next.ask(versionRequest());
    first.send(regionWriteRequest({ region: 2, data: Buffer.alloc(200_000) }).subarray(0, length));
    await first.end();
    expect(await version).toMatchObject(isReply);
  });

  test('whose rest comes is a message, and silence after it is no fault', async () => {
    const { path } = await listening({ ...FOREVER, messageTimeoutMs: SOON_MS });
    const raw = client(path);
    await raw.negotiate();
    const request = deviceGetInfoRequest({}, { id: 77 });
    raw.send(request.subarray(0, 20));
    raw.send(request.subarray(20));
    expect(await raw.take()).toMatchObject({ id: 77, flags: 1 });
    await new Promise((resolve) => setTimeout(resolve, 4 * SOON_MS));
    await raw.answer(deviceGetInfoRequest());
  });
});

describe('those who wait', () => {
  test('are served in the order of their VERSIONs', async () => {
    const { path } = await listening();
    const first = client(path);
    await first.negotiate();
    const second = client(path);
    const third = client(path);
    const order: string[] = [];
    const waits = [third.ask(versionRequest()).then(() => order.push('third'))];
    // It has been read before the other one is sent.
    for (let i = 0; i < 3; i++) await first.answer(deviceGetInfoRequest());
    waits.push(second.ask(versionRequest()).then(() => order.push('second')));
    first.close();
    await until(() => order.length === 1, 'the next');
    third.close();
    await Promise.all(waits);
    expect(order).toEqual(['third', 'second']);
  });

  test('and have more to say lose nothing of it', async () => {
    const { path } = await listening();
    const first = client(path);
    await first.negotiate();
    const second = client(path);
    second.send(
      Buffer.concat([
        versionRequest({}, { id: 5 }),
        deviceGetInfoRequest({}, { id: 6 }),
        deviceGetInfoRequest({}, { id: 7 }),
      ]),
    );
    await first.answer(deviceGetInfoRequest());
    expect(second.inbox).toHaveLength(0);
    first.close();
    expect([(await second.take()).id, (await second.take()).id, (await second.take()).id]).toEqual([5, 6, 7]);
  });

  test('and go meanwhile keep nobody', async () => {
    const { path } = await listening();
    const first = client(path);
    await first.negotiate();
    for (let i = 0; i < 5; i++) {
      const gone = RawClient.connect(path);
      gone.post(versionRequest());
      gone.close();
    }
    const last = client(path);
    const version = last.ask(versionRequest());
    first.close();
    expect(await version).toMatchObject(isReply);
  });

  test('for one of several places', async () => {
    const { server, path } = await listening({ ...FOREVER, clients: 'many', maxClients: 2 });
    const [first, second, third] = [client(path), client(path), client(path)];
    await Promise.all([first.negotiate(), second.negotiate()]);
    const version = third.ask(versionRequest());
    await first.answer(deviceGetInfoRequest());
    expect([server.clientCount, third.inbox.length]).toEqual([2, 0]);
    second.close();
    expect(await version).toMatchObject(isReply);
  });

  test('are sent away when the server is closed', async () => {
    const { server, path } = await listening();
    const before = openFds();
    const first = client(path);
    await first.negotiate();
    const silent = client(path);
    const waiting = client(path, versionRequest());
    await first.answer(deviceGetInfoRequest());
    await server.close();
    await Promise.all([first.end(), silent.end(), waiting.end()]);
    for (const raw of [first, silent, waiting]) raw.close();
    // The listening socket was there before.
    expect(openFds()).toBe(before - 1);
  });
});

test.each([
  ['no time for VERSION', { versionTimeoutMs: 0 }],
  ['no time for messages', { messageTimeoutMs: -1 }],
  ['half a mapping', { maxDmaMaps: 0.5 }],
  ['fewer than no eventfds', { maxEventFds: -1 }],
  ['no clients', { maxClients: 0 }],
  ['too many clients', { maxClients: 1_025 }],
])('there cannot be %s', async (_what, options) => {
  await expect(listening(options)).rejects.toThrow(RangeError);
});

test('a client that asks for a twin socket and has gone before the answer leaves no descriptor behind', async () => {
  const device = ram();
  const before = openFds();
  for (let i = 0; i < 4; i++) {
    const [ours, theirs] = socketPair();
    const gone = new RawClient(ours);
    gone.send(
      versionRequest({ data: { capabilities: { max_msg_fds: 1, twin_socket: { supported: true } } } }),
    );
    gone.close();
    const server = serveFd(device, theirs);
    await server.closed;
  }
  await until(() => openFds() <= before, 'the descriptors are closed');
});
