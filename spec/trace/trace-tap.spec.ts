import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Duplex, PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { Connection, negotiate } from '../../lib/connection/index.js';
import { connect } from '../../lib/device/connect.js';
import { readToOf, readOf, takeUInt32, writeOf } from '../../lib/device/region-access.js';
import { UnsupportedError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { Command } from '../../lib/protocol/constants.js';
import {
  CaptureReader,
  MESSAGE_CHANNEL,
  TraceTap,
  describe as describeMessage,
  openTap,
  type MessageEvent,
  type TracedMessage,
} from '../../lib/trace/index.js';
import { DuplexTransport, openFd, wholeMessage } from '../../lib/transport/index.js';
import { ScriptedPeer, message, words, type Received } from '../support/scripted-peer.js';
import { dmaReadRequest, regionReadReply } from '../support/wire.js';
import { until } from '../support/until.js';

const SERVER = fileURLToPath(new URL('../support/blocking-server.cjs', import.meta.url));

function socketPair(): [number, number] {
  return native().socketPair() as [number, number];
}

let peer: ScriptedPeer;
let connection: Connection;
let twin: ScriptedPeer | undefined;
let directory: string;
let seen: TracedMessage[];

/** Keeps every message, with its own copy of the bytes. */
function recorder(): TraceTap {
  return new TraceTap([
    {
      message: (traced) =>
        void seen.push({ ...traced, bytes: Buffer.from(traced.bytes), fds: [...traced.fds] }),
      ended: () => undefined,
      close: () => undefined,
    },
  ]);
}

/** `→ REGION_READ`, `← REGION_READ reply`. */
function inWords(traced: TracedMessage): string {
  const { command, kind } = describeMessage(traced.bytes);
  return `${traced.direction === 'sent' ? '→' : '←'} ${command}${kind === 'reply' ? ' reply' : ''}`;
}

function write(offset: number, body: Uint8Array, options?: object): Promise<void> {
  return connection.access(writeOf(0, offset, body), options);
}

function readInto(target: Uint8Array, options?: object): Promise<void> {
  return connection.access(readToOf(0, 0, target), options);
}

function data(request: Received, bytes: Uint8Array): Buffer {
  return Buffer.concat([request.payload.subarray(0, 16), bytes]);
}

beforeEach(() => {
  seen = [];
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-'));
  peer = new ScriptedPeer();
  connection = new Connection(openFd(peer.clientFd), { tap: recorder() });
});

afterEach(() => {
  connection.close();
  peer.close();
  twin?.close();
  twin = undefined;
  rmSync(directory, { recursive: true });
});

describe('a tap hears', () => {
  test('every message whole, in the order on the wire', async () => {
    const calls = [write(0, words(1)), write(4, words(2))];
    const [first, second] = [await peer.receive(), await peer.receive()];
    peer.reply(second, second.payload.subarray(0, 16));
    peer.reply(first, first.payload.subarray(0, 16));
    await Promise.all(calls);
    expect(seen.map(inWords)).toEqual([
      '→ REGION_WRITE',
      '→ REGION_WRITE',
      '← REGION_WRITE reply',
      '← REGION_WRITE reply',
    ]);
    expect(seen.map(({ bytes }) => bytes.readUInt16LE(0))).toEqual([
      first.id,
      second.id,
      second.id,
      first.id,
    ]);
    expect(seen[0]!.bytes).toEqual(message(first.id, 10, 0, 0, first.payload));
    expect(seen.map(({ time }) => time)).toEqual(seen.map(({ time }) => time).sort((a, b) => Number(a - b)));
    expect(seen.every(({ socket, bytes, size }) => socket === connection.peer && bytes.length === size)).toBe(
      true,
    );
  });

  test('a long reply whole, although its data went straight to the caller', async () => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
    const target = Buffer.alloc(bytes.length);
    const call = readInto(target);
    const request = await peer.receive();
    await peer.sendAll(message(request.id, 9, 1, 0, data(request, bytes)));
    await call;
    expect(target.equals(bytes)).toBe(true);
    expect(seen[1]!.bytes.equals(message(request.id, 9, 1, 0, data(request, bytes)))).toBe(true);
  });

  test('of a reply whose caller has gone as much as there is', async () => {
    const call = readInto(Buffer.alloc(200_000), { timeoutMs: 30 });
    const request = await peer.receive();
    const whole = message(request.id, 9, 1, 0, data(request, Buffer.alloc(200_000, 3)));
    await peer.sendAll(whole.subarray(0, 100_000));
    await expect(call).rejects.toThrow('no answer');
    await peer.sendAll(whole.subarray(100_000));
    await until(() => seen.length === 2);
    expect(seen[1]!.size).toBe(whole.length);
    expect(seen[1]!.bytes).toEqual(whole.subarray(0, 32));
  });

  test('fds by their numbers, and the twin socket by a name of its own', async () => {
    twin = new ScriptedPeer();
    const negotiation = negotiate(connection, {}, {});
    await peer.handshake({ capabilities: { twin_socket: { supported: true, fd_index: 0 } } }, [
      twin.clientFd,
    ]);
    expect((await negotiation).twinSocket).toBe(true);
    expect(seen[1]!.fds).toHaveLength(1);
    twin.send(dmaReadRequest({ address: 0x1000, count: 4 }, { id: 9 }));
    await twin.receive();
    expect(seen.map(inWords)).toEqual(['→ VERSION', '← VERSION reply', '← DMA_READ', '→ DMA_READ reply']);
    const name = `${connection.peer} (twin)`;
    expect(seen.map(({ socket }) => socket)).toEqual([connection.peer, connection.peer, name, name]);
  });

  test('nothing of a message that was taken back before a byte of it had gone', async () => {
    peer.setReading(false);
    const bodies = Array.from({ length: 120 }, (_, i) => Buffer.alloc(32_000, i));
    const calls = bodies.map((body, i) => write(i, body, { timeoutMs: 60 }));
    const results = await Promise.allSettled(calls);
    expect(results.every(({ status }) => status === 'rejected')).toBe(true);
    peer.setReading(true);
    const arrived: Buffer[] = [];
    peer.onMessage((received) => arrived.push(received.payload));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(arrived.length).toBeGreaterThan(0);
    expect(arrived.length).toBeLessThan(bodies.length);
    expect(Buffer.concat(seen.map(({ bytes }) => bytes.subarray(16))).equals(Buffer.concat(arrived))).toBe(
      true,
    );
  });

  test('of a question before its answer, also where a stream brings both in one go', async () => {
    connection.close();
    const stream = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        const reply = regionReadReply({ data: [1, 2, 3, 4] }, { id: chunk.readUInt16LE(0) });
        this.push(reply);
        done();
      },
    });
    connection = new Connection((handler) => new DuplexTransport(stream, 'the stream', handler), {
      tap: recorder(),
    });
    await new Promise((resolve) => setImmediate(resolve));
    await readInto(Buffer.alloc(4));
    expect(seen.map(inWords)).toEqual(['→ REGION_READ', '← REGION_READ reply']);
  });

  test('synchronous calls too, and what the server asks meanwhile on its own socket', async () => {
    connection.close();
    const [ours, theirs] = socketPair();
    const requests = [dmaReadRequest({ address: 0x1000, count: 4 }, { id: 9 })];
    const worker = new Worker(SERVER, { workerData: { fd: theirs, twin: socketPair(), requests } });
    const ended = new Promise((resolve) => worker.on('exit', resolve));
    connection = new Connection(openFd(ours), { tap: recorder() });
    expect((await negotiate(connection, {}, {})).twinSocket).toBe(true);
    seen.length = 0;
    connection.accessSync(writeOf(0, 8, words(1)), undefined);
    expect(seen.map(inWords)).toEqual([
      '→ REGION_WRITE',
      '← DMA_READ',
      '→ DMA_READ reply',
      '← REGION_WRITE reply',
    ]);
    connection.close();
    await ended;
  });

  test('what goes on without being changed by that', async () => {
    const scenario = async (tap: TraceTap | undefined): Promise<Buffer[]> => {
      const server = new ScriptedPeer();
      const client = new Connection(openFd(server.clientFd), { tap, inFlight: 3 });
      const arrived: Buffer[] = [];
      server.onMessage((request) => {
        arrived.push(message(request.id, request.command, request.flags, 0, request.payload));
        if (request.command === Command.DMA_READ) return;
        server.send(dmaReadRequest({ address: request.id, count: 1 }, { id: request.id }));
        if ((request.flags & 0x10) === 0) server.reply(request, request.payload.subarray(0, 16));
      });
      const calls = Array.from({ length: 50 }, (_, i) => {
        if (i % 7 === 0) client.post(writeOf(0, i, words(i)));
        return client.access(writeOf(0, i, words(i)), undefined);
      });
      await Promise.all(calls);
      client.close();
      server.close();
      return arrived;
    };
    expect(await scenario(recorder())).toEqual(await scenario(undefined));
    expect(seen.length).toBeGreaterThan(100);
  });
});

