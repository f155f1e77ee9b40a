/**
 * Our decoders beside lspci(8). Whatever lspci says of a header, and of the capabilities whose fields we decode, is compared
 * word by word, of the others their place, version and name.
 *
 *     VFIO_USER_PCI_DUMPS=/src/pciutils/tests npm run test:decoders
 */
import { describe, expect, test } from '@jest/globals';
import { configReader, decodeConfigSpace, lspciDump, PCI_CONFIG_SIZE } from '../../lib/pci/index.js';
import { DUMPS, dumpRows, type DumpedDevice } from './dumps.js';
import { compareCapability } from './expect-capabilities.js';
import { compareHeader } from './expect-header.js';
import { HAS_LSPCI, lspci, type DeviceText } from './lspci-text.js';
import { madeSpaces } from './made-spaces.js';

function compare({ slot, bytes }: DumpedDevice, said: DeviceText): string[] {
  const decoded = decodeConfigSpace(configReader(bytes));
  const ours = [...decoded.capabilities, ...decoded.extendedCapabilities];
  // What lspci could not follow is no capability: our problems say what was wrong.
  const theirs = said.capabilities.filter(({ title }) => !/^<(?:chain|access)/.test(title));
  const wrong = compareHeader(decoded.header, said);
  const places = (list: readonly { offset: number }[]) =>
    list.map(({ offset }) => offset.toString(16)).join(' ');
  if (places(ours) !== places(theirs)) {
    wrong.push(`lspci has capabilities at ${places(theirs)}, we at ${places(ours)}`);
  }
  for (const capability of ours) {
    const there = theirs.find(({ offset }) => offset === capability.offset);
    if (there === undefined) continue;
    const version =
      capability.offset >= PCI_CONFIG_SIZE && 'version' in capability ? capability.version : undefined;
    if (there.version !== version)
      wrong.push(`version of ${capability.name}: lspci says ${there.version}, we say ${version}`);
    const faults = compareCapability(capability, there);
    wrong.push(...faults.map((fault) => `[${there.offset.toString(16)}] ${capability.name}: ${fault}`));
  }
  return wrong.map((fault) => `${slot} ${fault}`);
}

function compareAll(devices: readonly DumpedDevice[], said: readonly DeviceText[]): string[] {
  const bySlot = new Map(said.map((device) => [device.slot, device]));
  return devices.flatMap((device) => {
    const there = bySlot.get(device.slot);
    return there === undefined ? [`${device.slot} lspci does not show it`] : compare(device, there);
  });
}

(HAS_LSPCI ? describe : describe.skip)('made spaces decode as lspci prints them (needs lspci)', () => {
  test.each(madeSpaces())('%s', (_, spaces) => {
    const devices = spaces.map((bytes, i) => ({
      slot: `0000:${(i >> 3).toString(16).padStart(2, '0')}:00.${i & 7}`,
      bytes,
    }));
    const dump = devices.map(({ slot, bytes }) => lspciDump(bytes, slot, 'made')).join('');
    expect(compareAll(devices, lspci(dump))).toEqual([]);
  });
});

const HAS_DUMPS = HAS_LSPCI && DUMPS !== '';

(HAS_DUMPS ? describe : describe.skip)(
  'dumps decode as lspci prints them (needs lspci and VFIO_USER_PCI_DUMPS)',
  () => {
    test.each(dumpRows(HAS_DUMPS))('%s', (_, { text, devices }) => {
      expect(compareAll(devices, lspci(text))).toEqual([]);
    });
  },
);
