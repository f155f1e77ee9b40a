import { afterEach, describe, expect, test } from '@jest/globals';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../lib/native.js';
import {
  ReplayError,
  formatReport,
  replay,
  type ReplayOptions,
  type ReplayServer,
} from '../../lib/replay/index.js';
import { RawClient, REPLY } from '../emulator/raw-client.js';
import { openFds } from '../support/fds.js';
import * as w from '../support/wire.js';
import { handshake, read, record, write, type Line } from './recordings.js';
import { until } from '../support/until.js';

const EIO = 5;
const clients: RawClient[] = [];
const servers: ReplayServer[] = [];

async function serve(lines: readonly Line[], options?: ReplayOptions): Promise<ReplayServer> {
  const server = await replay(await record([...handshake(), ...lines]), options);
  servers.push(server);
  return server;
}

async function connected(server: ReplayServer, capabilities?: object): Promise<RawClient> {
  const client = RawClient.connect(server.path);
  clients.push(client);
  await client.negotiate(capabilities);
  return client;
}

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) await server.close();
});

function readRequest(offset: number): Buffer {
  return w.regionReadRequest({ offset, region: 0, count: 4 });
}

describe('in order', () => {
  test('each request gets its recorded reply, under its own id', async () => {
    const server = await serve([...read(40, 0, 1), ...read(41, 0, 2), ...write(7, 4, 9)]);
    const client = await connected(server);
    expect([await client.read32(0, 0), await client.read32(0, 0)]).toEqual([1, 2]);
    expect(server.progress).toMatchObject({
      outcome: 'incomplete',
      requests: 4,
      played: 3,
      next: { number: 7 },
    });
    await client.write32(0, 4, 9);
    client.close();
    await server.assertComplete();
    expect(await server.report()).toMatchObject({
      played: 4,
      differences: [],
      reason: { code: 'ERR_VFIO_USER_CLOSED' },
    });
  });

  test('a pipelined recording is answered to a client that waits for each reply, and the other way round', async () => {
    const [ask, answer] = [read(2, 0, 1), read(3, 4, 2)].map(([q, a]) => [q!, a!] as const) as [
      readonly [Line, Line],
      readonly [Line, Line],
    ];
    for (const lines of [
      [ask[0], answer[0], ask[1], answer[1]],
      [ask[0], answer[0], answer[1], ask[1]],
    ]) {
      const server = await serve(lines);
      const slow = await connected(server);
      expect([await slow.read32(0, 0), await slow.read32(0, 4)]).toEqual([1, 2]);
      slow.close();
      await server.assertComplete();
      const fast = await connected(server);
      expect(await Promise.all([fast.read32(0, 0), fast.read32(0, 4)])).toEqual([1, 2]);
      fast.close();
      await server.assertComplete();
    }
  });

  test('errors are answered as they were, with what came behind them', async () => {
    const odd = w.message(9, 0x21, Buffer.from([1, 2, 3]), { id: 2, errno: 22 });
    const server = await serve([{ sent: w.regionReadRequest({ count: 4 }, { id: 2 }) }, { received: odd }]);
    const client = await connected(server);
    expect(await client.ask(readRequest(0))).toMatchObject({
      flags: 0x21,
      errno: 22,
      payload: Buffer.from([1, 2, 3]),
    });
    client.close();
    await server.assertComplete();
  });

  test('what wanted no reply gets none, and what got none gets none', async () => {
    const posted = w.regionWriteRequest({ data: [1] }, { flags: 0x10, id: 2 });
    const unanswered = w.regionReadRequest({ offset: 8, count: 4 }, { id: 3 });
    const server = await serve([{ sent: posted }, { sent: unanswered }, ...read(4, 0, 6)]);
    const client = await connected(server);
    client.post(w.regionWriteRequest({ data: [1] }, { flags: 0x10 }));
    client.post(readRequest(8));
    expect(await client.read32(0, 0)).toBe(6);
    expect(client.inbox).toHaveLength(0);
    client.close();
    await server.assertComplete();
  });

  test('a VERSION that wants no reply gets none, and is a difference', async () => {
    const server = await serve([]);
    const client = RawClient.connect(server.path);
    clients.push(client);
    client.send(w.versionRequest({}, { flags: 0x10 }));
    await client.refusal(readRequest(0));
    expect(client.inbox).toHaveLength(0);
    client.close();
    const { differences } = await server.report();
    expect(differences[0]?.fields).toContainEqual({
      field: 'flags of the header',
      expected: '0',
      received: 'NO_REPLY',
    });
  });

  test('what a client sent before it left counts', async () => {
    const posted = (value: number) => w.regionWriteRequest({ data: [value] }, { flags: 0x10 });
    const server = await serve([{ sent: posted(1) }, { sent: posted(2) }, { sent: posted(3) }]);
    const client = await connected(server);
    for (const value of [1, 2, 3]) client.post(posted(value));
    client.close();
    await server.assertComplete();
  });

  test('each client is served from the beginning, one after the other', async () => {
    const server = await serve(read(2, 0, 3));
    const [first, second] = [await connected(server), RawClient.connect(server.path)];
    clients.push(second);
    expect(await first.read32(0, 0)).toBe(3);
    first.close();
    await second.negotiate();
    expect(await second.read32(0, 0)).toBe(3);
    second.close();
    await server.assertComplete();
    expect(server.reports.map(({ outcome }) => outcome)).toEqual(['complete', 'complete']);
  });
});

