import { describe, expect, test } from '@jest/globals';
import { CommanderError, InvalidArgumentError } from 'commander';
import picocolors from 'picocolors';
import { ClosedError, ProtocolError, RemoteError, TimeoutError } from '../../lib/errors.js';
import { UsageError, describeError, exitStatus, printable } from '../../lib/cli/errors.js';
import type { DeviceReport } from '../../lib/cli/describe-device.js';
import { renderDevice } from '../../lib/cli/render-device.js';
import { toJson } from '../../lib/cli/json.js';
import { accessWidth, length, milliseconds, size, uint64 } from '../../lib/cli/numbers.js';
import { endpointOf } from '../../lib/cli/endpoint.js';
import { regionIndex, regionName } from '../../lib/cli/region-names.js';
import { byteCount, columns, counted, hex } from '../../lib/cli/format-text.js';

describe('errors in words', () => {
  test('are named by their code, once', () => {
    expect(describeError(new TimeoutError('VERSION', 200))).toBe(
      'vfio-user: VERSION: no answer within 200 ms [ETIMEDOUT]',
    );
    expect(describeError(new RemoteError('REGION_READ', 22))).toBe(
      'vfio-user: REGION_READ: the server answered EINVAL',
    );
    const closed = new ClosedError('a message is cut', { cause: new ProtocolError('a message is cut') });
    expect(describeError(closed)).toBe('vfio-user: a message is cut [ERR_VFIO_USER_PROTOCOL]');
    expect(describeError(new RangeError('too far'))).toBe('vfio-user: too far [RangeError]');
    expect(describeError(new UsageError('no such thing'))).toBe('vfio-user: no such thing');
  });

  test('are one line of printable characters', () => {
    expect(describeError(new Error('one\ntwo\u001b[31m\u202e'))).toBe(
      'vfio-user: one two\\u001b[31m\\u202e [Error]',
    );
    expect(describeError('a string')).toBe("vfio-user: 'a string' was thrown");
    expect(printable('naïve – ok')).toBe('naïve – ok');
  });

  test('verbose has the causes too', () => {
    const error = new Error('outer', { cause: new Error('inner') });
    expect(describeError(error, true)).toMatch(/^vfio-user: outer \[Error\]\nError: outer\n[^]*inner/);
  });

  test('and exit statuses', () => {
    expect(exitStatus(new Error('x'))).toBe(1);
    expect(exitStatus(new UsageError('x'))).toBe(2);
    expect(exitStatus(new CommanderError(1, 'commander.unknownOption', 'x'))).toBe(2);
    expect(exitStatus(new CommanderError(0, 'commander.helpDisplayed', 'x'))).toBe(0);
  });
});

describe('toJson', () => {
  test('bigints are numbers while that is exact, bytes are digits', () => {
    const value = {
      small: 4096n,
      large: 0xffff_ffff_ffff_f000n,
      bytes: Buffer.from('beef', 'hex'),
      list: [1n],
    };
    expect(JSON.parse(toJson(value))).toEqual({
      small: 4096,
      large: '0xfffffffffffff000',
      bytes: 'beef',
      list: [1],
    });
  });
});

describe('what a server says of itself', () => {
  /** A server that would like to paint the terminal. */
  const report: DeviceReport = {
    socket: '/run/\u001b[31m',
    pci: null,
    vendorId: null,
    deviceId: null,
    name: null,
    flags: 1,
    flagNames: ['RESET'],
    negotiated: {
      major: 0,
      minor: 2,
      twinSocket: false,
      capabilities: {
        maxMsgFds: 1,
        maxDataXferSize: 1 << 20,
        maxDmaMaps: 16,
        pgsizes: 1n << 63n,
        twinSocket: { supported: false },
        writeMultiple: false,
        sparseMmapFds: false,
        other: { 'x\u009b31m': ['\u202e\u0007', 'naïve'] },
      },
    },
    regions: [],
    irqs: [],
    config: null,
  };
  // eslint-disable-next-line no-control-regex
  const steering = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/;

  test('in words', () => {
    const text = renderDevice(report, picocolors.createColors(false));
    expect(text).not.toMatch(steering);
    expect(text).toContain('a device  at /run/\\u001b[31m');
    expect(text).toContain('x\\u009b31m');
    expect(text).toContain('naïve');
    expect(text).toMatch(/pgsizes +0x8000000000000000/);
  });

  test('in JSON, which is the same to programs', () => {
    const json = toJson(report);
    expect(json).not.toMatch(steering);
    expect(JSON.parse(json)).toMatchObject({
      socket: '/run/\u001b[31m',
      negotiated: {
        capabilities: { pgsizes: '0x8000000000000000', other: { 'x\u009b31m': ['\u202e\u0007', 'naïve'] } },
      },
    });
  });
});

