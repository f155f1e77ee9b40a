/**
 * SystemRDL 2.0, compiled: the JSON of the exporter in the documentation of the SystemRDL compiler that PeakRDL is built on
 * (`type`, `inst_name`, `addr_offset`, `children`; of fields `lsb`, `msb`, `reset`, `sw_access`), and SystemRDL's own properties
 * under their names, as programs that extend it write them.
 */
import { accessData, READ_WRITE, type Access, type ReadEffect, type WriteEffect } from './access.js';
import {
  REGISTER_MAP_FORMAT,
  type EnumValueData,
  type RegisterData,
  type RegisterFieldData,
  type RegisterGroupData,
  type RegisterMapData,
} from './data.js';
import { RegisterMapError } from './error.js';
import { described, type Import, integerData, lookUp, SIZES, withUniqueNames } from './import.js';
import { LIMITS } from './map.js';

type Child = RegisterData | RegisterGroupData;

/** `sw` (SystemRDL 2.0, section 9.4). */
const SOFTWARE: Readonly<Record<string, Access>> = {
  rw: READ_WRITE,
  r: { ...READ_WRITE, writable: false },
  w: { ...READ_WRITE, readable: false },
  rw1: { ...READ_WRITE, once: true },
  w1: { ...READ_WRITE, readable: false, once: true },
  na: { ...READ_WRITE, readable: false, writable: false },
};

/** `onread` (section 9.6.1). */
const ON_READ: Readonly<Record<string, ReadEffect>> = { rclr: 'RC', rset: 'RS', ruser: 'RM' };

/** `onwrite` (section 9.6.2). */
const ON_WRITE: Readonly<Record<string, WriteEffect>> = {
  woset: 'W1S',
  woclr: 'W1C',
  wot: 'W1T',
  wzs: 'W0S',
  wzc: 'W0C',
  wzt: 'W0T',
  wclr: 'WC',
  wset: 'WS',
  wuser: 'WM',
};

/** What says nothing that a map would say. */
const PASSED_OVER = new Set([
  ...['type', 'inst_name', 'orig_type_name', 'name', 'desc', 'children', 'addr_offset', 'absolute_address'],
  ...[
    'is_array',
    'dimensions',
    'array_dimensions',
    'array_stride',
    'regwidth',
    'accesswidth',
    'size',
    'width',
  ],
  ...['lsb', 'msb', 'low', 'high', 'reset', 'sw_access', 'sw', 'hw', 'onread', 'onwrite', 'singlepulse'],
  ...['rclr', 'rset', 'woset', 'woclr', 'encode', 'enum', 'donttest', 'dontcompare', 'volatile'],
]);

/** The map of what was elaborated. @throws RegisterMapError for what makes no sense, with its path. */
export function importSystemRdl(data: unknown, work: Import): RegisterMapData {
  const root = new Node(Array.isArray(data) && data.length === 1 ? data[0] : data, '$', work);
  if (root.type !== 'addrmap') throw root.wrong('type', "'addrmap'");
  const base = root.integer('addr_offset') ?? 0n;
  const children = root.children();
  const inner = children.filter(({ type }) => type === 'addrmap');
  const direct = children.filter((child) => !inner.includes(child) || child.isArray);
  const blocks = inner
    .filter(({ isArray }) => !isArray)
    .map((block) => ({
      name: block.name,
      ...described(block.text('desc')),
      base: integerData(base + (block.integer('addr_offset') ?? 0n)),
      children: childrenOf(block, block.children(), 1, work),
    }));
  if (direct.length > 0 || blocks.length === 0) {
    blocks.unshift({
      name: root.name,
      ...described(root.text('desc')),
      base: integerData(base),
      children: childrenOf(root, direct, 1, work),
    });
  }
  return {
    format: REGISTER_MAP_FORMAT,
    name: root.name,
    ...described(root.text('desc')),
    blocks: withUniqueNames(blocks, (message) => work.warn(message, undefined)),
  };
}

function childrenOf(parent: Node, nodes: readonly Node[], depth: number, work: Import): Child[] {
  if (depth > LIMITS.depth) throw new RegisterMapError(`${parent.path} is more than ${LIMITS.depth} deep`);
  const children = nodes.flatMap((node): Child[] => {
    if (node.type === 'reg') return registerOf(node, work);
    if (node.type !== 'regfile' && node.type !== 'addrmap') {
      work.warn(`${node.path}: ${node.type} ${node.name} is left out`, undefined);
      return [];
    }
    return [
      {
        name: node.name,
        ...described(node.text('desc')),
        offset: node.number('addr_offset') ?? 0,
        ...node.array(),
        children: childrenOf(node, node.children(), depth + 1, work),
      },
    ];
  });
  return withUniqueNames(children, (message) => work.warn(`${parent.path}: ${message}`, undefined));
}

