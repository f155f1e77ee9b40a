import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  writeSync,
} from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, native } from '../../lib/native.js';
import type { FdInfo } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { descriptorFlags, O_CLOEXEC, O_NONBLOCK, runScript, thrownName } from './support.js';

const { EBADF, EINVAL, ENOMEM, ENOTSOCK, EPERM, EPROTOTYPE } = constants.errno;

let fdsBefore: number;
beforeEach(() => {
  fdsBefore = openFds();
});
afterEach(() => expect(openFds()).toBe(fdsBefore));

function errnoOf(action: () => unknown): number {
  try {
    action();
  } catch (error) {
    return -((error as NodeJS.ErrnoException).errno ?? 0);
  }
  return 0;
}

/** The sockets of this process: which fd is which. */
function sockets(): Map<number, string> {
  const links = new Map<number, string>();
  for (const name of readdirSync('/proc/self/fd')) {
    let link = '';
    try {
      link = readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      // The fd that read the directory.
    }
    if (link.startsWith('socket:')) links.set(Number(name), link);
  }
  return links;
}

describe('memfd', () => {
  test('has its size, its pages and its seals from the beginning', () => {
    const fd = native().memfd('spec', 3 << 20, false);
    expect(native().fdInfo(fd)).toMatchObject({
      size: 3 << 20,
      seals: F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW,
    });
    expect(fstatSync(fd).blocks * 512).toBe(3 << 20);
    expect(descriptorFlags(fd) & O_CLOEXEC).toBe(O_CLOEXEC);
    native().closeFd(fd);
  });

  test('cannot be resized by anybody, but written', () => {
    const fd = native().memfd('spec', 4096, false);
    expect(errnoOf(() => ftruncateSync(fd, 0))).toBe(EPERM);
    expect(errnoOf(() => ftruncateSync(fd, 8192))).toBe(EPERM);
    writeSync(fd, 'text', 4000);
    const bytes = Buffer.alloc(4);
    readSync(fd, bytes, 0, 4, 4000);
    expect(bytes.toString()).toBe('text');
    native().closeFd(fd);
  });

  test('is not made of what it cannot be made of, and leaves no fd behind', () => {
    expect(native().memfd('spec', 0, false)).toBe(-EINVAL);
    expect(native().memfd('a\0b', 4096, false)).toBe(-EINVAL);
    expect(native().memfd('x'.repeat(250), 4096, false)).toBe(-EINVAL);
    // Not whole huge pages, or none to be had.
    expect(native().memfd('spec', 4096, true)).toBeLessThan(0);
    expect(thrownName(() => native().memfd('spec', -1, false))).toBe('RangeError');
    expect(thrownName(() => native().memfd('spec', 4096n as never, false))).toBe('TypeError');
    expect(thrownName(() => native().memfd(null as never, 4096, false))).toBe('TypeError');
  });
});

test('memfd refuses more memory than there is, where the kernel would kill processes to get it', () => {
  // The limit of a file's size keeps the machine safe, should the addon try: EFBIG would be the answer.
  const sizes = '[Number.MAX_SAFE_INTEGER, os.totalmem() * 2]';
  expect(
    runScript(
      `const os = require('node:os'); report(${sizes}.map((size) => addon.memfd('spec', size, false)));`,
      '-f 2048',
    ),
  ).toEqual([-ENOMEM, -ENOMEM]);
});

describe('fdInfo', () => {
  test('says mode, size, seals and flags', () => {
    const fd = openSync('/dev/null', 'r');
    const info = native().fdInfo(fd) as FdInfo;
    expect(info.mode).toBe(fstatSync(fd).mode);
    expect(info.size).toBe(0);
    expect(info.seals).toBe(-1);
    expect(info.flags & 3).toBe(0); // O_RDONLY
    closeSync(fd);
  });

  test('answers -EBADF for no fd', () => {
    expect(native().fdInfo(1 << 30)).toBe(-EBADF);
  });
});

describe('bare fds', () => {
  test('are duplicated, close on exec, and closed once', () => {
    const copy = native().dupFd(0);
    expect(copy).toBeGreaterThan(2);
    expect(fstatSync(copy).ino).toBe(fstatSync(0).ino);
    expect(descriptorFlags(copy) & O_CLOEXEC).toBe(O_CLOEXEC);
    expect(native().closeFd(copy)).toBe(0);
    expect(native().closeFd(copy)).toBe(-EBADF);
    expect(native().dupFd(copy)).toBe(-EBADF);
  });

  test.each(['dupFd', 'closeFd', 'fdInfo', 'adoptSocket', 'peerCredentials'] as const)(
    '%s throws for what is no fd',
    (name) => {
      expect(thrownName(() => native()[name]('0' as never))).toBe('TypeError');
      expect(thrownName(() => native()[name](undefined as never))).toBe('TypeError');
      for (const fd of [-1, 1.5, NaN, 2 ** 31])
        expect(thrownName(() => native()[name](fd))).toBe('RangeError');
    },
  );
});

describe('adoptSocket', () => {
  test('makes a stream socket non-blocking and close on exec', () => {
    const pair = native().socketPair() as [number, number];
    expect(native().adoptSocket(pair[0])).toBe(0);
    expect(descriptorFlags(pair[0]) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC | O_NONBLOCK);
    pair.forEach((fd) => native().closeFd(fd));
  });

  test('refuses everything else', () => {
    const file = openSync('/dev/null', 'r');
    expect(native().adoptSocket(file)).toBe(-ENOTSOCK);
    expect(native().adoptSocket(1 << 30)).toBe(-EBADF);
    closeSync(file);
    const listener = native().listenUnix(`\0vfio-user-adopt-${process.pid}`, 1, 0o600);
    expect(native().adoptSocket(listener)).toBe(-EINVAL);
    native().closeFd(listener);
  });

  test('refuses a datagram socket', async () => {
    const { createSocket } = await import('node:dgram');
    const before = sockets();
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
    const made = [...sockets()].filter(([fd, link]) => before.get(fd) !== link);
    const results = made.map(([fd]) => native().adoptSocket(fd));
    await new Promise<void>((resolve) => socket.close(resolve));
    expect(results).toEqual([-EPROTOTYPE]);
  });
});

test('peerCredentials answers -ENOTSOCK for what is no socket', () => {
  const file = openSync('/dev/null', 'r');
  expect(native().peerCredentials(file)).toBe(-ENOTSOCK);
  closeSync(file);
});
