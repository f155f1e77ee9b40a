/** Small writes that wait for room in flight leave together: REGION_WRITE_MULTI. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection, negotiate } from '../../lib/connection/index.js';
import { decodeUInt32, decodeWritten } from '../../lib/device/region-decoders.js';
import { RamDevice, RamRegister, serve } from '../../lib/emulator/index.js';
import { ClosedError, ProtocolError, RemoteError, TimeoutError, connect } from '../../lib/index.js';
import { Command } from '../../lib/protocol/constants.js';
import { openFd } from '../../lib/transport/index.js';
import { Scratch } from '../cli/cli.js';
import { ScriptedPeer, words, type Received } from '../support/scripted-peer.js';

const WRITE = 10;
const READ = 9;
const MULTI = 15;

let peer: ScriptedPeer;
let connection: Connection;

async function open(capabilities: object, inFlight = 1): Promise<void> {
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd));
  const negotiating = negotiate(connection, { twinSocket: false }, {});
  await peer.handshake({ capabilities });
  await negotiating;
  connection.inFlightLimit = inFlight;
}

beforeEach(() => open({ write_multiple: true }));

afterEach(() => {
  connection.close();
  peer.close();
});

function write(offset: number, body: Uint8Array = words(offset), options?: object): Promise<void> {
  const count = body.byteLength;
  return connection.access(WRITE, 3, offset, count, body, undefined, decodeWritten, options);
}

function read(offset: number): Promise<number> {
  return connection.access(READ, 3, offset, 4, null, undefined, decodeUInt32, undefined);
}

/** The offsets of a REGION_WRITE_MULTI. */
function offsetsOf({ payload }: Received): number[] {
  const count = payload.readUInt32LE(0);
  expect(payload.byteLength).toBe(8 + count * 24);
  return Array.from({ length: count }, (_, i) => payload.readUInt32LE(8 + i * 24));
}

const outcome = (call: Promise<unknown>) =>
  call.then(
    () => 'done',
    (error: unknown) => error,
  );

async function answerFirst(): Promise<void> {
  const first = await peer.expect(WRITE);
  peer.reply(first, first.payload.subarray(0, 16));
}

const done = (count: number) => words([BigInt(count)]);

describe('what goes together', () => {
  test('with room, each write goes alone and at once', async () => {
    connection.inFlightLimit = 128;
    const calls = [0, 4, 8].map((offset) => write(offset));
    for (let i = 0; i < 3; i++) await answerFirst();
    await Promise.all(calls);
  });

  test('those that wait are one message, byte for byte', async () => {
    const calls = [write(0), write(4, Buffer.from([1, 2, 3])), write(8, Buffer.alloc(8, 7))];
    await answerFirst();
    const multi = await peer.expect(MULTI);
    expect(multi.flags).toBe(0);
    expect(multi.payload).toEqual(
      Buffer.concat([words([2n], [4n], 3, 3, 0x030201, 0), words([8n], 3, 8, [0x0707070707070707n])]),
    );
    expect(connection.counters).toMatchObject({ inFlight: 1, queued: 0 });
    peer.reply(multi, done(2));
    await Promise.all(calls);
    expect(connection.counters).toMatchObject({ inFlight: 0, queued: 0, sent: 3 });
  });

  test('the order of all commands is the order of the calls', async () => {
    const calls = [
      write(0),
      write(4),
      write(8),
      read(12),
      write(16),
      write(20, Buffer.alloc(9)),
      write(24),
      write(28),
    ];
    connection.post(Command.REGION_WRITE, 3, 32, 4, words(32));
    calls.push(write(36), write(40));
    const order: (number | number[])[] = [];
    peer.onMessage((asked) => {
      if (asked.command === MULTI) {
        order.push(offsetsOf(asked));
        peer.reply(asked, done(asked.payload.readUInt32LE(0)));
        return;
      }
      order.push(asked.payload.readUInt32LE(0));
      if ((asked.flags & 0x10) !== 0) return;
      const data = asked.command === READ ? words(1) : Buffer.alloc(0);
      peer.reply(asked, Buffer.concat([asked.payload.subarray(0, 16), data]));
    });
    await Promise.all(calls);
    expect(order).toEqual([0, [4, 8], 12, 16, 20, [24, 28], 32, [36, 40]]);
  });

  test('at most 200 in a message', async () => {
    const calls = Array.from({ length: 502 }, (_, i) => write(i * 4));
    await answerFirst();
    const sizes: number[] = [];
    peer.onMessage((asked) => {
      if (asked.command === MULTI) {
        sizes.push(asked.payload.readUInt32LE(0));
        peer.reply(asked, done(sizes.at(-1)!));
      } else peer.reply(asked, asked.payload.subarray(0, 16));
    });
    await Promise.all(calls);
    expect(sizes).toEqual([200, 200, 101]);
  });

  test('never where it was not negotiated', async () => {
    connection.close();
    peer.close();
    await open({});
    const calls = [0, 4, 8].map((offset) => write(offset));
    for (let i = 0; i < 3; i++) await answerFirst();
    await Promise.all(calls);
  });
});

