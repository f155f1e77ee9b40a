import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Feature, MigrationState } from '../../lib/protocol/constants.js';
import { decodeDeviceFeature } from '../../lib/protocol/device-feature.js';
import * as migration from '../../lib/protocol/migration.js';
import {
  deviceFeatureReply,
  deviceFeatureRequest,
  migDataReadReply,
  migDataReadRequest,
  migDataWriteRequest,
  payloadOf,
  wire,
  type MigDataFields,
  type Wire,
} from '../support/wire.js';
import {
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
  someData,
  type Decoder,
} from '../support/wire-placed.js';

const GET = 0x10000;
const SET = 0x20000;

describe('the MIGRATION feature', () => {
  const reply = (data: Wire, flags = GET | 1): Buffer => payloadOf(deviceFeatureReply({ flags, data }));

  test('the request has room for the flags', () => {
    expect(migration.encodeGetMigration()).toEqual(
      payloadOf(deviceFeatureRequest({ flags: GET | 1, argsz: 16 })),
    );
  });

  test('the reply is the flags: libvfio-user has STOP_COPY and PRE_COPY', () => {
    expect(migration.encodeMigrationReply(5)).toEqual(reply(wire().u64(5)));
    expect(decode(migration.decodeMigrationReply, reply(wire().u64(5)))).toBe(5);
    expect(decode(migration.decodeMigrationReply, reply(wire().u64(2n ** 40n + 9n)))).toBe(2 ** 40 + 9);
    expect(() => migration.encodeMigrationReply(-1)).toThrow(RangeError);
  });

  test.each<[string, Buffer, RegExp]>([
    ['no flags', reply(wire().u64(0)), /MIGRATION reply: flags is 0x0, STOP_COPY \(0x1\) must be set/],
    ['PRE_COPY without STOP_COPY', reply(wire().u64(4)), /flags is 0x4, STOP_COPY/],
    ['bits above 32, without STOP_COPY', reply(wire().u64(2n ** 40n)), /flags is 0x10000000000, STOP_COPY/],
    ['flags above 2^53', reply(wire().u64(2n ** 63n)), /MIGRATION reply: flags is 0x8/],
    [
      '7 bytes of data',
      reply(wire().zeros(7)),
      /MIGRATION reply: the payload is 7 bytes, the data is exactly 8/,
    ],
    ['9 bytes of data', reply(wire().zeros(9)), /the payload is 9 bytes/],
    ['another feature', reply(wire().u64(5), GET | 2), /flags say GET MIG_DEVICE_STATE/],
  ])('%s are refused', (_name, bytes, words) => {
    expectRefused(migration.decodeMigrationReply, bytes, words);
  });

  test('a cut reply is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(migration.decodeMigrationReply, reply(wire().u64(5)));
    expectOnlyProtocolErrors(migration.decodeMigrationReply, reply(wire().u64(5)));
  });
});

describe('the MIG_DEVICE_STATE feature', () => {
  const data = (state: number, fd = 0): Wire => wire().u32(state).u32(fd);
  const reply = (data: Wire, flags = SET | 2): Buffer => payloadOf(deviceFeatureReply({ flags, data }));
  const asked: Decoder<MigrationState> = (b, s, e) => migration.decodeMigStateReply(b, s, e, SET);

  test('the requests', () => {
    expect(migration.encodeGetMigState()).toEqual(
      payloadOf(deviceFeatureRequest({ flags: GET | 2, argsz: 16 })),
    );
    expect(migration.encodeSetMigState(MigrationState.STOP_COPY)).toEqual(
      payloadOf(deviceFeatureRequest({ flags: SET | 2, data: data(3) })),
    );
    expect(() => migration.encodeSetMigState(8 as MigrationState)).toThrow(RangeError);
  });

  test.each(Object.values(MigrationState))('a reply with state %i', (state) => {
    expect(migration.encodeMigStateReply(SET, state)).toEqual(reply(data(state)));
    expect(decode(asked, reply(data(state)))).toBe(state);
    expect(decode(asked, reply(data(state, 0xffffffff)))).toBe(state);
  });

  test('a server reads the state out of the request', () => {
    const request = decode(decodeDeviceFeature, migration.encodeSetMigState(MigrationState.RESUMING));
    expect(request.feature).toBe(Feature.MIG_DEVICE_STATE);
    expect(migration.decodeMigState(request.data)).toBe(MigrationState.RESUMING);
  });

  test.each<[string, Buffer, RegExp]>([
    ['state 8', reply(data(8)), /MIG_DEVICE_STATE reply: device_state is state 8, 0 to 7 are defined/],
    ['the largest state', reply(data(0xffffffff)), /device_state is state 4294967295/],
    ['no data', reply(wire()), /the payload is 0 bytes, the data is exactly 8/],
    ['4 bytes of data', reply(wire().u32(3)), /the payload is 4 bytes/],
    ['another operation', reply(data(3), GET | 2), /flags say GET MIG_DEVICE_STATE, SET was asked for/],
  ])('%s is refused', (_name, bytes, words) => {
    expectRefused(asked, bytes, words);
  });

  test('a cut reply is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(asked, reply(data(3)));
    expectOnlyProtocolErrors(asked, reply(data(3)));
  });
});

