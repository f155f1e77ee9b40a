/** Every field of the payloads that a session brings, wrong one at a time: a named error, or a device that lacks it. */
import { describe, expect, test } from '@jest/globals';
import { message } from '../support/scripted-peer.js';
import type { ScriptedDevice } from '../support/scripted-device.js';
import { capability, regionType, sparseMmap, sparseMmapFds } from '../support/wire.js';
import { expectNamedError, file, hostile, keepPromises, outcome, opened, session } from './session.js';

keepPromises();

/** Answers a command, about index 0 where it has one, with this payload. */
function answering(
  command: number,
  payload: (good: Buffer) => Uint8Array,
  fds: number[] = [],
): ScriptedDevice {
  return hostile((asked, answer) => {
    const hasIndex = command === 5 || command === 7;
    if (asked.command !== command || (hasIndex && asked.payload.readUInt32LE(8) !== 0)) return answer;
    const good = Buffer.from(answer.bytes.subarray(16));
    return { bytes: message(asked.id, command, 1, 0, payload(good)), fds };
  });
}

/** The good payload with one 32-bit or 64-bit field changed. */
function field(at: number, value: number | bigint): (good: Buffer) => Buffer {
  return (good) => {
    if (typeof value === 'bigint') good.writeBigUInt64LE(value, at);
    else good.writeUInt32LE(value, at);
    return good;
  };
}

const MOST = 0xffffffff;
const MOST_64 = 0xffffffffffffffffn;

test('a session whose every answer is good is well', async () => {
  await session(hostile(undefined));
});

