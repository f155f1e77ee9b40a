/**
 * Clients that send without end and read nothing, at the emulator, through the proxy, and at a replay: what is kept for
 * them is bounded (SECURITY.md has the limits), and all others are served meanwhile.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { constants } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { RamDma, RamRegister, serve, type ClientContext } from '../../../lib/emulator/index.js';
import { ProtocolError } from '../../../lib/errors.js';
import { proxy } from '../../../lib/proxy/index.js';
import { RawClient } from '../../emulator/raw-client.js';
import { openFds } from '../../support/fds.js';
import * as w from '../../support/wire.js';
import { BURST, BURST_BYTES, BURST_WRITES, DOORBELL, LONG_READ } from './recording.js';
import {
  ALL_SERVERS,
  MOST_MAPS,
  PAGE,
  SERVERS,
  cleanup,
  client,
  eventfd,
  expectNeighboursServed,
  expectServed,
  keepPromises,
  memory,
  otherReplay,
  pathOf,
  strangerAt,
  turn,
  until,
  whyItEnded,
  type Where,
} from './session.js';

jest.setTimeout(60_000);
keepPromises();

const MIB = 1 << 20;
const { ENOSPC } = constants.errno;
const [DMA_READ, DMA_WRITE] = [11, 12];
/** Of commands and of answers each, before a client is not read any more. */
const HIGH_WATER = 4 * MIB;
/** A message, a chunk that is being read, and what the client here holds itself. */
const SLACK = 4 * MIB;
/** Fds of one `recvmsg`, and those that wait with their commands. */
const MOST_FDS = 64 + 256;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Memory of this process that is bytes, and is held: of the servers, and of the clients, which keep little. */
async function bytesInUse(): Promise<number> {
  collect();
  // What was collected is given back, and no longer counted, by another thread.
  await turn(20);
  collect();
  return process.memoryUsage().arrayBuffers;
}

/**
 * Sends `bytes` again and again, reading nothing, until no more are taken, the connection ends, or it was often enough.
 * How often it was.
 */
async function flood(
  raw: RawClient,
  bytes: Buffer,
  most: number,
  fds: readonly number[] = [],
): Promise<number> {
  raw.setReading(false);
  let sent = 0;
  // The servers are of this process: they read when the loop turns. Twenty turns and nothing: they read no more.
  for (let refused = 0; sent < most && refused < 20;) {
    try {
      for (let i = 0; i < 256 && sent < most; i++, sent++) raw.post(bytes, fds);
      refused = 0;
    } catch {
      refused++;
    }
    await turn(1);
  }
  return sent;
}

/** Whether the socket has room for a message, which is sent. */
function isSent(raw: RawClient, bytes: Buffer): boolean {
  try {
    raw.post(bytes);
    return true;
  } catch {
    return false;
  }
}