describe('numbers as people type them', () => {
  test('decimal, or hexadecimal after 0x', () => {
    expect(['0', '10', '0x10', '0XfF'].map(size)).toEqual([0, 10, 16, 255]);
    expect(uint64('0xffffffffffffffff')).toBe(0xffff_ffff_ffff_ffffn);
    expect(['1', '2', '4', '8'].map(accessWidth)).toEqual([1, 2, 4, 8]);
    expect(milliseconds('2147483647')).toBe(2147483647);
  });

  test.each([
    'zz',
    '-1',
    '+1',
    '0x',
    '1e3',
    '1.5',
    '',
    ' 1',
    '0b1',
    '0x1ffffffffffffffff',
    '0x20000000000000',
  ])('%j is none', (text) => {
    expect(() => size(text)).toThrow(InvalidArgumentError);
  });

  test('out of their bounds', () => {
    expect(() => length('0')).toThrow(InvalidArgumentError);
    expect(() => milliseconds('2147483648')).toThrow(InvalidArgumentError);
    expect(() => accessWidth('3')).toThrow(InvalidArgumentError);
    expect(() => uint64('0x10000000000000000')).toThrow(InvalidArgumentError);
  });
});

describe('sockets as people type them', () => {
  test.each(['/run/dev.sock', '@name', 'fd:17', './fd:17', 'tcp:1', 'tcp:[::1]:80'])(
    '%s is what the library takes',
    (text) => {
      expect(endpointOf(text)).toBe(text);
    },
  );

  test.each(['', '@', 'fd:', 'fd:x', 'fd:1', 'tcp:', 'tcp:0', 'tcp:99999', 'tcp:host:port', 'tcp:::1:80'])(
    '%j is none',
    (text) => {
      expect(() => endpointOf(text)).toThrow(UsageError);
    },
  );
});

describe('names and numbers', () => {
  test('regions', () => {
    expect(['bar0', 'BAR5', 'rom', 'config', 'vga', '12', '0x10'].map(regionIndex)).toEqual([
      0, 5, 6, 7, 8, 12, 16,
    ]);
    for (const name of ['bar6', 'mmio', '-1', ''])
      expect(() => regionIndex(name)).toThrow(InvalidArgumentError);
    expect(regionName(7, true)).toBe('config');
    expect(regionName(7, false)).toBe('region 7');
    expect(regionName(12, true)).toBe('region 12');
  });

  test('sizes in the largest unit that is exact', () => {
    expect([1, 256, 1024, 12288, 12289, 1 << 20, 2 ** 40].map(byteCount)).toEqual([
      '1 byte',
      '256 bytes',
      '1 KiB',
      '12 KiB',
      '12289 bytes',
      '1 MiB',
      '1 TiB',
    ]);
    expect(hex(0x1000n)).toBe('0x1000');
    expect(counted(1, 'vector')).toBe('1 vector');
    expect(counted(2, 'vector')).toBe('2 vectors');
  });

  test('columns line up, and lines end with their text', () => {
    expect(
      columns([
        ['a', 'bb'],
        ['ccc', 'd'],
      ]),
    ).toBe('  a    bb\n  ccc  d');
  });
});
