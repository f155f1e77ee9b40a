/** What passes, and what becomes of the sides when one of them ends. */
import { describe, expect, jest, test } from '@jest/globals';
import { existsSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { RamDma, RamRegister } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { proxy } from '../../lib/proxy/index.js';
import { RawClient } from '../emulator/raw-client.js';
import { openFds } from '../support/fds.js';
import { ScriptedPeer, message } from '../support/scripted-peer.js';
import {
  deviceResetRequest,
  dmaMapRequest,
  regionReadRequest,
  regionWriteRequest,
  setIrqsRequest,
  versionRequest,
} from '../support/wire.js';
import { between, cleanup, endOf, proxyTo, scratch, until, withDevice } from './fixture.js';

jest.setTimeout(60_000);

describe('our own client through a proxy', () => {
  test('registers, mappings, interrupts, DMA by fd and by message, reset', async () => {
    const { open, proxy: server } = await withDevice();
    const device = await open();
    expect(device.negotiated.twinSocket).toBe(true);
    await device.enable();
    await device.bar(2).write(0, Buffer.alloc(40_000, 0x5a));
    expect((await device.bar(2).read(0, 40_000)).equals(Buffer.alloc(40_000, 0x5a))).toBe(true);
    using mapped = device.bar(1).map(0x1000, 0x1000);
    mapped.storeUInt32(0, 0xcafe);
    expect(await device.bar(1).readUInt32(0x1000)).toBe(0xcafe);
    const [vector] = await device.irqs.msix.enable(1);
    for (const share of [true, false]) {
      const source = await device.dma.alloc(8192, { share });
      const target = await device.dma.alloc(8192, { share });
      source.bytes.fill(share ? 1 : 2);
      const bar0 = device.bar(0);
      await bar0.writeUInt64(RamRegister.DMA_SOURCE, source.iova);
      await bar0.writeUInt64(RamRegister.DMA_DESTINATION, target.iova);
      await bar0.writeUInt32(RamRegister.DMA_LENGTH, 8192);
      await bar0.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY | RamDma.INTERRUPT);
      expect(await vector.wait({ timeoutMs: 5_000 })).toBe(1);
      expect(target.bytes.equals(source.bytes)).toBe(true);
      await source.free();
      await target.free();
    }
    await device.reset();
    await device.close();
    await until(() => server.counters.open === 0);
    expect(server.counters).toMatchObject({ clients: 1, refused: 0, faults: 0 });
    // The twin socket, a mapping; an eventfd and DMA memory.
    expect(server.counters.toClient.fds).toBeGreaterThanOrEqual(2);
    expect(server.counters.toServer.fds).toBeGreaterThanOrEqual(2);
  });

  test('migration', async () => {
    const from = await withDevice({}, { ram: { sharedSize: 0, migration: 'pre-copy' } });
    const to = await withDevice({}, { ram: { sharedSize: 0, migration: 'pre-copy' } });
    const source = await from.open();
    const destination = await to.open();
    from.model.ram.fill(0x37);
    const stream = source.migration.save();
    const restore = destination.migration.restore();
    stream.pipe(restore);
    await once(restore, 'finish');
    expect(to.model.ram.equals(from.model.ram)).toBe(true);
  });

  test('the twin socket is seen, or passed on by option', async () => {
    for (const twinSocket of ['interpose', 'pass'] as const) {
      const { open, proxy: server } = await withDevice({ twinSocket });
      const device = await open({ secureDma: true });
      expect(device.negotiated.twinSocket).toBe(true);
      const buffer = await device.dma.alloc(4096);
      const before = server.counters.toClient.messages;
      await device.bar(0).writeUInt64(RamRegister.DMA_SOURCE, buffer.iova);
      await device.bar(0).writeUInt64(RamRegister.DMA_DESTINATION, buffer.iova + 2048n);
      await device.bar(0).writeUInt32(RamRegister.DMA_LENGTH, 16);
      await device.bar(0).writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY);
      // Four replies, and the device's read and write.
      expect(server.counters.toClient.messages - before).toBe(twinSocket === 'interpose' ? 6 : 4);
    }
  });

  test('a thousand pipelined reads, each with its own answer', async () => {
    const { open, model } = await withDevice();
    const device = await open();
    for (let i = 0; i < 1000; i++) model.ram.writeUInt32LE(i * 7, i * 4);
    const values = await Promise.all(Array.from({ length: 1000 }, (_, i) => device.bar(2).readUInt32(i * 4)));
    expect(values).toEqual(Array.from({ length: 1000 }, (_, i) => i * 7));
  });

  test('several clients one after another and at once, each with its own connection', async () => {
    const { open, proxy: server, events } = await withDevice({ maxClients: 3 });
    const three = await Promise.all([open(), open(), open()]);
    expect(server.counters).toMatchObject({ clients: 3, open: 3 });
    const fourth = open({ timeoutMs: 20_000 });
    await Promise.all(three.map((device, i) => device.bar(2).writeUInt32(i * 4, i + 1)));
    await three[1].close();
    expect(await (await fourth).bar(2).readUInt32(4)).toBe(2);
    expect(await three[0].bar(2).readUInt32(8)).toBe(3);
    for (let i = 0; i < 3; i++) await three[i]!.close();
    await (await fourth).close();
    await until(() => server.counters.open === 0);
    expect(events.filter(({ type }) => type === 'ended')).toHaveLength(4);
  });

  test('nothing is left of fifty clients', async () => {
    const { path, proxy: server } = await withDevice({ trace: () => undefined });
    const fd = native().eventfd(0);
    cleanup(() => native().closeFd(fd));
    const once = async (): Promise<void> => {
      const client = RawClient.connect(path);
      const { fds } = await client.negotiate({ max_msg_fds: 8, twin_socket: { supported: true } });
      expect(fds).toHaveLength(1);
      // MSI-X, vectors 0 to 3, by eventfd.
      const vectors = { flags: 0x24, index: 2, start: 0, count: 4 };
      await client.answer(setIrqsRequest(vectors), [fd, fd, fd, fd]);
      expect(await client.refusal(setIrqsRequest({ ...vectors, start: 9 }), [fd, fd, fd, fd])).toBe(22);
      for (const twin of fds) native().closeFd(twin);
      client.close();
    };
    await once();
    await until(() => server.counters.open === 0);
    const before = openFds();
    for (let i = 0; i < 50; i++) await once();
    await until(() => server.counters.open === 0);
    await until(() => openFds() <= before, 'as many fds as before');
  });
});

