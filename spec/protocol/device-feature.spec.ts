import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeDeviceFeature,
  decodeDeviceFeatureReply,
  encodeDeviceFeature,
  encodeDeviceFeatureReply,
  encodeProbe,
  type DeviceFeature,
} from '../../lib/protocol/device-feature.js';
import {
  deviceFeatureReply,
  deviceFeatureRequest,
  payloadOf,
  type DeviceFeatureFields,
} from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  someData,
  type Decoder,
} from '../support/wire-placed.js';

const GET = 0x10000;
const SET = 0x20000;
const PROBE = 0x40000;

const request = (fields?: DeviceFeatureFields): Buffer => payloadOf(deviceFeatureRequest(fields));
const reply = (fields?: DeviceFeatureFields): Buffer => payloadOf(deviceFeatureReply(fields));

describe('DEVICE_FEATURE', () => {
  test('get: room for the reply in argsz', () => {
    const bytes = request({ flags: GET | 1, argsz: 16 });
    expect(encodeDeviceFeature({ feature: 1, flags: GET, argsz: 16 })).toEqual(bytes);
    expect(decode(decodeDeviceFeature, bytes)).toEqual({
      ...{ feature: 1, flags: GET, argsz: 16, data: Buffer.alloc(0) },
    });
  });

  test('set: the data behind it', () => {
    const data = Buffer.of(3, 0, 0, 0, 0, 0, 0, 0);
    expect(encodeDeviceFeature({ feature: 2, flags: SET, data })).toEqual(request({ flags: SET | 2, data }));
    expect(decode(decodeDeviceFeature, request({ flags: SET | 2, data }))).toEqual({
      ...{ feature: 2, flags: SET, argsz: 16, data },
    });
  });

  test('probe: with neither, either or both methods', () => {
    for (const methods of [0, GET, SET, GET | SET]) {
      expect(encodeProbe(6, methods)).toEqual(request({ flags: (PROBE | methods | 6) >>> 0 }));
      expect(decode(decodeDeviceFeature, encodeProbe(6, methods)).flags).toBe(PROBE | methods);
    }
  });

  test('a round trip keeps every field', () => {
    fc.assert(
      fc.property(bits(16), fc.constantFrom(GET, SET), someData(), (feature, flags, data) => {
        const argsz = 8 + data.length;
        const back = { feature, flags, data, argsz };
        expect(decode(decodeDeviceFeature, encodeDeviceFeature({ feature, flags, data }))).toEqual(back);
      }),
    );
  });

  test.each<[string, DeviceFeatureFields, RegExp]>([
    ['an argsz of less than the structure', { argsz: 7 }, /DEVICE_FEATURE: argsz is 7/],
    ['no operation', { flags: 1 }, /flags have no operation/],
    ['GET and SET', { flags: GET | SET | 1 }, /GET and SET exclude each other unless PROBE is set/],
    ['an unknown operation', { flags: 0x90001 }, /flags GET\|0x80000 have unknown bits/],
    ['all bits', { flags: 0xffffffff }, /flags GET\|SET\|PROBE\|0xfff80000 have unknown bits/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(decodeDeviceFeature, request(twin), words);
  });

  test('a cut structure is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(decodeDeviceFeature, request());
    expectOnlyProtocolErrors(decodeDeviceFeature, request({ data: [1, 2, 3] }));
  });

  test('misuse', () => {
    const sound = { feature: 1, flags: GET };
    expect(() => encodeDeviceFeature({ ...sound, flags: 0 })).toThrow(TypeError);
    expect(() => encodeDeviceFeature({ ...sound, flags: GET | SET })).toThrow(TypeError);
    expect(() => encodeDeviceFeature({ ...sound, flags: 0x80000 })).toThrow(TypeError);
    expect(() => encodeDeviceFeature({ ...sound, flags: PROBE, data: Buffer.of(1) })).toThrow(TypeError);
    expect(() => encodeDeviceFeature({ ...sound, feature: 65536 })).toThrow(RangeError);
    expect(() => encodeDeviceFeature({ ...sound, feature: -1 })).toThrow(RangeError);
    expect(() => encodeDeviceFeature({ ...sound, argsz: 7 })).toThrow(RangeError);
    expect(() => encodeDeviceFeature({ ...sound, data: Buffer.alloc(9), argsz: 16 })).toThrow(RangeError);
    expect(() => encodeProbe(65536, GET)).toThrow(RangeError);
  });
});

describe("DEVICE_FEATURE's reply", () => {
  const asked: Decoder<DeviceFeature> = (b, s, e) => decodeDeviceFeatureReply(b, s, e, 2, GET);

  test('is the request, and what was got behind it', () => {
    const data = Buffer.of(2, 0, 0, 0, 0, 0, 0, 0);
    const bytes = reply({ flags: GET | 2, data });
    expect(encodeDeviceFeatureReply({ feature: 2, flags: GET, data })).toEqual(bytes);
    expect(encodeDeviceFeatureReply({ feature: 2, flags: PROBE })).toEqual(reply({ flags: PROBE | 2 }));
    expect(decode(asked, bytes)).toEqual({ feature: 2, flags: GET, argsz: 16, data });
  });

  test.each<[string, DeviceFeatureFields, RegExp]>([
    [
      'an argsz of less than the structure',
      { argsz: 0 },
      /DEVICE_FEATURE MIG_DEVICE_STATE reply: argsz is 0/,
    ],
    ['another feature', { flags: GET | 1 }, /flags say GET MIGRATION, GET was asked for/],
    ['another operation', { flags: SET | 2 }, /flags say SET MIG_DEVICE_STATE, GET was asked for/],
    ['no operation', { flags: 2 }, /flags say nothing MIG_DEVICE_STATE/],
    ['an operation besides', { flags: (GET | PROBE | 2) >>> 0 }, /flags say GET\|PROBE MIG_DEVICE_STATE/],
  ])('%s is refused', (_name, twin, words) => {
    expectRefused(asked, reply({ flags: GET | 2, ...twin }), words);
  });

  test('a cut structure is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(asked, reply({ flags: GET | 2 }));
    expectOnlyProtocolErrors(asked, reply({ flags: GET | 2, data: [1, 2, 3] }));
  });

  test('what does not fit is a RangeError', () => {
    expect(() => encodeDeviceFeatureReply({ feature: 65536, flags: GET })).toThrow(RangeError);
    expect(() => encodeDeviceFeatureReply({ feature: 1, flags: 2 ** 32 })).toThrow(RangeError);
  });
});