describe('a client that leaves the recording', () => {
  const lines = [...read(2, 0, 1), ...write(3, 4, 2), ...read(4, 8, 3)];

  test('is refused from there on, and the report says where and how', async () => {
    const server = await serve(lines);
    const client = await connected(server);
    await client.read32(0, 0);
    expect(await client.refusal(w.regionWriteRequest({ offset: 4, data: [2, 0, 7, 0] }))).toBe(EIO);
    expect(await client.refusal(readRequest(8))).toBe(EIO);
    client.close();
    const report = await server.report();
    expect(report).toMatchObject({ outcome: 'different', played: 2, refused: 2, differenceCount: 1 });
    expect(report.differences).toEqual([
      {
        kind: 'changed',
        number: 5,
        expected: 'REGION_WRITE offset=0x4 region=0 count=4 data=02000000',
        received: 'REGION_WRITE offset=0x4 region=0 count=4 data=02000700',
        fields: [],
        data: { offset: 2, expectedLength: 4, receivedLength: 4, expected: '0000', received: '0700' },
      },
    ]);
    const error = await server.assertComplete().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ReplayError);
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_REPLAY', report: { outcome: 'different' } });
    expect((error as Error).message).toBe(
      [
        'different: 2 of 4 recorded requests were played',
        'a request different from message 5',
        '  recorded  REGION_WRITE offset=0x4 region=0 count=4 data=02000000',
        '  received  REGION_WRITE offset=0x4 region=0 count=4 data=02000700',
        '  data from byte 2 on: recorded 0000, received 0700 (of 4 bytes)',
        '2 requests were refused',
        '2 are left, the next is message 5: REGION_WRITE offset=0x4 region=0 count=4 data=02000000',
      ].join('\n'),
    );
  });

  test('may be answered another errno, or be cut off', async () => {
    const server = await serve(lines, { errno: 95 });
    expect(await (await connected(server)).refusal(readRequest(12))).toBe(95);
    const strict = await serve(lines, { afterDifference: 'close' });
    const client = await connected(strict);
    client.post(readRequest(12));
    await client.end();
    expect(await strict.report()).toMatchObject({
      outcome: 'different',
      reason: { message: 'the client left the recording' },
    });
  });

  test('may go on where it finds back: after a request more, another one, one less', async () => {
    const server = await serve(lines, { afterDifference: 'continue' });
    const more = await connected(server);
    expect(await more.refusal(readRequest(12))).toBe(EIO);
    expect(await more.read32(0, 0)).toBe(1);
    await more.write32(0, 4, 2);
    expect(await more.read32(0, 8)).toBe(3);
    more.close();
    expect(await server.report()).toMatchObject({ differenceCount: 1, played: 4, next: undefined });
    const less = await connected(server);
    expect(await less.read32(0, 8)).toBe(3);
    less.close();
    const { differences } = await server.report();
    expect(differences.map(({ kind, number }) => [kind, number])).toEqual([
      ['skipped', 3],
      ['skipped', 5],
    ]);
  });

  test('is told that the recording has ended, and what it left out', async () => {
    const server = await serve(read(2, 0, 1));
    const client = await connected(server);
    await client.read32(0, 0);
    expect(await client.refusal(readRequest(0))).toBe(EIO);
    client.close();
    expect(formatReport(await server.report())).toContain('a request after the end of the recording');
    const short = await connected(server);
    short.close();
    const report = await server.report();
    expect(report).toMatchObject({
      outcome: 'incomplete',
      next: { number: 3, line: 'REGION_READ offset=0x0 region=0 count=4' },
    });
  });

  test('another command, more fds, other flags are differences', async () => {
    const server = await serve(
      [{ sent: w.dmaMapRequest({}, { id: 2 }) }, { received: w.dmaMapReply({ id: 2 }) }],
      {
        afterDifference: 'continue',
      },
    );
    const client = await connected(server);
    await client.refusal(w.deviceResetRequest());
    await client.refusal(w.dmaMapRequest({ flags: 1 }));
    const fd = native().eventfd(0);
    await client.refusal(w.dmaMapRequest(), [fd]);
    native().closeFd(fd);
    client.close();
    const { differences } = await server.report();
    expect(differences.map(({ fields }) => fields)).toEqual([
      [{ field: 'command', expected: 'DMA_MAP', received: 'DEVICE_RESET' }],
      [{ field: 'flags', expected: 'READ|WRITE', received: 'READ' }],
      [{ field: 'fds', expected: '0', received: '1' }],
    ]);
  });

  test('fields may be ignored', async () => {
    const server = await serve([...write(2, 4, 2), ...read(3, 0, 1)], {
      ignore: ['REGION_WRITE.data', 'REGION_READ.offset'],
    });
    const client = await connected(server);
    await client.write32(0, 4, 99);
    await client.read32(0, 64);
    client.close();
    await server.assertComplete();
  });
});

