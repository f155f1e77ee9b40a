/** Hostile clients of a replay: every field of every command, headers, streams, and answers to what it asks. */
import { describe, expect, jest, test } from '@jest/globals';
import { constants } from 'node:os';
import { ClosedError, ProtocolError } from '../../../lib/errors.js';
import { formatReport, type ReplayOptions, type ReplayServer } from '../../../lib/replay/index.js';
import { RawClient, type Received } from '../../emulator/raw-client.js';
import { openFds } from '../../support/fds.js';
import * as w from '../../support/wire.js';
import { LEGACY, TABLES, type Case } from './commands.js';
import { DOORBELL, RECORDED_DATA } from './recording.js';
import {
  client,
  cleanup,
  eventfd,
  expectNeighboursServed,
  expectServed,
  keepPromises,
  memory,
  otherReplay,
  outcomeOf,
  stranger,
  strangerAt,
  turn,
  until,
  whyItEnded,
  type Outcome,
} from './session.js';

jest.setTimeout(60_000);
keepPromises();

const { EIO } = constants.errno;
const [DMA_READ, DMA_WRITE] = [11, 12];
const MOST = 0xffff_ffff;
const IDENTIFICATION = w.regionReadRequest({ count: 4 });

/** A replay of its own, and a client that has negotiated. */
async function served(
  options: ReplayOptions,
  { hasTwin = false, capabilities = {} } = {},
): Promise<{ raw: RawClient; server: ReplayServer; fds: number[] }> {
  const server = await otherReplay(options, { hasTwin });
  const raw = strangerAt(server.path);
  const { fds } = await raw.negotiate(capabilities);
  return { raw, server, fds };
}

describe.each([...TABLES, ['DIRTY_PAGES', LEGACY] as [string, Case[]]])('%s', (_name, cases) => {
  test.each(cases)('%s', async (...[name, request, , fds]: Case) => {
    const raw = await client('replay');
    // None of them is recorded but VERSION.
    const expected = name === 'a second VERSION' ? 'ok' : EIO;
    expect(await outcomeOf(raw, request, fds?.())).toBe(expected);
    await expectServed(raw);
  });

  test('all of them, where most fields may differ', async () => {
    const fields = ['argsz', 'flags', 'index', 'start', 'count', 'offset', 'address', 'size', 'fds', 'data'];
    const commands = ['DMA_MAP', 'DMA_UNMAP', 'DEVICE_SET_IRQS', 'REGION_READ', 'REGION_WRITE'];
    const ignore = commands.flatMap((command) => fields.map((field) => `${command}.${field}`));
    // A write is one that DMA is recorded for, which nobody answers: it is a difference, and the recording goes on.
    const { raw, server } = await served({ ignore, answerTimeoutMs: 1 });
    for (const [, request, , fds] of cases) {
      expect(['ok', EIO]).toContain(await outcomeOf(raw, request, fds?.().slice(0, 16)));
    }
    raw.close();
    expect(formatReport(await server.report())).toContain('recorded');
  });
});

test.each(['refuse', 'close'] as const)(
  'the first of many, and what comes after it: %s',
  async (afterDifference) => {
    const { raw, server } = await served({ mode: 'ordered', repeatLast: false, afterDifference });
    const expected: Outcome = afterDifference === 'refuse' ? EIO : 'closed';
    expect(await outcomeOf(raw, w.request(99, Buffer.alloc(40)), [eventfd()])).toBe(expected);
    if (afterDifference === 'refuse') expect(await outcomeOf(raw, IDENTIFICATION)).toBe(EIO);
    raw.close();
    expect((await server.report()).differences[0]).toMatchObject({ kind: 'changed' });
  },
);

describe('a stream', () => {
  test('that stops in a message ends after the time for one', async () => {
    const { raw, server } = await served({ messageTimeoutMs: 20 });
    raw.send(IDENTIFICATION.subarray(0, 20), [eventfd()]);
    await raw.end();
    expect((await server.report()).reason).toMatchObject({ code: 'ETIMEDOUT' });
  });

  test('that begins with another command, whole and alone, is refused and goes on', async () => {
    const raw = stranger('replay');
    expect(await outcomeOf(raw, w.dmaMapRequest({ flags: 0 }), [memory(4096)])).toBe(EIO);
    await raw.negotiate();
    await expectServed(raw);
  });

  test.each<[string, Buffer]>([
    ['no bytes', w.request(1, Buffer.alloc(0))],
    ['3 bytes', w.request(1, Buffer.alloc(3))],
    ['what is no JSON', w.versionRequest({ data: 'hello\0' })],
    ['what is deep', w.versionRequest({ data: `${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}\0` })],
    ['a twin socket that is true', w.versionRequest({ data: '{"capabilities":{"twin_socket":true}}\0' })],
  ])('whose VERSION has %s, is told what was recorded', async (_name, request) => {
    const raw = strangerAt((await otherReplay({}, { hasTwin: true })).path);
    const { flags, fds } = await raw.ask(request, [eventfd()]);
    expect([flags, fds]).toEqual([1, []]);
    await expectServed(raw);
  });
});