function registerOf(node: Node, work: Import): RegisterData[] {
  const fields = node.children().map((field) => fieldOf(field, work));
  const needed = fields.reduce((most, { data }) => Math.max(most, data.lsb + (data.bits ?? 1)), 1);
  const width = node.number('regwidth') ?? node.number('width') ?? Math.max(32, needed);
  const bits = SIZES.find((size) => size >= width);
  if (bits === undefined || needed > bits) {
    work.warn(`${node.path}: ${node.name} of ${Math.max(width, needed)} bits is left out`, undefined);
    return [];
  }
  if (bits !== width) work.warn(`${node.path}: ${width} bits are accessed as ${bits}`, undefined);
  work.spend(fields.length + 1, undefined);
  let reset = 0n;
  let resetMask = 0n;
  for (const { data, reset: own } of fields) {
    if (own === undefined) continue;
    const all = (1n << BigInt(data.bits ?? 1)) - 1n;
    reset |= (own & all) << BigInt(data.lsb);
    resetMask |= all << BigInt(data.lsb);
  }
  const isWhole = resetMask === (1n << BigInt(bits)) - 1n;
  const unique = withUniqueNames(
    fields.map(({ data }) => data),
    (message) => work.warn(`${node.path}: ${message}`, undefined),
  );
  return [
    {
      name: node.name,
      ...described(node.text('desc')),
      offset: node.number('addr_offset') ?? 0,
      ...node.array(),
      ...(bits !== 32 && { bits }),
      ...(resetMask !== 0n && { reset: integerData(reset) }),
      ...(resetMask !== 0n && !isWhole && { resetMask: integerData(resetMask) }),
      ...(fields.length > 0 && { fields: unique }),
    },
  ];
}

function fieldOf(node: Node, work: Import): { data: RegisterFieldData; reset: bigint | undefined } {
  if (node.type !== 'field') throw node.wrong('type', "'field'");
  const lsb = node.number('lsb') ?? node.number('low');
  const msb = node.number('msb') ?? node.number('high');
  if (lsb === undefined || msb === undefined || msb < lsb || msb > 63) {
    throw new RegisterMapError(`${node.path}: lsb and msb must be bits from 0 to 63, the lower first`);
  }
  const isVolatile = node.flag('volatile') || (node.text('hw') ?? '').includes('w');
  const noTest = node.flag('donttest') || node.flag('dontcompare');
  const data = {
    name: node.name,
    ...described(node.text('desc')),
    lsb,
    ...(msb > lsb && { bits: msb - lsb + 1 }),
    ...accessData(accessOf(node), READ_WRITE),
    ...(isVolatile && { volatile: true }),
    ...(noTest && { noTest: true }),
    ...valuesOf(node, work),
  };
  return { data, reset: node.integer('reset') };
}

function accessOf(node: Node): Access {
  const word = (node.text('sw_access') ?? node.text('sw') ?? 'rw').toLowerCase();
  const software = node.lookUp(SOFTWARE, word, 'sw');
  const onWrite =
    node.effect('onwrite', ON_WRITE) ?? node.effectOfFlag(['woset', 'woclr'], ON_WRITE) ?? 'value';
  const onRead = node.effect('onread', ON_READ) ?? node.effectOfFlag(['rclr', 'rset'], ON_READ) ?? 'none';
  return {
    ...software,
    onWrite: software.writable ? onWrite : 'value',
    onRead: software.readable ? onRead : 'none',
    selfClearing: node.flag('singlepulse'),
  };
}

