/**
 * Our decoders beside lspci(8). Whatever lspci says of a header, and of the capabilities whose fields we decode, is compared
 * word by word, of the others their place, version and name.
 *
 *     VFIO_USER_PCI_DUMPS=/src/pciutils/tests npm run test:decoders
 */
import { describe, expect, test } from '@jest/globals';
import { capabilityLines } from '../../lib/cli/render-capabilities.js';
import { MemoryStore, VirtioBlkDevice, VirtioRngDevice } from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
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

(HAS_LSPCI ? describe : describe.skip)('virtio, as lspci prints it (needs lspci)', () => {
  const devices: [string, () => VirtioBlkDevice | VirtioRngDevice][] = [
    ['a disk', () => new VirtioBlkDevice({ store: new MemoryStore(1 << 20) })],
    ['an entropy device', () => new VirtioRngDevice({ vectors: 0 })],
  ];

  test.each(devices)('%s', async (_name, make) => {
    await using model = make();
    await using device = await connect({ model });
    const [said] = lspci(lspciDump(device.config.bytes()));
    const theirs = said!.capabilities.flatMap(({ title, sections }) =>
      title.includes('VirtIO') ? [[title, ...sections.map(({ label }) => label)]] : [],
    );
    const ours = device.config.capabilities.flatMap((capability) =>
      capability.kind === 'vendor-specific' ? [capabilityLines(capability, true)] : [],
    );
    expect(ours).toHaveLength(4);
    // Its name of the capability is longer.
    expect(
      ours.map(([title, ...rest]) => [title!.replace('Specific', 'Specific Information'), ...rest]),
    ).toEqual(theirs);
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
