/**
 * Synchronous calls to a server of the same thread: it could not answer while they block its loop. They are refused at
 * once, however client and server came together; a server in another thread or process is called.
 */
import { afterEach, describe, expect, test } from '@jest/globals';
import { symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { RAM_IDENTIFICATION, RamDevice, serve, serveFd, serveStream } from '../../lib/emulator/index.js';
import { UnsupportedError, connect, type Device, type Endpoint } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { proxy } from '../../lib/proxy/index.js';
import { replay } from '../../lib/replay/index.js';
import { Scratch } from '../cli/cli.js';
import { startRamServer } from '../support/ram-server.js';

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const run of cleanups.splice(0).reverse()) await run();
});

function scratch(): Scratch {
  const directory = new Scratch();
  cleanups.push(() => directory.remove());
  return directory;
}

function ram(): RamDevice {
  const device = new RamDevice();
  cleanups.push(() => device.close());
  return device;
}

async function open(endpoint: Endpoint, options = {}): Promise<Device> {
  const device = await connect(endpoint, options);
  cleanups.push(() => device.close());
  return device;
}

async function servedAt(path: string): Promise<string> {
  const server = await serve(ram(), { path });
  cleanups.push(() => server.close());
  return path;
}

function socketPair(): [number, number] {
  return native().socketPair() as [number, number];
}

const REASON =
  /REGION_(READ|WRITE): no synchronous call can be made to a server on this thread's own event loop/;

/** Every kind of synchronous call; and the connection is as it was. */
async function expectRefused(device: Device): Promise<void> {
  const bar = device.bar(0);
  for (const call of [
    () => bar.readUInt32Sync(0),
    () => bar.readSync(0, 3),
    () => bar.readIntoSync(0, Buffer.alloc(64)),
    () => bar.writeUInt32Sync(4, 1),
  ]) {
    expect(call).toThrow(UnsupportedError);
    expect(call).toThrow(REASON);
  }
  expect(await bar.readUInt32(0)).toBe(RAM_IDENTIFICATION);
  expect(() => bar.readUInt32Sync(0)).toThrow(REASON);
  expect(device.counters).toMatchObject({ inFlight: 0, queued: 0, tombstones: 0 });
}

describe('a server of this thread', () => {
  test('at a path', async () => {
    await expectRefused(await open(await servedAt(scratch().path('s'))));
  });

  test('without a twin socket, and with a trace', async () => {
    const path = await servedAt(scratch().path('s'));
    await expectRefused(await open(path, { twinSocket: false, trace: () => undefined }));
  });

  test('with an abstract name', async () => {
    await expectRefused(await open(await servedAt(`\0vfio-user-spec-${process.pid}`)));
  });

  test('behind a symbolic link', async () => {
    const directory = scratch();
    symlinkSync(await servedAt(directory.path('s')), directory.path('link'));
    await expectRefused(await open(directory.path('link')));
  });

  test('at the other end of a socket pair', async () => {
    const [ours, theirs] = socketPair();
    const server = serveFd(ram(), theirs);
    cleanups.push(() => server.close());
    await expectRefused(await open({ fd: ours }));
  });

  test("on a stream that is one of Node's own sockets", async () => {
    const path = scratch().path('s');
    const listener = createServer((socket) => {
      const server = serveStream(ram(), socket);
      cleanups.push(() => server.close());
    }).listen(path);
    cleanups.push(() => listener.close());
    await once(listener, 'listening');
    await expectRefused(await open(path));
  });

  test('is a proxy', async () => {
    const directory = scratch();
    await using _server = await startRamServer(directory.path('s'));
    const relay = await proxy({ listen: directory.path('front'), connect: directory.path('s') });
    cleanups.push(() => relay.close());
    await expectRefused(await open(directory.path('front')));
  });

  test('is a replay', async () => {
    const directory = scratch();
    const path = await servedAt(directory.path('s'));
    const capture = directory.path('c.pcapng');
    const recorded = await connect(path, { capture });
    await recorded.bar(0).readUInt32(0);
    await recorded.close();
    const server = await replay(capture);
    cleanups.push(() => server.close());
    await expectRefused(await open(server.path));
  });

  test('that has gone is not remembered', async () => {
    const path = await servedAt(scratch().path('s'));
    const device = await open(path);
    await device.close();
    expect(() => device.bar(0).readUInt32Sync(0)).toThrow('closed by its owner');
  });
});

describe('a server elsewhere is called while this thread serves, too', () => {
  test('in another thread', async () => {
    await servedAt(scratch().path('s'));
    const [ours, theirs] = socketPair();
    const worker = new Worker(new URL('../support/emulator-thread.mjs', import.meta.url), {
      workerData: { fd: theirs },
    });
    cleanups.push(() => worker.terminate());
    const device = await open({ fd: ours });
    expect(device.bar(0).readUInt32Sync(0)).toBe(RAM_IDENTIFICATION);
    // The worker closes it.
    native().releaseFd(theirs);
  });

  test('in another process', async () => {
    const directory = scratch();
    await servedAt(directory.path('here'));
    await using _server = await startRamServer(directory.path('there'));
    const device = await open(directory.path('there'));
    expect(device.bar(0).readUInt32Sync(0)).toBe(RAM_IDENTIFICATION);
    await device.close();
  });

  test('in the thread that started this one', async () => {
    const path = await servedAt(scratch().path('s'));
    const source = `
      import { parentPort } from 'node:worker_threads';
      import { connect } from '${new URL('../../dist/index.js', import.meta.url).href}';
      const device = await connect(${JSON.stringify(path)});
      parentPort.postMessage(device.bar(0).readUInt32Sync(0));
      await device.close();`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
    cleanups.push(() => worker.terminate());
    expect(await once(worker, 'message')).toEqual([RAM_IDENTIFICATION]);
  });
});
