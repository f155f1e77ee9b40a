/** What the importers have in common: numbers, names, warnings. */
import { READ_WRITE, type Access, type ReadEffect, type WriteEffect } from './access.js';
import { RegisterMapError, type ImportWarning } from './error.js';
import { LIMITS } from './map.js';

/** A map has one warning of each kind and line; beyond so many the rest is counted. */
const MOST_WARNINGS = 10_000;

/** What is being imported: its warnings, and how much of it there may be. */
export class Import {
  readonly warnings: ImportWarning[] = [];
  #omitted = 0;
  #made = 0;

  warn(message: string, line: number | undefined): void {
    if (this.warnings.length < MOST_WARNINGS) this.warnings.push({ message, line });
    else this.#omitted++;
  }

  /** With how many were left out. */
  finish(): readonly ImportWarning[] {
    if (this.#omitted > 0) this.warnings.push({ message: `${this.#omitted} more warnings`, line: undefined });
    return this.warnings;
  }

  /** Counts what is made of the file: what derives from something else makes a copy of it. */
  spend(count: number, line: number | undefined): void {
    this.#made += count;
    if (this.#made > 4 * LIMITS.registers) {
      throw new RegisterMapError(`more than ${4 * LIMITS.registers} registers, fields and values`, line);
    }
  }

  /** A name of letters, digits, `_` and `-`. */
  name(text: string | undefined, fallback: string, line: number | undefined): string {
    const name = (text ?? '').replaceAll(/[^\w-]+/g, '_').slice(0, LIMITS.nameLength);
    if (name !== '' && name === text) return name;
    const used = name === '' || name === '_' ? fallback : name;
    this.warn(`the name ${JSON.stringify((text ?? '').slice(0, 60))} becomes ${used}`, line);
    return used;
  }
}

/** The items with names that are one only: the second CTRL becomes CTRL_2, with a warning. */
export function withUniqueNames<T extends { readonly name: string }>(
  items: readonly T[],
  warn: (message: string, item: T) => void,
): T[] {
  const names = new Set<string>();
  const lastOf = new Map<string, number>();
  return items.map((item) => {
    let { name } = item;
    if (names.has(name)) {
      let n = lastOf.get(item.name) ?? 1;
      do name = `${item.name.slice(0, LIMITS.nameLength - 8)}_${++n}`;
      while (names.has(name));
      lastOf.set(item.name, n);
      warn(`the name ${item.name} is there twice; the second is ${name}`, item);
    }
    names.add(name);
    return name === item.name ? item : { ...item, name };
  });
}

/** As data: a number where that is exact. */
export function integerData(value: bigint): number | string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;
}

/** Text that is not there is not said. */
export function described(text: string | undefined): { description?: string } {
  return text === undefined ? {} : { description: text.slice(0, LIMITS.descriptionLength) };
}

/** The bits of a register. */
export const SIZES = [8, 16, 32, 64];

/** `access` of CMSIS-SVD and IP-XACT. */
export const XML_ACCESS: Readonly<Record<string, Access>> = {
  'read-write': READ_WRITE,
  'read-only': { ...READ_WRITE, writable: false },
  'write-only': { ...READ_WRITE, readable: false },
  writeOnce: { ...READ_WRITE, readable: false, once: true },
  'read-writeOnce': { ...READ_WRITE, once: true },
};

/** `modifiedWriteValues` of CMSIS-SVD, `modifiedWriteValue` of IP-XACT. */
export const XML_WRITES: Readonly<Record<string, WriteEffect>> = {
  oneToClear: 'W1C',
  oneToSet: 'W1S',
  oneToToggle: 'W1T',
  zeroToClear: 'W0C',
  zeroToSet: 'W0S',
  zeroToToggle: 'W0T',
  clear: 'WC',
  set: 'WS',
  modify: 'WM',
};

/** `readAction` of both. */
export const XML_READS: Readonly<Record<string, ReadEffect>> = {
  clear: 'RC',
  set: 'RS',
  modify: 'RM',
  // Something else is changed: all the same nobody may read it without being asked.
  modifyExternal: 'RM',
};

/** What a word stands for. @throws RegisterMapError with those that there are. */
export function lookUp<T>(
  table: Readonly<Record<string, T>>,
  word: string,
  what: string,
  line: number | undefined,
): T {
  const value = Object.hasOwn(table, word) ? table[word] : undefined;
  if (value !== undefined) return value;
  throw new RegisterMapError(
    `${what} must be one of ${Object.keys(table).join(', ')}, got ${JSON.stringify(word.slice(0, 40))}`,
    line,
  );
}
