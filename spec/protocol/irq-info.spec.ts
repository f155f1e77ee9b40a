import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeGetIrqInfo,
  decodeIrqInfo,
  encodeGetIrqInfo,
  encodeIrqInfo,
} from '../../lib/protocol/irq-info.js';
import { irqInfoReply, irqInfoRequest, payloadOf, type IrqInfoFields } from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
} from '../support/wire-placed.js';

const request = (fields?: IrqInfoFields): Buffer => payloadOf(irqInfoRequest(fields));
const reply = (fields?: IrqInfoFields): Buffer => payloadOf(irqInfoReply(fields));

describe('DEVICE_GET_IRQ_INFO', () => {
  test('the request is argsz and index', () => {
    expect(encodeGetIrqInfo(2)).toEqual(request({ index: 2 }));
    expect(decode(decodeGetIrqInfo, request({ index: 4, argsz: 32 }))).toEqual({ index: 4, argsz: 32 });
    expect(() => encodeGetIrqInfo(2 ** 32)).toThrow(RangeError);
    expect(() => encodeGetIrqInfo(-1)).toThrow(RangeError);
  });

  test('a request that is cut, or wants less than the structure, is refused', () => {
    expectEveryCutRefused(decodeGetIrqInfo, request());
    expectRefused(decodeGetIrqInfo, request({ argsz: 8 }), /DEVICE_GET_IRQ_INFO: argsz is 8/);
    expectOnlyProtocolErrors(decodeGetIrqInfo, request());
  });
});

describe("DEVICE_GET_IRQ_INFO's reply", () => {
  // The MSI-X of libvfio-user's tests.
  const fields = { index: 2, flags: 1, count: 2048 };

  test('is what the specification lays out', () => {
    expect(encodeIrqInfo(fields)).toEqual(reply(fields));
    expect(decode(decodeIrqInfo, reply(fields))).toEqual(fields);
    expect(decode((b, s, e) => decodeIrqInfo(b, s, e, 2), reply(fields))).toEqual(fields);
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(bits(32), bits(32), fc.integer({ min: 0, max: 65536 }), (index, flags, count) => {
        expect(decode(decodeIrqInfo, encodeIrqInfo({ index, flags, count }))).toEqual({
          index,
          flags,
          count,
        });
      }),
    );
  });

  test('another index than the one that was asked for is refused', () => {
    expectRefused((b, s, e) => decodeIrqInfo(b, s, e, 1), reply(fields), /index is 2, 1 was asked for/);
  });

  test.each([
    [{ argsz: 15 }, /DEVICE_GET_IRQ_INFO reply: argsz is 15/],
    [{ count: 65537 }, /count is 65537, more than the 65536 that are accepted/],
    [{ count: 0xffffffff }, /count is 4294967295/],
  ])('%j is refused', (twin, words) => {
    expectRefused(decodeIrqInfo, reply({ ...fields, ...twin }), words);
  });

  test('a cut reply is refused at every length', () => {
    expectEveryCutRefused(decodeIrqInfo, reply(fields));
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(decodeIrqInfo, reply(fields));
  });
});
