/**
 * A register map that has been checked, with every element of its arrays as a register of its own.
 *
 * Files come from vendors and strangers: what they ask for is bounded (`LIMITS`), and what makes no sense is a
 * `RegisterMapError` that says where it stands.
 */
import {
  ACCESS_WORDS,
  READ_EFFECTS,
  READ_WRITE,
  WRITE_EFFECTS,
  type Access,
  type ReadEffect,
  type WriteEffect,
} from './access.js';
import {
  REGISTER_MAP_FORMAT,
  type RegisterBlockData,
  type RegisterGroupData,
  type RegisterMapData,
} from './data.js';
import { RegisterMapError } from './error.js';

/** What a map may have. */
export const LIMITS = {
  /** Of all arrays together, with each element counted. */
  registers: 1 << 18,
  blocks: 4096,
  /** Of a register; those that are read and those that are written may be two sets. */
  fields: 256,
  /** Of a field. */
  values: 4096,
  /** Of a map's groups within groups. */
  depth: 16,
  /** Of a name. */
  nameLength: 128,
  descriptionLength: 1 << 16,
} as const;

/** A value of a field that has a name. */
export interface EnumValue {
  /** As the file has it. */
  readonly name: string;
  /** In words; empty where there are none. */
  readonly description: string;
  /** Of the field. */
  readonly value: bigint;
}

/** Some bits of a register. */
export interface FieldInfo {
  /** As the file has it. */
  readonly name: string;
  /** In words; empty where there are none. */
  readonly description: string;
  /** Its lowest bit, from 0. */
  readonly lsb: number;
  /** How many bits it has. */
  readonly bits: number;
  /** What reads and writes do. */
  readonly access: Access;
  /** Whether the device changes it by itself. */
  readonly volatile: boolean;
  /** Whether `checkRegisters` leaves it alone. */
  readonly noTest: boolean;
  /** What values are called that are read. */
  readonly values: readonly EnumValue[];
  /** What values are called that are written. */
  readonly writeValues: readonly EnumValue[];
}

/** A register. */
export interface RegisterInfo {
  /** `CTRL`, `CH[2].CTRL`: within its block. */
  readonly path: string;
  /** As the file has it, without an index. */
  readonly name: string;
  /** The name of its block. */
  readonly block: string;
  /** In words; empty where there are none. */
  readonly description: string;
  /** In bytes, from where its block begins. */
  readonly offset: number;
  /** 8, 16, 32 or 64. */
  readonly bits: number;
  /** What reads and writes do to bits that no field has. */
  readonly access: Access;
  /** Whether the device changes it by itself. */
  readonly volatile: boolean;
  /** Whether `checkRegisters` leaves it alone. */
  readonly noTest: boolean;
  /** Its value after a reset; undefined where the map does not say. */
  readonly reset: bigint | undefined;
  /** Which bits of `reset` are defined. */
  readonly resetMask: bigint;
  /** By their lowest bit. */
  readonly fields: readonly FieldInfo[];
}

/** Registers within a block. */
export interface GroupInfo {
  /** As the file has it. */
  readonly name: string;
  /** In words; empty where there are none. */
  readonly description: string;
  /** What it has, in the file's order. */
  readonly members: readonly MemberInfo[];
}

/** What a block or a group has under a name: a register, a group, or an array of them. */
export interface MemberInfo {
  /** As the file has it. */
  readonly name: string;
  /** Whether it has indexes: then `items` may have any number. */
  readonly isArray: boolean;
  /** One, unless it is an array. */
  readonly items: readonly (RegisterInfo | GroupInfo)[];
}

/** A block. */
export interface BlockInfo extends GroupInfo {
  /** Its address in the device's address space. */
  readonly base: bigint;
  /** All of its registers, by their offsets. */
  readonly registers: readonly RegisterInfo[];
}

/** Whether a member's item is a register; else it is a group. */
export function isRegister(item: RegisterInfo | GroupInfo): item is RegisterInfo {
  return 'path' in item;
}

/**
 * A register map: blocks, their registers, and the fields of those.
 *
 * @example
 * ```ts
 * const { map } = await loadRegisterMap('uart.svd');
 * for (const { path, offset } of map.block('UART0').registers) console.log(path, offset);
 * ```
 */
export class RegisterMap {
  /** The device. */
  readonly name: string;
  /** In words; empty where there are none. */
  readonly description: string;
  /** In the file's order. */
  readonly blocks: readonly BlockInfo[];
  readonly #data: RegisterMapData;

