import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeDeviceInfo,
  decodeGetInfo,
  encodeDeviceInfo,
  encodeGetInfo,
} from '../../lib/protocol/device-info.js';
import {
  deviceGetInfoReply,
  deviceGetInfoRequest,
  payloadOf,
  type DeviceInfoFields,
} from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
} from '../support/wire-placed.js';

const request = (fields?: DeviceInfoFields): Buffer => payloadOf(deviceGetInfoRequest(fields));
const reply = (fields?: DeviceInfoFields): Buffer => payloadOf(deviceGetInfoReply(fields));

describe('DEVICE_GET_INFO', () => {
  test('the request is its argsz and zeros', () => {
    expect(encodeGetInfo()).toEqual(request());
    expect(decode(decodeGetInfo, request({ argsz: 64 }))).toEqual({ argsz: 64 });
  });

  test('a request that is cut, or wants less than the structure, is refused', () => {
    expectEveryCutRefused(decodeGetInfo, request());
    expectRefused(
      decodeGetInfo,
      request({ argsz: 15 }),
      /argsz is 15, the structure that it measures takes 16/,
    );
    expectOnlyProtocolErrors(decodeGetInfo, request());
  });
});

describe("DEVICE_GET_INFO's reply", () => {
  // A PCI device of libvfio-user: resettable, 9 regions, 5 interrupt types.
  const fields = { flags: 3, numRegions: 9, numIrqs: 5 };

  test('is what the specification lays out', () => {
    expect(encodeDeviceInfo(fields)).toEqual(reply(fields));
    expect(decode(decodeDeviceInfo, reply(fields))).toEqual(fields);
  });

  test('may be longer than the structure is today', () => {
    expect(
      decode(decodeDeviceInfo, Buffer.concat([reply({ ...fields, argsz: 24 }), Buffer.alloc(8)])),
    ).toEqual(fields);
  });

  test('a round trip keeps every field', () => {
    const counts = fc.integer({ min: 0, max: 1024 });
    fc.assert(
      fc.property(bits(32), counts, counts, (flags, numRegions, numIrqs) => {
        const info = { flags, numRegions, numIrqs };
        expect(decode(decodeDeviceInfo, encodeDeviceInfo(info))).toEqual(info);
      }),
    );
  });

  test('a cut reply is refused at every length', () => {
    expectEveryCutRefused(decodeDeviceInfo, reply(fields));
    expectRefused(
      decodeDeviceInfo,
      reply().subarray(0, 15),
      /DEVICE_GET_INFO reply: the payload is 15 bytes/,
    );
  });

  test.each([
    [{ argsz: 15 }, /argsz is 15/],
    [{ argsz: 0 }, /argsz is 0/],
    [{ numRegions: 1025 }, /num_regions is 1025, more than the 1024 that are accepted/],
    [{ numRegions: 0xffffffff }, /num_regions is 4294967295/],
    [{ numIrqs: 1025 }, /num_irqs is 1025/],
    [{ numIrqs: 0xffffffff }, /num_irqs is 4294967295/],
  ])('%j is refused', (twin, words) => {
    expectRefused(decodeDeviceInfo, reply({ ...fields, ...twin }), words);
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(decodeDeviceInfo, reply(fields));
  });

  test('what does not fit is a RangeError', () => {
    expect(() => encodeDeviceInfo({ ...fields, flags: 2 ** 32 })).toThrow(RangeError);
    expect(() => encodeDeviceInfo({ ...fields, numRegions: 1025 })).toThrow(RangeError);
    expect(() => encodeDeviceInfo({ ...fields, numIrqs: -1 })).toThrow(RangeError);
    expect(() => encodeDeviceInfo({ ...fields, numIrqs: 1.5 })).toThrow(RangeError);
  });
});
