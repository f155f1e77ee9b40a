import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { openFds } from '../support/fds.js';
import { makePair, runScript, sendText, startWorker } from './support.js';
import { NO_SOCKET, native } from '../../lib/native.js';

let fdsBefore: number;
beforeEach(async () => {
  // The first worker opens what all of them share.
  await once(startWorker(''), 'exit');
  fdsBefore = openFds();
});
afterEach(() => expect(openFds()).toBe(fdsBefore));

const makeSocket = `
  const makePair = (onEvent = () => {}) => {
    const [a, b] = addon.socketPair();
    const left = new addon.Socket(a, () => {});
    const right = new addon.Socket(b, onEvent);
    return { left, right };
  };
`;

describe('a worker', () => {
  test.each([
    ['recvWait', 'addon.recvWait(right.handle, Buffer.alloc(8), 0, 8, 50, left.handle);'],
    [
      'recvWait without spinning',
      'right.setSpinCeiling(0); addon.recvWait(right.handle, Buffer.alloc(8), 0, 8, 50, -1);',
    ],
    [
      'recvWait all spinning',
      'right.setSpinCeiling(50000); addon.recvWait(right.handle, Buffer.alloc(8), 0, 8, 50, -1);',
    ],
    ['recv', 'addon.recv(right.handle, Buffer.alloc(8), 0, 8);'],
    ['wait', 'addon.wait(right.handle, 1, 50, left.handle);'],
    ['wrong arguments', "try { addon.recv(right.handle, 'x', 0, 8); } catch {}"],
  ])('is terminated in the middle of %s', async (_what, call) => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair();
      right.watch(1);
      parentPort.postMessage('ready');
      for (;;) { ${call} }
    `);
    await once(worker, 'message');
    expect(await worker.terminate()).toBe(1);
  });

  test.each([
    ['is terminated', 'for (;;);'],
    ['ends', ''],
  ])('that %s leaves none of the fds that it had as bare numbers', async (what, rest) => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair();
      const [a, b] = addon.socketPair();
      addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [0, 1]);
      addon.recv(right.handle, Buffer.alloc(1), 0, 1);
      const fds = [a, b, addon.memfd('spec', 4096, false), addon.eventfd(0), addon.dupFd(0), ...right.takeFds()];
      // Connects to itself.
      const name = '\\0vfio-user-spec-' + process.pid + '-' + a;
      const listener = new addon.Listener(addon.listenUnix(name, 1, 0o600), () => {});
      fds.push(addon.connectUnix(name), listener.accept());
      addon.closeFd(addon.dupFd(0));
      if (fds.some((fd) => fd < 0)) throw new Error(fds.join());
      parentPort.postMessage(fds.length);
      ${rest}
    `);
    const ended = once(worker, 'exit');
    expect(await once(worker, 'message')).toEqual([9]);
    if (what === 'is terminated') await worker.terminate();
    expect(await ended).toEqual([what === 'ends' ? 0 : 1]);
  });

  test('leaves what it has released, and what it has closed is not closed again', async () => {
    const worker = startWorker(`
      const fd = addon.eventfd(0);
      addon.releaseFd(fd);
      const closed = addon.eventfd(0);
      addon.closeFd(closed);
      parentPort.postMessage([fd, closed]);
      setInterval(() => {}, 1000);
    `);
    const [[released, closed]] = (await once(worker, 'message')) as [[number, number]];
    // The number is free: it becomes another file's.
    const own: number[] = [];
    while (!own.includes(closed) && own.length < 100) own.push(native().dupFd(0));
    expect(own).toContain(closed);
    await worker.terminate();
    for (const fd of [released, ...own]) {
      expect(native().fdInfo(fd)).toMatchObject({ size: expect.any(Number) });
      expect(native().closeFd(fd)).toBe(0);
    }
  });

  test('is terminated in the middle of a callback', async () => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair(() => {
        parentPort.postMessage('ready');
        for (;;);
      });
      right.watch(1);
      addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [0, 1, 2]);
    `);
    await once(worker, 'message');
    await worker.terminate();
  });

  test('is terminated while it waits on its loop with everything open', async () => {
    const worker = startWorker(`${makeSocket}
      const fd = addon.memfd('spec', 1 << 20, false);
      globalThis.all = Array.from({ length: 16 }, (_, i) => {
        const { left, right } = makePair();
        right.watch(1);
        left.watch(i % 2);
        addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [0, fd]);
        addon.recv(right.handle, Buffer.alloc(8), 0, 8);
        const eventFd = new addon.EventFd(addon.eventfd(0), () => {});
        eventFd.watch(true);
        const listener = new addon.Listener(addon.listenUnix('\\0spec-' + process.pid + '-' + i, 1, 0o600), () => {});
        listener.watch(true);
        const mapping = addon.map(fd, 0, 1 << 20, true, true);
        const view = new Uint8Array(mapping.view(0, 4096));
        view[0] = 1;
        return { left, right, eventFd, listener, mapping, view };
      });
      addon.closeFd(fd);
      parentPort.postMessage('ready');
    `);
    await once(worker, 'message');
    await worker.terminate();
  });

  test('ends by itself with unwatched and unref’d objects open', async () => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair();
      right.watch(1);
      right.unref();
      left.watch(1);
      left.watch(0);
      globalThis.both = [left, right];
    `);
    expect(await once(worker, 'exit')).toEqual([0]);
  });

  test('ends by process.exit within a callback', async () => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair(() => process.exit(7));
      right.watch(1);
      addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, null);
    `);
    expect(await once(worker, 'exit')).toEqual([7]);
  });

  test('reports what a callback throws', async () => {
    const worker = startWorker(`${makeSocket}
      const { left, right } = makePair(() => { throw new Error('thrown in a worker'); });
      right.watch(1);
      addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, null);
    `);
    const exit = new Promise((resolve) => worker.once('exit', resolve));
    const [error] = (await once(worker, 'error')) as [Error];
    await exit;
    expect(error.message).toBe('thrown in a worker');
  });

  test('hands an fd to another thread, which goes on with it', async () => {
    const pair = makePair();
    const fd = native().dupFd(pair.right.fd);
    pair.right.close();
    const worker = startWorker(
      `
      const socket = new addon.Socket(workerData, () => {
        const bytes = Buffer.alloc(64);
        const size = addon.recv(socket.handle, bytes, 0, 64);
        addon.send(socket.handle, bytes, size, null, 0, 0, 0, null);
        socket.close();
      });
      socket.watch(1);
    `,
      fd,
    );
    sendText(pair.left, 'echo');
    const bytes = Buffer.alloc(64);
    while (native().recvWait(pair.left.handle, bytes, 0, 64, 50, NO_SOCKET) < 0);
    expect(bytes.toString('utf8', 0, 4)).toBe('echo');
    await once(worker, 'exit');
    pair.close();
  });
});

test('several workers use the addon at once', async () => {
  const workers = Array.from({ length: 4 }, () =>
    startWorker(`${makeSocket}
      let sum = 0;
      const eventFd = new addon.EventFd(addon.eventfd(0), (count) => (sum += count));
      eventFd.watch(true);
      const step = (i) => {
        if (i === 200) {
          eventFd.close();
          parentPort.postMessage(sum);
          return;
        }
        const fd = addon.memfd('spec', 4096, false);
        const { left, right } = makePair(() => {
          addon.recv(right.handle, bytes, 0, 64);
          const [received] = right.takeFds();
          const mapping = addon.map(received, 0, 4096, true, true);
          new Uint8Array(mapping.view(0, 4096))[i] = i;
          if (i % 2) mapping.close();
          addon.closeFd(received);
          left.close();
          right.close();
          setImmediate(step, i + 1);
        });
        const bytes = Buffer.alloc(64);
        right.watch(1);
        addon.send(left.handle, Buffer.from('x'), 1, null, 0, 0, 0, [fd]);
        addon.closeFd(fd);
        eventFd.signal(1);
      };
      step(0);
    `),
  );
  const sums = await Promise.all(
    workers.map(async (worker) => {
      // Both may come in one turn: the exit is waited for from the beginning.
      const exit = new Promise((resolve) => worker.once('exit', resolve));
      const [sum] = (await once(worker, 'message')) as [number];
      await exit;
      return sum;
    }),
  );
  expect(sums).toEqual([200, 200, 200, 200]);
});

test('the process ends while workers are busy', () => {
  expect(
    runScript(`
      const { Worker } = require('node:worker_threads');
      let ready = 0;
      for (let i = 0; i < 3; i++) {
        const worker = new Worker(\`
          const { parentPort, workerData } = require('node:worker_threads');
          const addon = require(workerData);
          const [a, b] = addon.socketPair();
          const left = new addon.Socket(a, () => {});
          const right = new addon.Socket(b, () => {});
          left.watch(3);
          parentPort.postMessage('ready');
          for (;;) addon.recvWait(right.handle, Buffer.alloc(8), 0, 8, 50, left.handle);
        \`, { eval: true, workerData: addonPath });
        worker.once('message', () => {
          if (++ready === 3) {
            report('exiting');
            process.exit(0);
          }
        });
      }
    `),
  ).toBe('exiting');
});
