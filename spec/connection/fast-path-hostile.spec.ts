/**
 * The short way of small synchronous accesses, with a server that lies and callers who are careless: connections of one
 * thread share its memory, and whoever has left it must find everything as though it had never been taken.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Connection } from '../../lib/connection/index.js';
import { readToOf, readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { ClosedError, ProtocolError, TimeoutError, UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { openFd, type MessageTap } from '../../lib/transport/index.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, message, words } from '../support/scripted-peer.js';

const READ = 9;
const WRITE = 10;
const DMA_READ = 11;
const DMA_WRITE = 12;
/** Address and count, before the bytes of DMA_WRITE. */
const DMA_HEAD = 16;
const REPLY = 1;
const OFFSET = 0x40;
const REGION = 2;
/** A connection uses so many ids before it comes to the first again. */
const IDS = 0x8000;

let peer: ScriptedPeer;
let connection: Connection;
let others: { peer: ScriptedPeer; connection: Connection }[];
let fdsBefore: number;

function echo(count: number): Buffer {
  return words([BigInt(OFFSET)], REGION, count);
}

function answer(value: number, id = 0): Buffer {
  return message(id, READ, REPLY, 0, Buffer.concat([echo(4), words(value)]));
}

function dmaRead(id: number): Buffer {
  return message(id, DMA_READ, 0, 0, words([0n], [4n]));
}

function read(from = connection, timeoutMs = 200): number {
  return from.accessSync(readOf(REGION, OFFSET, 4, takeUInt32), { timeoutMs });
}

function write(body: Uint8Array): void {
  connection.accessSync(writeOf(REGION, OFFSET, body), undefined);
}

function turn(ms = 5): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function another(tap?: MessageTap, timeoutMs?: number): { peer: ScriptedPeer; connection: Connection } {
  const other = new ScriptedPeer();
  const made = { peer: other, connection: new Connection(openFd(other.clientFd), { tap, timeoutMs }) };
  others.push(made);
  return made;
}

beforeAll(() => turn(200));

beforeEach(() => {
  fdsBefore = openFds();
  others = [];
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd));
});

afterEach(async () => {
  for (const made of [{ peer, connection }, ...others]) {
    made.connection.close();
    made.peer.close();
  }
  await turn();
  expect(openFds()).toBe(fdsBefore);
});

describe('another connection', () => {
  test('a call of it from a handler leaves what came on this one alone', async () => {
    const other = another();
    let before: Buffer | undefined;
    let after: Buffer | undefined;
    connection.requestHandler = {
      serve(request) {
        before = Buffer.from(request.bytes.subarray(request.start, request.end));
        const target = Buffer.alloc(100);
        other.connection.accessSync(readToOf(REGION, OFFSET, target), undefined);
        after = Buffer.from(request.bytes.subarray(request.start, request.end));
        request.refuse(22);
      },
    };
    const asked = dmaRead(5);
    // Where this connection's answer stands in its chunk the other server puts one of its own making.
    const forged = message(0, READ, REPLY, 0, Buffer.concat([echo(100), Buffer.alloc(100)]));
    answer(0x666, 0).copy(forged, asked.byteLength);
    other.peer.send(forged);
    peer.send(Buffer.concat([asked, answer(7)]));
    expect(read()).toBe(7);
    expect(after).toEqual(before);
    expect(await peer.receive()).toMatchObject({ command: READ });
    expect(await peer.receive()).toMatchObject({ id: 5, command: DMA_READ, errno: 22 });
  });

  test('what the handler asks of its own connection is refused, and nothing is lost', () => {
    let refused: unknown;
    connection.requestHandler = {
      serve(request) {
        try {
          read();
        } catch (error) {
          refused = error;
        }
        request.refuse(22);
      },
    };
    peer.send(Buffer.concat([dmaRead(5), answer(7)]));
    expect(read()).toBe(7);
    expect(refused).toBeInstanceOf(UnsupportedError);
    expect(connection.counters).toMatchObject({ inFlight: 0, refused: 1, unknown: 0 });
  });

  test('the end of one in the middle of an answer is not the end of the other', () => {
    const other = another();
    peer.send(answer(8).subarray(0, 20));
    peer.close();
    other.peer.send(answer(7));
    expect(() => read()).toThrow(ClosedError);
    expect(read(other.connection)).toBe(7);
  });
});

