/** What members of a fault may be: a file or a command line is not trusted to make sense. Each check has its JSON schema. */
import { constants } from 'node:os';
import { UINT64_MAX } from '../fields.js';
import { Command, PciIrq } from '../protocol/constants.js';

/** A part of a JSON schema (draft 7). */
export type Schema = Readonly<Record<string, unknown>>;

/** Gives what the value means, or throws a TypeError that says where it is and what it may be. */
export interface MemberCheck {
  (at: string, value: unknown): unknown;
  readonly schema: Schema;
}

const MAX_PIECES = 1_000;
export const MAX_OFFSET = 0xffff_ffff;
const MAX_ERRNO = 4_095;
/** By index. */
export const REGION_WORDS: readonly string[] = [
  ...['bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5', 'rom', 'config', 'vga', 'migration'],
];

function checked(schema: Schema, check: (at: string, value: unknown) => unknown): MemberCheck {
  return Object.assign((at: string, value: unknown) => check(at, value), { schema });
}

export function oneOf(...choices: string[]): MemberCheck {
  return checked({ enum: choices }, (at, value) => {
    if (choices.includes(value as string)) return value;
    throw new TypeError(`${at} is ${shown(value)}; it is ${choices.join(' or ')}`);
  });
}

export function whole(least: number, most: number): MemberCheck {
  return checked({ type: 'integer', minimum: least, maximum: most }, (at, value) => {
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value;
    throw new TypeError(`${at} is ${shown(value)}; it is a whole number from ${least} to ${most}`);
  });
}

export const text: MemberCheck = checked({ type: 'string', minLength: 1 }, (at, value) => {
  if (typeof value === 'string' && value !== '') return value;
  throw new TypeError(`${at} is ${shown(value)}; it is a name`);
});

export const probability: MemberCheck = checked({ type: 'number', minimum: 0, maximum: 1 }, (at, value) => {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new TypeError(`${at} is ${shown(value)}; it is a number from 0 to 1`);
});

const OFFSET = whole(1, MAX_OFFSET);

export const offsets: MemberCheck = checked(
  { anyOf: [OFFSET.schema, { type: 'array', items: OFFSET.schema, minItems: 1, maxItems: MAX_PIECES }] },
  (at, value) => {
    const list = Array.isArray(value) ? (value as unknown[]) : [value];
    if (list.length === 0 || list.length > MAX_PIECES) {
      throw new TypeError(`${at} has ${list.length} offsets; it has 1 to ${MAX_PIECES}`);
    }
    for (const [i, offset] of list.entries()) {
      OFFSET(`${at}[${i}]`, offset);
      if (i > 0 && (offset as number) <= (list[i - 1] as number))
        throw new TypeError(`${at} does not ascend`);
    }
    return list;
  },
);

export const commandNumber: MemberCheck = checked(
  { anyOf: [whole(0, 0xffff).schema, { type: 'string', minLength: 1 }] },
  (at, value) => {
    if (typeof value === 'number') return whole(0, 0xffff)(at, value);
    const name = typeof value === 'string' ? value.toUpperCase() : '';
    if (Object.hasOwn(Command, name)) return Command[name as keyof typeof Command];
    throw new TypeError(
      `${at} is ${shown(value)}; it is a number or one of ${Object.keys(Command).join(', ')}`,
    );
  },
);

export const fdIndex: MemberCheck = checked(
  { anyOf: [whole(0, 252).schema, { const: 'all' }] },
  (at, value) => (value === 'all' ? value : whole(0, 252)(at, value)),
);

export const errnoNumber: MemberCheck = checked(
  { anyOf: [whole(1, MAX_ERRNO).schema, { type: 'string', minLength: 1 }] },
  (at, value) => {
    if (typeof value === 'number') return whole(1, MAX_ERRNO)(at, value);
    const numbers = constants.errno as Readonly<Record<string, number>>;
    const name = typeof value === 'string' ? value.toUpperCase() : '';
    if (Object.hasOwn(numbers, name)) return numbers[name];
    throw new TypeError(`${at} is ${shown(value)}; it is an errno's name, as EIO, or its number`);
  },
);

/** 64 bits, unsigned: what a number, a bigint or a string of hexadecimal digits says, as a bigint. */
export const integer64: MemberCheck = checked(
  {
    anyOf: [
      { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER },
      { type: 'string', pattern: '^0[xX][0-9A-Fa-f]{1,16}$' },
    ],
  },
  (at, value) => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
    if (typeof value === 'string' && /^0x[\da-f]{1,16}$/i.test(value)) return BigInt(value);
    if (typeof value === 'bigint' && value >= 0n && value <= UINT64_MAX) return value;
    throw new TypeError(`${at} is ${shown(value)}; it is an integer of 64 bits, as 256 or "0x100"`);
  },
);

/** A word's index, or the number itself. */
function indexOf(words: readonly string[], most: number): MemberCheck {
  const schema = { anyOf: [whole(0, most).schema, { enum: words }] };
  return checked(schema, (at, value) => {
    if (typeof value === 'number') return whole(0, most)(at, value);
    const index = typeof value === 'string' ? words.indexOf(value.toLowerCase()) : -1;
    if (index !== -1) return index;
    throw new TypeError(`${at} is ${shown(value)}; it is a number or one of ${words.join(', ')}`);
  });
}

export const regionNumber = indexOf(REGION_WORDS, 0xffff_ffff);
export const irqNumber = indexOf(
  Object.keys(PciIrq).map((name) => name.toLowerCase()),
  0xffff_ffff,
);

export function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  const written =
    typeof value === 'bigint' ? `${value}n` : ((JSON.stringify(value) as string | undefined) ?? typeof value);
  return written.length <= 60 ? written : `${written.slice(0, 60)}…`;
}

/** `bar0`, `config`; `region 12` where it has no name. */
export function regionWord(index: number): string {
  return REGION_WORDS[index] ?? `region ${index}`;
}

/** `msi`, `msix`; `irq 7` where it has no name. */
export function irqWord(index: number): string {
  const name = Object.entries(PciIrq).find(([, number]) => number === index)?.[0];
  return name?.toLowerCase() ?? `irq ${index}`;
}