describe('MIG_DATA_READ', () => {
  const request = (fields?: MigDataFields): Buffer => payloadOf(migDataReadRequest(fields));
  const reply = (fields?: MigDataFields): Buffer => payloadOf(migDataReadReply(fields));
  const wanted: Decoder<Buffer> = (b, s, e) => migration.decodeMigDataReadReply(b, s, e, 4);

  test('the request says how much is wanted', () => {
    expect(migration.encodeMigDataRead(4096)).toEqual(request({ size: 4096 }));
    expect(decode(migration.decodeMigDataRead, request({ size: 4096 }))).toEqual({ argsz: 4104, size: 4096 });
    expect(() => migration.encodeMigDataRead(0xffffffff)).toThrow(RangeError);
    expect(() => migration.encodeMigDataRead(-1)).toThrow(RangeError);
  });

  test.each<[MigDataFields, RegExp]>([
    [{ size: 4096, argsz: 4103 }, /MIG_DATA_READ: argsz is 4103, the structure that it measures takes 4104/],
    [{ size: 0xffffffff, argsz: 0xffffffff }, /argsz is 4294967295/],
    [{ data: [1] }, /the payload is 9 bytes/],
  ])('%j is refused', (twin, words) => {
    expectRefused(migration.decodeMigDataRead, request(twin), words);
  });

  test('the reply is the data', () => {
    expect(migration.encodeMigDataReadReply(Buffer.of(1, 2, 3, 4))).toEqual(reply({ data: [1, 2, 3, 4] }));
    expect(decode(wanted, reply({ data: [1, 2, 3, 4] }))).toEqual(Buffer.of(1, 2, 3, 4));
  });

  test('a short reply ends the stream, padded or not', () => {
    expect(decode(wanted, reply({ data: [1, 2] }))).toEqual(Buffer.of(1, 2));
    expect(decode(wanted, reply({ data: [1, 2, 0, 0], size: 2 }))).toEqual(Buffer.of(1, 2));
    expect(decode(wanted, reply({ data: [0, 0, 0, 0], size: 0 }))).toEqual(Buffer.alloc(0));
    expect(decode(wanted, reply())).toEqual(Buffer.alloc(0));
  });

  test.each<[MigDataFields, RegExp]>([
    [{ data: [1, 2, 3, 4, 5] }, /MIG_DATA_READ reply: size is 5, 4 was asked for/],
    [{ data: [], size: 0xffffffff, argsz: 0 }, /size is 4294967295, 4 was asked for/],
    [{ data: [1, 2, 3], size: 4 }, /the payload is 11 bytes, a size of 4 takes 12/],
  ])('%j is refused', (twin, words) => {
    expectRefused(wanted, reply(twin), words);
  });

  test('a cut message is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(migration.decodeMigDataRead, request({ size: 4 }));
    expectEveryCutRefused(wanted, reply({ data: [1, 2, 3, 4] }));
    expectOnlyProtocolErrors(migration.decodeMigDataRead, request({ size: 4 }));
    expectOnlyProtocolErrors(wanted, reply({ data: [1, 2, 3, 4] }));
  });
});

describe('MIG_DATA_WRITE', () => {
  const request = (fields?: MigDataFields): Buffer => payloadOf(migDataWriteRequest(fields));

  test('the request is the data, and argsz counts it', () => {
    expect(migration.encodeMigDataWrite(Buffer.of(1, 2, 3))).toEqual(request({ data: [1, 2, 3] }));
    expect(decode(migration.decodeMigDataWrite, request({ data: [1, 2, 3] }))).toEqual(Buffer.of(1, 2, 3));
  });

  test('the 8 bytes alone, for data that is sent from where it lies', () => {
    const into = Buffer.alloc(12, 0xaa);
    migration.writeMigData(into, 2, 11, 3);
    expect(into.subarray(2, 10)).toEqual(request({ size: 3 }));
    expect([into[1], into[10], migration.MIG_DATA_SIZE]).toEqual([0xaa, 0xaa, 8]);
  });

  test('a round trip keeps the data', () => {
    fc.assert(
      fc.property(someData(), (data) => {
        expect(decode(migration.decodeMigDataWrite, migration.encodeMigDataWrite(data))).toEqual(data);
      }),
    );
  });

  test.each<[MigDataFields, RegExp]>([
    [{ data: [1, 2, 3], size: 2 }, /MIG_DATA_WRITE: the payload is 11 bytes, a size of 2 is exactly 10/],
    [{ data: [1, 2, 3], size: 4 }, /a size of 4 is exactly 12/],
    [{ data: [1, 2, 3], size: 0xffffffff, argsz: 0 }, /a size of 4294967295/],
    [{ data: [1, 2, 3], argsz: 10 }, /argsz is 10, the structure that it measures takes 11/],
  ])('%j is refused', (twin, words) => {
    expectRefused(migration.decodeMigDataWrite, request(twin), words);
  });

  test('a cut request is refused at every length, random bytes are decoded or refused', () => {
    expectEveryCutRefused(migration.decodeMigDataWrite, request({ data: [1, 2, 3] }));
    expectOnlyProtocolErrors(migration.decodeMigDataWrite, request({ data: [1, 2, 3] }));
  });
});
