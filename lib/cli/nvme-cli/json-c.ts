/** JSON as nvme-cli prints it, by way of json-c: two spaces, no space after a colon, and numbers of any length as digits. */
import { printable } from '../errors.js';

export type JsonC = string | number | bigint | readonly JsonC[] | { readonly [key: string]: JsonC };

/** The text, with its line break. */
export function toJsonC(value: JsonC): string {
  return `${render(value, '')}\n`;
}

/** As json-c's `int` has it: 32 bits, with a sign. nvme-cli gives dwords to it. */
export function int(value: number): number {
  return value | 0;
}

function render(value: JsonC, indent: string): string {
  if (typeof value === 'string') return quoted(value);
  if (typeof value !== 'object') return value.toString();
  const inner = `${indent}  `;
  if (isList(value))
    return block(
      '[',
      ']',
      indent,
      value.map((item) => inner + render(item, inner)),
    );
  const members = Object.entries(value).map(([key, item]) => `${inner}${quoted(key)}:${render(item, inner)}`);
  return block('{', '}', indent, members);
}

/** `Array.isArray` makes `any` of a readonly list. */
function isList(value: readonly JsonC[] | { readonly [key: string]: JsonC }): value is readonly JsonC[] {
  return Array.isArray(value);
}

function block(open: string, close: string, indent: string, lines: readonly string[]): string {
  if (lines.length === 0) return open + close;
  return `${open}\n${lines.join(',\n')}\n${indent}${close}`;
}

/** What JSON lets through may still steer a terminal; its escape is the same text. */
function quoted(text: string): string {
  return printable(JSON.stringify(text));
}
