import { expect, test } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
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
  [[0x12, 0x00, 0x00], 'Processing accelerator'],
  [[0x12, 0x01, 0x00], 'SNIA Smart Data Accelerator Interface (SDXI) controller'],
  [[0x0f, 0x03, 0x00], 'Satellite voice communication controller'],
  [[0x06, 0x03, 0x00], 'MicroChannel bridge'],
  [[0x40, 0x00, 0x00], 'Coprocessor'],
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

/** Where distributions have pciutils' list. */
const PCI_IDS = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids'].find((file) => existsSync(file));

(PCI_IDS === undefined ? test.skip : test)('every subclass of pci.ids has a name (needs pci.ids)', () => {
  const nameless: string[] = [];
  let base: number | undefined;
  for (const line of readFileSync(PCI_IDS!, 'utf8').split('\n')) {
    const [, baseDigits] = /^C (\w\w) {2}/.exec(line) ?? [];
    if (baseDigits !== undefined) base = Number.parseInt(baseDigits, 16);
    const [, sub] = /^\t(\w\w) {2}/.exec(line) ?? [];
    if (base === undefined || sub === undefined) continue;
    const name = pciClassName(base, Number.parseInt(sub, 16));
    if (/subclass|^Class/.test(name)) nameless.push(`${base.toString(16)} ${line.trim()}`);
  }
  expect(base).toBeDefined();
  expect(nameless).toEqual([]);
});
