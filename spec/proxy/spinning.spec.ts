/** A proxy that looks for the next message before it sleeps passes on just what one passes on that never looks. */
import { describe, expect, jest, test } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { RamDma, RamRegister } from '../../lib/emulator/index.js';
import { native } from '../../lib/native.js';
import { RawClient } from '../emulator/raw-client.js';
import { openFds } from '../support/fds.js';
import { message } from '../support/scripted-peer.js';
import { regionReadRequest } from '../support/wire.js';
import { between, cleanup, endOf, faultsOf, proxyTo, scratch, until, withDevice } from './fixture.js';

jest.setTimeout(60_000);

const READ = 9;

test.each([-1, 101, 1.5, NaN])('spinUs of %d is refused', async (spinUs) => {
  const path = scratch().path('front');
  await expect(proxyTo(path, { spinUs })).rejects.toThrow(RangeError);
});

describe.each([0, 1, 50, 100])('looking for %i us', (spinUs) => {
  test('questions and answers by turns, each once and in order', async () => {
    const { client, server } = await between({ spinUs });
    server.onMessage((received) => server.reply(received, received.payload));
    for (let id = 1; id <= 300; id++) {
      client.send(regionReadRequest({ offset: id }, { id }));
      const reply = await client.take((received) => received.id === id, `the reply to ${id}`);
      expect(reply.payload.readUInt32LE(0)).toBe(id);
    }
  });

  test('a message that comes byte by byte goes out whole', async () => {
    const { client, server } = await between({ spinUs });
    const bytes = regionReadRequest({ offset: 0x1234 }, { id: 9 });
    for (let at = 0; at < bytes.length; at++) {
      client.send(bytes.subarray(at, at + 1));
      if (at % 8 === 0) await sleep(1);
    }
    const received = await server.receive();
    expect(received).toMatchObject({ id: 9, command: READ });
    expect(received.payload).toEqual(bytes.subarray(16));
    expect(server.pending).toHaveLength(0);
  });

  test('half a message and then nothing: others are served meanwhile, and the rest completes it', async () => {
    const { open, path } = await withDevice({ spinUs });
    const half = RawClient.connect(path);
    cleanup(() => half.close());
    const bytes = message(1, 1, 0, 0, Buffer.from('\0\0\x01\0{}\0', 'latin1'));
    half.send(bytes.subarray(0, 11));
    const device = await open();
    for (let i = 0; i < 100; i++) {
      await device.bar(2).writeUInt32(i * 4, i);
      expect(await device.bar(2).readUInt32(i * 4)).toBe(i);
    }
    half.send(bytes.subarray(11));
    const reply = await half.take(({ id }) => id === 1, 'the reply to VERSION');
    expect(reply).toMatchObject({ command: 1, errno: 0 });
  });

  test('many clients at once, none of whom pauses: each is answered, and interrupts arrive', async () => {
    const { open } = await withDevice({ spinUs });
    const devices = await Promise.all(Array.from({ length: 12 }, () => open({ timeoutMs: 30_000 })));
    let busy = true;
    const rounds = devices.map(async (device, i) => {
      let count = 0;
      for (; busy; count++) await device.bar(2).writeUInt32(i * 4, count);
      return count;
    });
    const [device] = devices;
    const [vector] = await device!.irqs.msix.enable(1);
    const buffer = await device!.dma.alloc(4096);
    const bar0 = device!.bar(0);
    await bar0.writeUInt64(RamRegister.DMA_SOURCE, buffer.iova);
    await bar0.writeUInt64(RamRegister.DMA_DESTINATION, buffer.iova + 2048n);
    await bar0.writeUInt32(RamRegister.DMA_LENGTH, 16);
    for (let i = 0; i < 20; i++) {
      await bar0.writeUInt32(RamRegister.DMA_COMMAND, RamDma.COPY | RamDma.INTERRUPT);
      expect(await vector.wait({ timeoutMs: 20_000 })).toBe(1);
    }
    busy = false;
    for (const count of await Promise.all(rounds)) expect(count).toBeGreaterThan(0);
  });

  test('the client disconnected while its question is under way', async () => {
    const { client, server, events, proxy } = await between({ spinUs });
    client.send(regionReadRequest({}, { id: 1 }));
    client.close();
    await server.receive();
    await until(() => proxy.counters.open === 0);
    expect(endOf(events)).toMatch(/client/);
    await until(() => server.ended);
  });

  test('the server answers and has gone: the answer arrives, with its fds', async () => {
    const { client, server, proxy } = await between({ spinUs });
    const fd = native().eventfd(0);
    cleanup(() => native().closeFd(fd));
    client.send(regionReadRequest({}, { id: 1 }));
    const question = await server.receive();
    server.reply(question, Buffer.alloc(4), [fd]);
    server.close();
    const reply = await client.take(({ id }) => id === 1, 'the reply');
    expect(reply.fds).toHaveLength(1);
    for (const own of reply.fds) native().closeFd(own);
    client.close();
    await until(() => proxy.counters.open === 0);
  });

  test.each(['delay', 'split', 'disconnect'] as const)('a fault: %s', async (kind) => {
    const second = { command: 'REGION_READ', kind: 'request', nth: 2 } as const;
    const fault = {
      delay: { fault: 'delay', ms: 20, ...second },
      split: { fault: 'split', at: [7], ms: 5, ...second },
      disconnect: { fault: 'disconnect', ...second },
    } as const;
    const { client, server, events, proxy } = await between({ spinUs, faults: [fault[kind]] });
    if (kind !== 'disconnect') server.onMessage((received) => server.reply(received, received.payload));
    for (let id = 1; id <= 3; id++) client.send(regionReadRequest({ offset: id }, { id }));
    if (kind === 'disconnect') {
      await until(() => proxy.counters.open === 0);
    } else {
      for (let id = 1; id <= 3; id++) {
        const reply = await client.take((received) => received.id === id, `the reply to ${id}`);
        expect(reply.payload.readUInt32LE(0)).toBe(id);
      }
    }
    expect(faultsOf(events)).toHaveLength(1);
  });

  test('nothing is left of clients that go while they are looked after', async () => {
    const { path, proxy } = await withDevice({ spinUs });
    const once = async (): Promise<void> => {
      const client = RawClient.connect(path);
      await client.negotiate({ max_msg_fds: 8 });
      for (let id = 50; id < 60; id++) client.send(regionReadRequest({}, { id }));
      client.close();
    };
    await once();
    await until(() => proxy.counters.open === 0);
    const before = openFds();
    for (let i = 0; i < 20; i++) await once();
    await until(() => proxy.counters.open === 0);
    await until(() => openFds() <= before, 'as many fds as before');
  });
});