describe('each keeps its own call', () => {
  test('the reply says how many were done: the others fail by name', async () => {
    const calls = [0, 4, 8, 12].map((offset) => outcome(write(offset)));
    await answerFirst();
    peer.reply(await peer.expect(MULTI), done(1));
    const [first, second, third, fourth] = await Promise.all(calls);
    expect([first, second]).toEqual(['done', 'done']);
    expect(third).toBeInstanceOf(RemoteError);
    expect(fourth).toMatchObject({ name: 'RemoteError', command: 'REGION_WRITE_MULTI' });
  });

  test('an error reply fails all of them', async () => {
    const calls = [0, 4, 8].map((offset) => outcome(write(offset)));
    await answerFirst();
    peer.refuse(await peer.expect(MULTI), 22);
    const [, second, third] = await Promise.all(calls);
    expect([second, third]).toMatchObject([{ code: 'EINVAL' }, { code: 'EINVAL' }]);
  });

  test.each([
    ['a count beyond all bounds', done(201)],
    ['a cut reply', words(2)],
    ['an empty reply', Buffer.alloc(0)],
  ])('%s is a ProtocolError for all of them', async (_title, reply) => {
    const calls = [0, 4, 8].map((offset) => outcome(write(offset)));
    await answerFirst();
    peer.reply(await peer.expect(MULTI), reply);
    const [, second, third] = await Promise.all(calls);
    expect(second).toBeInstanceOf(ProtocolError);
    expect(third).toBeInstanceOf(ProtocolError);
    expect(connection.endReason).toBeUndefined();
  });

  test('one given up while it waits is not sent; one given up later was, and the others are answered', async () => {
    const early = new AbortController();
    const late = new AbortController();
    const calls = [
      write(0),
      write(4, words(4), { signal: early.signal }),
      write(8, words(8), { signal: late.signal }),
      write(12, words(12), { timeoutMs: 500 }),
      write(16),
    ].map(outcome);
    early.abort(new Error('early'));
    await answerFirst();
    const multi = await peer.expect(MULTI);
    expect(offsetsOf(multi)).toEqual([8, 12, 16]);
    late.abort(new Error('late'));
    expect(await calls[3]).toBeInstanceOf(TimeoutError);
    peer.reply(multi, done(3));
    expect(await Promise.all(calls)).toMatchObject([
      'done',
      { message: 'early' },
      { message: 'late' },
      { name: 'TimeoutError' },
      'done',
    ]);
    expect(connection.counters).toMatchObject({ inFlight: 0, queued: 0, tombstones: 0 });
  });

  test('when all are given up the message is a tombstone until its late reply', async () => {
    const calls = [0, 4, 8].map((offset) =>
      outcome(write(offset, words(offset), offset === 0 ? {} : { timeoutMs: 500 })),
    );
    await answerFirst();
    const multi = await peer.expect(MULTI);
    expect(await Promise.all(calls)).toMatchObject([
      'done',
      { name: 'TimeoutError' },
      { name: 'TimeoutError' },
    ]);
    expect(connection.counters).toMatchObject({ inFlight: 0, tombstones: 1 });
    const next = write(12);
    peer.reply(multi, done(2));
    await answerFirst();
    await next;
    expect(connection.counters).toMatchObject({ late: 1, tombstones: 0, inFlight: 0 });
  });

  test('deadlines of calls behind the message are kept', async () => {
    const calls = [0, 4, 8].map((offset) => outcome(write(offset, words(offset), { timeoutMs: 500 })));
    await answerFirst();
    await peer.expect(MULTI);
    const behind = outcome(
      connection.access(READ, 3, 0, 4, null, undefined, decodeUInt32, { timeoutMs: 600 }),
    );
    expect(await Promise.all(calls)).toMatchObject([
      'done',
      { name: 'TimeoutError' },
      { name: 'TimeoutError' },
    ]);
    expect(await behind).toBeInstanceOf(TimeoutError);
  });

  test('the end of the connection rejects each once', async () => {
    const calls = [0, 4, 8].map((offset) => outcome(write(offset)));
    await answerFirst();
    await peer.expect(MULTI);
    peer.close();
    const [first, second, third] = await Promise.all(calls);
    expect(first).toBe('done');
    expect(second).toBeInstanceOf(ClosedError);
    expect(third).toBeInstanceOf(ClosedError);
  });
});

describe('against the emulator', () => {
  test.each([true, false])('writeMultiple %p: all arrive, in order', async (writeMultiple) => {
    const scratch = new Scratch();
    const model = new RamDevice({ sharedSize: 0 });
    const names: string[] = [];
    const server = await serve(model, {
      path: scratch.path('socket'),
      writeMultiple,
      intercept: ({ name }) => {
        names.push(name);
        return 'pass';
      },
    });
    const device = await connect(scratch.path('socket'), { inFlight: 2 });
    try {
      const calls = Array.from({ length: 1000 }, (_, i) => device.bar(2).writeUInt32((i % 250) * 4, i));
      await Promise.all(calls);
      for (let i = 0; i < 250; i++) expect(model.ram.readUInt32LE(i * 4)).toBe(750 + i);
      expect(names.includes('REGION_WRITE_MULTI')).toBe(writeMultiple);
      // The third of them is refused by the device: what came before it is done.
      const some = [4, 4, 4, 5, 4].map((offset, i) => outcome(device.bar(0).write(offset, words(i))));
      const results = await Promise.all(some);
      expect(results.slice(0, 3)).toEqual(['done', 'done', 'done']);
      expect(results[3]).toBeInstanceOf(RemoteError);
      expect(await device.bar(0).readUInt32(RamRegister.SCRATCH)).toBe(writeMultiple ? 2 : 4);
    } finally {
      await device.close();
      await server.close();
      model.close();
      scratch.remove();
    }
  });
});
