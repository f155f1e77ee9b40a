/** File descriptors that are not what they should be: none is left over, none is used for what it is not. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Device } from '../../lib/device/device.js';
import { TransportError, UnsupportedError, VfioUserError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import type { ScriptedDevice } from '../support/scripted-device.js';
import { cleanup, expectNamedError, file, hostile, keepPromises, opened, outcome, pair } from './session.js';

keepPromises();

function directory(): number {
  const fd = openSync('/', 'r');
  cleanup(() => closeSync(fd));
  return fd;
}

function procDirectory(): number {
  const fd = openSync('/proc/self/fd', 'r');
  cleanup(() => closeSync(fd));
  return fd;
}

/** A pipe, both ends in one fd. */
function pipe(): number {
  const path = join(tmpdir(), `vfio-user-${process.pid}-${Math.random()}`);
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, 'r+');
  unlinkSync(path);
  cleanup(() => closeSync(fd));
  return fd;
}

/** A file that can shrink. */
function unsealed(size: number): number {
  const path = join(tmpdir(), `vfio-user-${process.pid}-${Math.random()}`);
  const fd = openSync(path, 'w+');
  unlinkSync(path);
  ftruncateSync(fd, size);
  cleanup(() => closeSync(fd));
  return fd;
}

function closedSocket(): number {
  const [ours, theirs] = native().socketPair() as [number, number];
  native().closeFd(theirs);
  cleanup(() => native().closeFd(ours));
  return ours;
}

function eventfd(): number {
  const fd = native().eventfd(0);
  cleanup(() => native().closeFd(fd));
  return fd;
}

function unconnected(): number {
  const fd = native().listenUnix(`\0vfio-user-spec-${process.pid}-${Math.random()}`, 1, 0o600);
  cleanup(() => native().closeFd(fd));
  return fd;
}

const KINDS: [name: string, open: () => number][] = [
  ['a directory', directory],
  ['a directory of /proc', procDirectory],
  ['a pipe', pipe],
  ['a socket', () => pair()[0]],
  ['a socket whose other end is closed', closedSocket],
  ['a listening socket', unconnected],
  ['an eventfd', eventfd],
  ['an empty file', () => unsealed(0)],
  ['a short file', () => unsealed(4096)],
];

/** A device whose region 0 has two pages behind these fds. */
function withRegion(fds: readonly number[], flags = 7): Promise<Device> {
  return opened(hostile(undefined, { regions: { 0: { size: 8192, flags, fds } }, numRegions: 1 }));
}

describe('behind a region', () => {
  test.each(KINDS)('%s is not mapped', async (_, open) => {
    const device = await withRegion([open()]);
    const map = (): unknown => device.region(0).map();
    expect(map).toThrow(VfioUserError);
    expect(map).toThrow(/mmap|bytes/);
  });

  test('no fd at all is nothing to map', async () => {
    const device = await withRegion([]);
    expect(() => device.region(0).map()).toThrow(RangeError);
  });

  test.each([2, 63, 64])('%i fds: one is kept', async (count) => {
    const fd = file(8192);
    const device = await withRegion(Array.from({ length: count }, () => fd));
    device.region(0).map().close();
  });

  test('253 fds, the most that can come, leave none', async () => {
    const fd = file(8192);
    const server = hostile(undefined, {
      regions: { 0: { size: 8192, flags: 7, fds: Array.from({ length: 253 }, () => fd) } },
    });
    const error = await outcome(server);
    if (error !== undefined) expect(error).toBeInstanceOf(Error);
  });

  test('a file that was truncated after it was mapped is an error, not a signal', async () => {
    const fd = unsealed(8192);
    const device = await withRegion([fd]);
    const area = device.region(0).map();
    area.copyIn(0, Buffer.from('here'));
    ftruncateSync(fd, 0);
    expect(() => area.copyOut(0, Buffer.alloc(8192))).toThrow(TransportError);
    expect(() => area.copyOut(0, Buffer.alloc(4))).toThrow(/EFAULT/);
    expect(() => area.copyIn(4096, Buffer.alloc(4))).toThrow(/EFAULT/);
    ftruncateSync(fd, 8192);
    area.copyOut(0, Buffer.alloc(8192));
  });

  test('a file that cannot be written is not given as a raw view', async () => {
    const device = await withRegion([file(8192)], 5);
    const area = device.region(0).map();
    expect(() => area.bytes).toThrow(TransportError);
    expect(() => area.storeUInt32(0, 1)).toThrow(/EACCES/);
    expect(() => area.copyIn(0, Buffer.alloc(4))).toThrow(/EACCES/);
    area.copyOut(0, Buffer.alloc(4));
  });
});

describe('as the twin socket', () => {
  function withTwin(fds: readonly number[], index = 0): ScriptedDevice {
    const server = hostile(undefined, {
      capabilities: { twin_socket: { supported: true, fd_index: index } },
      regions: { 0: { size: 4096 }, 7: { size: 64 } },
      irqs: [{ count: 1 }],
    });
    server.twist = (asked, answer) => (asked.command === 1 ? { bytes: answer.bytes, fds } : answer);
    return server;
  }

  test.each(KINDS.filter(([name]) => name !== 'a socket'))('%s is refused', async (_, open) => {
    await expectNamedError(withTwin([open()]));
  });

  test('a socket is taken, and the others that came are closed', async () => {
    const [ours, theirs] = pair();
    expect(await outcome(withTwin([file(4096), theirs, ours], 1))).toBeUndefined();
  });

  test.each([1, 63, 1023])('index %i of one fd', async (index) => {
    await expectNamedError(withTwin([pair()[0]], index), 'ProtocolError');
  });
});

test.each([1, 4, 5, 7, 2, 8, 9, 10, 13])(
  'fds that come with the answer to command %i unasked are closed',
  async (command) => {
    const fd = file(4096);
    const server = hostile((asked, answer) => ({
      bytes: answer.bytes,
      fds: asked.command === command ? [fd, fd, fd] : [],
    }));
    expect(await outcome(server)).toBeUndefined();
  },
);

test('fds that come with a command of the server are closed', async () => {
  const fd = file(4096);
  const server = hostile(undefined);
  const device = await opened(server);
  const request = Buffer.alloc(32);
  request.writeUInt16LE(11, 2);
  request.writeUInt32LE(32, 4);
  for (let i = 0; i < 100; i++) server.peer.send(request, [fd, fd]);
  await device.fence();
  expect(device.counters.refused).toBe(100);
});

test('an option forbids mapping, or mapping of what can shrink', async () => {
  const sealed = file(8192);
  const shrinks = unsealed(8192);
  for (const [mmap, fd, allowed] of [
    ['always', shrinks, true],
    ['sealed', shrinks, false],
    ['sealed', sealed, true],
    ['never', sealed, false],
  ] as const) {
    const server = hostile(undefined, { regions: { 0: { size: 8192, flags: 7, fds: [fd] } }, numRegions: 1 });
    const device = await opened(server, { mmap });
    if (allowed) device.region(0).map().close();
    else expect(() => device.region(0).map()).toThrow(UnsupportedError);
  }
});
