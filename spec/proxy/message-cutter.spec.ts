import { describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../lib/errors.js';
import { native } from '../../lib/native.js';
import { MessageCutter } from '../../lib/proxy/message-cutter.js';
import { openFds } from '../support/fds.js';
import { regionReadRequest, regionWriteRequest, request } from '../support/wire.js';

interface Cut {
  kind: 'message' | 'uncut';
  hex: string;
  fds: readonly number[];
}

function cutter(passesUncut = false, maxBytes = 4096): { cuts: Cut[]; cutter: MessageCutter } {
  const cuts: Cut[] = [];
  const add = (kind: Cut['kind']) => (bytes: Buffer, start: number, end: number, fds: readonly number[]) =>
    void cuts.push({ kind, hex: bytes.toString('hex', start, end), fds });
  const handler = { onMessage: add('message'), onUncut: add('uncut') };
  return { cuts, cutter: new MessageCutter(handler, 'the spec', maxBytes, passesUncut) };
}

const first = regionReadRequest({ offset: 1, count: 4 }, { id: 1 });
const second = regionWriteRequest({ offset: 2, data: Buffer.alloc(100, 7) }, { id: 2 });
const third = request(13, Buffer.alloc(0), { id: 3 });
const all = Buffer.concat([first, second, third]);
const hexes = [first, second, third].map((bytes) => bytes.toString('hex'));

describe('messages in a stream', () => {
  test('come out whole, wherever the stream is cut', () => {
    for (let at = 1; at < all.length; at++) {
      for (const size of [at, 1, 16, 17]) {
        const { cuts, cutter: cut } = cutter();
        for (let from = 0; from < all.length; from += size) {
          cut.push(all, from, Math.min(all.length, from + size), []);
        }
        expect(cuts.map(({ hex }) => hex)).toEqual(hexes);
      }
    }
  });

  test('have the fds of the last message begun in the chunk', () => {
    const { cuts, cutter: cut } = cutter();
    cut.push(all, 0, first.length + 20, [10, 11]);
    cut.push(all, first.length + 20, all.length, [12]);
    expect(cuts.map(({ fds }) => fds)).toEqual([[], [10, 11], [12]]);
  });

  test('collect fds that come in parts', () => {
    const { cuts, cutter: cut } = cutter();
    cut.push(second, 0, 8, [10]);
    cut.push(second, 8, second.length, [11]);
    expect(cuts).toEqual([{ kind: 'message', hex: hexes[1], fds: [10, 11] }]);
  });
});

describe('a header that makes no sense', () => {
  const small = request(1, Buffer.alloc(4), { size: 15 });
  const large = request(1, Buffer.alloc(4), { size: 4097 });

  test.each([
    ['too small', small],
    ['too large', large],
  ])('%s ends it by name', (_title, bytes) => {
    for (const cutAt of [bytes.length, 8]) {
      const { cuts, cutter: cut } = cutter();
      const push = () => {
        cut.push(Buffer.concat([third, bytes]), 0, third.length + cutAt, []);
        cut.push(bytes, cutAt, bytes.length, []);
      };
      expect(push).toThrow(ProtocolError);
      expect(push).toThrow(/a message header of the spec says \d+ bytes; a message has 16 to 4096/);
      expect(cuts[0]).toMatchObject({ kind: 'message', hex: third.toString('hex') });
    }
  });

  test('or everything from there on passes as it is, with its fds', () => {
    for (const cutAt of [third.length + 3, third.length + 16, third.length + 19]) {
      const bytes = Buffer.concat([third, small, first]);
      const { cuts, cutter: cut } = cutter(true);
      cut.push(bytes, 0, cutAt, []);
      cut.push(bytes, cutAt, bytes.length, [10]);
      expect(cuts[0]!.kind).toBe('message');
      const uncut = cuts.slice(1);
      expect(new Set(uncut.map(({ kind }) => kind))).toEqual(new Set(['uncut']));
      expect(uncut.map(({ hex }) => hex).join('')).toBe(Buffer.concat([small, first]).toString('hex'));
      expect(uncut.flatMap(({ fds }) => fds)).toEqual([10]);
    }
  });

  test('fds of what is never finished are closed', () => {
    const before = openFds();
    const { cutter: cut } = cutter();
    cut.push(second, 0, 40, [native().eventfd(0), native().eventfd(0)]);
    cut.clear();
    const { cutter: bad } = cutter();
    expect(() => bad.push(small, 0, small.length, [native().eventfd(0)])).toThrow(ProtocolError);
    bad.clear();
    expect(openFds()).toBe(before);
  });
});

describe('a pause', () => {
  /** Pauses after each message. */
  function pausing(): { cuts: Cut[]; cutter: MessageCutter } {
    const cuts: Cut[] = [];
    const made: { cutter?: MessageCutter } = {};
    const handler = {
      onMessage: (bytes: Buffer, start: number, end: number, fds: readonly number[]) => {
        cuts.push({ kind: 'message', hex: bytes.toString('hex', start, end), fds });
        made.cutter!.pause();
      },
      onUncut: () => undefined,
    };
    made.cutter = new MessageCutter(handler, 'the spec', 4096, false);
    return { cuts, cutter: made.cutter };
  }

  test('keeps what is left of the chunk, and its fds, for later', () => {
    const { cuts, cutter: cut } = pausing();
    const chunk = Buffer.from(all);
    cut.push(chunk, 0, chunk.length, [10]);
    // The memory was lent.
    chunk.fill(0);
    expect(cuts).toEqual([{ kind: 'message', hex: hexes[0], fds: [] }]);
    expect(cut.isBetweenMessages).toBe(false);
    cut.resume();
    cut.resume();
    expect(cuts.map(({ hex, fds }) => [hex, fds])).toEqual([
      [hexes[0], []],
      [hexes[1], []],
      [hexes[2], [10]],
    ]);
    cut.resume();
    expect(cut.isBetweenMessages).toBe(true);
  });

  test('what was kept is closed with the cutter', () => {
    const { cutter: cut } = pausing();
    const before = openFds();
    const fd = native().eventfd(0);
    cut.push(all, 0, all.length, [fd]);
    expect(openFds()).toBe(before + 1);
    cut.clear();
    expect(openFds()).toBe(before);
  });
});
