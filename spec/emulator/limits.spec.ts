/** What one client can have of a server, and all of them of its process. */
import { execFileSync } from 'node:child_process';
import { constants } from 'node:os';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { FileStore, RamDevice, serve } from '../../lib/emulator/index.js';
import { native, type NativeMapping } from '../../lib/native.js';
import { openFds } from '../support/fds.js';
import {
  deviceGetInfoRequest,
  dmaMapRequest,
  dmaUnmapRequest,
  irqInfoRequest,
  setIrqsRequest,
} from '../support/wire.js';
import { cleanup, connected, eventFd, memory } from './fixture.js';
import { RawClient } from './raw-client.js';
import { until } from '../support/until.js';

const { EADDRINUSE, EAGAIN, EMFILE, ENOMEM, ENOSPC } = constants.errno;
const PAGE = 4096;
const ALL = 2;

function ram(options = {}): RamDevice {
  const device = new RamDevice({ sharedSize: 0, ...options });
  cleanup(() => device.close());
  return device;
}

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'limits-'));
  cleanup(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A store in a file of `size` bytes, and how much of the disk the file takes. */
async function store(size: number) {
  const path = join(directory(), 'disk.img');
  const opened = await FileStore.open(path, size);
  cleanup(() => opened.close());
  return { store: opened, taken: () => statSync(path).blocks * 512, size: () => statSync(path).size };
}

describe('mappings', () => {
  test('one more than there may be is ENOSPC, and one less makes room', async () => {
    const client = await connected(ram(), { maxDmaMaps: 2 });
    const fd = memory(PAGE);
    const map = (page: number) => dmaMapRequest({ address: page * 2 * PAGE, size: PAGE });
    await client.answer(map(1), [fd]);
    await client.answer(map(2));
    expect(await client.refusal(map(3), [fd])).toBe(ENOSPC);
    await client.answer(dmaUnmapRequest({ address: 2 * PAGE, size: PAGE }));
    await client.answer(map(3), [fd]);
  });

  test('as many as there may be go all at once', async () => {
    const client = await connected(ram(), { maxDmaMaps: 2_000 });
    const fd = memory(PAGE);
    const mapped = () => readFileSync('/proc/self/maps', 'latin1').split('memfd:spec').length - 1;
    for (let page = 0; page < 1_000; page++) {
      await client.answer(dmaMapRequest({ address: page * 2 * PAGE, size: PAGE }), [fd]);
    }
    expect(mapped()).toBe(1_000);
    await client.answer(dmaUnmapRequest({ address: 0, size: 0, flags: ALL }));
    expect(mapped()).toBe(0);
  });

  test('of a process are half of what the kernel allows, whoever asks', async () => {
    const most = Number(readFileSync('/proc/sys/vm/max_map_count', 'latin1')) >>> 1;
    // Where an administrator has raised it a test would take too long.
    if (most > 100_000) return;
    const client = await connected(ram());
    const fd = memory(PAGE);
    const held: NativeMapping[] = [];
    cleanup(() => held.forEach((mapping) => mapping.close()));
    for (;;) {
      const mapping = native().map(fd, 0, PAGE, true, true);
      if (typeof mapping === 'number') {
        expect(mapping).toBe(-ENOMEM);
        break;
      }
      held.push(mapping);
    }
    expect(held.length).toBeLessThanOrEqual(most);
    // The process's own count as well: a worker that has run many files has some thousand.
    expect(held.length).toBeGreaterThan(most - 4_000);
    expect(await client.refusal(dmaMapRequest({ size: PAGE }), [fd])).toBe(ENOMEM);
    held.pop()!.close();
    await client.answer(dmaMapRequest({ size: PAGE }), [fd]);
  });
});

describe('eventfds', () => {
  test('more than there may be are EMFILE, and closed', async () => {
    const client = await connected(ram({ vectors: 8 }), { maxEventFds: 3 });
    const arm = (start: number, count: number) => setIrqsRequest({ index: 2, start, count, flags: 0x24 });
    const fds = [eventFd(), eventFd(), eventFd()].map(({ fd }) => fd);
    await client.answer(arm(0, 2), fds.slice(0, 2));
    const before = openFds();
    expect(await client.refusal(arm(2, 2), fds.slice(0, 2))).toBe(EMFILE);
    expect(openFds()).toBe(before);
    // What takes another one's place is no more.
    await client.answer(arm(0, 2), fds.slice(0, 2));
    await client.answer(arm(2, 1), fds.slice(0, 1));
    expect(openFds()).toBe(before + 1);
    await client.answer(setIrqsRequest({ index: 2, start: 0, count: 2, flags: 0x24 }));
    await client.answer(arm(5, 2), fds.slice(0, 2));
  });

  test('do not wait in a queue with commands that have no use for them', async () => {
    const waiting: (() => void)[] = [];
    const handler = {
      read: async (_offset: number, count: number) => {
        await new Promise<void>((resolve) => waiting.push(resolve));
        return Buffer.alloc(count);
      },
      write: () => {},
    };
    const client = await connected({ regions: [{ index: 0, size: 4, handler }], irqs: [] });
    const read = client.read32(0, 0);
    const before = openFds();
    const fd = memory(PAGE);
    const asked = client.ask(irqInfoRequest(), Array<number>(10).fill(fd));
    await until(() => waiting.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(openFds()).toBe(before + 1);
    waiting.shift()!();
    await read;
    expect((await asked).flags).toBe(1);
  });
});

test.each(['one', 'many'] as const)(
  'as many fds as a message can bring wait with a command, though fds are few: clients %s (needs prlimit)',
  async (clients) => {
    const path = join(directory(), 'device.sock');
    const release: (() => void)[] = [];
    const handler = {
      read: (_offset: number, count: number) =>
        new Promise<Buffer>((resolve) => release.push(() => resolve(Buffer.alloc(count)))),
      write: () => {},
    };
    const device = {
      regions: [{ index: 0, size: 4, handler }],
      irqs: [{ index: 2, count: 64, eventfd: true }],
    };
    const [soft, hard] = /^Max open files\s+(\d+)\s+(\d+)/m
      .exec(readFileSync('/proc/self/limits', 'latin1'))!
      .slice(1);
    const limit = (count: string) =>
      execFileSync('prlimit', ['--pid', `${process.pid}`, `--nofile=${count}:${hard}`]);
    limit('1024');
    cleanup(() => limit(soft!));
    const server = await serve(device, { path, clients, maxClients: 1_024, maxMsgFds: 64, maxEventFds: 64 });
    cleanup(() => server.close());
    const client = RawClient.connect(path);
    cleanup(() => client.close());
    await client.negotiate();
    const { fd } = eventFd();
    const read = client.read32(0, 0);
    await until(() => release.length === 1);
    const before = openFds();
    const armed = client.answer(
      setIrqsRequest({ index: 2, count: 64, flags: 0x24 }),
      Array<number>(64).fill(fd),
    );
    await until(() => openFds() === before + 64, 'its fds');
    release[0]!();
    await read;
    await armed;
  },
);

describe('a socket file that nobody listens on', () => {
  function stale(): string {
    const path = join(directory(), 'device.sock');
    native().closeFd(native().listenUnix(path, 1, 0o600));
    return path;
  }

  test('is taken by one of those who come at the same moment', async () => {
    for (let round = 0; round < 20; round++) {
      const path = stale();
      const begun = await Promise.allSettled(Array.from({ length: 6 }, () => serve(ram(), { path })));
      const servers = begun.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      const codes = begun.flatMap((one) =>
        one.status === 'rejected' ? [(one.reason as { code: string }).code] : [],
      );
      expect([servers.length, codes]).toEqual([1, Array<string>(5).fill('EADDRINUSE')]);
      const raw = RawClient.connect(path);
      await raw.negotiate();
      await raw.answer(deviceGetInfoRequest());
      raw.close();
      await servers[0]!.close();
    }
  });

  test('is left to whoever has locked the directory, for a while', async () => {
    const path = stale();
    const fd = openSync(join(path, '..'), 'r');
    expect(native().lockFile(fd)).toBe(0);
    const fds = openFds();
    const begun = serve(ram(), { path });
    let isSettled = false;
    void begun.then(() => (isSettled = true));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(isSettled).toBe(false);
    closeSync(fd);
    const server = await begun;
    await server.close();
    expect(openFds()).toBe(fds - 1);
  });

  test('and a directory that stays locked is an error by name', async () => {
    const path = stale();
    const fd = openSync(join(path, '..'), 'r');
    cleanup(() => closeSync(fd));
    native().lockFile(fd);
    const before = openFds();
    await expect(serve(ram(), { path })).rejects.toMatchObject({ syscall: 'flock', errno: EAGAIN });
    expect(openFds()).toBe(before);
  });

  const asNobody = process.geteuid?.() === 0 ? test : test.skip;
  asNobody('stays where the directory cannot be locked, and a free name is taken', async () => {
    const path = stale();
    chownSync(path, 65534, 65534);
    chownSync(dirname(path), 65534, 65534);
    chmodSync(dirname(path), 0o300);
    process.seteuid!(65534);
    try {
      const begun = serve(ram(), { path });
      await expect(begun).rejects.toMatchObject({
        errno: EADDRINUSE,
        message: expect.stringContaining('nobody listens at'),
      });
      const server = await serve(ram(), { path: `${path}.new` });
      await server.close();
      expect([existsSync(path), existsSync(`${path}.new`)]).toEqual([true, false]);
    } finally {
      process.seteuid!(0);
    }
  });

  test('of another server that came after ours was removed by hand stays when ours closes', async () => {
    const path = stale();
    const first = await serve(ram(), { path });
    rmSync(path);
    const second = await serve(ram(), { path });
    await first.close();
    const raw = RawClient.connect(path);
    await raw.negotiate();
    raw.close();
    await second.close();
    expect(existsSync(path)).toBe(false);
  });
});

describe('blocks that are cleared', () => {
  test('of a sparse file stay holes', async () => {
    const { store: it, taken, size } = await store(64 << 20);
    await it.clear(0, 64 << 20);
    expect([taken(), size()]).toEqual([0, 64 << 20]);
  });

  test('give their room back, and read as zeroes; their neighbours stay', async () => {
    const { store: it, taken, size } = await store(8 << 20);
    await it.write(0, Buffer.alloc(8 << 20, 7));
    await it.flush();
    expect(taken()).toBeGreaterThanOrEqual(8 << 20);
    await it.clear(1 << 20, 6 << 20);
    expect(taken()).toBeLessThanOrEqual(3 << 20);
    expect(size()).toBe(8 << 20);
    expect((await it.read((1 << 20) - 2, 4)).toString('hex')).toBe('07070000');
    expect((await it.read((7 << 20) - 2, 4)).toString('hex')).toBe('00000707');
    // Not whole pages.
    await it.clear(100, 3);
    expect((await it.read(99, 5)).toString('hex')).toBe('0700000007');
  });
});
