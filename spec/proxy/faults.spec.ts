/** What each fault looks like to the client that meets it: a named error within its deadline, or recovery. */
import { describe, expect, jest, test } from '@jest/globals';
import { RamDma, RamRegister } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import type { FaultSpec, ProxyOptions } from '../../lib/proxy/index.js';
import { CaptureReader, describe as describeMessage } from '../../lib/trace/index.js';
import { openFds } from '../support/fds.js';
import { message } from '../support/scripted-peer.js';
import {
  deviceResetRequest,
  regionReadReply,
  regionReadRequest,
  regionWriteRequest,
} from '../support/wire.js';
import { between, endOf, faultsOf, scratch, until, withDevice } from './fixture.js';

jest.setTimeout(60_000);

/** Reads of BAR2, which nothing at opening is. */
const READ = { command: 'REGION_READ' } as const;

function faulty(fault: FaultSpec, options: Partial<ProxyOptions> = {}) {
  return withDevice({ faults: [fault], ...options });
}

describe('delay', () => {
  test('a late answer is an answer; one past the deadline is ETIMEDOUT, and the connection goes on', async () => {
    const { open, events } = await faulty({ fault: 'delay', ms: 300, ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    await expect(device.bar(2).readUInt32(0, { timeoutMs: 50 })).rejects.toMatchObject({
      name: 'TimeoutError',
      code: 'ETIMEDOUT',
    });
    expect(await device.bar(2).readUInt32(0)).toBe(0);
    expect(device.counters).toMatchObject({ late: 1, inFlight: 0 });
    expect(faultsOf(events)).toEqual(['fault 1: delay 300 ms: REGION_READ reply']);
  });

  test('keeps the order of what follows', async () => {
    const { client, server } = await between({ faults: [{ fault: 'delay', ms: 50, nth: 2 }] });
    for (let id = 1; id <= 5; id++) client.send(regionReadRequest({}, { id }));
    const ids = [];
    for (let i = 0; i < 5; i++) ids.push((await server.receive()).id);
    expect(ids).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('drop', () => {
  test.each(['request', 'reply'] as const)('a %s: ETIMEDOUT within the deadline', async (kind) => {
    const { open, events } = await faulty({ fault: 'drop', ...READ, kind, nth: 2 });
    const device = await open();
    await expect(device.bar(2).readUInt32(0, { timeoutMs: 100 })).rejects.toMatchObject({
      code: 'ETIMEDOUT',
    });
    expect(await device.bar(2).readUInt32(0)).toBe(0);
    expect(faultsOf(events)).toEqual([`fault 1: drop: REGION_READ${kind === 'reply' ? ' reply' : ''}`]);
  });

  test("the device's own request: its deadline, as it tells it", async () => {
    const { open } = await withDevice(
      { faults: [{ fault: 'drop', socket: 'twin', command: 'DMA_READ', kind: 'request' }] },
      { serve: { dmaTimeoutMs: 100 } },
    );
    const device = await open({ secureDma: true });
    const buffer = await device.dma.alloc(4096);
    await device.bar(0).writeUInt64(RamRegister.DMA_SOURCE, buffer.iova);
    await device.bar(0).writeUInt32(RamRegister.DMA_LENGTH, 16);
    await expect(device.bar(0).writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY)).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      command: 'REGION_WRITE',
    });
  });

  test.each([
    ['ETIMEDOUT', false],
    // The end of the twin socket is lost with the message, which the server notices.
    ['ERR_VFIO_USER_CLOSED', true],
  ])('VERSION: opening ends in time by %s, and nothing is left', async (code, twinSocket) => {
    const { path, proxy: server } = await faulty({ fault: 'drop', command: 'VERSION', kind: 'reply' });
    const before = openFds();
    await expect(connect(path, { timeoutMs: 500, twinSocket })).rejects.toMatchObject({ code });
    await until(() => server.counters.open === 0 && openFds() <= before);
  });
});

describe('split', () => {
  test('pieces with pauses: a client puts them together', async () => {
    const { open, events, model } = await withDevice({
      faults: [{ fault: 'split', pieces: 5, ms: 5, kind: 'reply' }],
    });
    const device = await open();
    model.ram.fill(0x11);
    expect((await device.bar(2).read(0, 1000)).equals(Buffer.alloc(1000, 0x11))).toBe(true);
    expect(faultsOf(events).at(-1)).toBe('fault 1: split: REGION_READ reply');
  });

  test('at offsets, the fds with the first piece', async () => {
    const { client, server } = await between({ faults: [{ fault: 'split', at: [8, 16, 99], ms: 20 }] });
    client.post(deviceResetRequest());
    const asked = await server.receive();
    const fd = native().eventfd(0);
    server.reply(asked, Buffer.alloc(10, 1), [fd]);
    native().closeFd(fd);
    const { payload, fds } = await client.take();
    expect(payload).toEqual(Buffer.alloc(10, 1));
    expect(fds).toHaveLength(1);
    native().closeFd(fds[0]!);
  });
});

describe('duplicate', () => {
  test('an answer twice: the second is counted and dropped', async () => {
    const { open } = await faulty({ fault: 'duplicate', ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    expect(await device.bar(2).readUInt32(0)).toBe(0);
    expect(await device.bar(2).readUInt32(4)).toBe(0);
    await until(() => device.counters.unknown === 1);
  });

  test('a write twice reaches the device twice', async () => {
    const { open } = await faulty({ fault: 'duplicate', command: 'REGION_WRITE', nth: 1 });
    const device = await open();
    await device.bar(0).writeUInt32(RamRegister.SCRATCH, 7);
    expect(await device.bar(0).readUInt32(RamRegister.SCRATCH_WRITES)).toBe(2);
  });

  test('with its fds, each copy its own', async () => {
    const { client, server } = await between({ faults: [{ fault: 'duplicate', kind: 'reply' }] });
    const before = openFds();
    client.post(deviceResetRequest());
    const asked = await server.receive();
    const fd = native().eventfd(0);
    server.reply(asked, Buffer.alloc(0), [fd]);
    native().closeFd(fd);
    const fds = [...(await client.take()).fds, ...(await client.take()).fds];
    expect(fds).toHaveLength(2);
    for (const each of fds) native().closeFd(each);
    expect(openFds()).toBe(before);
  });
});

describe('corrupt', () => {
  test("an answer's type: ProtocolError, and the device says why it closed", async () => {
    const { open } = await faulty({ fault: 'corrupt', offset: 8, xor: 2, ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    await expect(device.bar(2).readUInt32(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(await device.closed).toMatchObject({ name: 'ProtocolError' });
  });

  test("an answer's size: a named end within the deadline", async () => {
    const { open } = await faulty({ fault: 'corrupt', offset: 7, xor: 0x80, ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    await expect(device.bar(2).readUInt32(0, { timeoutMs: 500 })).rejects.toMatchObject({
      code: expect.stringMatching(/ERR_VFIO_USER_CLOSED|ETIMEDOUT/),
    });
    expect(await device.closed).toMatchObject({ name: 'ProtocolError' });
  });

  test('data: nobody can know', async () => {
    const { open } = await faulty({ fault: 'corrupt', offset: 32, ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    expect(await device.bar(2).readUInt32(0)).toBe(0xff);
  });

  test('random bits are the same with the same seed', async () => {
    const damaged = async (seed: number): Promise<Buffer> => {
      const faults = { seed, faults: [{ fault: 'corrupt', offset: 32, bits: 3 } as const] };
      const { client, server } = await between({ faults });
      client.send(regionWriteRequest({ data: Buffer.alloc(64) }));
      return (await server.receive()).payload.subarray(16);
    };
    const first = await damaged(1);
    const bits = [...first].reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
    expect(bits).toBe(3);
    expect(await damaged(1)).toEqual(first);
    expect(await damaged(2)).not.toEqual(first);
  });
});

describe('withhold-fd', () => {
  test('of the twin socket: ProtocolError at opening', async () => {
    const { path } = await faulty({ fault: 'withhold-fd', command: 'VERSION' });
    await expect(connect(path)).rejects.toMatchObject({
      name: 'ProtocolError',
      message: expect.stringContaining('fd_index names no file descriptor that came'),
    });
  });

  test('of a region: it cannot be mapped, and is read by message', async () => {
    const { open, model } = await faulty({ fault: 'withhold-fd', command: 'DEVICE_GET_REGION_INFO' });
    const device = await open();
    model.shared!.bytes.writeUInt32LE(5, 0x1000);
    expect(() => device.bar(1).map(0x1000, 0x1000)).toThrow();
    expect(await device.bar(1).readUInt32(0x1000)).toBe(5);
  });

  test('of an interrupt: it never comes, which waiting tells in time', async () => {
    const { open } = await faulty({ fault: 'withhold-fd', fd: 'all', command: 'DEVICE_SET_IRQS' });
    const device = await open();
    const [vector] = await device.irqs.msix.enable(1);
    await device.bar(0).writeUInt32(RamRegister.TRIGGER, 2 << 16);
    await expect(vector.wait({ timeoutMs: 100 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(await device.bar(2).readUInt32(0)).toBe(0);
  });

  test('only the one that is meant', async () => {
    const { client, server } = await between({ faults: [{ fault: 'withhold-fd', fd: 1 }] });
    const fds = [native().eventfd(0), native().memfd('spec', 4096, false), native().eventfd(0)];
    const before = openFds();
    client.send(deviceResetRequest(), fds);
    const came = (await server.receive()).fds;
    const sizes = came.map((fd) => (native().fdInfo(fd) as { size: number }).size);
    expect(sizes).toEqual([0, 0]);
    for (const fd of came) native().closeFd(fd);
    expect(openFds()).toBe(before);
    for (const fd of fds) native().closeFd(fd);
  });
});

describe('errno', () => {
  test('the client is told by name, and the server never hears of it', async () => {
    const { open } = await faulty({
      fault: 'errno',
      errno: 'ENOSPC',
      command: 'REGION_WRITE',
      direction: 'to-server',
      times: 1,
    });
    const device = await open();
    await expect(device.bar(0).writeUInt32(RamRegister.SCRATCH, 7)).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'ENOSPC',
      errno: 28,
      command: 'REGION_WRITE',
    });
    expect(await device.bar(0).readUInt32(RamRegister.SCRATCH_WRITES)).toBe(0);
    await device.bar(0).writeUInt32(RamRegister.SCRATCH, 8);
    expect(await device.bar(0).readUInt32(RamRegister.SCRATCH_WRITES)).toBe(1);
  });

  test("the device's own request: it is told, and tells", async () => {
    const { open } = await faulty({ fault: 'errno', errno: 14, command: 'DMA_WRITE' });
    const device = await open({ secureDma: true });
    const buffer = await device.dma.alloc(4096);
    await device.bar(0).writeUInt64(RamRegister.DMA_SOURCE, buffer.iova);
    await device.bar(0).writeUInt64(RamRegister.DMA_DESTINATION, buffer.iova);
    await device.bar(0).writeUInt32(RamRegister.DMA_LENGTH, 16);
    await expect(device.bar(0).writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY)).rejects.toMatchObject({
      code: 'EFAULT',
    });
  });

  test('a message that wants no reply gets none; fds end at the proxy', async () => {
    const { client, server } = await between({ faults: [{ fault: 'errno', errno: 'EIO', times: 2 }] });
    const fd = native().eventfd(0);
    const before = openFds();
    client.send(regionWriteRequest({ data: [1] }, { flags: 0x10, id: 1 }));
    client.send(deviceResetRequest({ id: 2 }), [fd]);
    client.send(deviceResetRequest({ id: 3 }));
    expect((await server.receive()).id).toBe(3);
    expect(await client.take()).toMatchObject({ id: 2, command: 13, flags: 0x21, errno: 5 });
    expect(client.inbox).toHaveLength(0);
    expect(openFds()).toBe(before);
    native().closeFd(fd);
  });

  test('a client that does not read its answers is not read', async () => {
    const { client, proxy: server } = await between({ faults: [{ fault: 'errno', errno: 'EIO' }] });
    client.setReading(false);
    let sent = 0;
    for (let idle = 0; idle < 50; idle++) {
      try {
        for (;;) {
          client.post(regionWriteRequest({ data: Buffer.alloc(16) }));
          sent++;
          idle = 0;
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      if (sent > 20_000) break;
    }
    expect(server.counters.toServer.messages).toBeLessThan(20_000);
  });
});

describe('disconnect', () => {
  test('waiting calls are rejected by name, and the next client is served', async () => {
    const { open, events } = await faulty({ fault: 'disconnect', ...READ, kind: 'reply', nth: 2 });
    const device = await open();
    await expect(device.bar(2).readUInt32(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(await device.closed).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(endOf(events)).toBe('disconnected by fault 1: disconnect');
    expect(await (await open()).bar(2).readUInt32(0)).toBe(0);
  });

  test('in the middle of a message: ProtocolError', async () => {
    const { open } = await faulty({ fault: 'disconnect', bytes: 20, ...READ, kind: 'reply', nth: 2 });
    const device = await open({ twinSocket: false });
    await expect(device.bar(2).readUInt32(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(await device.closed).toMatchObject({
      name: 'ProtocolError',
      message: expect.stringContaining('in the middle of a message'),
    });
  });

  test('a client that reconnects goes on', async () => {
    const { open, proxy: server } = await faulty({ fault: 'disconnect', ...READ, kind: 'request', nth: 3 });
    const device = await open({ reconnect: true });
    expect(await device.bar(2).readUInt32(0)).toBe(0);
    await expect(device.bar(2).readUInt32(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    await until(() => server.counters.clients === 2);
    for (let tries = 0; ; tries++) {
      const value = await device
        .bar(2)
        .readUInt32(0)
        .catch(() => undefined);
      if (value === 0) break;
      if (tries > 500) throw new Error('it did not come back');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  test('what came before it is delivered, to both sides', async () => {
    const { client, server } = await between({ faults: [{ fault: 'disconnect', nth: 3 }] });
    for (let i = 0; i < 4; i++) client.post(deviceResetRequest());
    await until(() => server.ended);
    await client.end();
    expect(server.pending).toHaveLength(2);
  });
});

describe('several at once', () => {
  test('chance over a long session: every call ends, one way or the other', async () => {
    const { open, proxy: server } = await withDevice({
      faults: {
        seed: 3,
        faults: [
          { fault: 'delay', ms: 3, probability: 0.1 },
          { fault: 'split', pieces: 3, ms: 1, probability: 0.1 },
          { fault: 'drop', ...READ, kind: 'reply', probability: 0.05 },
          { fault: 'errno', errno: 'EAGAIN', ...READ, direction: 'to-server', probability: 0.1 },
        ],
      },
    });
    const tried = () => open({ timeoutMs: 500 }).catch(() => undefined);
    let device = await tried();
    while (device === undefined) device = await tried();
    const bar = device.bar(2);
    const outcomes = new Map<string, number>();
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const outcome = await bar.readUInt32(i * 4, { timeoutMs: 3_000 }).then(
          () => 'read',
          (error: { code: string }) => error.code,
        );
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }),
    );
    expect([...outcomes.keys()].sort()).toEqual(['EAGAIN', 'ETIMEDOUT', 'read']);
    expect(server.counters.faults).toBeGreaterThan(40);
    expect(device.counters.inFlight).toBe(0);
  });

  test('each is in the trace and in the capture, at the message that it happened to', async () => {
    const file = scratch().path('capture.pcapng');
    const lines: string[] = [];
    const faults: FaultSpec[] = [
      { fault: 'drop', nth: 1 },
      { fault: 'errno', errno: 'EIO', nth: 2, direction: 'to-server' },
      { fault: 'corrupt', offset: 20, nth: 3, direction: 'to-server' },
      { fault: 'duplicate', nth: 3, direction: 'to-server' },
    ];
    const {
      client,
      server,
      proxy: proxied,
    } = await between({
      faults,
      capture: file,
      trace: (line) => void lines.push(line),
    });
    for (let id = 1; id <= 3; id++) client.send(regionReadRequest({ count: 1 }, { id }));
    await server.receive();
    const asked = await server.receive();
    server.send(message(asked.id, 9, 1, 0, regionReadReply({ data: [5] }).subarray(16)));
    await client.take(({ id }) => id === 3);
    await proxied.close();
    const seen: unknown[] = [];
    for await (const { direction, bytes, note } of new CaptureReader(file)) {
      const { id, kind, errno } = describeMessage(bytes);
      seen.push([direction, id, kind, errno, note]);
    }
    const both = 'fault 3: corrupt; fault 4: duplicate';
    expect(seen).toEqual([
      ['sent', 1, 'request', undefined, 'fault 1: drop'],
      ['sent', 2, 'request', undefined, 'fault 2: errno EIO'],
      ['received', 2, 'reply', 'EIO', 'fault 2: errno EIO'],
      ['sent', 3, 'request', undefined, both],
      ['sent', 3, 'request', undefined, both],
      ['received', 3, 'reply', undefined, undefined],
    ]);
    expect(lines.filter((line) => line.includes(`(${both})`))).toHaveLength(2);
  });
});

describe('without faults', () => {
  test('an empty plan changes nothing', async () => {
    const { open, proxy: server } = await withDevice({ faults: [] });
    expect(await (await open()).bar(2).readUInt32(0)).toBe(0);
    expect(server.counters.faults).toBe(0);
  });
});