  private constructor(data: RegisterMapData, blocks: readonly BlockInfo[]) {
    this.#data = data;
    this.name = data.name;
    this.description = data.description ?? '';
    this.blocks = blocks;
  }

  /** Checks the data. @throws RegisterMapError for what makes no sense, with the path to it. */
  static from(data: RegisterMapData): RegisterMap {
    const at = new Reader('map', data, ['format', 'name', 'description', 'blocks']);
    if (at.value('format') !== REGISTER_MAP_FORMAT) throw at.wrong('format', `'${REGISTER_MAP_FORMAT}'`);
    at.text('name');
    at.text('description', '');
    const budget: Budget = { registers: 0, templates: new Map() };
    const blocks = at
      .list('blocks', LIMITS.blocks)
      .map((block, i) => readBlock(`blocks[${i}]`, block, budget));
    requireUnique('blocks', blocks);
    return new RegisterMap(data, blocks);
  }

  /** The block at the lowest address. @throws RegisterMapError where there is no block. */
  get lowestBlock(): BlockInfo {
    const [first, ...others] = this.blocks;
    if (first === undefined) throw new RegisterMapError(`the map ${this.name} has no blocks`);
    return others.reduce((lowest, block) => (block.base < lowest.base ? block : lowest), first);
  }

  /** The block of this name; where no block has it so, upper and lower case do not count. @throws RangeError */
  block(name: string): BlockInfo {
    const found = byName(this.blocks, name);
    if (found !== undefined) return found;
    const names = this.blocks.slice(0, 16).map((block) => block.name);
    const more = this.blocks.length > names.length ? ', …' : '';
    throw new RangeError(`the map ${this.name} has no block ${name}; it has ${names.join(', ')}${more}`);
  }

  /** The data that it was made of, for JSON. */
  toJSON(): RegisterMapData {
    return this.#data;
  }
}

/** The one of this name; where none has it so, upper and lower case do not count. */
export function byName<T extends { readonly name: string }>(
  items: readonly T[],
  name: string,
): T | undefined {
  const lower = name.toLowerCase();
  return items.find((item) => item.name === name) ?? items.find((item) => item.name.toLowerCase() === lower);
}

/** The register of this path within a block, `CTRL` or `CH[2].CTRL`, as `byName` finds it. */
export function registerByPath(block: BlockInfo, path: string): RegisterInfo | undefined {
  const lower = path.toLowerCase();
  return (
    block.registers.find((register) => register.path === path) ??
    block.registers.find((register) => register.path.toLowerCase() === lower)
  );
}

const ARRAY = ['count', 'stride'];
const ACCESS = ['access', 'onRead', 'onWrite', 'once', 'selfClearing', 'volatile', 'noTest'];
const BLOCK = ['name', 'description', 'base', 'children'];
const GROUP = ['name', 'description', 'offset', 'children', ...ARRAY];
const REGISTER = [
  'name',
  'description',
  'offset',
  'bits',
  'reset',
  'resetMask',
  'fields',
  ...ARRAY,
  ...ACCESS,
];
const FIELD = ['name', 'description', 'lsb', 'bits', 'values', 'writeValues', ...ACCESS];
const VALUE = ['name', 'description', 'value'];

const NAME = /^[\w-]+$/;
const HEX = /^0x[\da-f]{1,16}$/i;

/** An object of the data: what is in it, with errors that say where. */
class Reader {
  readonly #path: string;
  readonly #object: Readonly<Record<string, unknown>>;

