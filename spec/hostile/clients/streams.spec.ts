/** Headers that make no sense, and streams that stop, crawl or end, at each of the servers. */
import { describe, expect, jest, test } from '@jest/globals';
import { constants } from 'node:os';
import { RamDma, RamRegister } from '../../../lib/emulator/index.js';
import { ProtocolError } from '../../../lib/errors.js';
import type { RawClient, Received } from '../../emulator/raw-client.js';
import * as w from '../../support/wire.js';
import {
  ALL_SERVERS,
  PAGE,
  SERVERS,
  client,
  eventfd,
  expectNeighboursServed,
  expectServed,
  keepPromises,
  outcomeOf,
  stranger,
  turn,
  until,
  whyItEnded,
  type Outcome,
  type Where,
} from './session.js';

jest.setTimeout(60_000);
keepPromises();

const { EIO } = constants.errno;
const [DMA_READ, DMA_WRITE] = [11, 12];
const MOST = 0xffff_ffff;
const IDENTIFICATION = w.regionReadRequest({ count: 4 });

function request(envelope: w.Envelope): Buffer {
  return w.regionReadRequest({ count: 4 }, envelope);
}

/** Sends the same bytes as often as the socket takes them, at most `most` times. */
function sendAway(raw: RawClient, bytes: Buffer, most: number): void {
  try {
    for (let sent = 0; sent < most; sent++) raw.send(bytes);
  } catch {
    // It is full.
  }
}

describe.each(ALL_SERVERS)('a header at the %s', (where) => {
  test.each<[string, w.Envelope, Outcome]>([
    ['of size 0', { size: 0 }, 'closed'],
    ['of size 15', { size: 15 }, 'closed'],
    ['of size 2^31', { size: 2 ** 31 }, 'closed'],
    ['of size 2^32-1', { size: MOST }, 'closed'],
    ['of type 2', { flags: 2 }, 'closed'],
    ['of type 15', { flags: 15 }, 'closed'],
    ['of a reply that nobody waits for', { flags: 1 }, 'closed'],
    ['of an error reply that nobody waits for', { flags: 0x21, errno: 5 }, 'closed'],
    ['with Error in a request', { flags: 0x20, errno: 5 }, 'ok'],
    ['with an errno and no Error', { errno: MOST }, 'ok'],
    ['with all reserved bits', { flags: 0xffff_ffc0 }, 'ok'],
  ])('%s', async (_name, envelope, outcome) => {
    const raw = await client(where);
    // What is recorded has no such flags.
    const expected = outcome === 'ok' && where === 'replay' ? EIO : outcome;
    expect(await outcomeOf(raw, request(envelope))).toBe(expected);
    if (expected !== 'closed') await expectServed(raw);
    else expect(await whyItEnded()).toHaveProperty('name');
  });

  test('with fds and no good size leaves none of them', async () => {
    const raw = await client(where);
    raw.send(request({ size: 3 }), [eventfd(), eventfd()]);
    await raw.end();
  });

  test('with No_reply is done and not answered, whatever is wrong with it', async () => {
    const raw = await client(where);
    for (const command of [0, 1, 2, 3, 8, 9, 10, 11, 16, 99]) {
      raw.send(w.request(command, Buffer.alloc(3), { flags: 0x10, id: 77 }), [eventfd()]);
    }
    await expectServed(raw);
    expect(raw.inbox).toHaveLength(0);
  });

  test('whose id is that of others, or at the ends of what an id can be', async () => {
    const raw = await client(where);
    for (const id of [0, 0, 0xffff, 0xffff, 7, 7]) raw.send(request({ id }));
    await until(() => raw.inbox.length === 6, 'the replies');
    expect(raw.inbox.map(({ id }) => id)).toEqual([0, 0, 0xffff, 0xffff, 7, 7]);
  });
});

describe.each(ALL_SERVERS)('a stream at the %s', (where) => {
  test.each([1, 15, 16, 31])('that stops after %d bytes of a message', async (length) => {
    const raw = await client(where);
    raw.send(IDENTIFICATION.subarray(0, length));
    const silent = stranger(where);
    silent.send(w.versionRequest().subarray(0, length));
    await turn();
    await expectNeighboursServed();
  });

  test('that comes one byte at a time', async () => {
    const raw = stranger(where);
    for (const message of [w.versionRequest(), IDENTIFICATION]) {
      for (const byte of message) {
        raw.send(Buffer.of(byte));
        await turn(0);
      }
      expect((await raw.take()).flags).toBe(1);
    }
    await expectServed(raw);
  });

  test('that ends in the middle of a message with fds', async () => {
    const raw = await client(where);
    raw.send(w.dmaMapRequest().subarray(0, 20), [eventfd()]);
    await turn();
    raw.close();
    await expectNeighboursServed();
  });
});

