import { printable } from './errors.js';

/** JSON of what the library gives: bigints as numbers where that is exact and as hexadecimal strings beyond, bytes as digits. */
export function toJson(value: unknown): string {
  const text = JSON.stringify(value, replace, 2);
  // What JSON lets through may still steer a terminal. It stands in strings only, where its escape is the same text.
  return text.split('\n').map(printable).join('\n');
}

/** The same as one line, with its line break. */
export function toJsonLine(value: unknown): string {
  return `${printable(JSON.stringify(value, replace))}\n`;
}

/** `this` holds the value as it was before `toJSON`, which Buffers have. */
function replace(this: unknown, key: string, value: unknown): unknown {
  const original = (this as Record<string, unknown>)[key];
  if (original instanceof Uint8Array) return Buffer.from(original).toString('hex');
  return typeof value === 'bigint' ? safeNumber(value) : value;
}

export function safeNumber(value: bigint): number | string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;
}
