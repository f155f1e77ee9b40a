import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeSetIrqs, encodeSetIrqs, type SetIrqs } from '../../lib/protocol/set-irqs.js';
import { payloadOf, setIrqsRequest, type SetIrqsFields } from '../support/wire.js';
import {
  bits,
  decode,
  expectEveryCutRefused,
  expectOnlyProtocolErrors,
  expectRefused,
} from '../support/wire-placed.js';

const NONE = 0x1;
const BOOL = 0x2;
const EVENTFD = 0x4;
const MASK = 0x8;
const UNMASK = 0x10;
const TRIGGER = 0x20;

const request = (fields?: SetIrqsFields): Buffer => payloadOf(setIrqsRequest(fields));

describe('DEVICE_SET_IRQS: sound requests', () => {
  test.each<[string, SetIrqs]>([
    [
      'eventfds for the first eight MSI-X vectors',
      { index: 2, start: 0, count: 8, flags: EVENTFD | TRIGGER },
    ],
    ['a trigger of INTx by hand', { index: 0, start: 0, count: 1, flags: NONE | TRIGGER }],
    ['masking', { index: 0, start: 0, count: 1, flags: NONE | MASK }],
    ['an eventfd that is told of unmasking', { index: 0, start: 0, count: 1, flags: EVENTFD | UNMASK }],
    ['everything off', { index: 2, start: 0, count: 0, flags: NONE | TRIGGER }],
    ['the last numbers there are', { index: 0xffffffff, start: 0xfffffffe, count: 1, flags: NONE | UNMASK }],
  ])('%s', (_name, fields) => {
    expect(encodeSetIrqs(fields)).toEqual(request(fields));
    expect(decode(decodeSetIrqs, request(fields))).toEqual(fields);
  });

  test('booleans come as bytes, and back as a copy', () => {
    const fields = { index: 2, start: 5, count: 4, flags: BOOL | TRIGGER };
    expect(encodeSetIrqs({ ...fields, data: Uint8Array.of(1, 0, 0, 255) })).toEqual(
      request({ ...fields, data: [1, 0, 0, 255] }),
    );
    expect(decode(decodeSetIrqs, request({ ...fields, data: [1, 0, 0, 255] }))).toEqual({
      ...fields,
      data: Buffer.from([1, 0, 0, 255]),
    });
  });

  test('an argsz that counts the fds as the kernel would is accepted', () => {
    const fields = { index: 1, start: 0, count: 2, flags: EVENTFD | TRIGGER };
    expect(decode(decodeSetIrqs, request({ ...fields, argsz: 28 }))).toEqual(fields);
  });

  test('a round trip keeps every field', () => {
    const ranges = fc.tuple(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 1, max: 64 }));
    const kinds = fc.constantFrom(NONE, BOOL, EVENTFD);
    const actions = fc.constantFrom(MASK, UNMASK, TRIGGER);
    fc.assert(
      fc.property(bits(32), ranges, kinds, actions, (index, [start, count], kind, action) => {
        const data = kind === BOOL ? { data: Buffer.alloc(count, 1) } : {};
        const sent: SetIrqs = { index, start, count, flags: kind | action, ...data };
        expect(decode(decodeSetIrqs, encodeSetIrqs(sent))).toEqual(sent);
      }),
    );
  });
});

describe('DEVICE_SET_IRQS: broken rules', () => {
  const sound: SetIrqs = { index: 2, start: 1, count: 3, flags: NONE | TRIGGER };
  const bools = { flags: BOOL | TRIGGER };

  test.each<[string, Partial<SetIrqs>, RegExp]>([
    ['no flag', { flags: 0 }, /flags 0x0 must have exactly one DATA bit/],
    ['no DATA bit', { flags: TRIGGER }, /flags 0x20 must have exactly one DATA bit/],
    ['two DATA bits', { flags: NONE | BOOL | TRIGGER }, /exactly one DATA bit/],
    ['three DATA bits', { flags: 7 | MASK }, /exactly one DATA bit/],
    ['no ACTION bit', { flags: NONE }, /flags 0x1 must have exactly one ACTION bit/],
    ['two ACTION bits', { flags: NONE | MASK | UNMASK }, /exactly one ACTION bit/],
    ['an unknown bit', { flags: NONE | TRIGGER | 0x40 }, /flags 0x61 have unknown bits/],
    ['all bits', { flags: 0xffffffff }, /flags 0xffffffff have unknown bits/],
    [
      'a range past 32 bits',
      { start: 0xffffffff, count: 1 },
      /start 4294967295 and count 1 run past 32 bits/,
    ],
    ['a huge count', { start: 1, count: 0xffffffff }, /run past 32 bits/],
    ['a start without count', { start: 1, count: 0 }, /start is 1, a count of 0 goes with a start of 0/],
    [
      'a count of 0 with eventfds',
      { start: 0, count: 0, flags: EVENTFD | TRIGGER },
      /DATA_NONE and ACTION_TRIGGER only/,
    ],
    [
      'a count of 0 with a mask',
      { start: 0, count: 0, flags: NONE | MASK },
      /DATA_NONE and ACTION_TRIGGER only/,
    ],
    ['data without BOOL', { data: Buffer.of(1, 1, 1) }, /3 bytes of data, 0 are due/],
    ['eventfds as data', { flags: EVENTFD | TRIGGER, data: Buffer.alloc(12) }, /12 bytes of data, 0 are due/],
    ['BOOL without data', bools, /0 bytes of data, 3 are due/],
    ['a boolean too few', { ...bools, data: Buffer.of(1, 0) }, /2 bytes of data, 3 are due/],
    ['a boolean too many', { ...bools, data: Buffer.of(1, 0, 1, 0) }, /4 bytes of data, 3 are due/],
  ])('%s', (_name, twin, words) => {
    const fields = { ...sound, ...twin };
    expectRefused(decodeSetIrqs, request(fields), words);
    expect(() => encodeSetIrqs(fields)).toThrow(TypeError);
    expect(() => encodeSetIrqs(fields)).toThrow(words);
  });

  test('an argsz of less than the structure', () => {
    expectRefused(decodeSetIrqs, request({ ...sound, argsz: 19 }), /DEVICE_SET_IRQS: argsz is 19/);
  });

  test('a cut request is refused at every length', () => {
    expectEveryCutRefused(decodeSetIrqs, request({ ...sound, ...bools, data: [1, 1, 1] }));
  });

  test('random bytes are decoded or refused, nothing else', () => {
    expectOnlyProtocolErrors(decodeSetIrqs, request(sound), request({ ...sound, ...bools, data: [1, 1, 1] }));
  });

  test('what does not fit 32 bits is a RangeError', () => {
    expect(() => encodeSetIrqs({ ...sound, index: -1 })).toThrow(RangeError);
    expect(() => encodeSetIrqs({ ...sound, start: 2 ** 32 })).toThrow(RangeError);
    expect(() => encodeSetIrqs({ ...sound, count: 1.5 })).toThrow(RangeError);
    expect(() => encodeSetIrqs({ ...sound, flags: NaN })).toThrow(RangeError);
  });
});