test.each(SERVERS)('streams at the %s that end with much that is not answered', async (where) => {
  const clients = await Promise.all(Array.from({ length: 10 }, () => client(where)));
  for (const raw of clients) sendAway(raw, w.regionReadRequest({ region: 2, count: 1 << 16 }), 500);
  for (const raw of clients) raw.close();
  await expectNeighboursServed();
});

test.each(ALL_SERVERS)('strangers who say nothing at the %s keep nobody out', async (where) => {
  // A replay serves one, 64 may be there besides, and 16 wait to be accepted.
  for (let i = 0; i < 80; i++) {
    if (i % 10 === 0) await expectNeighboursServed();
    stranger(where);
  }
  await expectNeighboursServed();
  const raw = await client(where);
  await expectServed(raw);
});

/** A client whose memory is reached by messages, and what the device asks it for. */
async function asked(where: Where): Promise<{ raw: RawClient; read: Received }> {
  const raw = await client(where);
  await raw.answer(w.dmaMapRequest({ size: PAGE }));
  await raw.write64(0, RamRegister.DMA_SOURCE, 0x10);
  await raw.write64(0, RamRegister.DMA_DESTINATION, 0x100);
  await raw.write32(0, RamRegister.DMA_LENGTH, 4);
  const command = w.wire().u32(RamDma.COPY).build();
  raw.post(w.regionWriteRequest({ offset: RamRegister.DMA_COMMAND, data: command }));
  return { raw, read: await raw.command(DMA_READ) };
}

describe.each(SERVERS)('a reply to DMA_READ at the %s', (where) => {
  const data = [1, 2, 3, 4];
  const good = { address: 0x10, data };

  test.each<[string, Buffer]>([
    ['without a payload', w.reply(DMA_READ, Buffer.alloc(0))],
    ['of half a structure', w.reply(DMA_READ, Buffer.alloc(8))],
    ['with no data', w.dmaReadReply({ address: 0x10, count: 4 })],
    ['with less data', w.dmaReadReply({ ...good, data: [1, 2] })],
    ['with more data', w.dmaReadReply({ ...good, data: Buffer.alloc(PAGE) })],
    ['that counts 2^64-1', w.dmaReadReply({ ...good, count: (1n << 64n) - 1n })],
    ['of another address', w.dmaReadReply({ ...good, address: 0 })],
    ['that is one to DMA_WRITE', w.reply(DMA_WRITE, w.payloadOf(w.dmaReadReply(good)))],
  ])('%s ends the connection', async (_name, reply) => {
    const { raw, read } = await asked(where);
    raw.reply(read, reply);
    await raw.end();
    expect(await whyItEnded()).toBeInstanceOf(ProtocolError);
  });

  test('of another id ends the connection', async () => {
    const { raw, read } = await asked(where);
    raw.reply({ ...read, id: read.id ^ 0x55 }, w.dmaReadReply(good));
    await raw.end();
    expect(await whyItEnded()).toBeInstanceOf(ProtocolError);
  });

  test('that comes twice ends the connection', async () => {
    const { raw, read } = await asked(where);
    raw.reply(read, w.dmaReadReply(good));
    raw.reply(await raw.command(DMA_WRITE), w.dmaWriteReply({ address: 0x100, count: 4 }));
    raw.reply(read, w.dmaReadReply(good));
    await raw.end();
    expect(await whyItEnded()).toBeInstanceOf(ProtocolError);
  });

  test.each([0, 14, 0x7fff_ffff, MOST])('that is errno %d is the device’s to bear', async (errno) => {
    const { raw, read } = await asked(where);
    raw.refuse(read, errno);
    await expectServed(raw);
    expect((await raw.read32(0, RamRegister.DMA_STATUS)) >>> 31).toBe(1);
  });

  test('that never comes goes with its client', async () => {
    const { raw } = await asked(where);
    await expectNeighboursServed();
    raw.close();
  });
});
