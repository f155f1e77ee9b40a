/**
 * `vfio-user config` beside setpci(8): the registers of a header and those of capabilities by name and by id, of the made
 * spaces and of a directory of dumps.
 */
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { serve } from '../../lib/emulator/index.js';
import { configReader, decodeConfigSpace, lspciDump, PciHeaderType } from '../../lib/pci/index.js';
import { PciRegion } from '../../lib/protocol/index.js';
import { Scratch, vfioUser } from '../cli/cli.js';
import { DUMPS, dumpRows, type DumpedDevice } from './dumps.js';
import { madeSpaces } from './made-spaces.js';

jest.setTimeout(300_000);

const SETPCI = process.env['VFIO_USER_SETPCI'] || 'setpci';
const names = spawnSync(SETPCI, ['--dumpregs'], { encoding: 'utf8' });
const HAS_SETPCI = names.status === 0;
const HAS_DUMPS = HAS_SETPCI && DUMPS !== '';

interface Names {
  registers: { name: string; headerTypes: number[] }[];
  capabilities: { name: string; id: number; extended: boolean }[];
}

let scratch: Scratch;
let ours: Names;

beforeAll(async () => {
  scratch = new Scratch();
  ours = JSON.parse((await vfioUser('config', '--names', '--json')).stdout) as Names;
});

afterAll(() => scratch.remove());

/** What setpci says of the dump. */
function setpci(
  dump: string,
  slot: string,
  registers: readonly string[],
): { status: number | null; stdout: string } {
  const options = ['-A', 'dump', '-O', `dump.name=${dump}`, '-s', slot];
  const { status, stdout } = spawnSync(SETPCI, [...options, ...registers], { encoding: 'utf8' });
  return { status, stdout };
}

/** Operations on what the device has, and the names of capabilities that it has not. */
function operationsOf(bytes: Buffer): { present: string[]; absent: string[] } {
  const { header, capabilities, extendedCapabilities } = decodeConfigSpace(configReader(bytes));
  const registers = ours.registers
    .filter(({ headerTypes }) => headerTypes.length === 0 || headerTypes.includes(header.headerType))
    .map(({ name }) => name);
  // libpci looks for the pointer of a CardBus bridge where devices have theirs.
  if (header.headerType === PciHeaderType.CARDBUS) return { present: registers, absent: [] };
  const has = new Set([
    ...capabilities.map(({ id }) => id),
    ...extendedCapabilities.map(({ id }) => 0x1_0000 + id),
  ]);
  const isThere = ({ id, extended }: Names['capabilities'][number]) => has.has(extended ? 0x1_0000 + id : id);
  // setpci knows the names of its own version only.
  const known = ours.capabilities.filter(({ name }) => names.stdout.includes(name));
  const byName = known.filter(isThere).map(({ name }) => name);
  const byId = [
    ...capabilities.map(({ id }) => `CAP${id.toString(16)}`),
    ...extendedCapabilities.map(({ id }) => `ECAP${id.toString(16)}`),
  ];
  return {
    present: [
      ...registers,
      ...byName.flatMap((name) => [`${name}.l`, `${name}+2.w`, `${name}+1.b`]),
      ...byId.map((name) => `${name}+0.w`),
      ...repeated(capabilities, 'CAP'),
      ...repeated(extendedCapabilities, 'ECAP'),
    ],
    absent: known.filter((capability) => !isThere(capability)).map(({ name }) => `${name}.b`),
  };
}

/** The second and later ones of an id. */
function repeated(capabilities: readonly { id: number }[], prefix: string): string[] {
  return capabilities.flatMap(({ id }, i) => {
    const before = capabilities.slice(0, i).filter((other) => other.id === id).length;
    return before === 0 ? [] : [`${prefix}${id.toString(16)}+2.w@${before.toString(16)}`];
  });
}

async function compare(dump: string, { slot, bytes }: DumpedDevice, withAbsent: boolean): Promise<string[]> {
  const socket = scratch.path('s');
  const config = { index: PciRegion.CONFIG, size: bytes.length, memory: { bytes } };
  const server = await serve({ regions: [config], irqs: [] }, { path: socket });
  try {
    const { present, absent } = operationsOf(bytes);
    const theirs = setpci(dump, slot, present);
    const { status, stdout, stderr } = await vfioUser('config', socket, ...present);
    const wrong =
      status === theirs.status
        ? []
        : [`${slot}: exit status ${status}, of setpci ${theirs.status} ${stderr}`];
    const [said, expected] = [stdout, theirs.stdout].map((text) => text.split('\n'));
    for (const [i, operation] of present.entries()) {
      if (said![i] !== expected![i])
        wrong.push(`${slot} ${operation}: ${said![i]}, setpci says ${expected![i]}`);
    }
    for (const operation of withAbsent ? absent : []) {
      if (setpci(dump, slot, [operation]).status === 0) wrong.push(`${slot} ${operation}: setpci has it`);
    }
    return wrong;
  } finally {
    await server.close();
  }
}

(HAS_SETPCI ? describe : describe.skip)('config says what setpci says of made spaces (needs setpci)', () => {
  test.each(madeSpaces())('%s', async (_, spaces) => {
    for (const bytes of spaces.slice(0, 4)) {
      const dump = scratch.path('dump');
      writeFileSync(dump, lspciDump(bytes, '0000:00:00.0', 'made'));
      expect(await compare(dump, { slot: '0000:00:00.0', bytes }, true)).toEqual([]);
    }
  });
});

(HAS_DUMPS ? describe : describe.skip)(
  'config says what setpci says of dumps (needs setpci and VFIO_USER_PCI_DUMPS)',
  () => {
    test.each(dumpRows(HAS_DUMPS))('%s', async (name, { devices }) => {
      const wrong: string[] = [];
      // A few of a machine's many.
      for (const [i, device] of devices.slice(0, 6).entries()) {
        wrong.push(...(await compare(`${DUMPS}/${name}`, device, i === 0)));
      }
      expect(wrong).toEqual([]);
    });
  },
);