  constructor(path: string, value: unknown, names: readonly string[]) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new RegisterMapError(`${path} must be an object`);
    }
    this.#path = path;
    this.#object = value as Record<string, unknown>;
    for (const name of Object.keys(value)) {
      if (names.includes(name)) continue;
      throw new RegisterMapError(`${path} has an unknown property ${JSON.stringify(name.slice(0, 40))}`);
    }
  }

  get path(): string {
    return this.#path;
  }

  has(name: string): boolean {
    return this.value(name) !== undefined;
  }

  value(name: string): unknown {
    return Object.hasOwn(this.#object, name) ? this.#object[name] : undefined;
  }

  wrong(name: string, allowed: string): RegisterMapError {
    const value = this.value(name);
    const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value);
    return new RegisterMapError(`${this.#path}.${name} must be ${allowed}, got ${shown}`);
  }

  name(): string {
    const value = this.value('name');
    if (typeof value === 'string' && NAME.test(value) && value.length <= LIMITS.nameLength) return value;
    throw this.wrong('name', `1 to ${LIMITS.nameLength} letters, digits, _ and -`);
  }

  text(name: string, fallback?: string): string {
    const value = this.value(name) ?? fallback;
    if (typeof value === 'string' && value.length <= LIMITS.descriptionLength) return value;
    throw this.wrong(name, `a string of at most ${LIMITS.descriptionLength} characters`);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.value(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.wrong(name, 'true or false');
  }

  integer(name: string, least: number, most: number, fallback?: number): number {
    const value = this.value(name) ?? fallback;
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) {
      return value as number;
    }
    throw this.wrong(name, `an integer from ${least} to ${most}`);
  }

  /** A value of up to 64 bits. */
  big(name: string, bits: number): bigint {
    const value = this.value(name);
    const isInteger = Number.isSafeInteger(value) || (typeof value === 'string' && HEX.test(value));
    const integer = isInteger ? BigInt(value as number | string) : -1n;
    if (integer >= 0n && integer >> BigInt(bits) === 0n) return integer;
    throw this.wrong(name, `an unsigned ${bits}-bit integer, or a string of its hexadecimal digits after 0x`);
  }

  oneOf<T extends string>(name: string, words: readonly T[], fallback: T): T {
    const value = this.value(name) ?? fallback;
    const word = words.find((one) => one === value);
    if (word !== undefined) return word;
    throw this.wrong(name, `one of ${words.join(', ')}`);
  }

  list(name: string, most: number): readonly unknown[] {
    const value = this.value(name) ?? [];
    if (Array.isArray(value) && value.length <= most) return value as readonly unknown[];
    if (Array.isArray(value)) throw new RegisterMapError(`${this.#path}.${name} has more than ${most} items`);
    throw this.wrong(name, 'a list');
  }
}

interface Budget {
  registers: number;
  /** By the data: what an array's elements have in common is checked and kept once. */
  readonly templates: Map<unknown, RegisterTemplate>;
}

type RegisterTemplate = Omit<RegisterInfo, 'name' | 'path' | 'block' | 'offset'>;

/** Where a group's registers go, and how they are called. */
interface Place {
  readonly block: string;
  readonly prefix: string;
  readonly offset: number;
  readonly depth: number;
  readonly registers: RegisterInfo[];
}

function readBlock(path: string, data: unknown, budget: Budget): BlockInfo {
  const at = new Reader(path, data, BLOCK);
  const name = at.name();
  const base = at.has('base') ? at.big('base', 64) : 0n;
  const registers: RegisterInfo[] = [];
  const place = { block: name, prefix: '', offset: 0, depth: 0, registers };
  const children = (data as RegisterBlockData).children;
  const members = readMembers(at, children, place, budget);
  // Stable: of registers at one offset the file's first comes first.
  registers.sort((a, b) => a.offset - b.offset);
  return { name, description: at.text('description', ''), base, registers, members };
}

function readMembers(at: Reader, children: unknown, place: Place, budget: Budget): MemberInfo[] {
  if (place.depth > LIMITS.depth)
    throw new RegisterMapError(`${at.path} is more than ${LIMITS.depth} groups deep`);
  if (!Array.isArray(children)) throw at.wrong('children', 'a list');
  if (children.length > LIMITS.registers) throw tooMany();
  const members = children.map((child: unknown, i) =>
    readMember(`${at.path}.children[${i}]`, child, place, budget),
  );
  requireUnique(`${at.path}.children`, members);
  return members;
}

