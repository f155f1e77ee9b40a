/** `show-regs`: the controller's registers. */
import type { Region } from '../../index.js';
import { REGISTERS } from '../../nvme/layouts.js';
import { int, type JsonC } from './json-c.js';

type Name = keyof typeof REGISTERS;

/** In nvme-cli's order. */
const ORDER: readonly Name[] = [
  ...(['cap', 'vs', 'intms', 'intmc', 'cc', 'csts', 'nssr', 'crto', 'aqa', 'asq', 'acq', 'cmbloc'] as const),
  ...(['cmbsz', 'bpinfo', 'bprsel', 'bpmbl', 'cmbmsc', 'cmbsts', 'pmrcap', 'pmrctl', 'pmrsts'] as const),
  ...(['pmrebs', 'pmrswtp', 'pmrmscl', 'pmrmscu'] as const),
];
/** In its text these stand before a tab. */
const TABBED: readonly Name[] = ['cmbmsc', 'cmbsts', 'pmrmscl', 'pmrmscu'];
/** What reads back of a register that is not there. */
const GONE = 0xffff_ffff;
const TITLES: Readonly<Partial<Record<Name, string>>> = { vs: 'version' };
const DWORD = 4;

export type RegisterValues = ReadonlyMap<Name, bigint>;

/** How much of BAR 0 has registers. */
export const REGISTER_BYTES = 0xe1c;

/** Each register by dwords: reading any of them changes nothing (NVM Express Base 2.0, section 3.1.3). */
export async function readRegisters(bar: Region): Promise<RegisterValues> {
  const values = new Map<Name, bigint>();
  for (const name of ORDER) {
    const [offset, bytes] = REGISTERS[name];
    let value = 0n;
    for (let at = 0; at < bytes && offset + at + DWORD <= bar.size; at += DWORD)
      value |= BigInt(await bar.readUInt32(offset + at)) << BigInt(8 * at);
    values.set(name, value);
  }
  return values;
}

/** All of them, and zeroes between. */
export function registerBytes(values: RegisterValues): Buffer {
  const bytes = Buffer.alloc(REGISTER_BYTES);
  for (const [name, value] of values) {
    const [offset, size] = REGISTERS[name];
    if (size === DWORD) bytes.writeUInt32LE(Number(value), offset);
    else bytes.writeBigUInt64LE(value, offset);
  }
  return bytes;
}

export function registersJson(values: RegisterValues): JsonC {
  const members = [...values].map(([name, value]): [string, JsonC] => [
    name,
    REGISTERS[name][1] === DWORD ? int(Number(value)) : value,
  ]);
  return Object.fromEntries(members);
}

export function registersText(values: RegisterValues): string {
  const lines = [...values].map(([name, value]) => {
    // The masks of these two are printed with a prefix.
    const digits = name.startsWith('pmrmsc') && value !== 0n ? `0x${value.toString(16)}` : value.toString(16);
    const title = TITLES[name] ?? name;
    return TABBED.includes(name) ? `${title}\t: ${digits}` : `${title.padEnd(8)}: ${digits}`;
  });
  return `${lines.join('\n')}\n`;
}

/** BAR 0 answers nothing but ones: the device is gone. */
export function isGone(values: RegisterValues): boolean {
  return Number(values.get('vs')) === GONE && Number(values.get('csts')) === GONE;
}
