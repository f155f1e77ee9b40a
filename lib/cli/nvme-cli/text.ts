/** Numbers and bytes as nvme-cli's printf(3) has them. */

const LINE = 16;
const ASCII_FIRST = 0x21;
const ASCII_LAST = 0x7e;
const SI: readonly (readonly [size: number, suffix: string])[] = [
  [1e30, 'Q'],
  [1e27, 'R'],
  [1e24, 'Y'],
  [1e21, 'Z'],
  [1e18, 'E'],
  [1e15, 'P'],
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
  [1, ''],
];
const BINARY = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'];
const KELVIN = 273;

/** `%#x`: 0 has no prefix. */
export function hexC(value: number | bigint, width = 0): string {
  const digits = value.toString(16);
  return Number(value) === 0 ? digits.padStart(width, '0') : `0x${digits.padStart(width - 2, '0')}`;
}

/** A number of bytes with an SI suffix, which stands before the B. */
export function siSize(bytes: number): [value: number, suffix: string] {
  const [size, suffix] = SI.find(([least]) => bytes >= least) ?? [1, ''];
  return [bytes / size, suffix];
}

/** Of a block: `  4 KiB`'s number and suffix. */
export function binarySize(bytes: number): [value: number, suffix: string] {
  const power = Math.min(BINARY.length - 1, Math.max(0, Math.floor(Math.log2(bytes) / 10)));
  return [Math.round(bytes / 1024 ** power), BINARY[power]!];
}

export function celsius(kelvin: number): number {
  return kelvin - KELVIN;
}

/** What is printable of the bytes; others are dots. */
export function printed(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) =>
    byte >= ASCII_FIRST && byte <= ASCII_LAST ? String.fromCharCode(byte) : '.',
  ).join('');
}

/** Sixteen bytes a line, with a line of numbers above them. */
export function hexDump(bytes: Uint8Array): string {
  const head = `     ${Array.from({ length: LINE }, (_, i) => i.toString(16).padStart(3)).join('')}`;
  const lines: string[] = [head];
  for (let at = 0; at < bytes.length; at += LINE) {
    const part = bytes.subarray(at, at + LINE);
    const digits = Array.from(part, (byte) => ` ${byte.toString(16).padStart(2, '0')}`).join('');
    const missing = LINE - part.length;
    const gap = missing === 0 ? '' : ' '.repeat(3 * missing + 1);
    lines.push(`${at.toString(16).padStart(4, '0')}:${digits}${gap} "${printed(part)}"`);
  }
  return `${lines.join('\n')}\n`;
}
