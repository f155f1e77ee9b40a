/** Memory that is shared with a server: files that it shrinks, arenas that it would resize, views that outlive their area. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, read, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Device } from '../../lib/device/device.js';
import { TransportError, UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { message, type Received } from '../support/scripted-peer.js';
import { cleanup, file, hostile, keepPromises, opened, turn } from './session.js';

keepPromises();

const SIZE = 8192;

/** A directory for files that have names. */
function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  cleanup(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** A file that can shrink. */
function unsealed(): number {
  const fd = openSync(join(scratch(), 'f'), 'w+');
  ftruncateSync(fd, SIZE);
  cleanup(() => closeSync(fd));
  return fd;
}

function withFile(fd: number, mmap: 'always' | 'sealed' | 'never'): Promise<Device> {
  const server = hostile(undefined, { regions: { 0: { size: SIZE, flags: 7, fds: [fd] } }, numRegions: 1 });
  return opened(server, { mmap });
}

describe('a file that its server truncates', () => {
  test("is not mapped with mmap 'sealed', before and after", async () => {
    const fd = unsealed();
    const device = await withFile(fd, 'sealed');
    expect(() => device.region(0).map()).toThrow(UnsupportedError);
    ftruncateSync(fd, 0);
    expect(() => device.region(0).map()).toThrow(/sealed|bytes/);
  });

  test("cannot be truncated where mmap 'sealed' mapped it", async () => {
    const fd = file(SIZE);
    const area = (await withFile(fd, 'sealed')).region(0).map();
    for (const size of [0, 4096, SIZE + 4096]) {
      expect(() => ftruncateSync(fd, size)).toThrow(expect.objectContaining({ code: 'EPERM' }));
    }
    area.bytes.fill(7);
    expect(area.loadUInt32(SIZE - 4)).toBe(0x07070707);
  });

  test("is nothing to map with mmap 'never'", async () => {
    const device = await withFile(file(SIZE), 'never');
    expect(() => device.region(0).map()).toThrow(UnsupportedError);
    expect(device.region(0).areas).toHaveLength(1);
  });

  test.each([0, 1, 4096, 4097])('to %i bytes is an error of every copy that needs the rest', async (left) => {
    const fd = unsealed();
    const area = (await withFile(fd, 'always')).region(0).map();
    ftruncateSync(fd, left);
    const pages = Math.ceil(left / 4096) * 4096;
    for (let at = 0; at < SIZE; at += 4096) {
      const bytes = Buffer.alloc(4096);
      const copies = [() => area.copyOut(at, bytes), () => area.copyIn(at, bytes)];
      for (const copy of copies) {
        if (at < pages) copy();
        else expect(copy).toThrow(TransportError);
      }
    }
    if (pages < SIZE) expect(() => area.copyOut(0, Buffer.alloc(SIZE))).toThrow(/EFAULT/);
  });

  test('before it is mapped is refused by its length', async () => {
    const fd = unsealed();
    const device = await withFile(fd, 'always');
    ftruncateSync(fd, 4096);
    expect(() => device.region(0).map()).toThrow(/bytes/);
  });
});

describe('our DMA memory, in a server’s hands,', () => {
  /** The fds of what is mapped from now on, the spec's. */
  function takeMaps(server: ReturnType<typeof hostile>): Received[] {
    const maps: Received[] = [];
    server.peer.onMessage((asked) => {
      if (asked.command === 2) maps.push(asked);
      server.peer.send(message(asked.id, asked.command, 1, 0, Buffer.alloc(0)));
    });
    cleanup(() => maps.forEach(({ fds }) => fds.forEach((fd) => native().closeFd(fd))));
    return maps;
  }

  test('cannot be resized, sealed further, or made to fail', async () => {
    const server = hostile(undefined);
    const device = await opened(server);
    const maps = takeMaps(server);
    const { bytes } = await device.dma.alloc(SIZE);
    const fd = maps[0]!.fds[0]!;
    for (const size of [0, 4096, 64 << 20]) {
      expect(() => ftruncateSync(fd, size)).toThrow(expect.objectContaining({ code: 'EPERM' }));
    }
    bytes.fill(5);
    const seen = Buffer.alloc(4);
    readSync(fd, seen, 0, 4, 0);
    expect(seen).toEqual(Buffer.alloc(4, 5));
    expect(bytes.every((byte) => byte === 5)).toBe(true);
  });

  test('with secureDma is in nobody’s hands', async () => {
    const server = hostile(undefined);
    const device = await opened(server, { secureDma: true });
    const maps = takeMaps(server);
    await device.dma.alloc(SIZE);
    expect(maps.map(({ fds }) => fds)).toEqual([[]]);
  });
});

describe('a view that outlives its area', () => {
  test('is detached: it reads as nothing', async () => {
    const area = (await withFile(file(SIZE), 'always')).region(0).map();
    const { bytes } = area;
    const view = new Uint8Array(bytes.buffer, bytes.byteOffset, 16);
    area.close();
    expect([view.length, view[0], bytes.length]).toEqual([0, undefined, 0]);
  });

  test('because it was transferred reaches no file', async () => {
    const fd = file(SIZE);
    const area = (await withFile(fd, 'always')).region(0).map();
    const { buffer } = area.bytes;
    area.bytes.fill(1);
    const moved = new Uint8Array(structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }));
    area.close();
    moved.fill(9);
    const seen = Buffer.alloc(4);
    readSync(fd, seen, 0, 4, 0);
    expect(seen).toEqual(Buffer.alloc(4, 1));
  });

  test.each([['closed'], ['lost with its device']])(
    'because a thread of the pool writes into it reaches no file: the area is %s',
    async (how) => {
      const fd = file(SIZE);
      const device = await withFile(fd, 'always');
      const area = device.region(0).map();
      area.bytes.fill(1);
      const path = join(scratch(), 'pipe');
      execFileSync('mkfifo', [path]);
      const pipe = openSync(path, 'r+');
      cleanup(() => closeSync(pipe));
      // It waits in a thread, with the address in its hands, until there is something in the pipe.
      const reading = new Promise<number>((resolve, reject) => {
        read(pipe, area.bytes, 0, 4096, null, (error, count) =>
          error === null ? resolve(count) : reject(error),
        );
      });
      await turn(20);
      if (how === 'closed') area.close();
      else await device.close();
      writeSync(pipe, Buffer.alloc(4096, 9));
      expect(await reading).toBe(4096);
      const seen = Buffer.alloc(SIZE);
      readSync(fd, seen, 0, SIZE, 0);
      expect(seen.every((byte) => byte === 1)).toBe(true);
    },
  );
});
