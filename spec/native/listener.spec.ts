import { chmodSync, lstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { native } from '../../lib/native.js';
import type { NativeListener } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import { descriptorFlags, O_CLOEXEC, O_NONBLOCK, thrownName } from './support.js';

const { EAGAIN, EADDRINUSE, EBADF, ECONNREFUSED, EINVAL, ENAMETOOLONG, ENOENT } = constants.errno;

let directory: string;
let socketPath: string;
let fdsBefore: number;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  socketPath = path.join(directory, 'socket');
  fdsBefore = openFds();
});

afterEach(() => {
  expect(openFds()).toBe(fdsBefore);
  rmSync(directory, { recursive: true });
});

function listen(at = socketPath, onReady = () => {}): NativeListener {
  const fd = native().listenUnix(at, 4, 0o600);
  if (fd < 0) throw new Error(`listen: ${fd}`);
  return new (native().Listener)(fd, onReady);
}

function expectUsual(fd: number): void {
  expect(fd).toBeGreaterThanOrEqual(0);
  expect(descriptorFlags(fd) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC | O_NONBLOCK);
}

describe('a listener', () => {
  test.each([
    ['a path', () => socketPath],
    ['an abstract name', () => `\0vfio-user-spec-${process.pid}`],
  ])('accepts connections to %s', (_what, name) => {
    const listener = listen(name());
    expect(listener.accept()).toBe(-EAGAIN);
    const client = native().connectUnix(name());
    const server = listener.accept();
    expectUsual(listener.fd);
    expectUsual(client);
    expectUsual(server);
    expect(listener.accept()).toBe(-EAGAIN);

    expect(native().peerCredentials(client)).toEqual([process.pid, process.getuid?.(), process.getgid?.()]);
    expect(native().peerCredentials(server)).toEqual([process.pid, process.getuid?.(), process.getgid?.()]);
    [client, server].forEach((fd) => native().closeFd(fd));
    listener.close();
    expect(native().connectUnix(name())).toBe(-ECONNREFUSED);
  });

  test('calls back when somebody connects, until it is told not to', async () => {
    const server = await new Promise<number>((resolve) => {
      const listener = listen(socketPath, () => {
        resolve(listener.accept());
        listener.watch(false);
        listener.close();
      });
      expect(listener.watch(true)).toBe(0);
      native().closeFd(native().connectUnix(socketPath));
    });
    expectUsual(server);
    native().closeFd(server);
    await new Promise(setImmediate);
  });

  test('is closed once, and answers -EBADF from then on', () => {
    const listener = listen();
    listener.unref();
    listener.close();
    listener.close();
    expect(listener.fd).toBe(-1);
    expect(listener.accept()).toBe(-EBADF);
    expect(listener.watch(true)).toBe(-EBADF);
  });

  test('answers -EAGAIN to a client when its queue is full', () => {
    const fd = native().listenUnix(socketPath, 0, 0o600);
    const clients: number[] = [];
    let result: number;
    while ((result = native().connectUnix(socketPath)) >= 0) clients.push(result);
    expect(result).toBe(-EAGAIN);
    [fd, ...clients].forEach((each) => native().closeFd(each));
  });

  test('is made of an fd and a function only', () => {
    const { Listener } = native();
    expect(thrownName(() => new Listener(-1, () => {}))).toBe('RangeError');
    expect(thrownName(() => new Listener(1.5, () => {}))).toBe('RangeError');
    expect(thrownName(() => new Listener(0, null as never))).toBe('TypeError');
    expect(thrownName(() => (Listener as unknown as () => void)())).toBe('TypeError');
  });
});

describe('listenUnix', () => {
  test.each([0o600, 0o666, 0o777, 0o660])('gives the socket file mode %o, whatever the umask', (mode) => {
    const umask = process.umask(0o077);
    const fd = native().listenUnix(socketPath, 1, mode);
    process.umask(umask);
    expect(lstatSync(socketPath).mode & 0o7777).toBe(mode);
    native().closeFd(fd);
  });

  test('does not replace what is there', () => {
    const listener = listen();
    expect(native().listenUnix(socketPath, 1, 0o600)).toBe(-EADDRINUSE);
    expect(statSync(socketPath).isSocket()).toBe(true);
    chmodSync(socketPath, 0o600);
    listener.close();
  });

  test('refuses what is no mode and no backlog', () => {
    expect(thrownName(() => native().listenUnix(socketPath, 1, 0o1000))).toBe('RangeError');
    expect(thrownName(() => native().listenUnix(socketPath, -1, 0o600))).toBe('RangeError');
    expect(thrownName(() => native().listenUnix(1 as never, 1, 0o600))).toBe('TypeError');
  });
});

describe('a path', () => {
  test.each([
    ['that is empty', '', -EINVAL],
    ['with a NUL inside', '/tmp/a\0b', -EINVAL],
    ['of 108 bytes, which leave no room for the NUL', '/'.padEnd(108, 'x'), -ENAMETOOLONG],
    ['of too many bytes, not characters', '/'.padEnd(60, 'é'), -ENAMETOOLONG],
    ['of an abstract name that is too long', '\0'.padEnd(109, 'x'), -ENAMETOOLONG],
  ])('%s is refused', (_what, name, result) => {
    expect(native().connectUnix(name)).toBe(result);
    expect(native().listenUnix(name, 1, 0o600)).toBe(result);
  });

  test('of 107 bytes, and an abstract name of 108, are used whole', () => {
    for (const name of [path.join(directory, 'x').padEnd(107, 'x'), '\0'.padEnd(108, String(process.pid))]) {
      const listener = listen(name);
      const client = native().connectUnix(name);
      expectUsual(client);
      expect(native().connectUnix(name.slice(0, -1))).not.toBeGreaterThanOrEqual(0);
      native().closeFd(client);
      listener.close();
    }
  });

  test('where nobody listens is reported', () => {
    expect(native().connectUnix(socketPath)).toBe(-ENOENT);
    expect(thrownName(() => native().connectUnix(undefined as never))).toBe('TypeError');
  });
});
