/**
 * Encoders and decoders check what they are called with before they look into it: the fields of messages are for
 * `fields.spec.ts`, the bytes of a peer for the specs of each message.
 */
import { describe, expect, test } from '@jest/globals';
import * as protocol from '../../lib/protocol/index.js';
import { publicFunctions } from '../support/public-entries.js';

type Call = (...values: unknown[]) => unknown;

const SIZE = 64;
/** What a parameter is where it is right. */
const RIGHT: Readonly<Record<string, unknown>> = {
  bytes: Buffer.alloc(SIZE),
  data: Buffer.alloc(SIZE),
  start: 0,
  end: SIZE,
  at: 0,
  feature: 1,
  flags: 0x1_0000,
  wanted: SIZE,
  asked: { iova: 0n, length: 0n, pageSize: 4096 },
  range: { iova: 0n, size: 4096n, bitmap: { pgsize: 4096, size: 8 } },
  bitmap: new Uint8Array(8),
  index: 0,
  argsz: 4096,
  message: 'A MESSAGE',
};

const NO_OBJECT = [undefined, null, 5, 'text', 1n, true];
const NO_BUFFER = [...NO_OBJECT, {}, [], new Uint8Array(SIZE), new ArrayBuffer(SIZE)];
const NO_PLACE = [undefined, null, NaN, -1, 1.5, Infinity, SIZE + 1, 2 ** 53, '0', 0n, {}, true];
const WRONG: Readonly<Record<string, readonly unknown[]>> = {
  bytes: NO_BUFFER,
  data: NO_BUFFER,
  start: NO_PLACE,
  end: NO_PLACE,
  at: NO_PLACE,
  wanted: [undefined, null, NaN, -1, 1.5, 2 ** 53, '0', 0n],
  ...Object.fromEntries(
    ['request', 'reply', 'info', 'map', 'unmap', 'logging', 'report', 'range', 'version'].map((name) => [
      name,
      NO_OBJECT,
    ]),
  ),
  subRegions: [...NO_OBJECT, {}, [5], [null]],
  writes: [...NO_OBJECT, {}, [5], [null]],
};
/** Their data may be any byte array: see `fields.spec.ts`. */
const ELSEWHERE = ['encodeMigDataReadReply', 'encodeMigDataWrite'];

const rows: [label: string, call: Call, at: number, parameters: readonly string[]][] = [];
// Another entry has one of that name, too.
const functions = publicFunctions().set('decodeHeader', {
  name: 'decodeHeader',
  parameters: ['bytes', 'at'],
  returnsPromise: false,
});
for (const { name, parameters } of functions.values()) {
  if (!/^(?:encode|decode)/.test(name) || !(name in protocol) || ELSEWHERE.includes(name)) continue;
  const call = protocol[name as keyof typeof protocol] as Call;
  for (const [at, parameter] of parameters.entries()) {
    if (!(parameter in WRONG)) continue;
    // Of an info's reply it is the index.
    if (parameter === 'asked' && name !== 'decodeDmaLoggingReportReply') continue;
    rows.push([`${name}: ${parameter}`, call, at, parameters]);
  }
}

test('all of them are here', () => {
  const named = new Set(rows.map(([label]) => label.split(':')[0]));
  const rest = [...functions.keys()].filter(
    (name) => /^(?:encode|decode)/.test(name) && name in protocol && !named.has(name),
  );
  // What is left takes no object and no bytes, or a field alone.
  expect(rest).toEqual([
    'encodeProbe',
    'encodeGetInfo',
    'encodeDmaLoggingStop',
    'encodeGetIrqInfo',
    'encodeGetMigration',
    'encodeMigrationReply',
    'encodeGetMigState',
    'encodeSetMigState',
    'encodeMigStateReply',
    'encodeMigDataRead',
    'encodeMigDataReadReply',
    'encodeMigDataWrite',
    'encodeGetRegionInfo',
    'encodeGetRegionIoFds',
  ]);
});

function thrown(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe.each(rows)('%s', (_label, call, at, parameters) => {
  const parameter = parameters[at]!;
  test.each(WRONG[parameter]!.map((value) => [value]))('that is %p', (value) => {
    const values: unknown[] = parameters.map((name) => RIGHT[name]);
    values[at] = value;
    const error = thrown(() => call(...values)) as Error & { code: string };
    expect(error.code).toMatch(/^ERR_(?:INVALID_ARG_TYPE|OUT_OF_RANGE)$/);
    expect(error.message).toMatch(new RegExp(`^${parameter}\\b.* must be .*, got `));
  });
});

test.each<[string, () => unknown, RegExp]>([
  [
    'decoder whose end lies before its start',
    () => protocol.decodeGetInfo(Buffer.alloc(SIZE), 20, 10),
    /^end must be an integer from 20 to 64, got 10$/,
  ],
  [
    'DMA_UNMAP reply that is empty, nowhere',
    () => protocol.decodeDmaUnmapReply(Buffer.alloc(SIZE), 65, 65),
    /^start must be/,
  ],
  [
    'range without a bitmap',
    () =>
      protocol.encodeDirtyPages({
        flags: protocol.DIRTY_PAGES_FLAG_GET_BITMAP,
        range: { iova: 0n, size: 4096n } as never,
      }),
    /^request\.range\.bitmap must be an object, got undefined$/,
  ],
  [
    'logging without ranges',
    () => protocol.encodeDmaLoggingStart({ pageSize: 4096 } as never),
    /^logging\.ranges must be an array, got undefined$/,
  ],
  [
    'VERSION whose capabilities are text',
    () => protocol.encodeVersion({ major: 0, minor: 2, capabilities: 'all' as never }),
    /^VERSION: capabilities must be an object, got "all"$/,
  ],
  [
    'VERSION whose twin socket is true',
    () => protocol.encodeVersion({ major: 0, minor: 2, capabilities: { twinSocket: true as never } }),
    /^VERSION: twinSocket must be an object, got true$/,
  ],
  [
    'VERSION whose others are a number',
    () => protocol.encodeVersion({ major: 0, minor: 2, capabilities: { other: 5 as never } }),
    /^VERSION: other must be an object, got 5$/,
  ],
  [
    'region whose areas are one',
    () =>
      protocol.encodeRegionInfo({
        index: 0,
        flags: 0,
        size: 4096,
        offset: 0,
        capabilities: { sparseMmap: { areas: { offset: 0, size: 4096 } as never } },
      }),
    /areas must be an array, got an instance of Object$/,
  ],
])('a %s is refused by name', (_what, call, message) => {
  expect(thrown(call)).toMatchObject({ message: expect.stringMatching(message) });
});
