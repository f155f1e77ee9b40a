import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeVersion, encodeVersion, type Capabilities } from '../../lib/protocol/version.js';
import { payloadOf, versionReply, versionRequest, type VersionFields } from '../support/wire.js';
import { bits, decode, expectOnlyProtocolErrors, expectRefused, pageSizes } from '../support/wire-placed.js';

const DEFAULTS: Capabilities = {
  maxMsgFds: 1,
  maxDataXferSize: 1048576,
  maxDmaMaps: 65535,
  pgsizes: 4096n,
  twinSocket: { supported: false },
  writeMultiple: false,
  sparseMmapFds: false,
  other: {},
};

const payload = (data: VersionFields['data']): Buffer => payloadOf(versionReply({ data: data ?? '' }));
const capabilities = (json: object | string): Capabilities =>
  decode(
    decodeVersion,
    payload(typeof json === 'string' ? `{"capabilities":${json}}` : { capabilities: json }),
  ).capabilities;

describe('encodeVersion', () => {
  test('always has version data, and its NUL', () => {
    expect(encodeVersion({ major: 0, minor: 1 })).toEqual(payloadOf(versionRequest({ minor: 1 })));
    expect(encodeVersion({ major: 0, minor: 1 }).toString('latin1')).toBe('\0\0\x01\0{"capabilities":{}}\0');
  });

  test('every capability goes out under its JSON name', () => {
    const encoded = encodeVersion({
      major: 1,
      minor: 0x203,
      capabilities: {
        maxMsgFds: 8,
        maxDataXferSize: 65536,
        maxDmaMaps: 16,
        pgsizes: 0x201000n,
        twinSocket: { supported: true, fdIndex: 0 },
        writeMultiple: true,
        sparseMmapFds: true,
        migration: { pgsize: 4096, maxBitmapSize: 268435456 },
        other: { vendor: { colour: 'red' } },
      },
    });
    const json = {
      vendor: { colour: 'red' },
      max_msg_fds: 8,
      max_data_xfer_size: 65536,
      max_dma_maps: 16,
      pgsizes: 0x201000,
      twin_socket: { supported: true, fd_index: 0 },
      write_multiple: true,
      sparse_mmap_fds: true,
      migration: { pgsize: 4096, max_bitmap_size: 268435456 },
    };
    expect(encoded).toEqual(
      payloadOf(versionRequest({ major: 1, minor: 0x203, data: { capabilities: json } })),
    );
  });

  test('64-bit page sizes are written exactly, as a number', () => {
    const encoded = encodeVersion({ major: 0, minor: 1, capabilities: { pgsizes: 0xfffffffffffff000n } });
    expect(encoded.toString('latin1', 4)).toBe('{"capabilities":{"pgsizes":18446744073709547520}}\0');
  });

  test('a known name in `other` does not get past the typed member', () => {
    const other = { max_msg_fds: 'many', kept: undefined };
    const encoded = encodeVersion({ major: 0, minor: 1, capabilities: { other } });
    expect(encoded.toString('latin1', 4)).toBe('{"capabilities":{}}\0');
  });

  test('versions of more than 16 bits are RangeErrors', () => {
    expect(() => encodeVersion({ major: 65536, minor: 0 })).toThrow(RangeError);
    expect(() => encodeVersion({ major: 0, minor: -1 })).toThrow(RangeError);
  });

  test('a round trip keeps everything', () => {
    const limits = fc.record({
      maxMsgFds: fc.integer({ min: 0, max: 1024 }),
      maxDataXferSize: fc.integer({ min: 1, max: 0xffffffff }),
      maxDmaMaps: bits(32),
      pgsizes: fc.bigInt({ min: 1n, max: (1n << 64n) - 1n }),
      twinSocket: fc.record(
        { supported: fc.boolean(), fdIndex: fc.integer({ min: 0, max: 1023 }) },
        { requiredKeys: ['supported'] },
      ),
      writeMultiple: fc.boolean(),
      sparseMmapFds: fc.boolean(),
    });
    const migration = fc.record(
      { pgsize: pageSizes(), maxBitmapSize: fc.maxSafeNat() },
      { requiredKeys: ['pgsize'] },
    );
    const names = fc.string().map((name) => `x-${name}`);
    const other = fc.dictionary(names, fc.oneof(fc.boolean(), fc.string(), fc.nat()), {
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(
        bits(16),
        bits(16),
        limits,
        fc.option(migration),
        other,
        (major, minor, rest, mig, other) => {
          const capabilities: Capabilities = { ...rest, other, ...(mig && { migration: mig }) };
          const back = decode(decodeVersion, encodeVersion({ major, minor, capabilities }));
          expect(back).toEqual({ major, minor, capabilities });
        },
      ),
    );
  });
});

describe('decodeVersion: what servers send', () => {
  test('libvfio-user', () => {
    const data =
      '{ "capabilities": { "max_msg_fds": 8, "max_data_xfer_size": 1048576, ' +
      '"migration": { "pgsize": 4096 }, "twin_socket": { "supported": true, "fd_index": 0 } } }\0';
    expect(decode(decodeVersion, payloadOf(versionReply({ major: 0, minor: 2, data })))).toEqual({
      major: 0,
      minor: 2,
      capabilities: {
        ...DEFAULTS,
        maxMsgFds: 8,
        migration: { pgsize: 4096 },
        twinSocket: { supported: true, fdIndex: 0 },
      },
    });
  });

  test('rust-vmm', () => {
    const data =
      '{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0';
    expect(decode(decodeVersion, payloadOf(versionReply({ minor: 0, data })))).toEqual({
      major: 0,
      minor: 0,
      capabilities: { ...DEFAULTS, migration: { pgsize: 4096 } },
    });
  });

  test.each([
    ['no version data', ''],
    ['a NUL alone', '\0'],
    ['an empty object', '{}\0'],
    ['an object without NUL', '{"capabilities":{}}'],
    ['white space around it', ' \n{"capabilities" : {} }\t\0'],
    ['members beside the capabilities', '{"comment":[1,2],"capabilities":{}}\0'],
  ])('%s means the defaults', (_name, data) => {
    expect(decode(decodeVersion, payload(data)).capabilities).toEqual(DEFAULTS);
  });

  test('the capabilities of QEMU, as its client writes them', () => {
    const json =
      '{"pgsizes": 4096, "max_dma_maps": 65535, "max_msg_fds": 16, "max_data_xfer_size": 1048576, ' +
      '"write_multiple": true, "migration": {"max_bitmap_size": 268435456, "pgsize": 4096}}';
    expect(capabilities(json)).toEqual({
      ...DEFAULTS,
      maxMsgFds: 16,
      writeMultiple: true,
      migration: { pgsize: 4096, maxBitmapSize: 268435456 },
    });
  });

  test('a migration object without page size has 4096', () => {
    expect(capabilities({ migration: {} }).migration).toEqual({ pgsize: 4096 });
  });

  test.each([
    ['true', true],
    ['false', false],
    ['1', true],
    ['0', false],
  ])('sparse_mmap_fds %s is %s', (value, meant) => {
    expect(capabilities(`{"sparse_mmap_fds":${value}}`).sparseMmapFds).toBe(meant);
  });
});

describe('decodeVersion: page sizes', () => {
  test.each([
    ['4096', 0x1000n],
    ['18446744073709547520', 0xfffffffffffff000n],
    ['9007199254740993', 9007199254740993n],
    ['"4096"', 0x1000n],
    ['"0x201000"', 0x201000n],
    ['"0xFFFFFFFFFFFFF000"', 0xfffffffffffff000n],
    ['"18446744073709551615"', 0xffffffffffffffffn],
  ])('%s', (written, meant) => {
    expect(capabilities(`{"pgsizes":${written}}`).pgsizes).toBe(meant);
  });

  test.each([
    '0',
    '-4096',
    '1.5',
    '1e300',
    '18446744073709551616',
    '"0"',
    '""',
    '"4k"',
    '"-1"',
    'true',
    'null',
    '[]',
  ])('%s is refused', (written) => {
    const data = `{"capabilities":{"pgsizes":${written}}}`;
    expectRefused(decodeVersion, payload(data), /capability pgsizes is .*, it must be page sizes/);
  });
});

describe('decodeVersion: what it does not know', () => {
  test('unknown capabilities are kept, long integers as their digits', () => {
    const json =
      '{"name":"a 12345678901234567890 b","big":12345678901234567890,"list":[-1234567890123456789,0.1234567890123456,' +
      '1e1000000000000000],"quote":"\\"1234567890123456789","deep":{"x":null}}';
    expect(capabilities(json).other).toEqual({
      name: 'a 12345678901234567890 b',
      big: '12345678901234567890',
      list: ['-1234567890123456789', 0.1234567890123456, Infinity],
      quote: '"1234567890123456789',
      deep: { x: null },
    });
  });

  test('__proto__ and other names of Object are names like any other', () => {
    const json = '{"__proto__":{"maxMsgFds":99,"polluted":true},"constructor":1,"hasOwnProperty":2}';
    const { other, maxMsgFds } = capabilities(json);
    expect(Object.getPrototypeOf(other)).toBeNull();
    expect(Object.keys(other).sort()).toEqual(['__proto__', 'constructor', 'hasOwnProperty']);
    expect(maxMsgFds).toBe(1);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  test('__proto__ in place of the capabilities gives none', () => {
    const decoded = decode(decodeVersion, payload('{"__proto__":{"capabilities":{"max_msg_fds":5}}}'));
    expect(decoded.capabilities).toEqual(DEFAULTS);
  });
});

describe('decodeVersion: what is refused', () => {
  test.each([
    ['max_msg_fds', ['"foo"', '-1', '1025', '1.5', 'true', 'null', '{}', '1e999', '12345678901234567890']],
    ['max_data_xfer_size', ['"1"', '0', '-1', '4294967296', '0.5', 'false', '[1]']],
    ['max_dma_maps', ['"1"', '-1', '4294967296', '2.5', 'null']],
    ['write_multiple', ['1', '"true"', 'null', '{}']],
    ['sparse_mmap_fds', ['"1"', '-1', '1.5', 'null', '[]', '4294967296']],
    ['twin_socket', ['true', '1', '"yes"', 'null', '[]']],
    ['migration', ['"23"', '4096', 'null', '[4096]']],
  ])('%s of a wrong kind or out of range', (name, values) => {
    for (const value of values) {
      const data = `{"capabilities":{"${name}":${value}}}`;
      expectRefused(
        decodeVersion,
        payload(data),
        new RegExp(`VERSION: capability ${name} is .*, it must be `),
      );
    }
  });

  test.each([
    ['{"twin_socket":{"supported":1}}', 'twin_socket.supported is 1, it must be true or false'],
    ['{"twin_socket":{"fd_index":-1}}', 'twin_socket.fd_index is -1, it must be an integer from 0 to 1023'],
    ['{"twin_socket":{"fd_index":1024}}', 'twin_socket.fd_index is 1024'],
    ['{"twin_socket":{"supported":true,"fd_index":"0"}}', 'twin_socket.fd_index is "0"'],
    ['{"migration":{"pgsize":4095}}', 'migration.pgsize is 4095, it must be a power of two'],
    ['{"migration":{"pgsize":0}}', 'migration.pgsize is 0'],
    ['{"migration":{"pgsize":"foo"}}', 'migration.pgsize is "foo"'],
    ['{"migration":{"max_bitmap_size":-1}}', 'migration.max_bitmap_size is -1'],
  ])('%s', (json, words) => {
    expectRefused(decodeVersion, payload(`{"capabilities":${json}}`), new RegExp(words));
  });

  test.each([
    ['an array', '[]', /not a JSON object/],
    ['a string', '"text"', /not a JSON object/],
    ['null', 'null', /not a JSON object/],
    ['capabilities that are a string', '{"capabilities":"23"}', /capability capabilities is "23"/],
    ['capabilities that are a list', '{"capabilities":[]}', /capability capabilities is \[\]/],
    ['no closing brace', '{', /not JSON/],
    ['no closing quote', '"', /not JSON/],
    ['a comma too many', '{"capabilities":{},}', /not JSON/],
    ['NaN', '{"capabilities":{"max_msg_fds":NaN}}', /not JSON/],
    ['bytes behind the NUL', '{}\0{}\0', /3 bytes follow the NUL/],
    ['two NULs', '{}\0\0', /1 bytes follow the NUL/],
    ['a NUL inside', '{"capa\0bilities":{}}', /follow the NUL/],
  ])('%s', (_name, data, words) => {
    expectRefused(decodeVersion, payload(data), words);
  });

  test.each([
    ['a lone continuation byte', [0x7b, 0x22, 0x80, 0x22, 0x3a, 0x31, 0x7d]],
    ['an overlong slash', [0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d]],
    ['a surrogate', [0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]],
    ['a cut sequence', [0x7b, 0x22, 0xe2, 0x82]],
  ])('%s is not UTF-8', (_name, bytes) => {
    expectRefused(decodeVersion, payload(Uint8Array.from(bytes)), /not UTF-8/);
  });

  test('nesting deeper than 16 levels, without exhausting the stack', () => {
    const nested = (depth: number): string =>
      `{"capabilities":{"x":${'['.repeat(depth)}${']'.repeat(depth)}}}`;
    expect(decode(decodeVersion, payload(nested(14))).capabilities.other).toHaveProperty('x');
    expectRefused(decodeVersion, payload(nested(15)), /nested deeper than 16 levels/);
    expectRefused(decodeVersion, payload(nested(32_000)), /nested deeper than 16 levels/);
  });

  test('more than 64 KiB of version data', () => {
    const data = (length: number): string => `{}${' '.repeat(length - 3)}\0`;
    expect(decode(decodeVersion, payload(data(65536))).capabilities).toEqual(DEFAULTS);
    expectRefused(decodeVersion, payload(data(65537)), /65537 bytes of version data, at most 65536 are read/);
  });

  test('an unclosed string full of quotes costs no more than its length', () => {
    expectRefused(decodeVersion, payload(`{"1234567890123456":"${'\\"'.repeat(32_000)}`), /not JSON/);
  });

  test('a payload of less than 4 bytes', () => {
    for (let length = 0; length < 4; length++) {
      expectRefused(decodeVersion, Buffer.alloc(length), /VERSION: the payload is \d bytes/);
    }
  });

  test('what breaks is shown, but no more than a line of it', () => {
    const data = JSON.stringify({ capabilities: { max_msg_fds: 'x'.repeat(10_000) } });
    expectRefused(
      decodeVersion,
      payload(data),
      /^VERSION: capability max_msg_fds is .{80}, it must be an integer/,
    );
  });

  test('random bytes are decoded or refused, nothing else', () => {
    const json =
      '{"capabilities":{"max_msg_fds":8,"pgsizes":18446744073709547520,"twin_socket":{"supported":true}}}\0';
    expectOnlyProtocolErrors(
      decodeVersion,
      payload(json),
      payload({ capabilities: { migration: { pgsize: 4096 } } }),
    );
  });

  test('random JSON is decoded or refused, nothing else', () => {
    const names = fc.constantFrom(
      'max_msg_fds',
      'pgsizes',
      'twin_socket',
      'migration',
      'sparse_mmap_fds',
      'x',
    );
    fc.assert(
      fc.property(fc.dictionary(names, fc.jsonValue()), (json) => {
        try {
          capabilities(json);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
        }
      }),
    );
  });
});
