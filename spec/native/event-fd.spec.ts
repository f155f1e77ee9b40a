import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { native } from '../../lib/native.js';
import type { NativeEventFd } from '../../lib/native.js';
import { runScript as runModule } from '../lifecycle/child.js';
import { openFds } from '../support/fds.js';
import { canPreload, compilePreload } from '../support/preload.js';
import { descriptorFlags, O_CLOEXEC, O_NONBLOCK, runScript, thrownName } from './support.js';

const { EAGAIN, EBADF, EINVAL } = constants.errno;

let fdsBefore: number;
let counts: number[];
let eventFd: NativeEventFd;

beforeEach(() => {
  fdsBefore = openFds();
  counts = [];
  eventFd = new (native().EventFd)(native().eventfd(0), (count) => counts.push(count));
});

afterEach(() => {
  eventFd.close();
  expect(openFds()).toBe(fdsBefore);
});

/** As a peer can: starting a process makes its stdin blocking, in the file that both share. */
function makeBlocking(fd: number): void {
  spawnSync('true', { stdio: [fd, 'ignore', 'ignore'], env: { PATH: process.env['PATH'] } });
  expect(descriptorFlags(fd) & O_NONBLOCK).toBe(0);
}

describe('an eventfd', () => {
  test('is non-blocking and closes on exec', () => {
    expect(descriptorFlags(eventFd.fd) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC | O_NONBLOCK);
  });

  test('counts signals until they are read', () => {
    expect(eventFd.read()).toBe(-EAGAIN);
    expect(eventFd.signal(1)).toBe(0);
    expect(eventFd.signal(41)).toBe(0);
    expect(eventFd.signal(0)).toBe(0);
    expect(eventFd.read()).toBe(42);
    expect(eventFd.read()).toBe(-EAGAIN);
  });

  test('begins with its initial count', () => {
    const other = new (native().EventFd)(native().eventfd(0xffff_ffff), () => {});
    expect(other.read()).toBe(0xffff_ffff);
    other.close();
  });

  test('clips its count to what a number can count', () => {
    const most = Number.MAX_SAFE_INTEGER;
    for (let i = 0; i < 3; i++) expect(eventFd.signal(most)).toBe(0);
    expect(eventFd.read()).toBe(most);
    expect(eventFd.read()).toBe(-EAGAIN);
  });

  test('blocks nobody when it is full', () => {
    // 2048 times 2^53-1 leave room for less than 2^53-1 more, and for 2046 times 1.
    for (let i = 0; i < 2048; i++) expect(eventFd.signal(Number.MAX_SAFE_INTEGER)).toBe(0);
    makeBlocking(eventFd.fd);
    expect(eventFd.signal(Number.MAX_SAFE_INTEGER)).toBe(-EAGAIN);
    expect(eventFd.signal(2046)).toBe(0);
    makeBlocking(eventFd.fd);
    expect(eventFd.signal(1)).toBe(-EAGAIN);
    expect(eventFd.read()).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('blocks nobody when the peer has cleared O_NONBLOCK', async () => {
    makeBlocking(eventFd.fd);
    expect(eventFd.read()).toBe(-EAGAIN);
    eventFd.signal(2);
    expect(eventFd.read()).toBe(2);

    expect(eventFd.watch(true)).toBe(0);
    makeBlocking(eventFd.fd);
    eventFd.signal(3);
    await sleep(20);
    expect(counts).toEqual([3]);
    expect(eventFd.read()).toBe(-EAGAIN);
  });

  test('is closed once, and answers -EBADF from then on', () => {
    eventFd.close();
    eventFd.close();
    expect(eventFd.fd).toBe(-1);
    expect(eventFd.read()).toBe(-EBADF);
    expect(eventFd.signal(1)).toBe(-EBADF);
    expect(eventFd.watch(true)).toBe(-EBADF);
  });

  test('refuses what it cannot count', () => {
    expect(thrownName(() => eventFd.signal(-1))).toBe('RangeError');
    expect(thrownName(() => eventFd.signal(0.5))).toBe('RangeError');
    expect(thrownName(() => eventFd.signal(2 ** 53))).toBe('RangeError');
    expect(thrownName(() => eventFd.signal(1n as never))).toBe('TypeError');
    expect(thrownName(() => native().eventfd(2 ** 32))).toBe('RangeError');
    expect(thrownName(() => native().eventfd('0' as never))).toBe('TypeError');
  });
});

describe('watch', () => {
  test('hands over each count once', async () => {
    expect(eventFd.watch(true)).toBe(0);
    eventFd.signal(1);
    eventFd.signal(1);
    await sleep(20);
    eventFd.signal(5);
    await sleep(20);
    expect(counts).toEqual([2, 5]);
  });

  test('hands over what came before, and nothing after it ends', async () => {
    eventFd.signal(7);
    eventFd.watch(true);
    await sleep(20);
    eventFd.watch(false);
    eventFd.signal(1);
    await sleep(20);
    expect(counts).toEqual([7]);
    expect(eventFd.read()).toBe(1);
  });

  test('ends with close', async () => {
    eventFd.watch(true);
    eventFd.signal(1);
    eventFd.close();
    await sleep(20);
    expect(counts).toEqual([]);
  });

  test('does not call when somebody else took the count', async () => {
    const same = new (native().EventFd)(native().dupFd(eventFd.fd), () => {});
    eventFd.watch(true);
    same.signal(1);
    expect(same.read()).toBe(1);
    await sleep(20);
    expect(counts).toEqual([]);
    same.close();
  });

  test('keeps the process alive unless it is unref’d', () => {
    expect(
      runScript(`
        const eventFd = new addon.EventFd(addon.eventfd(0), () => {});
        eventFd.watch(true);
        eventFd.unref();
        process.on('exit', () => report('ended'));
      `),
    ).toBe('ended');
  });
});

test('an fd that is no eventfd is reported, and not watched for ever', async () => {
  const [left, right] = native().socketPair() as [number, number];
  const wrong = new (native().EventFd)(left, () => {});
  const peer = new (native().Socket)(right, () => {});
  expect(wrong.read()).toBe(-EAGAIN);
  native().send(peer.handle, Buffer.from('abc'), 3, null, 0, 0, 0, null);
  expect(wrong.read()).toBe(-EINVAL);
  wrong.watch(true);
  native().send(peer.handle, Buffer.from('abcd'), 4, null, 0, 0, 0, null);
  await sleep(20);
  native().send(peer.handle, Buffer.from('left alone'), 10, null, 0, 0, 0, null);
  await sleep(20);
  expect(wrong.read()).toBeGreaterThan(0);
  wrong.close();
  peer.close();
});

describe('where the kernel cannot promise not to block', () => {
  test('an fd is read only when it is ready', () => {
    // Neither a terminal nor a file of /proc takes RWF_NOWAIT. The one has nothing to read, the other always has.
    const terminal = new (native().EventFd)(openSync('/dev/ptmx', 'r+'), () => {});
    expect(terminal.read()).toBe(-EAGAIN);
    expect(terminal.read()).toBe(-EAGAIN);
    terminal.close();
    const file = new (native().EventFd)(openSync('/proc/version', 'r'), () => {});
    expect(file.read()).toBeGreaterThan(0);
    file.close();
  });
});

const canTry = canPreload && existsSync('/proc/sys/fs/aio-nr');

(canTry ? test : test.skip)(
  'a peer that fills an eventfd between a look and the signal makes nobody wait (needs a C compiler, and Linux AIO)',
  async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'eventfd-'));
    try {
      const preload = compilePreload('hasty-peer', scratch);
      const { status, signal, reports, stderr } = await runModule(
        `
        const eventFd = new (native().EventFd)(native().eventfd(0), () => {});
        // There is room once more each time that it has been read.
        for (const count of [1, 1, 70, 1024]) {
          report(eventFd.signal(count));
          eventFd.read();
        }
        eventFd.close();
      `,
        { preload },
      );
      expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
      expect(reports).toEqual([0, 0, 0, 0]);
    } finally {
      rmSync(scratch, { recursive: true });
    }
  },
  90_000,
);
