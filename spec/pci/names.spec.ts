import { expect, test } from '@jest/globals';
import { knownDeviceName, pciClassName, pciId } from '../../lib/pci/index.js';

test.each([
  [[0x01, 0x08, 0x02], 'Non-volatile memory controller (NVMe)'],
  [[0x01, 0x08, 0x77], 'Non-volatile memory controller'],
  [[0x0c, 0x03, 0x30], 'USB controller (xHCI)'],
  [[0x02, 0x00, 0x00], 'Ethernet controller'],
  [[0x02, 0x80, 0x00], 'Network controller'],
  [[0x02, 0x33, 0x00], 'Network controller (subclass 0x33)'],
  [[0x00, 0x00, 0x00], 'Unclassified device'],
  [[0x00, 0xff, 0x00], 'Unclassified device (subclass 0xff)'],
  [[0xff, 0x00, 0x00], 'Device of no defined class'],
  [[0x77, 0x00, 0x00], 'Class 0x77'],
] as const)('class %j is %s', ([base, sub, progIf], name) => {
  expect(pciClassName(base, sub, progIf)).toBe(name);
});

test('devices that are often met have a name', () => {
  expect(knownDeviceName(0x4e58, 0x0001)).toBe('SPDK NVMe');
  expect(knownDeviceName(0x494f, 0x0dc8)).toBe('ACCES PCI-IDIO-16');
  expect(knownDeviceName(0x1af4, 0x1042)).toBe('virtio block');
  expect(knownDeviceName(0x1af4, 0x1fff)).toBeUndefined();
  expect(knownDeviceName(0x8086, 0xffff)).toBeUndefined();
  expect(pciId(0x1af4, 0x42)).toBe('1af4:0042');
});
