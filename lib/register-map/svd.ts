/**
 * CMSIS-SVD (Arm, version 1.3): the XML that microcontrollers' vendors publish. Not of registers, and passed over: `cpu`,
 * `interrupt`, `addressBlock`, `vendorExtensions`, and the names for C headers.
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
import { XmlElement } from './xml.js';

/** What a device, peripheral or cluster says for the registers in it (registerPropertiesGroup). */
interface Properties {
  readonly bits: number;
  readonly access: Access;
  readonly reset: bigint | undefined;
  readonly resetMask: bigint | undefined;
}

/** The elements around one, outermost first: where `derivedFrom` looks. */
type Scope = readonly XmlElement[];

/** One of the things that a `dim` makes of an element. */
interface Repeat {
  readonly name: string;
  readonly offset: number;
  readonly array?: { readonly count: number; readonly stride: number };
}

type Child = RegisterData | RegisterGroupData;

/** Whose children are the registers, clusters and fields of an element. */
const CONTAINERS = ['peripherals', 'registers', 'fields'];

const SLOPPY_ACCESS: Readonly<Record<string, string>> = { read: 'read-only', write: 'write-only' };

/** The map of a `<device>`. @throws RegisterMapError for what makes no sense, with its line. */
export function importSvd(device: XmlElement, work: Import): RegisterMapData {
  return new SvdImport(device, work).map();
}

class SvdImport {
  readonly #device: XmlElement;
  readonly #work: Import;
  /** Elements with what they derive from. */
  readonly #merged = new Map<XmlElement, XmlElement>();
  readonly #merging = new Set<XmlElement>();
  #enumerationsByName: ReadonlyMap<string, XmlElement> | undefined;

  constructor(device: XmlElement, work: Import) {
    this.#device = device;
    this.#work = work;
  }

