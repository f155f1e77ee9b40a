/** What a hot reset is for, and the MSI-X table in what can be mapped; spec/silicon has both on vfio-pci. */
import { describe, expect, test } from '@jest/globals';
import { ProtocolError } from '../../lib/errors.js';
import { decodeHotResetInfo, judge } from '../../lib/vfio/hot-reset.js';
import { withoutPages } from '../../lib/vfio/msix-pages.js';

describe('the functions of a hot reset', () => {
  /** argsz, flags, count, and two functions. */
  function answer(): Buffer {
    const bytes = Buffer.alloc(12 + 2 * 8);
    bytes.writeUInt32LE(2, 8);
    bytes.writeUInt32LE(17, 12);
    bytes.set([0, 0, 0x1f, 0x80], 16);
    bytes.writeUInt32LE(18, 20);
    bytes.set([0x01, 0x00, 0xe1, 0xff], 24);
    return bytes;
  }

  test('have groups and addresses', () => {
    expect(decodeHotResetInfo(answer(), 2)).toEqual([
      { group: '17', address: '0000:1f:10.0' },
      { group: '18', address: '0001:e1:1f.7' },
    ]);
  });

  test('more than were answered are refused', () => {
    expect(() => decodeHotResetInfo(answer(), 3)).toThrow(ProtocolError);
    expect(() => decodeHotResetInfo(answer(), 0xffff_ffff)).toThrow(ProtocolError);
  });

  test('must all be in the group', () => {
    const functions = decodeHotResetInfo(answer(), 2);
    expect(judge(functions.slice(0, 1), '17')).toEqual({ functions: functions.slice(0, 1) });
    expect(judge(functions, '17')).toEqual({
      why: 'a reset of its bus would reset others as well: 0001:e1:1f.7 (group 18)',
    });
  });
});

describe('areas without the pages of the MSI-X table', () => {
  const all = [{ offset: 0, size: 0x4000 }];

  test.each([
    [
      'in the middle',
      0x2000,
      0x410,
      all,
      [
        { offset: 0, size: 0x2000 },
        { offset: 0x3000, size: 0x1000 },
      ],
    ],
    [
      'across a page',
      0x1ff0,
      0x20,
      all,
      [
        { offset: 0, size: 0x1000 },
        { offset: 0x3000, size: 0x1000 },
      ],
    ],
    ['at the beginning', 0, 16, all, [{ offset: 0x1000, size: 0x3000 }]],
    ['at the end', 0x3ff0, 16, all, [{ offset: 0, size: 0x3000 }]],
    ['of a page that is all there is', 0, 16, [{ offset: 0, size: 0x1000 }], []],
    ['beside them', 0x3000, 16, [{ offset: 0, size: 0x1000 }], [{ offset: 0, size: 0x1000 }]],
    ['before them', 0, 16, [{ offset: 0x2000, size: 0x1000 }], [{ offset: 0x2000, size: 0x1000 }]],
  ])('%s', (_where, offset, size, areas, left) => {
    expect(withoutPages(areas, { offset, size })).toEqual(left);
  });
});
