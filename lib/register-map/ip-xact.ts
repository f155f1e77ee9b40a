/**
 * IP-XACT (IEEE 1685-2009 and -2014): the registers of a component's memory maps. All else of a component (bus interfaces, ports,
 * models, file sets) is not of registers, and passed over.
 */
import { accessData, READ_WRITE, type Access } from './access.js';
import {
  REGISTER_MAP_FORMAT,
  type EnumValueData,
  type RegisterBlockData,
  type RegisterData,
  type RegisterFieldData,
  type RegisterGroupData,
  type RegisterMapData,
} from './data.js';
import { RegisterMapError } from './error.js';
import {
  described,
  type Import,
  integerData,
  lookUp,
  SIZES,
  withUniqueNames,
  XML_ACCESS,
  XML_READS,
  XML_WRITES,
} from './import.js';
import { LIMITS } from './map.js';
import type { XmlElement } from './xml.js';

/** What is around a register. */
interface Around {
  readonly access: Access;
  readonly isVolatile: boolean;
  /** Bytes of an address. */
  readonly unit: number;
  readonly depth: number;
}

interface Reset {
  readonly value: bigint;
  readonly mask: bigint;
}

type Child = RegisterData | RegisterGroupData;

/** The map of a `<component>`. @throws RegisterMapError for what makes no sense, with its line. */
export function importIpXact(component: XmlElement, work: Import): RegisterMapData {
  const maps = component.child('memoryMaps')?.all('memoryMap') ?? [];
  if (maps.length === 0) throw new RegisterMapError('<component> has no memory maps', component.line);
  const blocks = maps.flatMap((map) => blocksOf(map, work));
  return {
    format: REGISTER_MAP_FORMAT,
    name: component.textOf('name') ?? 'component',
    ...described(component.textOf('description')),
    blocks: unique(blocks, component.line, work),
  };
}

function blocksOf(map: XmlElement, work: Import): RegisterBlockData[] {
  const unitBits = number(map, 'addressUnitBits') ?? 8;
  if (unitBits % 8 !== 0 || unitBits === 0) {
    throw new RegisterMapError(`addressUnitBits is ${unitBits}; it is a multiple of 8`, map.line);
  }
  for (const name of ['bank', 'subspaceMap']) {
    for (const element of map.all(name)) work.warn(`<${name}> is left out`, element.line);
  }
  const around = { access: READ_WRITE, isVolatile: false, unit: unitBits / 8, depth: 0 };
  return map.all('addressBlock').flatMap((block): RegisterBlockData[] => {
    const children = childrenOf(block, within(block, around, work), work);
    if (children.length === 0) {
      work.warn(
        `the address block ${block.textOf('name') ?? ''} has no registers and is left out`,
        block.line,
      );
      return [];
    }
    const base = integer(block, 'baseAddress') ?? 0n;
    return [
      {
        name: work.name(block.textOf('name'), `block_${block.line}`, block.line),
        ...described(block.textOf('description')),
        base: integerData(base * BigInt(around.unit)),
        children,
      },
    ];
  });
}

/** What an element says for those in it. */
function within(element: XmlElement, around: Around, work: Import): Around {
  const access = element.textOf('access');
  if (element.child('isPresent') !== undefined) work.warn('isPresent is not looked at', element.line);
  return {
    ...around,
    access: access === undefined ? around.access : lookUp(XML_ACCESS, access, 'access', element.line),
    isVolatile: flag(element, 'volatile') ?? around.isVolatile,
    depth: around.depth + 1,
  };
}

function childrenOf(parent: XmlElement, around: Around, work: Import): Child[] {
  if (around.depth > LIMITS.depth) {
    throw new RegisterMapError(`more than ${LIMITS.depth} register files deep`, parent.line);
  }
  const children = parent.children.flatMap((element): Child[] => {
    if (element.name === 'register') return registerOf(element, around, work);
    return element.name === 'registerFile' ? [groupOf(element, around, work)] : [];
  });
  return unique(children, parent.line, work);
}