describe('bytes and fds', () => {
  test('an fd arrives with the message that it belongs to, also in a burst', async () => {
    const { client, server } = await between();
    const fds = [native().eventfd(0), native().eventfd(0)];
    cleanup(() => fds.forEach((fd) => native().closeFd(fd)));
    client.send(regionReadRequest({}, { id: 1 }));
    client.send(dmaMapRequest({}, { id: 2 }), [fds[0]!]);
    client.send(regionReadRequest({}, { id: 3 }));
    client.send(dmaMapRequest({}, { id: 4 }), fds);
    const counts: number[] = [];
    for (let i = 0; i < 4; i++) {
      const { fds: came } = await server.receive();
      counts.push(came.length);
      for (const fd of came) native().closeFd(fd);
    }
    // The scripted peer gives fds to the first message that it cuts after they came.
    expect(counts.reduce((sum, count) => sum + count)).toBe(3);
    const [asked] = [await (client.post(deviceResetRequest()), server.receive())];
    server.reply(asked, Buffer.alloc(0), [fds[0]!]);
    const { fds: back } = await client.take();
    expect(back).toHaveLength(1);
    for (const fd of back) native().closeFd(fd);
  });

  test('messages in pieces arrive whole, in one piece each', async () => {
    const { client, server } = await between();
    const bytes = regionWriteRequest({ offset: 5, data: Buffer.alloc(64, 9) }, { id: 9 });
    for (const byte of bytes) client.send(Buffer.of(byte));
    expect(await server.receive()).toMatchObject({ id: 9, payload: bytes.subarray(16) });
  });

  test('a message of 1 MiB', async () => {
    const { client, server } = await between();
    client.post(regionReadRequest({ count: 1 << 20 }));
    const asked = await server.receive();
    const data = Buffer.alloc((1 << 20) + 16, 3);
    await server.sendAll(message(asked.id, asked.command, 1, 0, data));
    expect((await client.take()).payload.equals(data)).toBe(true);
  });

  test('a side that does not read stops the other, and memory stays as it is', async () => {
    const { client, server, proxy: proxied } = await between();
    server.setReading(false);
    const bytes = regionWriteRequest({ data: Buffer.alloc(30_000) });
    let sent = 0;
    // Until nothing has been taken for a while.
    for (let idle = 0; idle < 50; idle++) {
      try {
        for (;;) {
          client.post(bytes);
          sent++;
          idle = 0;
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      if (sent > 5_000) throw new Error('the proxy takes everything');
    }
    // What the sockets hold on both sides, a chunk, and a message.
    const held = proxied.counters.toServer.bytes;
    expect(held).toBeLessThan(2_000_000);
    server.setReading(true);
    await until(() => server.pending.length >= sent - 1, 'the rest');
  });
});

describe('what makes no sense', () => {
  const nonsense = message(1, 9, 0, 0, Buffer.alloc(4));
  nonsense.writeUInt32LE(0xffff_ffff, 4);

  test('a size beyond all bounds ends the connection by name, and the proxy goes on', async () => {
    const { open, path, events } = await withDevice();
    const client = RawClient.connect(path);
    cleanup(() => client.close());
    client.send(nonsense);
    await client.end();
    expect(endOf(events)).toBe(
      'a message header of the client says 4294967295 bytes; a message has 16 to 1052672',
    );
    // It listens on.
    expect(await (await open()).bar(0).readUInt32(RamRegister.IDENTIFICATION)).toBe(0x314d4152);
  });

  test('or passes as it is, by option, and says so', async () => {
    const { client, server, events } = await between({ malformed: 'pass' });
    const seen: Buffer[] = [];
    server.onMessage(({ payload }) => seen.push(payload));
    client.send(deviceResetRequest());
    const text = Buffer.from('GET / HTTP/1.1\r\n\r\n and the like');
    client.send(text);
    await until(() => events.some(({ type }) => type === 'notice'));
    server.send(Buffer.from(text));
    client.close();
    await until(() => server.ended);
    expect(events).toContainEqual({
      type: 'notice',
      client: 1,
      text: 'the client sends data that is not a message: it is forwarded unchanged, and not traced',
    });
  });
});

describe('ends', () => {
  test('a server that ends: what it said is delivered first, then the client is told', async () => {
    const { client, server, events } = await between();
    client.post(deviceResetRequest());
    server.reply(await server.receive());
    server.send(message(7, 9, 1, 0, Buffer.alloc(5000)).subarray(0, 3000));
    server.close();
    await client.end();
    expect(client.inbox).toHaveLength(1);
    await until(() => endOf(events) === 'the server closed its end');
  });

  test('a client that ends: what it said is delivered first, then the server is told', async () => {
    const { client, server, events } = await between();
    for (let i = 0; i < 5; i++) client.post(regionWriteRequest({ data: Buffer.alloc(100) }));
    client.close();
    await until(() => server.ended);
    expect(server.pending).toHaveLength(5);
    await until(() => endOf(events) === 'the client closed its end');
  });

  test('a client that has said its last still hears the answers', async () => {
    const server = new ScriptedPeer();
    cleanup(() => server.close());
    const { path, events } = await proxyTo({ dial: () => server.clientFd });
    const client = connectTcp({ path, allowHalfOpen: true });
    const heard: Buffer[] = [];
    client.on('data', (chunk) => heard.push(chunk));
    client.end(deviceResetRequest({ id: 4 }));
    const asked = await server.receive();
    await until(() => server.ended);
    server.reply(asked);
    await until(() => heard.length > 0);
    expect(Buffer.concat(heard)).toEqual(message(4, 13, 1, 0, Buffer.alloc(0)));
    expect(endOf(events)).toBeUndefined();
    server.close();
    await once(client, 'end');
    client.destroy();
    await until(() => endOf(events) !== undefined);
  });

  test('a half-closed client that then goes altogether ends it, though the server never does', async () => {
    const server = new ScriptedPeer();
    cleanup(() => server.close());
    const { path, events } = await proxyTo({ dial: () => server.clientFd });
    const client = connectTcp({ path, allowHalfOpen: true });
    client.end(deviceResetRequest());
    await until(() => server.ended);
    client.destroy();
    await until(() => endOf(events) === 'the client closed its end');
  });

  test('a client whose upstream is not there is closed, by name', async () => {
    const missing = scratch().path('nobody');
    const { path, events, proxy: server } = await proxyTo(missing);
    await expect(connect(path)).rejects.toMatchObject({
      code: expect.stringMatching(/CLOSED|EPIPE|ECONNRESET/),
    });
    await until(() => endOf(events)?.startsWith(`connect: ENOENT (${missing} does not exist; `) === true);
    expect(server.counters).toMatchObject({ clients: 1, open: 0, refused: 1 });
  });

  test('a dial that hangs is given up in time', async () => {
    const { path, events } = await proxyTo(
      { dial: () => new Promise(() => {}), name: 'nowhere' },
      { timeoutMs: 50 },
    );
    const client = RawClient.connect(path);
    cleanup(() => client.close());
    client.post(versionRequest());
    await client.end();
    expect(endOf(events)).toBe('connect to nowhere: no answer within 50 ms');
  });

  test('closing the proxy ends all, removes its socket, and leaves no fds', async () => {
    const before = openFds();
    const { open, proxy: server, path, events } = await withDevice();
    const device = await open();
    await server.close();
    await server.close();
    expect(existsSync(path)).toBe(false);
    expect((await device.closed).code).toBe('ERR_VFIO_USER_CLOSED');
    expect(endOf(events)).toBe('the proxy was closed');
    await expect(connect(path)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(before).toBeLessThan(openFds() + 1);
  });
});

describe('where fds do not pass', () => {
  test('a TCP client of a Unix server: messages go without, and it works', async () => {
    const { devicePath } = await withDevice();
    const front = await proxy({
      listen: { port: 0 },
      connect: devicePath,
    });
    cleanup(() => front.close());
    const [host, port] = front.address.split(':');
    const device = await connect({ stream: connectTcp(Number(port), host) });
    await device.bar(2).write(0, Buffer.alloc(20_000, 4));
    expect((await device.bar(2).read(0, 20_000)).equals(Buffer.alloc(20_000, 4))).toBe(true);
    await device.close();
    await until(() => front.counters.open === 0);
  });

  test('fds for a TCP client end at the proxy, and that is said', async () => {
    const server = new ScriptedPeer();
    cleanup(() => server.close());
    const events: unknown[] = [];
    const front = await proxy({
      listen: { port: 0 },
      connect: { dial: () => server.clientFd },
      onEvent: (event) => events.push(event),
    });
    cleanup(() => front.close());
    const [host, port] = front.address.split(':');
    const client = connectTcp(Number(port), host);
    cleanup(() => client.destroy());
    client.write(deviceResetRequest());
    const asked = await server.receive();
    const fd = native().eventfd(0);
    const before = openFds();
    server.reply(asked, Buffer.alloc(0), [fd]);
    await once(client, 'data');
    expect(openFds()).toBe(before);
    native().closeFd(fd);
    expect(front.counters.toClient).toMatchObject({ messages: 1, fds: 0, droppedFds: 1 });
    expect(events).toContainEqual(
      expect.objectContaining({
        type: 'notice',
        text: expect.stringContaining('cannot receive file descriptors'),
      }),
    );
  });

  test('a Unix client of a TCP server', async () => {
    const { devicePath } = await withDevice();
    const sockets: Socket[] = [];
    const relay = createServer((socket) => {
      const inner = connectTcp(devicePath);
      sockets.push(socket, inner);
      for (const each of [socket, inner]) each.on('error', () => undefined);
      socket.pipe(inner).pipe(socket);
    });
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    cleanup(() => {
      for (const socket of sockets) socket.destroy();
      relay.close();
    });
    const { port } = relay.address() as { port: number };
    const dial = (): Socket => connectTcp(port, '127.0.0.1');
    const { path } = await proxyTo({ dial, name: 'tcp' });
    const device = await connect(path, { twinSocket: false, inFlight: 1 });
    expect(await device.bar(0).readUInt32(RamRegister.IDENTIFICATION)).toBe(0x314d4152);
    await device.close();
  });
});

describe('options that make no sense', () => {
  test.each<[object, RegExp]>([
    [{ listen: 5 }, /proxy: listen must be an address/],
    [{ connect: 5 }, /proxy: connect must be an address/],
    [{ listen: { port: 70_000 } }, /port must be an unsigned 16-bit integer/],
    [{ maxClients: 0 }, /maxClients/],
    [{ maxMessageBytes: 15 }, /maxMessageBytes/],
    [{ timeoutMs: 0 }, /timeoutMs/],
    [{ twinSocket: 'maybe' }, /proxy: twinSocket must be 'interpose' or 'pass'/],
    [{ malformed: 'maybe' }, /proxy: malformed must be 'close' or 'pass'/],
    [{ faults: [{ fault: 'no' }] }, /faults\[0\]\.fault is "no"/],
    [{ listen: '/tmp/x/../same', connect: '/tmp/same' }, /cannot listen where its server is/],
  ])('%j', async (options, reason) => {
    const before = openFds();
    await expect(proxy({ listen: '\0vfio-user-spec', connect: '\0nobody', ...options })).rejects.toThrow(
      reason,
    );
    expect(openFds()).toBe(before);
  });

  test('a path that somebody listens on', async () => {
    const { path } = await proxyTo('\0nobody');
    await expect(proxy({ listen: path, connect: '\0nobody' })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    const listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const { port } = listener.address() as { port: number };
    await expect(proxy({ listen: { port }, connect: '\0nobody' })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    listener.close();
  });
});