describe('what listens', () => {
  async function answerOneRead(): Promise<void> {
    const call = readInto(Buffer.alloc(4));
    const request = await peer.receive();
    peer.reply(request, data(request, words(7)));
    await call;
  }

  test('may fail: its error is uncaught, the connection and other listeners go on', async () => {
    const later: (() => void)[] = [];
    const nextTick = jest.spyOn(process, 'nextTick').mockImplementation(((callback: () => void) => {
      later.push(callback);
    }) as typeof process.nextTick);
    const lines: string[] = [];
    const failing = {
      message: () => {
        throw new Error('a mistake');
      },
      ended: () => undefined,
      close: () => undefined,
    };
    const tap = new TraceTap([failing, { ...failing, message: () => void lines.push('heard') }]);
    tap.sent('socket', wholeMessage(message(1, 13, 0, 0, Buffer.alloc(0))));
    nextTick.mockRestore();
    expect(lines).toEqual(['heard']);
    expect(tap.telling).toBe(false);
    expect(later).toHaveLength(1);
    expect(later[0]).toThrow('a mistake');
  });

  test('cannot block for a message in the middle of one', async () => {
    connection.close();
    peer.close();
    peer = new ScriptedPeer();
    const errors: unknown[] = [];
    const tap = await openTap({
      trace: () => {
        try {
          connection.callSync(Command.DEVICE_RESET, null, null, () => undefined);
        } catch (error) {
          errors.push(error);
        }
      },
    });
    connection = new Connection(openFd(peer.clientFd), { tap });
    await answerOneRead();
    expect(errors).toHaveLength(2);
    for (const error of errors) expect(error).toBeInstanceOf(UnsupportedError);
  });

  test('to the diagnostics channel hears from when it subscribes until it stops', async () => {
    const events: MessageEvent[] = [];
    const listener = (event: unknown): void => void events.push(event as MessageEvent);
    await answerOneRead();
    subscribe(MESSAGE_CHANNEL, listener);
    await answerOneRead();
    unsubscribe(MESSAGE_CHANNEL, listener);
    await answerOneRead();
    expect(events).toHaveLength(2);
    expect(events[1]).toMatchObject({
      socket: connection.peer,
      direction: 'received',
      description: {
        command: 'REGION_READ',
        kind: 'reply',
        fields: { offset: 0, region: 0, count: 4 },
        data: { length: 4, preview: '07000000' },
      },
    });
    expect(events[0]).not.toHaveProperty('latency');
    expect(events[1]!.latency).toBe(events[1]!.time - events[0]!.time);
    // What a subscriber has is its own: the receive buffer has been used again since.
    expect(describeMessage(events[1]!.bytes)).toMatchObject({ data: { preview: '07000000' } });
  });

  test('hears of each message by itself, also where they had been gathered before it came', async () => {
    connection.close();
    peer.close();
    peer = new ScriptedPeer();
    connection = new Connection(openFd(peer.clientFd), { tap: await openTap({}) });
    const events: MessageEvent[] = [];
    const listener = (event: unknown): void => void events.push(event as MessageEvent);
    peer.onMessage((request) => peer.reply(request, data(request, words(7))));
    // The first four go at once, and nobody hears of them.
    const reads = Array.from({ length: 8 }, () => readInto(Buffer.alloc(4)));
    subscribe(MESSAGE_CHANNEL, listener);
    await Promise.all(reads);
    unsubscribe(MESSAGE_CHANNEL, listener);
    const sent = events.filter(({ direction }) => direction === 'sent');
    expect(sent.map(({ description }) => description.malformed)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(sent.map(({ description }) => description.id)).toEqual([4, 5, 6, 7]);
  });

  test('and stops in the middle of a message cannot block for one there, but after it', async () => {
    const errors: unknown[] = [];
    const readSync = (): number => connection.accessSync(readOf(0, 0, 4, takeUInt32), undefined);
    const listener = (): void => {
      unsubscribe(MESSAGE_CHANNEL, listener);
      try {
        readSync();
      } catch (error) {
        errors.push(error);
      }
    };
    connection.close();
    peer.close();
    peer = new ScriptedPeer();
    const tap = await openTap({});
    connection = new Connection(openFd(peer.clientFd), { tap });
    subscribe(MESSAGE_CHANNEL, listener);
    await answerOneRead();
    expect(errors).toEqual([expect.any(UnsupportedError)]);
    expect(tap.active).toBe(false);
    // The first id was the read's.
    peer.send(message(1, Command.REGION_READ, 1, 0, words([0n], 0, 4, 9)));
    expect(readSync()).toBe(9);
  });

  test('on nothing at all makes the tap inactive', async () => {
    const tap = await openTap({});
    expect(tap.active).toBe(false);
    const listener = (): void => undefined;
    subscribe(MESSAGE_CHANNEL, listener);
    expect(tap.active).toBe(true);
    unsubscribe(MESSAGE_CHANNEL, listener);
    expect(tap.active).toBe(false);
  });
});

describe('lines', () => {
  const MIB = 1 << 20;
  const read = regionReadReply({ offset: 0, region: 0, data: [1, 2, 3, 4] });

  /** A tap whose lines go to a stream, and `count` messages. */
  async function linesTo(stream: PassThrough) {
    const tap = await openTap({ trace: stream, capture: false });
    const say = (count: number): void => {
      for (let i = 0; i < count; i++) tap.passed('dev', 'received', read, [], undefined);
    };
    return { tap, say };
  }

  const missing = (text: string): number[] =>
    [...text.matchAll(/^… (\d+) lines? (?:is|are) missing here: /gm)].map(([, count]) => Number(count));

  test('that come faster than they are read are left out from a bound on, and counted in their place', async () => {
    const stream = new PassThrough();
    const { tap, say } = await linesTo(stream);
    say(200_000);
    expect(stream.writableLength + stream.readableLength).toBeLessThan(5 * MIB);
    expect(stream.writableLength + stream.readableLength).toBeGreaterThan(3 * MIB);
    const chunks: string[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk.toString()));
    await until(() => stream.writableLength === 0);
    say(10);
    tap.close();
    stream.end();
    await new Promise((resolve) => stream.once('end', resolve));
    const text = chunks.join('');
    const lines = text.split('\n').slice(0, -1);
    const [left] = missing(text);
    expect(missing(text)).toHaveLength(1);
    expect(lines.length - 1 + left!).toBe(200_010);
    // In their place.
    expect(lines.at(-11)).toMatch(/^… /);
  });

  test('are counted at the end where nothing comes any more', async () => {
    const stream = new PassThrough();
    const { tap, say } = await linesTo(stream);
    say(100_000);
    tap.close();
    tap.close();
    stream.end();
    let text = '';
    for await (const chunk of stream) text += String(chunk);
    const lines = text.split('\n').slice(0, -1);
    expect(missing(lines.at(-1)!)).toEqual([100_000 - lines.length + 1]);
  });

  test('for a reader that keeps up are all there', async () => {
    const stream = new PassThrough();
    const { tap, say } = await linesTo(stream);
    let text = '';
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
    for (let i = 0; i < 200; i++) {
      say(1_000);
      await new Promise(setImmediate);
    }
    tap.close();
    stream.end();
    await new Promise((resolve) => stream.once('end', resolve));
    expect(text.split('\n')).toHaveLength(200_001);
    expect(missing(text)).toEqual([]);
  });
});