describe('a twin socket', () => {
  let twin: ScriptedPeer;
  let memory: Buffer;

  function dmaWrite(id: number, bytes: Buffer): Buffer {
    return message(id, DMA_WRITE, 0, 0, Buffer.concat([words([0n], [BigInt(bytes.byteLength)]), bytes]));
  }

  beforeEach(() => {
    twin = new ScriptedPeer();
    others.push({ peer: twin, connection });
    connection.attachTwin(openFd(twin.clientFd));
    memory = Buffer.alloc(16);
    connection.requestHandler = {
      serve(request) {
        const { bytes, start, end } = request;
        bytes.copy(memory, 0, start + DMA_HEAD, end);
        request.refuse(22);
      },
    };
  });

  test('what the server wrote before it answered is there when the read returns', async () => {
    twin.send(dmaWrite(5, Buffer.from('pushed by a read')));
    peer.send(answer(7));
    expect(read()).toBe(7);
    expect(memory.toString()).toBe('pushed by a read');
    expect(await twin.receive()).toMatchObject({ id: 5, command: DMA_WRITE, errno: 22 });
  });

  test('its requests are served while nothing is answered, and the call has its time', async () => {
    twin.send(dmaWrite(5, Buffer.from('served meanwhile')));
    const began = performance.now();
    expect(() => read(connection, 100)).toThrow(TimeoutError);
    expect(performance.now() - began).toBeGreaterThan(89);
    expect(memory.toString()).toBe('served meanwhile');
    expect(await twin.receive()).toMatchObject({ id: 5, command: DMA_WRITE });
  });

  test('a request that has come in part does not hold up the answer', () => {
    twin.send(dmaWrite(5, Buffer.from('sixteen letters.')).subarray(0, 20));
    peer.send(answer(7));
    expect(read()).toBe(7);
    peer.send(answer(8, 1));
    expect(read()).toBe(8);
    twin.send(dmaWrite(5, Buffer.from('sixteen letters.')).subarray(20));
    peer.send(answer(9, 2));
    expect(read()).toBe(9);
    expect(memory.toString()).toBe('sixteen letters.');
  });

  test('that ends with the answer lets the answer through; the next call says so', () => {
    peer.send(answer(7));
    twin.close();
    expect(read()).toBe(7);
    expect(() => read()).toThrow(ClosedError);
  });

  test('what its handler throws comes out of the call, and the connection ends', () => {
    connection.requestHandler = {
      serve() {
        throw new Error('a handler of the test');
      },
    };
    twin.send(dmaWrite(5, Buffer.from('sixteen letters.')));
    peer.send(answer(7));
    expect(() => read()).toThrow('a handler of the test');
    expect(() => read()).toThrow(ClosedError);
  });
});

describe('who listens', () => {
  test('and stops listening, and asks then, is refused as before; not a byte is lost', async () => {
    let active = true;
    let telling = false;
    let refused: unknown;
    const served: number[] = [];
    const ignore = (): void => undefined;
    const made = another({
      get active() {
        return active || telling;
      },
      get telling() {
        return telling;
      },
      sent: ignore,
      interrupt: ignore,
      ended: ignore,
      received() {
        telling = true;
        active = false;
        made.peer.send(dmaRead(6).subarray(0, 20));
        try {
          read(made.connection);
        } catch (error) {
          refused = error;
        }
        telling = false;
      },
    });
    made.connection.requestHandler = {
      serve(request) {
        served.push(request.id);
        request.refuse(22);
      },
    };
    made.peer.send(dmaRead(5));
    await turn(20);
    made.peer.send(dmaRead(6).subarray(20));
    await turn(20);
    expect(refused).toBeInstanceOf(UnsupportedError);
    expect(served).toEqual([5, 6]);
    made.peer.send(answer(7));
    expect(read(made.connection)).toBe(7);
  });
});

describe('a socket that is full', () => {
  /** To the last message: the next one finds no room for its first byte. */
  function fill(): void {
    const copy = native().dupFd(peer.clientFd);
    const socket = new (native().Socket)(copy, () => undefined);
    const posted = message(0x8000, WRITE, 0x10, 0, Buffer.concat([echo(4064), Buffer.alloc(4064)]));
    peer.setReading(false);
    while (
      native().send(socket.handle, posted, posted.byteLength, null, 0, 0, 0, null) === posted.byteLength
    );
    socket.close();
  }

  async function drain(): Promise<void> {
    peer.setReading(true);
    for (let count = -1; count !== peer.pending.length; await turn(20)) count = peer.pending.length;
    while (peer.pending[0]?.command === WRITE) await peer.receive();
  }

  test('a call goes out when there is room', async () => {
    fill();
    expect(() => read(connection, 60)).toThrow(TimeoutError);
    expect(connection.counters).toMatchObject({ inFlight: 0, tombstones: 0 });
    await drain();
    expect(peer.pending).toHaveLength(0);
    // The id that was taken back rests.
    peer.send(answer(7, 1));
    expect(read()).toBe(7);
  });

  test('what was to go behind a call that was taken back goes, and so do later calls', async () => {
    connection.requestHandler = { serve: (request) => request.refuse(22) };
    fill();
    peer.send(dmaRead(5));
    expect(() => read(connection, 60)).toThrow(TimeoutError);
    await drain();
    expect(await peer.receive()).toMatchObject({ id: 5, command: DMA_READ, errno: 22 });
    const later = connection.access(readOf(REGION, OFFSET, 4, takeUInt32), undefined);
    const { id } = await peer.receive();
    peer.send(answer(7, id));
    expect(await later).toBe(7);
  });
});