describe('fds', () => {
  test('that stand for an interrupt and are none are given back', async () => {
    const { raw } = await served({ ignore: ['DEVICE_SET_IRQS'].map((name) => `${name}.count`) });
    const arm = (count: number) => w.setIrqsRequest({ flags: 0x24, index: 2, count });
    expect(await outcomeOf(raw, arm(2), [memory(4096), eventfd()])).toBe('ok');
    expect(await outcomeOf(raw, arm(MOST), [eventfd(), memory(4096)])).toBe('ok');
    expect(await outcomeOf(raw, arm(0), [eventfd(), eventfd()])).toBe(EIO);
  });

  test('of commands that wait are given back at once where nobody needs them', async () => {
    const { raw } = await served({ answerTimeoutMs: 60_000 });
    raw.post(DOORBELL);
    await raw.command(DMA_READ);
    const fd = eventfd();
    const before = openFds();
    for (let i = 0; i < 100; i++) raw.post(w.dmaMapRequest({ flags: 0 }), Array<number>(16).fill(fd));
    await expectNeighboursServed();
    await until(() => openFds() <= before, 'they are closed');
  });

  test('of commands that need them are few, however many commands wait', async () => {
    const { raw, server } = await served({ answerTimeoutMs: 60_000 });
    raw.post(DOORBELL);
    await raw.command(DMA_READ);
    const fds = Array<number>(16).fill(eventfd());
    const before = openFds();
    let most = 0;
    try {
      for (let i = 0; i < 1_000; i++) {
        raw.post(w.setIrqsRequest({ flags: 0x24, index: 2, count: 16 }), fds);
        await turn(0);
        most = Math.max(most, openFds() - before);
      }
    } catch {
      // The connection has ended.
    }
    await raw.end();
    expect(most).toBeLessThanOrEqual(256 + 64);
    expect((await server.report()).reason).toBeInstanceOf(ProtocolError);
  });
});

/** What the recorded device asks for. */
async function asked(raw: RawClient): Promise<Received> {
  raw.post(DOORBELL);
  return raw.command(DMA_READ);
}

describe('an answer to DMA_READ', () => {
  const good = { address: 0x10, data: RECORDED_DATA };

  test.each<[string, Buffer]>([
    ['without a payload', w.reply(DMA_READ, Buffer.alloc(0))],
    ['of half a structure', w.reply(DMA_READ, Buffer.alloc(8))],
    ['with no data', w.dmaReadReply({ address: 0x10, count: 4 })],
    ['with less data', w.dmaReadReply({ ...good, data: [1, 2] })],
    ['with more data', w.dmaReadReply({ ...good, data: Buffer.alloc(100_000) })],
    ['that counts 2^64-1', w.dmaReadReply({ ...good, count: (1n << 64n) - 1n })],
    ['of another address', w.dmaReadReply({ ...good, address: 0 })],
    ['that is one to DMA_WRITE', w.reply(DMA_WRITE, w.payloadOf(w.dmaReadReply(good)))],
    ['that is an errno', w.errorReply(DMA_READ, MOST)],
  ])('%s is a difference', async (_name, reply) => {
    const { raw, server } = await served({});
    raw.reply(await asked(raw), reply);
    raw.reply(await raw.command(DMA_WRITE), w.dmaWriteReply({ address: 0x100, count: 4 }));
    await expectServed(raw);
    raw.close();
    expect((await server.report()).differences).toMatchObject([{ kind: 'answer' }]);
  });

  test.each(['of another id', 'that comes twice'])('%s ends the connection', async (name) => {
    const raw = await client('replay');
    const read = await asked(raw);
    const id = name === 'of another id' ? read.id ^ 0x55 : read.id;
    raw.reply({ ...read, id }, w.dmaReadReply(good));
    raw.reply(read, w.dmaReadReply(good));
    if (name !== 'of another id') raw.reply(read, w.dmaReadReply(good));
    await raw.end();
    expect(await whyItEnded()).toBeInstanceOf(ProtocolError);
  });

  test('that never comes goes with its client', async () => {
    const raw = await client('replay');
    await asked(raw);
    await expectNeighboursServed();
    raw.close();
  });
});

describe('on the twin socket', () => {
  async function twins(): Promise<{ raw: RawClient; twin: RawClient; server: ReplayServer }> {
    const capabilities = { max_msg_fds: 8, twin_socket: { supported: true } };
    const { raw, server, fds } = await served({}, { hasTwin: true, capabilities });
    expect(fds).toHaveLength(1);
    const twin = new RawClient(fds[0]!);
    cleanup(() => twin.close());
    return { raw, twin, server };
  }

  test.each<[string, (twin: RawClient) => void]>([
    ['a request', (twin) => twin.post(IDENTIFICATION, [eventfd()])],
    ['a reply that nobody waits for', (twin) => twin.send(w.dmaReadReply({ count: 4 }))],
    ['a header of size 3', (twin) => twin.send(w.dmaReadReply({}, { size: 3 }))],
  ])('%s ends the connection', async (_name, send) => {
    const { raw, twin, server } = await twins();
    send(twin);
    await raw.end();
    expect((await server.report()).reason).toBeInstanceOf(ProtocolError);
  });

  test('that closes while an answer is due, the client stays', async () => {
    const { raw, twin, server } = await twins();
    raw.post(DOORBELL);
    await twin.command(DMA_READ);
    twin.close();
    await turn();
    raw.close();
    expect((await server.report()).reason).toBeInstanceOf(ClosedError);
  });
});