describe('in any order', () => {
  const lines = [...read(2, 0, 1), ...read(3, 4, 2), ...read(4, 0, 3)];

  test('equal requests get their replies in the recorded order', async () => {
    const server = await serve(lines, { mode: 'matching' });
    const client = await connected(server);
    expect(await client.read32(0, 4)).toBe(2);
    expect([await client.read32(0, 0), await client.read32(0, 0)]).toEqual([1, 3]);
    client.close();
    await server.assertComplete();
  });

  test('what is not recorded, or not that often, is refused beside the nearest', async () => {
    const server = await serve(lines, { mode: 'matching', afterDifference: 'continue' });
    const client = await connected(server);
    expect(await client.refusal(readRequest(8))).toBe(EIO);
    await client.read32(0, 4);
    expect(await client.refusal(readRequest(4))).toBe(EIO);
    client.close();
    const { differences } = await server.report();
    expect(differences.map(({ kind, number }) => [kind, number])).toEqual([
      ['beyond', 3],
      ['beyond', 3],
    ]);
  });

  test('a register that is polled may keep its last value', async () => {
    const server = await serve(lines, { mode: 'matching', repeatLast: true });
    const client = await connected(server);
    const values: number[] = [];
    for (let i = 0; i < 5; i++) values.push(await client.read32(0, 0));
    expect(values).toEqual([1, 3, 3, 3, 3]);
  });
});