describe('ids', () => {
  test('come round, none twice at once and none lost', async () => {
    const reads = IDS + 300;
    for (let i = 0; i < reads; i++) {
      peer.send(answer(i, i % IDS));
      if (read() !== i) throw new Error(`read ${i} has the answer of another`);
      // More does not fit into the socket.
      if (i % 128 === 0) await turn();
    }
    expect(connection.counters).toMatchObject({ inFlight: 0, tombstones: 0, unknown: 0 });
    await turn();
    expect(peer.pending.map(({ id }) => id)).toEqual(Array.from({ length: reads }, (_, i) => i % IDS));
  });

  test('of calls that were refused by their decoder come back', () => {
    for (let i = 0; i < 200; i++) {
      peer.send(message(i, READ, REPLY, 0, echo(4)));
      expect(() => read()).toThrow(ProtocolError);
    }
    peer.send(answer(7, 200));
    expect(read()).toBe(7);
  });

  test('an answer that comes twice is seen to be one', () => {
    peer.send(answer(1, 0));
    expect(read()).toBe(1);
    peer.send(answer(1, 0));
    peer.send(answer(2, 1));
    expect(read()).toBe(2);
    expect(connection.counters).toMatchObject({ unknown: 1, inFlight: 0 });
  });

  test('1,024 calls may be given up; more wait, and when nothing is answered then the connection ends', () => {
    const { peer: silent, connection: waiting } = another(undefined, 100);
    for (let i = 0; i < 1_024; i++) expect(() => read(waiting, 0.01)).toThrow(TimeoutError);
    expect(waiting.counters).toMatchObject({ tombstones: 1_024, inFlight: 0 });
    expect(() => read(waiting, 0.01)).toThrow(/not sent: 1024 commands without an answer/);
    expect(waiting.counters).toMatchObject({ tombstones: 1_024, sent: 1_024 });
    expect(() => read(waiting, 5_000)).toThrow(ClosedError);
    expect(waiting.counters).toMatchObject({ tombstones: 0 });
    expect(silent.ended).toBe(false);
  });
});

describe('deadlines', () => {
  test.each([0, -1, NaN, -Infinity])('%d is refused before anything is sent', (timeoutMs) => {
    expect(() => read(connection, timeoutMs)).toThrow(RangeError);
    expect(connection.counters).toMatchObject({ sent: 0, inFlight: 0 });
    peer.send(answer(7));
    expect(read()).toBe(7);
  });

  test.each([0.5, 1, 49, 50, 51, 100.5])('%d ms pass before the call is given up', (timeoutMs) => {
    const began = performance.now();
    expect(() => read(connection, timeoutMs)).toThrow(TimeoutError);
    // Timers of the kernel's that are rounded may end a little early.
    expect(performance.now() - began).toBeGreaterThan(timeoutMs * 0.9 - 1);
  });

  test('Infinity waits for the answer', () => {
    peer.send(answer(7));
    expect(read(connection, Infinity)).toBe(7);
  });

  test('answers that nobody asked for, more than are handled in a turn, do not answer the call', async () => {
    peer.send(Buffer.concat(Array.from({ length: 200 }, () => answer(9, 0x7000))));
    expect(() => read(connection, 60)).toThrow(TimeoutError);
    expect(connection.counters).toMatchObject({ unknown: 200, tombstones: 1 });
    peer.send(answer(8, 0));
    await turn();
    expect(connection.counters).toMatchObject({ late: 1, tombstones: 0 });
  });
});

describe('memory of the caller', () => {
  test('that is shared between threads goes out, and is read into', async () => {
    const body = new Uint8Array(new SharedArrayBuffer(32)).fill(3);
    peer.send(message(0, WRITE, REPLY, 0, echo(32)));
    write(body);
    expect((await peer.receive()).payload).toEqual(Buffer.concat([echo(32), Buffer.alloc(32, 3)]));
    const target = new Uint8Array(new SharedArrayBuffer(4));
    peer.send(answer(0x01020304, 1));
    connection.accessSync(readToOf(REGION, OFFSET, target), undefined);
    expect([...target]).toEqual([4, 3, 2, 1]);
  });

  test('that is gone is refused, and the connection goes on', () => {
    const body = new Uint8Array(8);
    structuredClone(body.buffer, { transfer: [body.buffer] });
    expect(() => write(body)).toThrow(expect.objectContaining({ name: 'TypeError' }));
    expect(connection.counters).toMatchObject({ sent: 0, inFlight: 0 });
    // With the next id: the first was for the call that was refused.
    peer.send(answer(7, 1));
    expect(read()).toBe(7);
  });
});

test('fds come with half an answer, and with its rest: all are closed', async () => {
  const fd = native().eventfd(0);
  peer.send(answer(7).subarray(0, 20), [fd, fd]);
  expect(() => read(connection, 60)).toThrow(TimeoutError);
  peer.send(answer(7).subarray(20), [fd]);
  await turn(20);
  native().closeFd(fd);
  expect(connection.counters).toMatchObject({ late: 1, tombstones: 0 });
  // The pair of sockets.
  expect(openFds()).toBe(fdsBefore + 2);
});

test('fds that come with each of many answers are closed', () => {
  const fd = native().eventfd(0);
  for (let i = 0; i < 300; i++) {
    peer.send(answer(i, i), [fd, fd]);
    expect(read()).toBe(i);
  }
  native().closeFd(fd);
  expect(openFds()).toBe(fdsBefore + 2);
});