describe.each(ALL_SERVERS)('at the %s', (where: Where) => {
  test.each<[string, Buffer, number]>([
    ['reads of 8 KiB', LONG_READ, 100_000],
    ['writes of 32 KiB', w.regionWriteRequest({ region: 2, data: Buffer.alloc(32 << 10) }), 100_000],
    ['commands that nobody knows', w.request(99, Buffer.alloc(16)), 300_000],
  ])('%s, whose answers are not read, come to an end', async (_name, bytes, most) => {
    const raw = await client(where);
    const before = await bytesInUse();
    const sent = await flood(raw, bytes, most);
    expect(sent).toBeLessThan(most);
    expect((await bytesInUse()) - before).toBeLessThan(2 * HIGH_WATER + SLACK);
    await expectNeighboursServed();
  });

  test('headers in pieces of 64 KiB, and none of their answers read, wait', async () => {
    const socket = createConnection(pathOf(where));
    let end: unknown;
    socket.on('error', (error) => (end = error)).on('close', () => (end ??= 'closed'));
    cleanup(() => socket.destroy());
    socket.pause();
    socket.write(w.versionRequest());
    const before = await bytesInUse();
    // Sixteen bytes each: it is their number that counts.
    const some = Buffer.concat(Array<Buffer>(4096).fill(w.request(77, Buffer.alloc(0))));
    let taken = 0;
    for (let refused = 0; refused < 40 && taken < 200;) {
      if (socket.writableNeedDrain) refused++;
      else {
        socket.write(some);
        taken++;
        refused = 0;
      }
      await turn(1);
    }
    expect(end).toBeUndefined();
    expect(taken).toBeLessThan(200);
    expect((await bytesInUse()) - before).toBeLessThan(2 * HIGH_WATER + SLACK);
    await expectNeighboursServed();
  });

  test('all is answered once it is read', async () => {
    const raw = await client(where);
    const sent = await flood(raw, w.request(99, Buffer.alloc(16)), 300_000);
    raw.setReading(true);
    for (let came = 0; came < sent;) {
      await until(() => raw.inbox.length > 0, 'the next answers');
      came += raw.drop();
    }
    await expectServed(raw);
  });

  test('commands that want no answer are carried out', async () => {
    const raw = await client(where);
    const before = await bytesInUse();
    const bytes = w.request(99, Buffer.alloc(1_000), { flags: 0x10 });
    for (let i = 0; i < 10; i++) {
      await flood(raw, bytes, 2_000);
      await expectNeighboursServed();
    }
    expect((await bytesInUse()) - before).toBeLessThan(HIGH_WATER + SLACK);
    raw.setReading(true);
    await until(() => isSent(raw, bytes), 'room in the socket');
    await expectServed(raw);
    expect(raw.inbox).toHaveLength(0);
  });

  test('clients that come and go', async () => {
    for (let i = 0; i < 200; i++) {
      const raw = RawClient.connect(pathOf(where));
      raw.send(i % 2 === 0 ? w.versionRequest() : w.versionRequest().subarray(0, 9), [eventfd()]);
      raw.close();
      if (i % 10 === 0) await expectNeighboursServed();
    }
    await expectServed(await client(where));
  });

  test('commands with fds while one takes its time', async () => {
    const raw = await client(where);
    await raw.answer(where === 'replay' ? LONG_READ : w.dmaMapRequest({ size: PAGE }));
    if (where === 'replay') raw.post(DOORBELL);
    else await beginCopy(raw);
    await raw.command(DMA_READ);
    const before = openFds();
    let most = 0;
    const counting = setInterval(() => (most = Math.max(most, openFds() - before)), 1);
    const fds = Array<number>(16).fill(eventfd());
    await flood(raw, w.setIrqsRequest({ flags: 0x24, index: 2, count: 16 }), 20_000, fds);
    clearInterval(counting);
    expect(most).toBeLessThan(where === 'proxy' ? 2 * MOST_FDS : MOST_FDS);
    // The answer was still due on the same socket, so it was read for as long as it was bearable.
    raw.setReading(true);
    await raw.end();
    expect(await whyItEnded()).toBeInstanceOf(ProtocolError);
  });
});

/** The device asks the client for memory, which has an answer due from then on. */
async function beginCopy(raw: RawClient): Promise<void> {
  await raw.write64(0, RamRegister.DMA_SOURCE, 0x10);
  await raw.write64(0, RamRegister.DMA_DESTINATION, 0x100);
  await raw.write32(0, RamRegister.DMA_LENGTH, 4);
  const command = w.wire().u32(RamDma.COPY).build();
  raw.post(w.regionWriteRequest({ offset: RamRegister.DMA_COMMAND, data: command }));
}

test.each(SERVERS)('mappings without end at the %s', async (where) => {
  const raw = await client(where);
  const before = openFds();
  const fds = [memory(PAGE)];
  raw.setReading(false);
  let sent = 0;
  for (let refused = 0; sent < 20_000 && refused < 20;) {
    try {
      for (let i = 0; i < 64; i++, sent++) raw.post(w.dmaMapRequest({ address: sent * PAGE }), fds);
      refused = 0;
    } catch {
      refused++;
    }
    await turn(1);
  }
  expect(openFds() - before).toBeLessThan(MOST_FDS);
  raw.setReading(true);
  await until(() => raw.inbox.length === sent, 'all answers');
  expect(raw.inbox.filter(({ errno }) => errno === 0)).toHaveLength(MOST_MAPS);
  expect(raw.inbox.filter(({ errno }) => errno === ENOSPC)).toHaveLength(sent - MOST_MAPS);
  await expectServed(raw);
});

test('answers over TCP that nobody takes', async () => {
  const front = await proxy({ listen: { port: 0 }, connect: pathOf('emulator') });
  cleanup(() => front.close());
  const socket = createConnection({ host: '127.0.0.1', port: Number(front.address.split(':').at(-1)) });
  cleanup(() => socket.destroy());
  await once(socket, 'connect');
  socket.pause();
  socket.write(w.versionRequest());
  const before = await bytesInUse();
  const some = Buffer.concat(Array<Buffer>(100).fill(LONG_READ));
  let taken = 0;
  for (let refused = 0; refused < 40 && taken < 10_000;) {
    if (socket.writableNeedDrain) refused++;
    else {
      socket.write(some);
      taken++;
      refused = 0;
    }
    await turn(1);
  }
  expect(socket.destroyed).toBe(false);
  expect(taken).toBeLessThan(10_000);
  expect((await bytesInUse()) - before).toBeLessThan(2 * HIGH_WATER + SLACK);
  await expectNeighboursServed();
});

