import { describe, expect, test } from '@jest/globals';
import {
  decodeMsixEntry,
  encodeMsixEntry,
  MsixEntryOffset,
  msixEntryOffset,
  msixPendingBit,
} from '../../lib/pci/index.js';

// Errors of Node's own are not of the test's realm, so instanceof says nothing.
const rangeError = expect.objectContaining({ name: 'RangeError' });

describe('MSI-X table', () => {
  test('an entry is address, data and vector control, little-endian', () => {
    const entry = { address: 0x1_fee0_0004n, data: 0x89abcdef, masked: true };
    const bytes = encodeMsixEntry(entry);
    expect(bytes.toString('hex')).toBe('0400e0fe01000000efcdab8901000000');
    expect(decodeMsixEntry(bytes)).toEqual(entry);
    expect(bytes.readUInt32LE(MsixEntryOffset.DATA)).toBe(entry.data);
  });

  test('an entry is decoded in the middle of a table; reserved bits are ignored', () => {
    const table = Buffer.concat([
      Buffer.alloc(16),
      Buffer.from('0300e0fe00000000 78563412 feffffff'.replaceAll(' ', ''), 'hex'),
    ]);
    expect(decodeMsixEntry(table, 16)).toEqual({ address: 0xfee0_0000n, data: 0x12345678, masked: false });
    expect(() => decodeMsixEntry(table, 17)).toThrow(rangeError);
  });

  test.each([
    ['an unaligned address', { address: 2n, data: 0, masked: false }],
    ['an address of 65 bits', { address: 1n << 64n, data: 0, masked: false }],
    ['a negative address', { address: -4n, data: 0, masked: false }],
    ['data of 33 bits', { address: 0n, data: 2 ** 32, masked: false }],
  ])('%s is refused', (_, entry) => {
    expect(() => encodeMsixEntry(entry)).toThrow(rangeError);
  });

  test('entries stand 16 bytes apart, pending bits 32 to a dword', () => {
    expect(msixEntryOffset(0x2000, 3)).toBe(0x2030);
    expect(msixPendingBit(0x3000, 0)).toEqual({ offset: 0x3000, bit: 0 });
    expect(msixPendingBit(0x3000, 70)).toEqual({ offset: 0x3008, bit: 6 });
    expect(() => msixEntryOffset(0, 2048)).toThrow(RangeError);
    expect(() => msixPendingBit(0, -1)).toThrow(RangeError);
  });
});