describe('VERSION', () => {
  const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
  const version = (data: Uint8Array): ScriptedDevice =>
    answering(1, () => Buffer.concat([Buffer.from([0, 0, 1, 0]), data]));
  const capabilities = (text: string): Buffer => bytes(`{"capabilities":${text}}\0`);

  test.each<[string, Uint8Array]>([
    ['that is not JSON', bytes('hello\0')],
    ['that is half of it', bytes('{"capabilities":{\0')],
    ['of nothing but a NUL', bytes('\0\0')],
    ['with bytes behind the NUL', bytes('{}\0{}')],
    ['that is no UTF-8', bytes('{"\xff":1}\0')],
    ['with a byte order mark in UTF-16', Buffer.from('\ufeff{}', 'utf16le')],
    ['that is an array', bytes('[]\0')],
    ['that is a number', bytes('1\0')],
    ['that is a string', bytes('"x"\0')],
    ['that is null', bytes('null\0')],
    ['that is deep', bytes(`${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}\0`)],
    ['that is an array too deep for a parser', bytes(`${'['.repeat(30_000)}${']'.repeat(30_000)}\0`)],
    ['that is huge', bytes(`{"a":"${'x'.repeat(200_000)}"}\0`)],
    ['whose capabilities are an array', capabilities('[]')],
    ['whose capabilities are null', capabilities('null')],
    ['with NaN', capabilities('{"max_msg_fds":NaN}')],
    ['with Infinity', capabilities('{"max_data_xfer_size":Infinity}')],
    ['with a number beyond all', capabilities('{"max_data_xfer_size":1e999}')],
    ['with a negative number', capabilities('{"max_dma_maps":-1}')],
    ['with a number that is NaN in words', capabilities('{"max_msg_fds":"NaN"}')],
    ['with -Infinity', capabilities('{"max_msg_fds":-Infinity}')],
    ['with undefined', capabilities('{"max_msg_fds":undefined}')],
    ['with a hexadecimal number', capabilities('{"max_msg_fds":0x8}')],
    ['with a number that rounds to a power of two', capabilities('{"max_data_xfer_size":1048576.5}')],
    ['with a number beyond all exact ones', capabilities('{"max_dma_maps":9007199254740993}')],
    ['with a duplicate member that is wrong', capabilities('{"max_msg_fds":4,"max_msg_fds":-1}')],
    [
      'with duplicate capabilities, the last of which is wrong',
      bytes('{"capabilities":{},"capabilities":1}\0'),
    ],
    ['with a fraction', capabilities('{"max_msg_fds":1.5}')],
    ['with a string for a number', capabilities('{"max_msg_fds":"8"}')],
    ['with max_data_xfer_size 0', capabilities('{"max_data_xfer_size":0}')],
    ['with max_msg_fds beyond all', capabilities('{"max_msg_fds":1000000}')],
    ['with pgsizes 0', capabilities('{"pgsizes":0}')],
    ['with pgsizes beyond 64 bits', capabilities('{"pgsizes":99999999999999999999999}')],
    ['with a twin_socket that is true', capabilities('{"twin_socket":true}')],
    ['with a twin_socket without index', capabilities('{"twin_socket":{"supported":true}}')],
    [
      'with a twin_socket whose fd did not come',
      capabilities('{"twin_socket":{"supported":true,"fd_index":0}}'),
    ],
    [
      'with a twin_socket index beyond all',
      capabilities('{"twin_socket":{"supported":true,"fd_index":1e9}}'),
    ],
    ['with a migration page size of 3', capabilities('{"migration":{"pgsize":3}}')],
  ])('data %s', async (_, data) => {
    await expectNamedError(version(data), 'ProtocolError');
  });

  test.each([0, 1, 2, 3])('of %i bytes', async (length) => {
    await expectNamedError(
      answering(1, (good) => good.subarray(0, length)),
      'ProtocolError',
    );
  });

  test.each<[string, Uint8Array]>([
    ['none', Buffer.alloc(0)],
    ['without NUL', bytes('{}')],
    ['duplicate members, the last of which counts', capabilities('{"max_msg_fds":-1,"max_msg_fds":4}')],
    [
      '__proto__',
      capabilities('{"__proto__":{"max_msg_fds":-1,"polluted":1},"constructor":{"prototype":1}}'),
    ],
    ['members that nobody knows', bytes('{"x":[1,{}],"capabilities":{"y":null}}\0')],
  ])('with %s is taken', async (_, data) => {
    expect(await outcome(version(data))).toBeUndefined();
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});

describe('GET_INFO', () => {
  test.each<[string, (good: Buffer) => Uint8Array]>([
    ['nothing', () => Buffer.alloc(0)],
    ['15 bytes', (good) => good.subarray(0, 15)],
    ['argsz 0', field(0, 0)],
    ['argsz 15', field(0, 15)],
    ['2^32-1 regions', field(8, MOST)],
    ['1,025 regions', field(8, 1025)],
    ['2^32-1 interrupts', field(12, MOST)],
  ])('%s', async (_, payload) => {
    await expectNamedError(answering(4, payload), 'ProtocolError');
  });

  test('1,024 regions and as many interrupt indexes are asked for', async () => {
    const server = answering(4, (good) => field(12, 1024)(field(8, 1024)(good)));
    const device = await opened(server, { timeoutMs: 10_000 });
    expect(device.regions).toHaveLength(1024);
    expect([...device.irqs]).toHaveLength(1024);
  });

  test.each([0, MOST])('flags %i are no error', async (flags) => {
    const device = await opened(answering(4, field(4, flags)));
    expect(device.info.flags).toBe(flags);
  });
});

describe('GET_REGION_INFO', () => {
  test.each<[string, (good: Buffer) => Uint8Array]>([
    ['nothing', () => Buffer.alloc(0)],
    ['31 bytes', (good) => good.subarray(0, 31)],
    ['argsz 0', field(0, 0)],
    ['argsz 31', field(0, 31)],
    ['argsz 2^32-1', field(0, MOST)],
    ['another index', field(8, 1)],
    ['size 2^64-1', field(16, MOST_64)],
    ['size 2^53', field(16, 1n << 53n)],
    ['offset 2^64-1', field(24, MOST_64)],
    ['size and offset that run past 2^53', (good) => field(24, (1n << 53n) - 1n)(good)],
  ])('%s', async (_, payload) => {
    await expectNamedError(answering(5, payload), 'ProtocolError');
  });

  const CAPS = 0xf;
  /** A region with this chain, whose first capability is at `first`. */
  const chained =
    (chain: Uint8Array, first = 32) =>
    (good: Buffer) => {
      good.writeUInt32LE(32 + chain.length, 0);
      good.writeUInt32LE(CAPS, 4);
      good.writeUInt32LE(first, 12);
      return Buffer.concat([good, chain]);
    };
  const unknown = (next: number): Buffer => capability(77, next, Buffer.alloc(0));

  test.each<[string, Uint8Array, number]>([
    ['begins inside the structure', unknown(0), 16],
    ['begins past the end', unknown(0), 4096],
    ['begins at 2^32-1', unknown(0), MOST],
    ['begins at an odd place', Buffer.alloc(16), 33],
    ['begins in the last bytes', unknown(0), 36],
    ['leads to itself', unknown(32), 32],
    ['is a loop', Buffer.concat([unknown(40), unknown(32)]), 32],
    ['leads past the end', unknown(48), 32],
    ['leads to 2^32-1', unknown(MOST), 32],
    ['leads back into the structure', unknown(8), 32],
    [
      'has as many entries as fit',
      Buffer.concat(Array.from({ length: 8000 }, (_, i) => unknown(i === 7999 ? 0 : 40 + 8 * i))),
      32,
    ],
    ['has a known capability of another version', capability(1, 0, Buffer.alloc(8), 2), 32],
    ['has a known capability twice', Buffer.concat([regionType(1, 1, 48), regionType(1, 1)]), 32],
    ['has a cut capability', regionType(1, 1).subarray(0, 12), 32],
    ['claims 2^32-1 areas', sparseMmap([[0, 4096]], 0, MOST), 32],
    ['has an area past the region', sparseMmap([[4096, 4096]]), 32],
    ['has an area that wraps', sparseMmap([[MOST_64, 4096]]), 32],
    ['has an area of 2^64-1 bytes', sparseMmap([[0, MOST_64]]), 32],
    ['has an fd index of 2^32-1', sparseMmapFds([[0, 0, 4096, MOST]]), 32],
    ['has an fd offset of 2^64-1', sparseMmapFds([[0, MOST_64, 4096, 0]]), 32],
  ])('a capability chain that %s', async (_, chain, first) => {
    await expectNamedError(answering(5, chained(chain, first), [file(4096)]), 'ProtocolError');
  });

  /** The chain of so many entries, each behind the one before it. */
  const longChain = (entries: number): Buffer => {
    const chain = Buffer.alloc(entries * 8);
    for (let i = 0; i < entries; i++) {
      chain.writeUInt16LE(77, i * 8);
      chain.writeUInt16LE(1, i * 8 + 2);
      chain.writeUInt32LE(i === entries - 1 ? 0 : 32 + 8 * (i + 1), i * 8 + 4);
    }
    return chain;
  };

  test.each([
    ['131,000 entries, as many as a message has room for,', 131_000, 'ProtocolError'],
    // Its size breaks the framing: nothing behind it can be made out.
    ['a million entries', 1_000_000, 'ClosedError'],
  ])('a chain of %s is more than is taken in', async (_, entries, kind) => {
    await expectNamedError(answering(5, chained(longChain(entries))), kind);
  });

  test('areas of no bytes, and of fds that did not come, cannot be mapped', async () => {
    const chain = sparseMmapFds([
      [0, 0, 0, 0],
      [0, 0, 4096, 5],
    ]);
    const device = await opened(answering(5, chained(chain), [file(4096)]));
    expect(device.region(0).areas).toEqual([]);
    expect(() => device.region(0).map()).toThrow(RangeError);
  });
});

describe('GET_IRQ_INFO', () => {
  test.each<[string, (good: Buffer) => Uint8Array]>([
    ['nothing', () => Buffer.alloc(0)],
    ['15 bytes', (good) => good.subarray(0, 15)],
    ['argsz 0', field(0, 0)],
    ['another index', field(8, 1)],
    ['2^32-1 interrupts', field(12, MOST)],
  ])('%s', async (_, payload) => {
    await expectNamedError(answering(7, payload), 'ProtocolError');
  });
});

describe.each([
  ['REGION_READ', 9],
  ['REGION_WRITE', 10],
])('%s', (_name, command) => {
  test.each<[string, (good: Buffer) => Uint8Array]>([
    ['nothing', () => Buffer.alloc(0)],
    ['15 bytes', (good) => good.subarray(0, 15)],
    ['a byte more', (good) => Buffer.concat([good, Buffer.alloc(1)])],
    ['a byte less', (good) => good.subarray(0, -1)],
    ['another offset', field(0, 1)],
    ['offset 2^64-1', field(0, MOST_64)],
    ['another region', field(8, 99)],
    ['count 0', field(12, 0)],
    ['count 2^31', field(12, 2 ** 31)],
    ['count 2^32-1', field(12, MOST)],
    ['64 KiB more', (good) => Buffer.concat([good, Buffer.alloc(65536)])],
  ])('%s', async (_, payload) => {
    await expectNamedError(answering(command, payload), 'ProtocolError');
  });
});

test.each([
  [2, 'DMA_MAP'],
  [8, 'SET_IRQS'],
  [13, 'RESET'],
])('a payload of 64 KiB with the answer to command %i (%s) changes nothing', async (command) => {
  expect(await outcome(answering(command, () => Buffer.alloc(65536, 0xff)))).toBeUndefined();
});

test('a dirty bitmap that nobody asked for, and whose fields make no sense, is refused', async () => {
  await expectNamedError(
    answering(3, () => Buffer.alloc(65536, 0xff)),
    'ProtocolError',
  );
});

test.each([0x00, 0xff])('config space full of %i is decoded', async (byte) => {
  const device = await opened(
    hostile(
      (asked, answer) => {
        if (asked.command === 9) answer.bytes.fill(byte, 32);
        return answer;
      },
      { regions: { 7: { size: 4096 } } },
    ),
  );
  expect(device.config.vendorId).toBe(byte * 257);
  expect(device.config.capabilities).toEqual([]);
  await device.enable().catch((error: unknown) => expect(error).toBeInstanceOf(Error));
});