describe('what the server did of itself', () => {
  const ask = { sent: w.regionWriteRequest({ data: [1] }, { id: 2 }) };
  const done = { received: w.regionWriteReply({ count: 1 }, { id: 2 }) };
  const dma = [
    { received: w.dmaReadRequest({ address: 0x1000, count: 4 }, { id: 900 }) },
    { sent: w.dmaReadReply({ address: 0x1000, data: [1, 2, 3, 4] }, { id: 900 }) },
  ];

  test('DMA goes out at its point, and the answer is compared', async () => {
    const server = await serve([ask, ...dma, done]);
    const client = await connected(server);
    const written = client.answer(w.regionWriteRequest({ data: [1] }));
    const request = await client.command(11);
    expect(client.inbox).toHaveLength(0);
    client.reply(request, w.dmaReadReply({ address: 0x1000, data: [1, 2, 3, 4] }));
    await written;
    client.close();
    await server.assertComplete();
  });

  test('another answer is a difference, with the first byte of it', async () => {
    const server = await serve([ask, ...dma, done]);
    const client = await connected(server);
    const refused = client.refusal(w.regionWriteRequest({ data: [1] }));
    client.reply(await client.command(11), w.dmaReadReply({ address: 0x1000, data: [1, 2, 3, 5] }));
    expect(await refused).toBe(EIO);
    client.close();
    const [difference] = (await server.report()).differences;
    expect(difference).toMatchObject({
      kind: 'answer',
      number: 5,
      fields: [],
      data: { offset: 3, expected: '04', received: '05' },
    });
  });

  test('its data may be ignored, but not that it was refused', async () => {
    const server = await serve([ask, ...dma, done], {
      ignore: ['DMA_READ.data'],
      afterDifference: 'continue',
    });
    const client = await connected(server);
    const written = client.answer(w.regionWriteRequest({ data: [1] }));
    client.reply(await client.command(11), w.dmaReadReply({ address: 0x1000, data: [9, 9, 9, 9] }));
    await written;
    client.close();
    await server.assertComplete();
    const other = await connected(server);
    const again = other.answer(w.regionWriteRequest({ data: [1] }));
    other.refuse(await other.command(11), 14);
    await again;
    other.close();
    const [difference] = (await server.report()).differences;
    expect(difference!.fields).toContainEqual({ field: 'errno', expected: undefined, received: 'EFAULT' });
  });

  test('no answer is a difference after a while, or when the client goes', async () => {
    const server = await serve([ask, ...dma, done], { answerTimeoutMs: 20 });
    const client = await connected(server);
    expect(await client.refusal(w.regionWriteRequest({ data: [1] }))).toBe(EIO);
    client.close();
    expect((await server.report()).differences[0]).toMatchObject({ kind: 'silence', number: 5 });
    const patient = await serve([ask, ...dma, done]);
    const gone = await connected(patient);
    gone.post(w.regionWriteRequest({ data: [1] }));
    await gone.command(11);
    gone.close();
    expect(await patient.report()).toMatchObject({ outcome: 'incomplete', played: 1, next: { number: 3 } });
  });

  test('DMA comes on a twin socket where there was one and the client takes one', async () => {
    const data = { capabilities: { max_msg_fds: 8, twin_socket: { supported: true, fd_index: 0 } } };
    const lines: Line[] = [
      { sent: w.versionRequest({ data }, { id: 1 }) },
      { received: w.versionReply({ data }, { id: 1 }), fds: 1 },
      ask,
      ...dma.map((line) => ({ ...line, socket: 'dev (twin)' })),
      done,
    ];
    const server = await replay(await record(lines));
    servers.push(server);
    const client = RawClient.connect(server.path);
    clients.push(client);
    const { json, fds } = await client.negotiate({ max_msg_fds: 8, twin_socket: { supported: true } });
    expect(json).toMatchObject({ twin_socket: { supported: true, fd_index: 0 } });
    const twin = new RawClient(fds[0]!);
    clients.push(twin);
    const written = client.answer(w.regionWriteRequest({ data: [1] }));
    twin.reply(await twin.command(11), w.dmaReadReply({ address: 0x1000, data: [1, 2, 3, 4] }));
    await written;
    twin.close();
    client.close();
    await server.assertComplete();
    const plain = await connected(server);
    const again = plain.answer(w.regionWriteRequest({ data: [1] }));
    plain.reply(await plain.command(11), w.dmaReadReply({ address: 0x1000, data: [1, 2, 3, 4] }));
    await again;
    plain.close();
    expect(await server.report()).toMatchObject({
      outcome: 'complete',
      notes: [expect.stringContaining('twin socket')],
    });
  });

  test('interrupts are signalled on the eventfds that the client gave', async () => {
    const arm = w.setIrqsRequest({ flags: 0x24, index: 2, start: 1, count: 2 }, { id: 2 });
    const server = await serve([
      { sent: arm, fds: 2 },
      { received: w.setIrqsReply({ id: 2 }) },
      ...read(3, 0, 1),
      { interrupt: [2, 2, 3] },
      { interrupt: [2, 5, 1] },
    ]);
    const counts: number[][] = [[], []];
    const events = counts.map((seen) => {
      const event = new (native().EventFd)(native().eventfd(0), (count) => seen.push(count));
      event.watch(true);
      return event;
    });
    const client = await connected(server);
    await client.answer(
      arm,
      events.map(({ fd }) => fd),
    );
    await client.read32(0, 0);
    // It was there before the reply.
    expect([events[0]!.read(), events[1]!.read()].map((count) => Math.max(count, 0))).toEqual([
      0,
      counts[1]!.length > 0 ? 0 : 3,
    ]);
    client.close();
    for (const event of events) event.close();
    expect(await server.report()).toMatchObject({ outcome: 'complete', undelivered: 1 });
  });

  test('with the recorded times, in the recorded order', async () => {
    const [question, answer] = read(2, 0, 1) as [Line, Line];
    const server = await serve(
      [
        { ...question, time: 0n },
        { ...answer, time: 30_000_000n },
      ],
      { timing: 'recorded' },
    );
    const client = await connected(server);
    const before = performance.now();
    expect(await client.read32(0, 0)).toBe(1);
    expect(performance.now() - before).toBeGreaterThan(25);
    client.post(readRequest(0));
    client.close();
    await server.report();
  });
});