describe('connect', () => {
  const device = { flags: 1, regions: [{ size: 4096 }], irqs: [{ count: 1 }] };
  const OPENING = [
    '→ VERSION',
    '← VERSION reply',
    '→ DEVICE_GET_INFO',
    '← DEVICE_GET_INFO reply',
    '→ DEVICE_GET_REGION_INFO',
    '→ DEVICE_GET_IRQ_INFO',
    '← DEVICE_GET_REGION_INFO reply',
    '← DEVICE_GET_IRQ_INFO reply',
  ];
  let server: ScriptedPeer;

  beforeEach(() => {
    server = new ScriptedPeer();
  });
  afterEach(() => server.close());

  function commandsOf(lines: readonly string[]): string[] {
    return lines.map((line) => /([→←]) #\d+ ([A-Z_]+(?: reply)?)/.exec(line)?.slice(1, 3).join(' ') ?? line);
  }

  test('gives a function each line, and tells of the end', async () => {
    const lines: string[] = [];
    const opening = connect({ fd: server.clientFd }, { trace: (line) => lines.push(line) });
    await server.open(device);
    const opened = await opening;
    expect(commandsOf(lines)).toEqual(OPENING);
    server.close();
    await opened.closed;
    expect(lines.at(-1)).toMatch(/ended: the server closed the connection$/);
    await opened.close();
  });

  test('writes lines to a stream', async () => {
    const stream = new PassThrough({ encoding: 'utf8' });
    const opening = connect({ fd: server.clientFd }, { trace: stream });
    await server.open(device);
    await (await opening).close();
    const lines = (stream.read() as string).trimEnd().split('\n');
    expect(commandsOf(lines)).toEqual(OPENING);
    expect(stream.writable).toBe(true);
  });

  test('writes lines to stderr where the environment says so, unless told otherwise', async () => {
    const lines: string[] = [];
    const write = jest.spyOn(process.stderr, 'write').mockImplementation((chunk: string | Uint8Array) => {
      lines.push(String(chunk));
      return true;
    });
    process.env['VFIO_USER_TRACE'] = '1';
    try {
      const opening = connect({ fd: server.clientFd });
      await server.open(device);
      await (await opening).close();
      expect(commandsOf(lines)).toEqual(OPENING);
      const quiet = new ScriptedPeer();
      const again = connect({ fd: quiet.clientFd }, { trace: false });
      await quiet.open(device);
      await (await again).close();
      quiet.close();
      expect(lines).toHaveLength(OPENING.length);
      process.env['VFIO_USER_TRACE'] = '0';
      expect((await openTap({})).active).toBe(false);
    } finally {
      delete process.env['VFIO_USER_TRACE'];
      write.mockRestore();
    }
  });

  test('captures into a file, which is closed with the device', async () => {
    const file = path.join(directory, 'dev.pcapng');
    const lines: string[] = [];
    const opening = connect({ fd: server.clientFd }, { capture: file, trace: (line) => lines.push(line) });
    await server.open(device);
    await (await opening).close();
    const captured: TracedMessage[] = [];
    for await (const traced of new CaptureReader(file)) captured.push(traced);
    expect(captured.map(inWords)).toEqual(OPENING);
    expect(commandsOf(lines)).toEqual(OPENING);
  });

  test('goes on where the capture cannot', async () => {
    const warnings: string[] = [];
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation((warning: string | Error) => {
      warnings.push(String(warning));
    });
    const file = path.join(directory, 'gone', 'dev.pcapng');
    const gone = path.dirname(file);
    const { mkdirSync } = await import('node:fs');
    mkdirSync(gone);
    const opening = connect({ fd: server.clientFd }, { capture: { path: file, rotateBytes: 4096 } });
    await server.open(device);
    const opened = await opening;
    rmSync(gone, { recursive: true });
    server.onMessage((request) => server.reply(request, request.payload.subarray(0, 16)));
    for (let i = 0; i < 100; i++) await opened.region(0).writeUInt32(0, i);
    await opened.close();
    warn.mockRestore();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`the capture ${file} ends here`);
  });

  test('replaces an older capture when there is something to capture, and not before', async () => {
    const file = path.join(directory, 'dev.pcapng');
    writeFileSync(file, 'an older capture');
    await expect(connect(path.join(directory, 'none'), { capture: file })).rejects.toMatchObject({
      code: 'ENOENT',
    });
    expect(readFileSync(file, 'utf8')).toBe('an older capture');
    expect(readdirSync(directory)).toEqual(['dev.pcapng']);
    const opening = connect({ fd: server.clientFd }, { capture: file });
    await server.open(device);
    const opened = await opening;
    const messages: TracedMessage[] = [];
    for await (const traced of new CaptureReader(file)) messages.push(traced);
    expect(messages.map(inWords)).toEqual(OPENING);
    await opened.close();
  });

  test('has a file that no other device captures to', async () => {
    const file = path.join(directory, 'dev.pcapng');
    const opening = connect({ fd: server.clientFd }, { capture: file });
    await server.open(device);
    const opened = await opening;
    await expect(connect(path.join(directory, 'none'), { capture: file })).rejects.toMatchObject({
      code: 'EBUSY',
      message: `another capture goes to ${file}: each needs a file of its own`,
    });
    await opened.close();
    // The file is free again.
    await expect(connect(path.join(directory, 'none'), { capture: file })).rejects.toMatchObject({
      code: 'ENOENT',
    });
    const messages: TracedMessage[] = [];
    for await (const traced of new CaptureReader(file)) messages.push(traced);
    expect(messages.map(inWords)).toEqual(OPENING);
  });

  test('says where another program has taken its place', async () => {
    const file = path.join(directory, 'dev.pcapng');
    const warnings: string[] = [];
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation((warning: string | Error) => {
      warnings.push(String(warning));
    });
    const opening = connect({ fd: server.clientFd }, { capture: file });
    await server.open(device);
    const opened = await opening;
    rmSync(file);
    writeFileSync(file, 'theirs');
    await opened.close();
    warn.mockRestore();
    expect(warnings).toEqual([`the capture ${file} was removed or replaced while it was written`]);
    expect(readFileSync(file, 'utf8')).toBe('theirs');
  });

  test('refuses what makes no sense, before anything is opened', async () => {
    const trace = 'yes' as unknown as boolean;
    await expect(connect(path.join(directory, 'none'), { trace })).rejects.toBeInstanceOf(TypeError);
    await expect(connect(path.join(directory, 'none'), { capture: '' })).rejects.toBeInstanceOf(TypeError);
    await expect(
      connect(path.join(directory, 'none'), { capture: path.join(directory, 'no/dev.pcapng') }),
    ).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' });
    server.close();
  });
});
