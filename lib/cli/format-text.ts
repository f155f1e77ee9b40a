/** Words and tables for people. */
import Table from 'cli-table3';

const UNITS = ['byte', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `0x` and digits, at least `digits` of them. */
export function hex(value: number | bigint, digits = 1): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

/** `256 bytes`, `1 MiB`: the largest unit that is exact. */
export function byteCount(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (unit + 1 < UNITS.length && value >= 1024 && value % 1024 === 0) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? counted(value, 'byte') : `${value} ${UNITS[unit]}`;
}

/** `2 vectors`, `1 vector`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** `readOnly` as `read only`. */
export function spelledOut(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** Columns that line up, without lines around them, two spaces in. */
export function columns(rows: readonly (readonly string[])[]): string {
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '' };
  const table = new Table({
    chars: {
      ...none,
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  for (const row of rows) table.push([...row]);
  const lines = table.toString().split('\n');
  return lines.map((line) => `  ${line}`.trimEnd()).join('\n');
}