describe('regions that could be mapped', () => {
  const sparse = w.sparseMmap([[0, 4096]]);
  const lines: Line[] = [
    { sent: w.regionInfoRequest({ argsz: 32 }, { id: 2 }) },
    { received: w.regionInfoReply({ argsz: 64, flags: 7, size: 8192 }, { id: 2 }) },
    { sent: w.regionInfoRequest({ argsz: 64 }, { id: 3 }) },
    {
      received: w.regionInfoReply(
        { argsz: 64, flags: 0xf, size: 8192, capabilities: Buffer.concat([sparse]) },
        { id: 3 },
      ),
      fds: 1,
    },
  ];

  test('are served without their memory, in replies of the recorded length', async () => {
    const server = await serve(lines);
    const client = await connected(server);
    const first = await client.answer(w.regionInfoRequest({ argsz: 32 }));
    expect([first.length, first.readUInt32LE(0), first.readUInt32LE(4)]).toEqual([32, 64, 3]);
    const second = await client.answer(w.regionInfoRequest({ argsz: 64 }));
    expect([second.length, second.readUInt32LE(0), second.readUInt32LE(4)]).toEqual([64, 64, 0xb]);
    // SPARSE_MMAP is in its place and has no areas.
    expect([second.readUInt16LE(32), second.readUInt32LE(40)]).toEqual([1, 0]);
    client.close();
    expect(await server.report()).toMatchObject({
      outcome: 'complete',
      notes: ['region 0 could be mapped: it is served without the MMAP flag'],
    });
  });

  test('or with zeros', async () => {
    const server = await serve(lines, { mappings: 'blank' });
    const client = await connected(server);
    await client.answer(w.regionInfoRequest({ argsz: 32 })).catch(() => undefined);
    const { payload, fds } = await client.ask(w.regionInfoRequest({ argsz: 64 }));
    expect([payload.readUInt32LE(4), payload.readUInt32LE(40), fds.length]).toEqual([0xf, 1, 1]);
    expect(native().fdInfo(fds[0]!)).toMatchObject({ size: 8192 });
    native().closeFd(fds[0]!);
  });
});

