import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { configReader, decodeConfigSpace } from '../../lib/pci/index.js';
import { EDU, LIBVFIO_USER_LSPCI_SAMPLE, NVME, reader, space } from './config-bytes.js';

describe('decodeConfigSpace', () => {
  test.each([
    ['edu', EDU, ['MSI'], []],
    ['NVMe', NVME, ['Power Management', 'MSI-X', 'PCI Express'], []],
    [
      "libvfio-user's lspci sample",
      LIBVFIO_USER_LSPCI_SAMPLE,
      ['Power Management', 'Vendor Specific', 'PCI Express'],
      ['Device Serial Number', 'Vendor Specific Extended', 'Vendor Specific Extended'],
    ],
  ])('%s', (_, bytes, capabilities, extended) => {
    const decoded = decodeConfigSpace(configReader(bytes));
    expect(decoded.capabilities.map(({ name }) => name)).toEqual(capabilities);
    expect(decoded.extendedCapabilities.map(({ name }) => name)).toEqual(extended);
    expect(decoded.problems).toEqual([]);
  });

  test('gathers the problems of all parts', () => {
    const bytes = Buffer.from(LIBVFIO_USER_LSPCI_SAMPLE);
    bytes[0x3d] = 9;
    bytes[0x59] = 0x40;
    bytes.writeUInt32LE(0x1000_0003, 0x100);
    expect(decodeConfigSpace(configReader(bytes)).problems).toEqual([
      expect.stringMatching(/interrupt pin/),
      expect.stringMatching(/^capability list: .*leads back/),
      expect.stringMatching(/^extended capability list: .*leads back/),
    ]);
  });
});

describe('the extended space', () => {
  const serialNumber = { 0x100: '0300 0100 efbeadde bebafeca' };
  const names = (rows: Readonly<Record<number, string>>) =>
    decodeConfigSpace(
      reader(4096, { 0x06: '1000', 0x34: '40', ...serialNumber, ...rows }),
    ).extendedCapabilities.map(({ name }) => name);

  test.each([
    ['PCI Express', { 0x40: '1000 0200' }, ['Device Serial Number']],
    ['PCI-X of 266 MHz', { 0x40: '0700 0000 00000040' }, ['Device Serial Number']],
    ['PCI-X of 533 MHz', { 0x40: '0700 0000 00000080' }, ['Device Serial Number']],
    ['PCI-X of 133 MHz', { 0x40: '0700 0000 00000300' }, []],
    ['power management alone', { 0x40: '0100 0300' }, []],
    ['no capabilities', { 0x06: '0000' }, []],
    ['a header of an unknown type', { 0x0e: '03', 0x40: '1000 0200' }, []],
  ])('with %s', (_, rows, expected) => {
    expect(names(rows)).toEqual(expected);
  });

  test('a conventional device whose bytes come again every 256 has none, and no problem', () => {
    const page = space(256, { 0x00: 'f41a0011', 0x06: '1000', 0x34: '40', 0x40: '0100 0200' });
    const decoded = decodeConfigSpace(configReader(Buffer.concat(Array.from({ length: 16 }, () => page))));
    expect(decoded.capabilities.map(({ name }) => name)).toEqual(['Power Management']);
    expect(decoded.extendedCapabilities).toEqual([]);
    expect(decoded.problems).toEqual([]);
  });

  test('a device that is gone is one problem, or two, and no capability', () => {
    const gone = Buffer.concat([Buffer.alloc(240, 0xff), Buffer.alloc(16)]);
    const { capabilities, problems } = decodeConfigSpace(configReader(gone));
    expect(capabilities).toEqual([]);
    expect(problems[0]).toMatch(/no device answers here/);
  });
});

describe('any bytes at all', () => {
  // Lists mostly end at once in noise; forced first pointers and dense headers make the decoders run.
  const noise = (size: number) => fc.uint8Array({ minLength: size, maxLength: size });
  const listed = (size: number) =>
    noise(size).map((bytes) => {
      bytes[0x06] = 0x10;
      bytes[0x0e] = 0;
      bytes[0x34] = 0x40 + (bytes[0x34] ?? 0) * 0.75;
      for (let at = 0x40; at < 0x100; at += 4) bytes[at] = (bytes[at] ?? 0) % 0x16;
      for (let at = 0x100; at < size; at += 4) {
        bytes[at] = (bytes[at] ?? 0) % 0x3c;
        bytes[at + 1] = 0;
      }
      return bytes;
    });

  test.each([
    ['of 256 bytes', noise(256)],
    ['of 4096 bytes', noise(4096)],
    ['of 256 bytes with a list', listed(256)],
    ['of 4096 bytes with lists', listed(4096)],
    ['of any size up to 300 bytes', fc.uint8Array({ maxLength: 300 })],
  ])('%s are decoded without an error, and every capability stands inside, once', (_, spaces) => {
    fc.assert(
      fc.property(spaces, (bytes) => {
        const decoded = decodeConfigSpace(configReader(bytes));
        const offsets = [...decoded.capabilities, ...decoded.extendedCapabilities].map(
          ({ offset }) => offset,
        );
        expect(new Set(offsets).size).toBe(offsets.length);
        for (const { offset } of decoded.capabilities) {
          expect(offset >= 0x40 && offset + 2 <= Math.min(256, bytes.length) && offset % 4 === 0).toBe(true);
        }
        for (const { offset } of decoded.extendedCapabilities) {
          expect(offset >= 0x100 && offset + 4 <= bytes.length && offset % 4 === 0).toBe(true);
        }
        expect(decoded.header.bars.length).toBeLessThanOrEqual(6);
      }),
    );
  });
});