function groupOf(element: XmlElement, around: Around, work: Import): RegisterGroupData {
  const stride = (number(element, 'range') ?? 0) * around.unit;
  return {
    name: work.name(element.textOf('name'), `group_${element.line}`, element.line),
    ...described(element.textOf('description')),
    offset: (number(element, 'addressOffset') ?? 0) * around.unit,
    ...arrayOf(element, stride, work),
    children: childrenOf(element, within(element, around, work), work),
  };
}

function registerOf(element: XmlElement, outer: Around, work: Import): RegisterData[] {
  const { line } = element;
  const size = number(element, 'size') ?? 32;
  const bits = SIZES.find((one) => one >= size);
  if (bits === undefined || size < 1) {
    work.warn(`a register of ${size} bits is left out: they have 1 to 64`, line);
    return [];
  }
  if (bits !== size) work.warn(`a register of ${size} bits is accessed as one of ${bits}`, line);
  if (element.child('alternateRegisters') !== undefined) work.warn('alternateRegisters are left out', line);
  const around = within(element, outer, work);
  const fields = element.all('field').flatMap((field) => fieldOf(field, around, bits, work));
  work.spend(fields.length + 1, line);
  const reset = resetOf(
    element,
    bits,
    fields.map(({ data, reset: own }) => ({ lsb: data.lsb, own })),
  );
  const all = (1n << BigInt(bits)) - 1n;
  return [
    {
      name: work.name(element.textOf('name'), `register_${line}`, line),
      ...described(element.textOf('description')),
      offset: (number(element, 'addressOffset') ?? 0) * outer.unit,
      ...arrayOf(element, Math.ceil(size / 8), work),
      ...(bits !== 32 && { bits }),
      ...accessData(around.access, READ_WRITE),
      ...(around.isVolatile && { volatile: true }),
      ...(reset !== undefined && { reset: integerData(reset.value) }),
      ...(reset !== undefined && reset.mask !== all && { resetMask: integerData(reset.mask) }),
      ...(fields.length > 0 && {
        fields: unique(
          fields.map(({ data }) => data),
          line,
          work,
        ),
      }),
    },
  ];
}

/** That of the register (2009), or those of its fields (2014). */
function resetOf(
  register: XmlElement,
  bits: number,
  fields: readonly { lsb: number; own: Reset | undefined }[],
): Reset | undefined {
  const own = ownReset(register, bits);
  if (own !== undefined) return own;
  let value = 0n;
  let mask = 0n;
  for (const { lsb, own: reset } of fields) {
    if (reset === undefined) continue;
    value |= reset.value << BigInt(lsb);
    mask |= reset.mask << BigInt(lsb);
  }
  return mask === 0n ? undefined : { value, mask };
}

function ownReset(element: XmlElement, bits: number): Reset | undefined {
  const reset = element.child('reset') ?? element.child('resets')?.child('reset');
  const value = reset === undefined ? undefined : integer(reset, 'value');
  if (reset === undefined || value === undefined) return undefined;
  const all = (1n << BigInt(bits)) - 1n;
  const mask = (integer(reset, 'mask') ?? all) & all;
  return { value: value & mask, mask };
}

function fieldOf(
  field: XmlElement,
  around: Around,
  registerBits: number,
  work: Import,
): { data: RegisterFieldData; reset: Reset | undefined }[] {
  const { line } = field;
  const lsb = number(field, 'bitOffset') ?? 0;
  const bits = number(field, 'bitWidth') ?? 1;
  const name = work.name(field.textOf('name'), `field_${line}`, line);
  if (bits < 1 || lsb + bits > registerBits) {
    work.warn(
      `the field ${name} of ${bits} bits from ${lsb} does not fit its register of ${registerBits}, and is left out`,
      line,
    );
    return [];
  }
  const inner = within(field, around, work);
  const write = field.textOf('modifiedWriteValue');
  const read = field.textOf('readAction');
  const { readable, writable } = inner.access;
  const access: Access = {
    ...inner.access,
    onWrite:
      writable && write !== undefined ? lookUp(XML_WRITES, write, 'modifiedWriteValue', line) : 'value',
    onRead: readable && read !== undefined ? lookUp(XML_READS, read, 'readAction', line) : 'none',
  };
  const constraint = field.child('writeValueConstraint');
  if (constraint !== undefined) {
    work.warn('writeValueConstraint is kept as noTest: checkRegisters leaves it alone', constraint.line);
  }
  const noTest =
    constraint !== undefined || flag(field, 'testable') === false || flag(field, 'reserved') === true;
  const data = {
    name,
    ...described(field.textOf('description')),
    lsb,
    ...(bits !== 1 && { bits }),
    ...accessData(access, around.access),
    ...(inner.isVolatile !== around.isVolatile && { volatile: inner.isVolatile }),
    ...(noTest && { noTest }),
    ...valuesOf(field, bits, work),
  };
  return [{ data, reset: ownReset(field, bits) }];
}