  map(): RegisterMapData {
    const device = this.#device;
    const unit = number(device, 'addressUnitBits');
    if (unit !== undefined && unit !== 8) {
      this.#work.warn(
        `addressUnitBits is ${unit}: addresses are taken as of bytes all the same`,
        device.line,
      );
    }
    const defaults = { bits: 32, access: READ_WRITE, reset: undefined, resetMask: undefined };
    const properties = this.#properties(device, defaults);
    const blocks = this.#childrenOf(device, 'peripheral').flatMap((peripheral) =>
      this.#blocks(this.#merge(peripheral, [device]), properties),
    );
    return {
      format: REGISTER_MAP_FORMAT,
      name: device.textOf('name') ?? 'device',
      ...described(device.textOf('description')),
      blocks: this.#unique(blocks, device.line),
    };
  }

  #blocks(peripheral: XmlElement, inherited: Properties): RegisterBlockData[] {
    const properties = this.#properties(peripheral, inherited);
    const base = integer(peripheral, 'baseAddress');
    if (base === undefined) throw new RegisterMapError('<peripheral> has no baseAddress', peripheral.line);
    const children = this.#children(peripheral, [this.#device, peripheral], properties);
    return this.#repeats(peripheral, 0, false).map(({ name, offset }) => ({
      name,
      ...described(peripheral.textOf('description')),
      base: integerData(base + BigInt(offset)),
      children,
    }));
  }

  /** The registers and clusters of a peripheral or cluster. */
  #children(parent: XmlElement, scope: Scope, properties: Properties): Child[] {
    const elements = this.#childrenOf(parent, 'register', 'cluster');
    const children = elements.flatMap((element): Child[] => {
      const merged = this.#merge(element, scope);
      return merged.name === 'cluster'
        ? this.#clusters(merged, scope, properties)
        : this.#registers(merged, scope, properties);
    });
    return this.#unique(children, parent.line);
  }

  #clusters(cluster: XmlElement, scope: Scope, inherited: Properties): RegisterGroupData[] {
    const properties = this.#properties(cluster, inherited);
    const children = this.#children(cluster, [...scope, cluster], properties);
    return this.#repeats(cluster, number(cluster, 'addressOffset') ?? 0, true).map(
      ({ name, offset, array }) => ({
        name,
        ...described(cluster.textOf('description')),
        offset,
        ...array,
        children,
      }),
    );
  }

  #registers(register: XmlElement, scope: Scope, inherited: Properties): RegisterData[] {
    const { line } = register;
    const own = this.#properties(register, inherited);
    const bits = SIZES.find((size) => size >= own.bits);
    if (bits === undefined) {
      this.#work.warn(`a register of ${own.bits} bits is left out: they have at most 64`, line);
      return [];
    }
    if (bits !== own.bits)
      this.#work.warn(`a register of ${own.bits} bits is accessed as one of ${bits}`, line);
    const access = this.#access(register, own.access, READ_WRITE);
    const fields = this.#childrenOf(register, 'field').flatMap((field) =>
      this.#fields(this.#merge(field, [...scope, register]), [...scope, register], bits, access),
    );
    const size = BigInt(own.bits);
    const reset = own.reset === undefined ? undefined : BigInt.asUintN(own.bits, own.reset);
    if (reset !== own.reset) this.#work.warn(`the reset value has more than ${size} bits`, line);
    const all = (1n << BigInt(bits)) - 1n;
    const mask = own.resetMask === undefined ? undefined : BigInt.asUintN(own.bits, own.resetMask);
    const data = {
      ...described(register.textOf('description')),
      ...(bits !== 32 && { bits }),
      ...accessData(access, READ_WRITE),
      ...(reset !== undefined && { reset: integerData(reset) }),
      ...(reset !== undefined && mask !== undefined && mask !== all && { resetMask: integerData(mask) }),
      ...(this.#isConstrained(register, own.bits) && { noTest: true }),
      ...(fields.length > 0 && { fields: this.#unique(fields, line) }),
    };
    this.#work.spend(fields.length, line);
    return this.#repeats(register, number(register, 'addressOffset') ?? 0, true).map(
      ({ name, offset, array }) => ({ name, offset, ...array, ...data }),
    );
  }

  #fields(field: XmlElement, scope: Scope, registerBits: number, register: Access): RegisterFieldData[] {
    const { line } = field;
    const [lsb, bits] = bitsOf(field);
    const own = field.textOf('access');
    const access = this.#access(field, own === undefined ? register : this.#accessOf(own, line), register);
    const enumerations = this.#enumerations(field, [...scope, field], bits);
    return this.#repeats(field, lsb, false).flatMap(({ name, offset }) => {
      if (offset + bits > registerBits) {
        this.#work.warn(
          `the field ${name}, bits ${offset + bits - 1}:${offset}, goes beyond its register of ${registerBits} bits and is left out`,
          line,
        );
        return [];
      }
      return [
        {
          name,
          ...described(field.textOf('description')),
          lsb: offset,
          ...(bits !== 1 && { bits }),
          ...accessData(access, register),
          ...(this.#isConstrained(field, bits) && { noTest: true }),
          ...enumerations,
        },
      ];
    });
  }

  #enumerations(
    field: XmlElement,
    scope: Scope,
    bits: number,
  ): Pick<RegisterFieldData, 'values' | 'writeValues'> {
    let values: EnumValueData[] | undefined;
    let writeValues: EnumValueData[] | undefined;
    for (const element of field.all('enumeratedValues')) {
      const merged = this.#merge(element, scope);
      const list = this.#values(merged, bits);
      const usage = merged.textOf('usage') ?? 'read-write';
      if (usage !== 'write') values = list;
      if (usage !== 'read') writeValues = list;
    }
    if (values === undefined && writeValues === undefined) return {};
    return { ...(values && { values }), ...(writeValues !== values && { writeValues: writeValues ?? [] }) };
  }

  #values(enumeration: XmlElement, bits: number): EnumValueData[] {
    const elements = enumeration.all('enumeratedValue');
    this.#work.spend(elements.length, enumeration.line);
    const values = elements.flatMap((element): EnumValueData[] => {
      const { line } = element;
      const text = element.textOf('value');
      if (text === undefined || /^(?:#|0b)[01]*x[01x]*$/i.test(text)) {
        const why =
          text === undefined ? 'it has no value of its own' : `its value ${text} has bits that do not count`;
        this.#work.warn(`the enumerated value ${element.textOf('name')} is left out: ${why}`, line);
        return [];
      }
      const value = parseInteger(text, line);
      if (value >> BigInt(bits) !== 0n) {
        this.#work.warn(
          `the enumerated value ${text} does not fit a field of ${bits} bits, and is left out`,
          line,
        );
        return [];
      }
      const name = this.#work.name(element.textOf('name'), `value${text}`, line);
      return [{ name, ...described(element.textOf('description')), value: integerData(value) }];
    });
    return this.#unique(values.slice(0, LIMITS.values), enumeration.line);
  }

  /** What reads and writes do to it: as it says itself, or as what is around it says. */
  #access(element: XmlElement, access: Access, around: Access): Access {
    const { line } = element;
    const write = element.textOf('modifiedWriteValues');
    const read = element.textOf('readAction');
    const onWrite =
      write === undefined ? around.onWrite : lookUp(XML_WRITES, write, 'modifiedWriteValues', line);
    const onRead = read === undefined ? around.onRead : lookUp(XML_READS, read, 'readAction', line);
    // What cannot be written has no effect of writing, whatever its register says of the others.
    return {
      ...access,
      onWrite: access.writable ? onWrite : 'value',
      onRead: access.readable ? onRead : 'none',
    };
  }

  /** Vendors' files have words that the schema does not: they are taken where they can mean one thing only. */
  #accessOf(word: string, line: number): Access {
    if (Object.hasOwn(XML_ACCESS, word)) return lookUp(XML_ACCESS, word, 'access', line);
    const known = Object.keys(XML_ACCESS).find((one) => one.toLowerCase() === word.toLowerCase());
    const meant = known ?? (Object.hasOwn(SLOPPY_ACCESS, word) ? SLOPPY_ACCESS[word] : undefined);
    if (meant !== undefined) this.#work.warn(`the access ${word} is taken for ${meant}`, line);
    return lookUp(XML_ACCESS, meant ?? word, 'access', line);
  }

  #properties(element: XmlElement, inherited: Properties): Properties {
    const access = element.textOf('access');
    const bits = number(element, 'size') ?? inherited.bits;
    if (bits < 1) throw new RegisterMapError(`size must be at least 1, got ${bits}`, element.line);
    const protection = element.child('protection');
    if (protection !== undefined) this.#work.warn('protection is not kept', protection.line);
    return {
      bits,
      access: access === undefined ? inherited.access : this.#accessOf(access, element.line),
      reset: integer(element, 'resetValue') ?? inherited.reset,
      resetMask: integer(element, 'resetMask') ?? inherited.resetMask,
    };
  }

  /** Whether not all values may be written to it. */
  #isConstrained(element: XmlElement, bits: number): boolean {
    const constraint = element.child('writeConstraint');
    if (constraint === undefined) return false;
    const range = constraint.child('range');
    if (range !== undefined) {
      const most = (1n << BigInt(bits)) - 1n;
      if ((integer(range, 'minimum') ?? 0n) === 0n && (integer(range, 'maximum') ?? 0n) >= most) return false;
    }
    this.#work.warn('writeConstraint is kept as noTest: checkRegisters leaves it alone', constraint.line);
    return true;
  }

  /** What `dim` makes of it: an array where `canBeArray` and the name says [%s], else one for each index. */
  #repeats(element: XmlElement, offset: number, canBeArray: boolean): Repeat[] {
    const { line } = element;
    const text = element.textOf('name');
    const count = number(element, 'dim');
    if (count === undefined) return [{ name: this.#work.name(text, `unnamed_${line}`, line), offset }];
    const stride = number(element, 'dimIncrement') ?? 0;
    if (count > LIMITS.registers)
      throw new RegisterMapError(`dim is ${count}; it is at most ${LIMITS.registers}`, line);
    const indexes = dimIndexes(element.textOf('dimIndex'), count, line);
    const isArray = canBeArray && text?.endsWith('[%s]') === true;
    if (isArray && indexes.every((index, i) => index === String(i))) {
      return [
        {
          name: this.#work.name(text.slice(0, -4), `unnamed_${line}`, line),
          offset,
          array: { count, stride },
        },
      ];
    }
    this.#work.spend(count, line);
    if (isArray) this.#work.warn(`the array ${text} does not count from 0: its elements have names`, line);
    const pattern = text?.replaceAll('[%s]', '%s') ?? '';
    if (!pattern.includes('%s') && count > 1)
      this.#work.warn(`the name ${pattern} has no %s for its index`, line);
    return indexes.map((index, i) => ({
      name: this.#work.name(
        pattern.includes('%s') || count === 1 ? pattern.replaceAll('%s', index) : `${pattern}${index}`,
        `unnamed_${line}_${i}`,
        line,
      ),
      offset: offset + i * stride,
    }));
  }

  #unique<T extends { readonly name: string }>(items: readonly T[], line: number): T[] {
    return withUniqueNames(items, (message) => this.#work.warn(message, line));
  }

  #childrenOf(element: XmlElement, ...names: string[]): XmlElement[] {
    const inside = element.children.filter(({ name }) => CONTAINERS.includes(name));
    return [element, ...inside].flatMap(({ children }) =>
      children.filter(({ name }) => names.includes(name)),
    );
  }

  /** The element with what it derives from; what it says itself counts. */
  #merge(element: XmlElement, scope: Scope): XmlElement {
    const reference = element.attributes.get('derivedFrom');
    if (reference === undefined || reference === '') return element;
    const known = this.#merged.get(element);
    if (known !== undefined) return known;
    if (this.#merging.has(element)) {
      throw new RegisterMapError(`derivedFrom="${reference}" goes in a circle`, element.line);
    }
    this.#merging.add(element);
    const base = this.#find(element, reference, scope);
    this.#merging.delete(element);
    if (base === undefined) {
      if (element.name !== 'enumeratedValues') {
        throw new RegisterMapError(
          `derivedFrom="${reference}" of <${element.name}> names nothing`,
          element.line,
        );
      }
      this.#work.warn(`derivedFrom="${reference}" names nothing: the values have no names`, element.line);
      return element;
    }
    const merged = mergeElements(element, base);
    this.#work.spend(merged.children.length, element.line);
    this.#merged.set(element, merged);
    return merged;
  }

  /** The nearest of that name or path, from the element's neighbours outwards. */
  #find(element: XmlElement, reference: string, scope: Scope): XmlElement | undefined {
    const path = reference.split('.');
    for (let level = scope.length; level > 0; level--) {
      const around = scope.slice(0, level);
      const found = this.#descend(around, path, element);
      if (found !== undefined) return this.#merge(found, around);
    }
    if (element.name !== 'enumeratedValues') return undefined;
    // Many files refer to those of another register by the bare name, which is the only one of the device.
    this.#enumerationsByName ??= enumerationsByName(this.#device);
    const found = this.#enumerationsByName.get(reference);
    return found === element || found?.attributes.has('derivedFrom') === true ? undefined : found;
  }

  #descend(scope: Scope, path: readonly string[], element: XmlElement): XmlElement | undefined {
    const [first, ...rest] = path;
    const around = scope.at(-1)!;
    const isLast = rest.length === 0;
    for (const child of this.#childrenOf(around, ...KINDS)) {
      if (child === element || !isNamed(child, first)) continue;
      if (isLast) {
        if (child.name === element.name) return child;
        continue;
      }
      // What is being merged now is what the reference stands in.
      const merged = this.#merging.has(child) ? child : this.#merge(child, scope);
      const found = this.#descend([...scope, merged], rest, element);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** What has a name that `derivedFrom` may say. */
const KINDS = ['peripheral', 'cluster', 'register', 'field', 'enumeratedValues'];
/** Children of which there are many, told apart by their names. */
const NAMED = ['cluster', 'register', 'field'];

/** The first of each name. */
function enumerationsByName(root: XmlElement): Map<string, XmlElement> {
  const found = new Map<string, XmlElement>();
  const visit = (element: XmlElement): void => {
    for (const child of element.children) {
      const name = child.name === 'enumeratedValues' ? child.textOf('name') : undefined;
      if (name !== undefined && !found.has(name)) found.set(name, child);
      visit(child);
    }
  };
  visit(root);
  return found;
}

/** Whether the element has this name, as it is written or as one of those that its `dim` makes. */
function isNamed(element: XmlElement, name: string | undefined): boolean {
  const own = element.textOf('name');
  if (own === name || own === undefined || name === undefined) return own === name;
  const [before, after, ...more] = own.replaceAll('[%s]', '%s').split('%s');
  if (before === undefined || after === undefined || more.length > 0) return false;
  if (!name.startsWith(before) || !name.endsWith(after) || name.length <= before.length + after.length)
    return false;
  const count = number(element, 'dim') ?? 0;
  const index = name.slice(before.length, name.length - after.length).replace(/^\[(.*)\]$/, '$1');
  return (
    count <= LIMITS.registers && dimIndexes(element.textOf('dimIndex'), count, element.line).includes(index)
  );
}

function mergeElements(own: XmlElement, base: XmlElement): XmlElement {
  const merged = new XmlElement(own.name, own.attributes, own.line);
  const ownNames = new Set(own.children.map(({ name }) => name));
  const ownItems = new Set(
    own.children.filter(({ name }) => NAMED.includes(name)).map((item) => item.textOf('name')),
  );
  const repeats = own.textOf('name')?.includes('%s') === true;
  for (const child of base.children) {
    if (child.name.startsWith('dim') && (!repeats || ownNames.has('dim'))) continue;
    if (NAMED.includes(child.name)) {
      if (!ownItems.has(child.textOf('name'))) merged.children.push(child);
    } else if (CONTAINERS.includes(child.name) && ownNames.has(child.name)) {
      merged.children.push(mergeElements(own.child(child.name)!, child));
    } else if (!ownNames.has(child.name) && !isOtherBitRange(child.name, ownNames)) {
      merged.children.push(child);
    }
  }
  for (const child of own.children) {
    const isMerged = CONTAINERS.includes(child.name) && base.child(child.name) !== undefined;
    if (!isMerged) merged.children.push(child);
  }
  return merged;
}

const BIT_RANGE = ['bitRange', 'bitOffset', 'bitWidth', 'lsb', 'msb'];

/** A field's bits are said in one of three ways: a derived field's own way is the only one that counts. */
function isOtherBitRange(name: string, ownNames: ReadonlySet<string>): boolean {
  return (
    BIT_RANGE.includes(name) && BIT_RANGE.some((other) => ownNames.has(other)) && !ownNames.has('bitOffset')
  );
}

function bitsOf(field: XmlElement): [lsb: number, bits: number] {
  const range = field.textOf('bitRange');
  const [, high, low] = /^\[\s*(\d{1,3})\s*:\s*(\d{1,3})\s*\]$/.exec(range ?? '') ?? [];
  let lsb: number | undefined;
  let msb: number | undefined;
  if (range !== undefined) {
    if (high !== undefined && low !== undefined) [lsb, msb] = [Number(low), Number(high)];
  } else if (field.child('lsb') !== undefined) {
    [lsb, msb] = [number(field, 'lsb'), number(field, 'msb')];
  } else {
    lsb = number(field, 'bitOffset');
    if (lsb !== undefined) msb = lsb + (number(field, 'bitWidth') ?? 1) - 1;
  }
  if (lsb === undefined || msb === undefined || msb < lsb || msb > 1023) {
    throw new RegisterMapError(`the bits of <field> ${field.textOf('name') ?? ''} make no sense`, field.line);
  }
  return [lsb, msb - lsb + 1];
}

function dimIndexes(text: string | undefined, count: number, line: number): string[] {
  if (text === undefined) return Array.from({ length: count }, (_, i) => String(i));
  const [, from, to] = /^\s*(\d{1,9}|[A-Za-z])\s*-\s*(\d{1,9}|[A-Za-z])\s*$/.exec(text) ?? [];
  let indexes: string[];
  if (from === undefined || to === undefined) indexes = text.split(',').map((index) => index.trim());
  else {
    const isNumber = /^\d/.test(from);
    const first = isNumber ? Number(from) : from.charCodeAt(0);
    const last = isNumber ? Number(to) : to.charCodeAt(0);
    const length = Math.max(0, Math.min(last - first + 1, count + 1));
    indexes = Array.from({ length }, (_, i) =>
      isNumber ? String(first + i) : String.fromCharCode(first + i),
    );
  }
  if (indexes.length === count) return indexes;
  throw new RegisterMapError(`dimIndex "${text.slice(0, 60)}" does not have ${count} indexes`, line);
}

const INTEGER = /^\+?(?:(?<hex>0x[\da-f]+)|(?<binary>(?:#|0b)[01]+)|(?<decimal>\d+)(?<unit>[kmgt]?))$/i;

/** scaledNonNegativeInteger of the schema. */
function parseInteger(text: string, line: number): bigint {
  const {
    hex,
    binary,
    decimal,
    unit = '',
  } = (text.length <= 80 ? INTEGER.exec(text)?.groups : undefined) ?? {};
  if (hex !== undefined) return BigInt(hex);
  if (binary !== undefined) return BigInt(`0b${binary.replace(/^(?:#|0b)/i, '')}`);
  if (decimal !== undefined)
    return (
      BigInt(decimal) << BigInt(10 * ('kmgt'.indexOf(unit.toLowerCase() || 'k') + (unit === '' ? 0 : 1)))
    );
  throw new RegisterMapError(`${JSON.stringify(text.slice(0, 40))} is no number`, line);
}

function integer(element: XmlElement, name: string): bigint | undefined {
  const text = element.textOf(name);
  return text === undefined ? undefined : parseInteger(text, element.child(name)!.line);
}

function number(element: XmlElement, name: string): number | undefined {
  const value = integer(element, name);
  if (value === undefined) return undefined;
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new RegisterMapError(`${name} has more than 53 bits`, element.child(name)!.line);
}