/** `encode`: an object of names and values, or a list of `{ name, value }`. */
function valuesOf(node: Node, work: Import): { values?: EnumValueData[] } {
  const data = node.value('encode') ?? node.value('enum');
  if (typeof data !== 'object' || data === null) return {};
  const entries = Array.isArray(data)
    ? data.map((one: unknown, i) => new Node(one, `${node.path}.encode[${i}]`, work))
    : Object.entries(data).map(
        ([name, value]) => new Node({ name, value: value as unknown }, `${node.path}.encode`, work),
      );
  if (entries.length > LIMITS.values)
    throw new RegisterMapError(`${node.path} has more than ${LIMITS.values} values`);
  const values = entries.map((entry) => ({
    name: work.name(entry.text('name'), 'value', undefined),
    ...described(entry.text('desc')),
    value: integerData(entry.integer('value') ?? 0n),
  }));
  return { values: withUniqueNames(values, (message) => work.warn(`${node.path}: ${message}`, undefined)) };
}

/** A component of the elaborated model. */
class Node {
  readonly path: string;
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #work: Import;

  constructor(value: unknown, path: string, work: Import) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new RegisterMapError(`${path} must be an object`);
    }
    this.path = path;
    this.#object = value as Record<string, unknown>;
    this.#work = work;
    if (this.type === undefined) return;
    for (const name of Object.keys(value)) {
      if (!PASSED_OVER.has(name))
        work.warn(`${path}: the property ${name.slice(0, 60)} is not kept`, undefined);
    }
  }

  get type(): string | undefined {
    return this.text('type');
  }

  get name(): string {
    return this.#work.name(this.text('inst_name'), 'unnamed', undefined);
  }

  get isArray(): boolean {
    return this.#dimensions() !== undefined;
  }

  value(name: string): unknown {
    return Object.hasOwn(this.#object, name) ? (this.#object[name] ?? undefined) : undefined;
  }

  wrong(name: string, allowed: string): RegisterMapError {
    const value = this.value(name);
    const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : typeof value;
    return new RegisterMapError(`${this.path}.${name} must be ${allowed}, got ${shown}`);
  }

  children(): Node[] {
    const children = this.value('children') ?? [];
    if (!Array.isArray(children)) throw this.wrong('children', 'a list');
    if (children.length > LIMITS.registers) throw this.wrong('children', `at most ${LIMITS.registers} items`);
    return children.map((child: unknown, i) => new Node(child, `${this.path}.children[${i}]`, this.#work));
  }

  text(name: string): string | undefined {
    const value = this.value(name);
    if (value === undefined || typeof value === 'string') return value;
    throw this.wrong(name, 'a string');
  }

  flag(name: string): boolean {
    const value = this.value(name);
    return value === true || value === 1;
  }

  integer(name: string): bigint | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    if (Number.isSafeInteger(value) && (value as number) >= 0) return BigInt(value as number);
    if (typeof value === 'string' && /^(?:0x[\da-f]{1,16}|\d{1,20})$/i.test(value)) return BigInt(value);
    throw this.wrong(name, 'an unsigned integer');
  }

  number(name: string): number | undefined {
    const value = this.integer(name);
    if (value === undefined || value <= BigInt(Number.MAX_SAFE_INTEGER))
      return value === undefined ? value : Number(value);
    throw this.wrong(name, 'an integer of at most 53 bits');
  }

  array(): { count?: number; stride?: number } {
    const dimensions = this.#dimensions();
    if (dimensions === undefined) return {};
    const count = dimensions.reduce<number>(
      (product, one) => product * (Number.isSafeInteger(one) ? (one as number) : NaN),
      1,
    );
    if (!(count >= 1 && count <= LIMITS.registers)) {
      throw new RegisterMapError(`${this.path}: the dimensions must give 1 to ${LIMITS.registers} elements`);
    }
    if (dimensions.length > 1) this.#work.warn(`${this.path}: several dimensions become one`, undefined);
    return { count, stride: this.number('array_stride') ?? 4 };
  }

  lookUp<T>(table: Readonly<Record<string, T>>, word: string, what: string): T {
    return lookUp(table, word, `${this.path}.${what}`, undefined);
  }

  effect<T>(name: string, table: Readonly<Record<string, T>>): T | undefined {
    const word = this.text(name);
    return word === undefined ? undefined : this.lookUp(table, word, name);
  }

  effectOfFlag<T>(names: readonly string[], table: Readonly<Record<string, T>>): T | undefined {
    const name = names.find((one) => this.flag(one));
    return name === undefined ? undefined : table[name];
  }

  #dimensions(): readonly unknown[] | undefined {
    const value = this.value('array_dimensions') ?? this.value('dimensions');
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.length > 0 && value.length <= 8) return value as readonly unknown[];
    throw this.wrong('dimensions', 'a list of 1 to 8 counts');
  }
}
