import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ProtocolError } from '../../lib/errors.js';
import {
  decodeHeader,
  headerCommand,
  headerErrno,
  headerFlags,
  headerId,
  headerSize,
  writeHeader,
} from '../../lib/protocol/header.js';
import { deviceResetReply, errorReply, message } from '../support/wire.js';
import { bits } from '../support/wire-placed.js';

const NOTHING = Buffer.alloc(0);

describe('writeHeader', () => {
  test('writes what the specification lays out, and nothing beside it', () => {
    const into = Buffer.alloc(20, 0xaa);
    writeHeader(into, 2, 0x1234, 9, 0x20, 0x10, 0);
    const expected = message(9, 0, NOTHING, { id: 0x1234, size: 0x20, flags: 0x10 });
    expect(into).toEqual(Buffer.concat([Buffer.from([0xaa, 0xaa]), expected, Buffer.from([0xaa, 0xaa])]));
    expect(expected.toString('hex')).toBe('34120900200000001000000000000000');
  });

  test.each<[string, [number, number, number, number, number]]>([
    ['id', [0x10000, 1, 16, 0, 0]],
    ['command', [1, 0x10000, 16, 0, 0]],
    ['size', [1, 1, 0x100000000, 0, 0]],
    ['flags', [1, 1, 16, -1, 0]],
    ['errno', [1, 1, 16, 0, -22]],
  ])('%s that does not fit is a RangeError', (_name, [id, command, size, flags, errno]) => {
    const write = (): void => writeHeader(Buffer.alloc(16), 0, id, command, size, flags, errno);
    expect(write).toThrow(expect.objectContaining({ name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }));
  });
});

describe('decodeHeader', () => {
  test('reads a command, a reply and an error reply', () => {
    expect(decodeHeader(message(10, 0, Buffer.alloc(24), { id: 7, flags: 0x10 }), 0)).toEqual({
      ...{ id: 7, command: 10, size: 40, flags: 0x10, errno: 0 },
    });
    expect(decodeHeader(deviceResetReply({ id: 65535 }), 0)).toEqual({
      ...{ id: 65535, command: 13, size: 16, flags: 1, errno: 0 },
    });
    expect(decodeHeader(errorReply(9, 22), 0)).toEqual({
      id: 1,
      command: 9,
      size: 16,
      flags: 0x21,
      errno: 22,
    });
  });

  test('an error bit without errno, and a payload behind an error, are read as they are', () => {
    expect(decodeHeader(errorReply(2, 0), 0)).toMatchObject({ flags: 0x21, errno: 0 });
    expect(decodeHeader(errorReply(9, 22, { size: 48 }), 0)).toMatchObject({ size: 48, errno: 22 });
  });

  test('reserved flag bits are left to the reader', () => {
    expect(decodeHeader(message(1, 0, NOTHING, { flags: 0xffffffc0 }), 0).flags).toBe(0xffffffc0);
  });

  test('the single fields are where decodeHeader finds them', () => {
    const bytes = Buffer.concat([Buffer.alloc(5), message(300, 1, NOTHING, { id: 9, size: 77, errno: 5 })]);
    expect(headerId(bytes, 5)).toBe(9);
    expect(headerCommand(bytes, 5)).toBe(300);
    expect(headerSize(bytes, 5)).toBe(77);
    expect(headerFlags(bytes, 5)).toBe(1);
    expect(headerErrno(bytes, 5)).toBe(5);
  });

  test('a round trip keeps every field', () => {
    const flags = fc
      .tuple(bits(32), fc.constantFrom(0, 1))
      .map(([rest, type]) => ((rest & ~0xf) | type) >>> 0);
    const sizes = fc.integer({ min: 16, max: 0xffffffff });
    fc.assert(
      fc.property(bits(16), bits(16), sizes, flags, bits(32), (id, command, size, flags, errno) => {
        const bytes = Buffer.alloc(19);
        writeHeader(bytes, 3, id, command, size, flags, errno);
        expect(decodeHeader(bytes, 3)).toEqual({ id, command, size, flags, errno });
      }),
    );
  });

  test.each([0, 1, 15])('a size of %i is less than the header itself', (size) => {
    expect(() => decodeHeader(message(9, 0, NOTHING, { size }), 0)).toThrow(
      `REGION_READ header: the message size is ${size}, less than the header's 16`,
    );
  });

  test.each([2, 3, 0xf])('type %i is neither command nor reply', (flags) => {
    const bytes = message(99, 0, NOTHING, { flags });
    expect(() => decodeHeader(bytes, 0)).toThrow(
      `command 99 header: the message type is ${flags}, neither command (0) nor reply (1)`,
    );
    expect(() => decodeHeader(bytes, 0)).toThrow(ProtocolError);
  });

  test('a cut header is refused at every length', () => {
    const bytes = deviceResetReply();
    for (let length = 0; length < 16; length++) {
      expect(() => decodeHeader(bytes.subarray(0, length), 0)).toThrow(ProtocolError);
    }
  });

  test('random bytes are decoded or refused, nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), (random) => {
        try {
          expect(decodeHeader(Buffer.from(random), 0).size).toBeGreaterThanOrEqual(16);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
      }),
    );
  });
});
