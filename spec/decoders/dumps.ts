/** Dumps of config space as `lspci -xxxx` makes them, among whatever else it prints. */
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

/** A directory of dumps: that of pciutils is `tests` in its sources. */
export const DUMPS = process.env['VFIO_USER_PCI_DUMPS'] ?? '';

export interface DumpedDevice {
  /** With its domain. */
  slot: string;
  bytes: Buffer;
}

export interface Dump {
  name: string;
  text: string;
  devices: DumpedDevice[];
}

const SLOT = /^((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b/i;
const ROW = /^([0-9a-f]{2,3}):((?: [0-9a-f]{2}){1,16})\s*$/i;

function readDumps(directory: string): Dump[] {
  const names = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile());
  return names.map(({ name }) => parseDump(name, readFileSync(path.join(directory, name), 'latin1')));
}

/** A row for each dump, for a table of tests; one that is skipped where there are none. */
export function dumpRows(isWanted: boolean): [name: string, dump: Dump][] {
  if (!isWanted) return [['a directory of dumps', { name: '', text: '', devices: [] }]];
  return readDumps(DUMPS)
    .filter(({ devices }) => devices.length > 0)
    .map((dump) => [dump.name, dump]);
}

function parseDump(name: string, text: string): Dump {
  const devices: DumpedDevice[] = [];
  for (const line of text.split(/\r?\n/)) {
    const row = ROW.exec(line);
    const device = devices.at(-1);
    if (row !== null && device !== undefined) {
      const bytes = Buffer.from(row[2]!.replaceAll(' ', ''), 'hex');
      const offset = Number.parseInt(row[1]!, 16);
      device.bytes = Buffer.concat([device.bytes.subarray(0, offset), bytes]);
      continue;
    }
    const slot = SLOT.exec(line)?.[1];
    if (slot !== undefined) {
      const domain = slot.split(':').length === 3 ? '' : '0000:';
      devices.push({ slot: domain + slot, bytes: Buffer.alloc(0) });
    }
  }
  return { name, text, devices };
}