function valuesOf(
  field: XmlElement,
  bits: number,
  work: Import,
): Pick<RegisterFieldData, 'values' | 'writeValues'> {
  const elements = field.child('enumeratedValues')?.all('enumeratedValue') ?? [];
  work.spend(elements.length, field.line);
  const lists: Record<'read' | 'write', EnumValueData[]> = { read: [], write: [] };
  for (const element of elements) {
    const value = integer(element, 'value');
    if (value === undefined || value >> BigInt(bits) !== 0n) {
      work.warn(`an enumerated value that does not fit a field of ${bits} bits is left out`, element.line);
      continue;
    }
    const name = work.name(element.textOf('name'), `value${value}`, element.line);
    const one = { name, ...described(element.textOf('description')), value: integerData(value) };
    const usage = element.attributes.get('usage') ?? 'read-write';
    if (usage !== 'write') lists.read.push(one);
    if (usage !== 'read') lists.write.push(one);
  }
  if (elements.length === 0) return {};
  const values = unique(lists.read, field.line, work);
  const isSame =
    lists.read.length === lists.write.length && lists.read.every((one, i) => one === lists.write[i]);
  return isSame ? { values } : { values, writeValues: unique(lists.write, field.line, work) };
}

function arrayOf(element: XmlElement, stride: number, work: Import): { count?: number; stride?: number } {
  const dimensions = element.all('dim');
  if (dimensions.length === 0) return {};
  if (dimensions.length > 1) work.warn('several dimensions become one', element.line);
  let count = 1n;
  for (const dimension of dimensions) count *= parseInteger(dimension.text.trim(), dimension.line);
  if (count > BigInt(LIMITS.registers)) {
    throw new RegisterMapError(`dim is ${count}; it is at most ${LIMITS.registers}`, element.line);
  }
  return { count: Number(count), stride };
}

function unique<T extends { readonly name: string }>(items: readonly T[], line: number, work: Import): T[] {
  return withUniqueNames(items, (message) => work.warn(message, line));
}

function flag(element: XmlElement, name: string): boolean | undefined {
  const text = element.textOf(name);
  return text === undefined ? undefined : text === 'true' || text === '1';
}

const HEX = /^(?:0x|#|(?:\d+)?'h)([\da-f_]+)$/i;
const BINARY = /^(?:\d+)?'b([01_]+)$/i;
const DECIMAL = /^(?:(?:\d+)?'d)?(\d+)$/i;

/** A number as the standard (2009) or SystemVerilog (2014) has it; expressions are not calculated. */
function parseInteger(text: string, line: number): bigint {
  if (text.length <= 80) {
    const hex = HEX.exec(text)?.[1]?.replaceAll('_', '');
    if (hex !== undefined && hex !== '') return BigInt(`0x${hex}`);
    const binary = BINARY.exec(text)?.[1]?.replaceAll('_', '');
    if (binary !== undefined && binary !== '') return BigInt(`0b${binary}`);
    const decimal = DECIMAL.exec(text)?.[1];
    if (decimal !== undefined) return BigInt(decimal);
  }
  throw new RegisterMapError(
    `${JSON.stringify(text.slice(0, 40))} is no number; expressions are not calculated`,
    line,
  );
}

function integer(element: XmlElement, name: string): bigint | undefined {
  const text = element.textOf(name);
  return text === undefined ? undefined : parseInteger(text, element.child(name)?.line ?? element.line);
}

function number(element: XmlElement, name: string): number | undefined {
  const value = integer(element, name);
  if (value === undefined) return undefined;
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new RegisterMapError(`${name} has more than 53 bits`, element.child(name)?.line);
}