describe.each([false, true])(
  'a client that does not read what the device asks, twin socket: %s',
  (hasTwin) => {
    const capabilities = hasTwin ? { max_msg_fds: 8, twin_socket: { supported: true } } : {};

    /** A client, and what DMA comes on. */
    async function comes(path: string): Promise<{ raw: RawClient; dma: RawClient }> {
      const raw = strangerAt(path);
      const { fds } = await raw.negotiate(capabilities);
      if (!hasTwin) return { raw, dma: raw };
      const dma = new RawClient(fds[0]!);
      cleanup(() => dma.close());
      return { raw, dma };
    }

    test('a device that writes without end has its writes refused in time', async () => {
      const path = `${pathOf('emulator')} that writes`;
      const ends: unknown[] = [];
      const data = Buffer.alloc(MIB, 7);
      const WRITES = 100;
      let context: ClientContext | undefined;
      const device = {
        regions: [
          {
            index: 0,
            size: PAGE,
            handler: { read: (_: number, count: number) => Buffer.alloc(count), write: () => {} },
          },
        ],
        irqs: [],
        attach: (given: ClientContext) => void (context = given),
      };
      const server = await serve(device, { path, dmaTimeoutMs: 1_500 });
      cleanup(() => server.close());
      const { raw, dma } = await comes(path);
      await raw.answer(w.dmaMapRequest({ size: MIB }));
      dma.setReading(false);
      const before = await bytesInUse();
      for (let i = 0; i < WRITES; i++) {
        context!.dma.write(0n, data).then(
          () => ends.push('done'),
          (error: unknown) => ends.push((error as { code: string }).code),
        );
      }
      await until(() => ends.length === WRITES, 'the ends of all writes');
      expect(new Set(ends)).toEqual(new Set(['ETIMEDOUT']));
      expect((await bytesInUse()) - before).toBeLessThan(HIGH_WATER + SLACK);
      await expectNeighboursServed();
      // It reads again, and answers late what was sent: then all goes on.
      dma.setReading(true);
      const done = context!.dma.write(0n, Buffer.from([1]));
      for (let count = MIB; count > 1;) {
        const asked = await dma.command(DMA_WRITE);
        count = asked.payload.readUInt32LE(8);
        dma.reply(asked, w.dmaWriteReply({ count }));
      }
      await done;
    });

    test('a replay waits, and goes on when it reads', async () => {
      const server = await otherReplay({}, { hasTwin, hasBurst: true });
      const { raw, dma } = await comes(server.path);
      dma.setReading(false);
      const before = await bytesInUse();
      raw.post(BURST);
      await turn(100);
      expect((await bytesInUse()) - before).toBeLessThan(HIGH_WATER + SLACK);
      const waiting = strangerAt(server.path);
      await expectNeighboursServed();
      dma.setReading(true);
      for (let i = 0; i < BURST_WRITES; i++) {
        const asked = await dma.command(DMA_WRITE);
        dma.reply(asked, w.dmaWriteReply({ address: 0x1000, count: BURST_BYTES }));
      }
      expect((await raw.take()).errno).toBe(0);
      raw.close();
      expect((await server.report()).differences).toEqual([]);
      // Whoever waited has the place now.
      await waiting.negotiate();
      await expectServed(waiting);
    });

    test('a replay whose requests are never taken says so, and refuses the rest', async () => {
      const options = { answerTimeoutMs: 50, afterDifference: 'refuse' } as const;
      const server = await otherReplay(options, { hasTwin, hasBurst: true });
      const { raw, dma } = await comes(server.path);
      dma.setReading(false);
      raw.post(BURST);
      await until(() => server.progress?.differenceCount === 1, 'the end of its patience');
      await expectNeighboursServed();
      raw.post(LONG_READ);
      dma.setReading(true);
      // What had been sent comes, and no request after it.
      await until(() => raw.inbox.filter(({ flags }) => flags === 0x21).length === 2, 'the refusals');
      expect(dma.inbox.filter(({ command }) => command === DMA_WRITE).length).toBeLessThan(BURST_WRITES);
      raw.close();
      expect(await server.report()).toMatchObject({
        outcome: 'different',
        differences: [{ kind: 'silence', expected: expect.stringContaining('DMA_WRITE') }],
        refused: 2,
      });
    });

    test('servers close all the same', async () => {
      const server = await otherReplay({}, { hasTwin, hasBurst: true });
      const { raw, dma } = await comes(server.path);
      dma.setReading(false);
      raw.post(BURST);
      await flood(raw, w.request(99, Buffer.alloc(16)), 1_000);
      await server.close();
      expect((await server.report()).undelivered).toBe(0);
    });
  },
);
