/** Every field of every command that a client sends, wrong one at a time, to the emulator and through the proxy. */
import { describe, expect, jest, test } from '@jest/globals';
import { constants } from 'node:os';
import * as w from '../../support/wire.js';
import { LEGACY, REPORTS, TABLES, start, type Case } from './commands.js';
import {
  PAGE,
  SERVERS,
  client,
  expectServed,
  keepPromises,
  memory,
  outcomeOf,
  stranger,
  whyItEnded,
} from './session.js';

jest.setTimeout(60_000);
keepPromises();

const { EEXIST, EINVAL, ENOENT } = constants.errno;
const none = Buffer.alloc(0);
const { dmaMapRequest: map, dmaUnmapRequest: unmap, regionReadRequest: read } = w;

describe.each(SERVERS)('at the %s', (where) => {
  describe.each(TABLES)('%s', (_name, cases) => {
    test.each(cases)('%s', async (...[, request, outcome, fds]: Case) => {
      const raw = await client(where);
      expect(await outcomeOf(raw, request, fds?.())).toBe(outcome);
      await expectServed(raw);
    });
  });

  test.each(REPORTS)('a log that is kept: %s', async (_case, request, outcome) => {
    const raw = await client(where);
    await raw.answer(start(w.loggingControl(PAGE)));
    expect(await outcomeOf(raw, request)).toBe(outcome);
    await expectServed(raw);
  });

  test('a mapping that overlaps one, begins in it, ends in it', async () => {
    const raw = await client(where);
    await raw.answer(map({ address: 4 * PAGE, size: 4 * PAGE }), [memory(4 * PAGE)]);
    for (const page of [1, 4, 5, 7]) {
      const request = map({ address: page * PAGE, size: 4 * PAGE });
      expect(await outcomeOf(raw, request, [memory(4 * PAGE)])).toBe(EEXIST);
    }
    for (const size of [PAGE, 3 * PAGE, 5 * PAGE]) {
      expect(await outcomeOf(raw, unmap({ address: 4 * PAGE, size }))).toBe(ENOENT);
    }
    await expectServed(raw);
  });
});

test.each(LEGACY)('DIRTY_PAGES %s', async (_case, request, outcome) => {
  const raw = await client('legacy');
  expect(await outcomeOf(raw, request)).toBe(outcome);
  await expectServed(raw);
});

describe.each(SERVERS)('VERSION at the %s', (where) => {
  const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
  const capabilities = (text: string): Buffer => bytes(`{"capabilities":${text}}\0`);
  const payload = (length: number): Buffer => w.request(1, Buffer.alloc(length));

  test.each<[string, Buffer]>([
    ['of no bytes', payload(0)],
    ['of 3 bytes', payload(3)],
    ['of major 1', w.versionRequest({ major: 1 })],
    ['of major 65535', w.versionRequest({ major: 0xffff })],
    ...(
      [
        ['that is not JSON', bytes('hello\0')],
        ['that is half of it', bytes('{"capabilities":{\0')],
        ['with bytes behind the NUL', bytes('{}\0{}')],
        ['that is no UTF-8', bytes('{"\xff":1}\0')],
        ['that is an array', bytes('[]\0')],
        ['that is null', bytes('null\0')],
        ['that is deep', bytes(`${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}\0`)],
        ['that is huge', bytes(`{"a":"${'x'.repeat(150_000)}"}\0`)],
        ['whose capabilities are an array', capabilities('[]')],
        ['with max_msg_fds -1', capabilities('{"max_msg_fds":-1}')],
        ['with max_msg_fds 1.5', capabilities('{"max_msg_fds":1.5}')],
        ['with max_msg_fds "8"', capabilities('{"max_msg_fds":"8"}')],
        ['with max_data_xfer_size 0', capabilities('{"max_data_xfer_size":0}')],
        ['with max_data_xfer_size 1e999', capabilities('{"max_data_xfer_size":1e999}')],
        ['with pgsizes 0', capabilities('{"pgsizes":0}')],
        ['with pgsizes beyond 64 bits', capabilities('{"pgsizes":99999999999999999999999}')],
        ['with a twin_socket that is true', capabilities('{"twin_socket":true}')],
        ['with a migration page size of 3', capabilities('{"migration":{"pgsize":3}}')],
      ] as const
    ).map(([name, data]): [string, Buffer] => [name, w.versionRequest({ data })]),
    ['that is another command', w.deviceGetInfoRequest()],
    ['that is a read', read({ count: 4 })],
    ['that is a reply', w.versionReply()],
  ])('%s', async (_name, request) => {
    const raw = stranger(where);
    const outcome = request.readUInt32LE(8) === 0 ? await outcomeOf(raw, request, [memory(PAGE)]) : undefined;
    if (outcome === undefined) raw.send(request);
    else expect(['closed', EINVAL]).toContain(outcome);
    await raw.end();
    expect(await whyItEnded()).toHaveProperty('name');
  });

  test.each<[string, w.VersionFields]>([
    ['minor 65535', { minor: 0xffff }],
    ['no data', { data: none }],
    ['data without NUL', { data: '{}' }],
    ['__proto__', { data: capabilities('{"__proto__":{"max_msg_fds":-1,"polluted":1}}') }],
    ['members that nobody knows', { data: bytes('{"x":[1,{}],"capabilities":{"y":null}}\0') }],
    ['max_data_xfer_size 1', { data: capabilities('{"max_data_xfer_size":1}') }],
    [
      'max_msg_fds 0 and a twin socket',
      { data: { capabilities: { max_msg_fds: 0, twin_socket: { supported: true } } } },
    ],
  ])('with %s is taken', async (_name, fields) => {
    const raw = stranger(where);
    expect(await outcomeOf(raw, w.versionRequest(fields))).toBe('ok');
    await expectServed(raw);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});
