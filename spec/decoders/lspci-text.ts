/** What lspci(8) of pciutils says of configuration spaces: its text taken apart, for the specs of this folder. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Another lspci than that on PATH: pciutils has changed its words with time. */
export const LSPCI = process.env['VFIO_USER_LSPCI'] || 'lspci';
const version = spawnSync(LSPCI, ['--version'], { encoding: 'utf8' });
export const HAS_LSPCI = version.status === 0;
const [, major = 0, minor = 0] = /(\d+)\.(\d+)/.exec(version.stdout ?? '') ?? [];

/** Whether it is that version or a later one. */
export function isLspci(wantedMajor: number, wantedMinor: number): boolean {
  return Number(major) > wantedMajor || (Number(major) === wantedMajor && Number(minor) >= wantedMinor);
}

/** A line, its label, and what belongs to it: `DevCap` and the rest of the line with those that go on. */
export interface Section {
  label: string;
  text: string;
}

export interface CapabilityText {
  offset: number;
  /** undefined for a conventional one. */
  version: number | undefined;
  title: string;
  sections: Section[];
}

export interface DeviceText {
  slot: string;
  /** After the slot. */
  title: string;
  /** The header's. */
  sections: Section[];
  capabilities: CapabilityText[];
}

/** @param dump what `lspci -xxxx` prints, of any number of devices */
export function lspci(dump: string): DeviceText[] {
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-lspci-'));
  try {
    const file = path.join(directory, 'dump');
    writeFileSync(file, dump);
    const options = ['-F', file, '-vvv', '-nn', '-D'];
    const { stdout, status } = spawnSync(LSPCI, options, { encoding: 'utf8', maxBuffer: 1 << 28 });
    if (status !== 0) throw new Error(`lspci ended with status ${status}`);
    return stdout
      .split('\n\n')
      .filter((block) => block.trim() !== '')
      .map(parseDevice);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function parseDevice(block: string): DeviceText {
  const [first = '', ...lines] = block.split('\n');
  const [slot = '', ...title] = first.split(' ');
  const device: DeviceText = { slot, title: title.join(' '), sections: [], capabilities: [] };
  let sections = device.sections;
  for (const line of lines) {
    const depth = /^\t*/.exec(line)![0].length;
    const text = line.trim();
    const [, offset, version, name] = /^\tCapabilities: \[(\w+)(?: v(\d+))?\] (.*)$/.exec(line) ?? [];
    if (offset !== undefined) {
      const capability: CapabilityText = {
        offset: Number.parseInt(offset, 16),
        version: version === undefined ? undefined : Number(version),
        title: name!,
        sections: [],
      };
      device.capabilities.push(capability);
      ({ sections } = capability);
    } else if (depth === 1) {
      ({ sections } = device);
      sections.push(section(text));
    } else if (depth === 2 && sections !== device.sections) {
      sections.push(section(text));
    } else {
      const last = sections.at(-1);
      if (last !== undefined) last.text += ` ${text}`;
    }
  }
  return device;
}

function section(line: string): Section {
  const [, label, text] = /^([^:]+?)(?::\s*| at )(.*)$/s.exec(line) ?? [];
  return label === undefined ? { label: line, text: '' } : { label, text: text! };
}

/**
 * A piece of lspci's text and what it ought to say: a flag by its name, or what a pattern's group holds; null for what is
 * lspci's own and not in the bytes.
 */
export type Expectation = readonly [what: string | RegExp, value: boolean | number | string | null];

/**
 * What of a section's text is not as expected, and what of it nothing was expected of. What is expected and not there is
 * no fault: versions of lspci differ in what they show.
 */
export function differences({ label, text }: Section, expectations: readonly Expectation[]): string[] {
  const wrong: string[] = [];
  let rest = text;
  for (const [what, value] of expectations) {
    const pattern = typeof what === 'string' ? flag(what) : what;
    const found = pattern.exec(rest);
    if (found === null) continue;
    rest = `${rest.slice(0, found.index)} ${rest.slice(found.index + found[0].length)}`;
    if (value === null) continue;
    const said = found[1] ?? found[0];
    const ours = typeof value === 'boolean' ? (value ? '+' : '-') : String(value);
    const isSame = typeof value === 'number' ? Number(said) === value : said === ours;
    if (!isSame) wrong.push(`${label}: lspci says '${found[0]}', we say ${ours}`);
  }
  const left = rest.replaceAll(/[\s,;:()]+/g, ' ').trim();
  if (left !== '') wrong.push(`${label}: nothing was compared with '${left}'`);
  return wrong;
}

/** `Name+` or `Name-`, old versions: `Name:+`. */
function flag(name: string): RegExp {
  const escaped = name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`(?<![\\w.<>-])${escaped}:?([+-])(?![\\w-])`);
}