describe('hostile clients', () => {
  test.each([
    ['a header without a size', w.regionReadRequest({}, { size: 3 })],
    ['a size beyond all', w.regionReadRequest({}, { size: 0xffffffff })],
    ['an unknown type', w.regionReadRequest({ count: 4 }, { flags: 7 })],
    ['a reply that nobody asked for', w.dmaReadReply({ data: [1] })],
  ])('%s ends the connection by name, and the next client is served', async (_what, bytes) => {
    const server = await serve(read(2, 0, 8));
    const client = await connected(server);
    client.send(bytes);
    await client.end();
    expect(await server.report()).toMatchObject({
      outcome: 'incomplete',
      reason: { code: 'ERR_VFIO_USER_PROTOCOL' },
    });
    expect(await (await connected(server)).read32(0, 0)).toBe(8);
  });

  test('a client that begins with something else is told so', async () => {
    const server = await serve([]);
    const client = RawClient.connect(server.path);
    clients.push(client);
    expect(await client.refusal(readRequest(0))).toBe(EIO);
  });

  test('fds that nobody wants are closed, and so is all when a client goes in the middle', async () => {
    const server = await serve([...read(2, 0, 1)]);
    const before = openFds();
    for (let i = 0; i < 5; i++) {
      const client = RawClient.connect(server.path);
      const fds = [native().eventfd(0), native().eventfd(0)];
      client.post(w.versionRequest(), fds);
      client.post(readRequest(0), fds);
      client.send(w.regionReadRequest({ count: 4 }).subarray(0, 20));
      for (const fd of fds) native().closeFd(fd);
      client.close();
      await server.nextReport();
    }
    expect(openFds()).toBe(before);
  });

  test('a flood is refused and counted, one at a time, without end and without growth', async () => {
    const server = await serve([]);
    const client = await connected(server);
    const flood = readRequest(0);
    let sent = 0;
    for (let i = 0; i < 2_000; i++) {
      try {
        client.send(flood);
        sent++;
      } catch {
        await sleep(1);
      }
    }
    await until(() => client.inbox.length >= sent);
    client.close();
    expect(await server.report()).toMatchObject({ refused: sent, differenceCount: 1 });
  });

  test('a client that reads nothing stops being read, and loses nothing', async () => {
    const count = 1 << 19;
    const request = w.regionReadRequest({ count });
    const answer = w.regionReadReply({ data: Buffer.alloc(count, 7) });
    const server = await serve([{ sent: request }, { received: answer }], {
      mode: 'matching',
      repeatLast: true,
    });
    const client = await connected(server);
    client.setReading(false);
    let sent = 0;
    for (let failures = 0; failures < 20;) {
      try {
        client.send(request);
        sent++;
      } catch {
        failures++;
        await sleep(5);
      }
      expect(sent).toBeLessThan(10_000);
    }
    client.setReading(true);
    for (let i = 0; i < 20; i++) expect((await client.take()).payload).toHaveLength(16 + count);
    client.close();
    await server.report();
  });
});

test('a server that is closed leaves nothing behind', async () => {
  const server = await serve(read(2, 0, 1));
  const client = await connected(server);
  const waiting = server.nextReport();
  await server.close();
  await client.end();
  expect(await waiting).toMatchObject({
    outcome: 'incomplete',
    reason: { message: 'the server was closed' },
  });
  expect(existsSync(server.path)).toBe(false);
  await expect(server.nextReport()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  expect(REPLY).toBe(1);
});