function readMember(path: string, data: unknown, place: Place, budget: Budget): MemberInfo {
  const isGroup = typeof data === 'object' && data !== null && Object.hasOwn(data, 'children');
  const at = new Reader(path, data, isGroup ? GROUP : REGISTER);
  const name = at.name();
  const isArray = at.has('count');
  const count = isArray ? at.integer('count', 0, LIMITS.registers) : 1;
  const offset = at.integer('offset', 0, Number.MAX_SAFE_INTEGER);
  const stride = isArray ? at.integer('stride', 0, Number.MAX_SAFE_INTEGER) : 0;
  const last = place.offset + offset + Math.max(0, count - 1) * stride;
  if (!Number.isSafeInteger(last)) throw new RegisterMapError(`${path} ends beyond 53 bits`);
  const template = isGroup ? undefined : (budget.templates.get(data) ?? readRegister(at));
  if (template !== undefined) budget.templates.set(data, template);
  const items: (RegisterInfo | GroupInfo)[] = [];
  for (let i = 0; i < count; i++) {
    if (++budget.registers > LIMITS.registers) throw tooMany();
    const own = `${place.prefix}${name}${isArray ? `[${i}]` : ''}`;
    const start = place.offset + offset + i * stride;
    if (template !== undefined) {
      const register = { ...template, name, path: own, block: place.block, offset: start };
      place.registers.push(register);
      items.push(register);
    } else {
      const inner = { ...place, prefix: `${own}.`, offset: start, depth: place.depth + 1 };
      const members = readMembers(at, (data as RegisterGroupData).children, inner, budget);
      items.push({ name, description: at.text('description', ''), members });
    }
  }
  return { name, isArray, items };
}

function tooMany(): RegisterMapError {
  return new RegisterMapError(`the map has more than ${LIMITS.registers} registers`);
}

function readRegister(at: Reader): RegisterTemplate {
  const bits = at.integer('bits', 8, 64, 32);
  if (![8, 16, 32, 64].includes(bits)) throw at.wrong('bits', '8, 16, 32 or 64');
  const access = readAccess(at, READ_WRITE);
  const reset = at.has('reset') ? at.big('reset', bits) : undefined;
  const all = (1n << BigInt(bits)) - 1n;
  const resetMask = at.has('resetMask') ? at.big('resetMask', bits) : reset === undefined ? 0n : all;
  const isVolatile = at.flag('volatile', false);
  const noTest = at.flag('noTest', false);
  const fields = at
    .list('fields', LIMITS.fields)
    .map((field, i) => readField(`${at.path}.fields[${i}]`, field, bits, { access, isVolatile, noTest }));
  requireUnique(`${at.path}.fields`, fields);
  fields.sort((a, b) => a.lsb - b.lsb);
  const description = at.text('description', '');
  return { description, bits, access, volatile: isVolatile, noTest, reset, resetMask, fields };
}

function readField(
  path: string,
  data: unknown,
  registerBits: number,
  register: { access: Access; isVolatile: boolean; noTest: boolean },
): FieldInfo {
  const at = new Reader(path, data, FIELD);
  const bits = at.integer('bits', 1, registerBits, 1);
  const lsb = at.integer('lsb', 0, registerBits - bits);
  const values = readValues(at, 'values', bits);
  return {
    name: at.name(),
    description: at.text('description', ''),
    lsb,
    bits,
    access: readAccess(at, register.access),
    volatile: at.flag('volatile', register.isVolatile),
    noTest: at.flag('noTest', register.noTest),
    values,
    writeValues: at.has('writeValues') ? readValues(at, 'writeValues', bits) : values,
  };
}

function readValues(at: Reader, name: string, bits: number): EnumValue[] {
  const values = at.list(name, LIMITS.values).map((value, i): EnumValue => {
    const one = new Reader(`${at.path}.${name}[${i}]`, value, VALUE);
    return { name: one.name(), description: one.text('description', ''), value: one.big('value', bits) };
  });
  requireUnique(`${at.path}.${name}`, values);
  return values;
}

const WORDS = Object.keys(ACCESS_WORDS);

/** A word says all of it; without one everything that is not said is as in `inherited`. */
function readAccess(at: Reader, inherited: Access): Access {
  const word = at.has('access') ? at.oneOf('access', WORDS, 'RW') : undefined;
  const base = (word === undefined ? undefined : ACCESS_WORDS[word]) ?? inherited;
  return {
    readable: base.readable,
    writable: base.writable,
    onRead: at.oneOf<ReadEffect>('onRead', READ_EFFECTS, base.onRead),
    onWrite: at.oneOf<WriteEffect>('onWrite', WRITE_EFFECTS, base.onWrite),
    once: at.flag('once', base.once),
    selfClearing: at.flag('selfClearing', base.selfClearing),
  };
}

function requireUnique(path: string, items: readonly { readonly name: string }[]): void {
  const names = new Set<string>();
  for (const { name } of items) {
    if (names.has(name)) throw new RegisterMapError(`${path} has the name ${name} twice`);
    names.add(name);
  }
}
