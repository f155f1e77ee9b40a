import { describe, expect, test } from '@jest/globals';
import { configReader, decodeExtendedCapabilities, extendedCapabilityName } from '../../lib/pci/index.js';
import { EDU, LIBVFIO_USER_LSPCI_SAMPLE, reader } from './config-bytes.js';

describe('a sound list', () => {
  test("is decoded in its order: libvfio-user's lspci sample", () => {
    expect(decodeExtendedCapabilities(configReader(LIBVFIO_USER_LSPCI_SAMPLE))).toEqual({
      extendedCapabilities: [
        {
          id: 0x03,
          name: 'Device Serial Number',
          offset: 0x100,
          version: 0,
          kind: 'serial-number',
          serialNumber: 0xcafebabe_deadbeefn,
          text: 'ca-fe-ba-be-de-ad-be-ef',
        },
        {
          id: 0x0b,
          name: 'Vendor Specific Extended',
          offset: 0x10c,
          version: 0,
          kind: 'vendor-specific',
          vendorCapabilityId: 1,
          revision: 1,
          length: 0x15,
          bytes: new Uint8Array(13),
        },
        {
          id: 0x0b,
          name: 'Vendor Specific Extended',
          offset: 0x400,
          version: 0,
          kind: 'vendor-specific',
          vendorCapabilityId: 2,
          revision: 2,
          length: 0x15,
          bytes: new Uint8Array(13),
        },
      ],
      problems: [],
    });
  });

  test('has versions and names', () => {
    const config = reader(4096, {
      0x100: '0400 0215',
      0x150: '1200 0116',
      0x160: '1600 f1ff',
      0xffc: 'ffee 0100',
    });
    const { extendedCapabilities, problems } = decodeExtendedCapabilities(config);
    expect(problems).toEqual([expect.stringMatching(/pointer of 0x160 \(0xfff\) has reserved bits/)]);
    expect(extendedCapabilities).toEqual([
      { id: 0x04, name: 'Power Budgeting', offset: 0x100, version: 2, kind: 'other' },
      { id: 0x12, name: 'Multicast', offset: 0x150, version: 1, kind: 'other' },
      { id: 0x16, name: 'Dynamic Power Allocation', offset: 0x160, version: 1, kind: 'other' },
      { id: 0xeeff, name: 'Extended capability 0xeeff', offset: 0xffc, version: 1, kind: 'other' },
    ]);
    expect(extendedCapabilityName(0x0f)).toBe('Address Translation Services');
  });

  test('every id up to 0x3a has a name, but for one that was never assigned', () => {
    const ids = Array.from({ length: 0x3b }, (_, id) => id);
    const nameless = ids.filter((id) => extendedCapabilityName(id).startsWith('Extended capability'));
    expect(nameless).toEqual([0x14]);
    expect(extendedCapabilityName(0x2f)).toBe('Device 3');
    expect(extendedCapabilityName(0x3a)).toBe('Captured Data');
    expect(extendedCapabilityName(0x3b)).toBe('Extended capability 0x3b');
  });

  test.each([
    ['a conventional space', configReader(EDU)],
    ['an empty list', reader(4096, {})],
    ['a space that is not there', reader(4096, { 0x100: 'ffffffff' })],
    ['a space that ends within the first header', reader(0x103, {})],
  ])('is empty in %s', (_, config) => {
    expect(decodeExtendedCapabilities(config)).toEqual({ extendedCapabilities: [], problems: [] });
  });
});

describe('a malformed list', () => {
  test.each([
    ['a pointer into the conventional space', { 0x100: '0300 c00f' }, 1, /\(0xfc\) leads below 0x100/],
    ['a loop', { 0x100: '1900 0120', 0x200: '1e00 0110' }, 2, /pointer of 0x200 \(0x100\) leads back/],
    ['all ones', { 0x100: '1900 0120', 0x200: 'ffffffff' }, 1, /no header at 0x200, its bytes are all ones/],
    ['all zeroes', { 0x100: '1900 0120' }, 1, /no header at 0x200, its bytes are all zeroes/],
  ])('ends at %s', (_, rows, count, problem) => {
    const { extendedCapabilities, problems } = decodeExtendedCapabilities(reader(4096, rows));
    expect(extendedCapabilities).toHaveLength(count);
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  test('ends past a short space', () => {
    const { problems } = decodeExtendedCapabilities(reader(0x200, { 0x100: '1900 0120' }));
    expect(problems).toEqual([expect.stringMatching(/past the end at 0x200/)]);
  });

  test.each([
    ['a serial number', '0300 0100', /Serial Number at 0xffc: its 12 bytes/],
    ['a vendor header', '0b00 0100', /Vendor Specific Extended at 0xffc: its 8 bytes/],
  ])('%s past the end keeps its name only', (_, row, problem) => {
    const { extendedCapabilities, problems } = decodeExtendedCapabilities(
      reader(4096, { 0x100: '1900 c1ff', 0xffc: row }),
    );
    expect(extendedCapabilities[1]).toMatchObject({ offset: 0xffc, kind: 'other' });
    expect(problems).toEqual([expect.stringMatching(problem)]);
  });

  test('vendor bytes are clipped to the space', () => {
    const config = reader(0x110, { 0x100: '0b00 0100 3412 f0ff 0102030405060708' });
    const { extendedCapabilities, problems } = decodeExtendedCapabilities(config);
    expect(extendedCapabilities[0]).toMatchObject({
      length: 0xfff,
      bytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    });
    expect(problems).toEqual([expect.stringMatching(/4095 bytes reach past the end/)]);
  });

  test('a vendor length below its headers is named', () => {
    const { extendedCapabilities, problems } = decodeExtendedCapabilities(
      reader(4096, { 0x100: '0b00 0100' }),
    );
    expect(extendedCapabilities[0]).toMatchObject({ length: 0, bytes: new Uint8Array() });
    expect(problems).toEqual([expect.stringMatching(/length 0 is less than its headers/)]);
  });
});
