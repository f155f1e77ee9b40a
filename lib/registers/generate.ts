/** A TypeScript file with the types of a map's registers, and the map itself: nothing is looked up by name when it runs. */
import * as option from '../options.js';
import { accessData, accessWords, READ_WRITE } from '../register-map/access.js';
import { integerData } from '../register-map/import.js';
import {
  isRegister,
  RegisterMap,
  type BlockInfo,
  type EnumValue,
  type FieldInfo,
  type GroupInfo,
  type MemberInfo,
  type RegisterInfo,
} from '../register-map/map.js';
import { memberNames, typeName } from '../register-map/names.js';
import { wrongType } from '../fields.js';

/** What is generated. */
export interface GenerateOptions {
  /** The blocks, by name; all of them where nothing is said. */
  blocks?: readonly string[] | undefined;
  /** What the map was made of, for the comment at the beginning. */
  source?: string | undefined;
}

const OPTIONS = new option.OptionTable<GenerateOptions>({
  blocks: option.listOf('names of blocks', option.string),
  source: option.string,
});

/**
 * The source of a TypeScript module with typed accessors: an interface and a function for each block, and its values' names.
 * It imports `vfio-user/registers`.
 * @throws RangeError for a block that the map does not have; TypeError for options that make no sense.
 */
export function generateAccessors(map: RegisterMap, options: GenerateOptions = {}): string {
  if (!(map instanceof RegisterMap)) throw wrongType('generateAccessors: map', 'a RegisterMap', map);
  OPTIONS.check('generateAccessors', options);
  const blocks = options.blocks?.map((name) => map.block(name)) ?? map.blocks;
  return new Generator(map, blocks, options.source ?? map.name).source();
}

/** A set of named values, with the fields that have it. */
interface Enumeration {
  readonly values: readonly EnumValue[];
  readonly member: string;
  readonly register: RegisterInfo;
}

class Generator {
  readonly #map: RegisterMap;
  readonly #blocks: readonly BlockInfo[];
  readonly #source: string;
  readonly #taken = new Set([
    'Field',
    'Register',
    'RegisterMap',
    'BindOptions',
    'RegisterTarget',
    'RegisterMapData',
  ]);
  readonly #enumNames = new Map<readonly EnumValue[], string>();
  /** Interfaces, innermost first. */
  readonly #interfaces: string[] = [];
  /** By what they say: registers and groups that are alike have one. */
  readonly #known = new Map<string, string>();
  #hasFields = false;

  constructor(map: RegisterMap, blocks: readonly BlockInfo[], source: string) {
    this.#map = map;
    this.#blocks = blocks;
    this.#source = source;
  }

  source(): string {
    const enums = this.#enumerations();
    const functions = this.#blocks.map((block) => this.#block(block));
    const imports = [
      'bindRegisters',
      'RegisterMap',
      'type BindOptions',
      ...(this.#hasFields ? ['type Field'] : []),
      ...(this.#known.size > 0 ? ['type Register'] : []),
      'type RegisterMapData',
      'type RegisterTarget',
    ];
    return [
      `// Registers of ${comment(this.#map.name)}, made from ${comment(this.#source)} by vfio-user registers gen.`,
      `import {\n${imports.map((name) => `  ${name},\n`).join('')}} from 'vfio-user/registers';`,
      ...enums,
      ...this.#interfaces,
      this.#data(),
      ...functions,
    ]
      .join('\n\n')
      .concat('\n');
  }

  #name(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.#taken.has(name); n++) name = `${wanted}${n}`;
    this.#taken.add(name);
    return name;
  }

  /** `Mode` where all fields of that name have the same values, `CtrlMode` where not. */
  #enumerations(): string[] {
    const byField = new Map<string, Enumeration[]>();
    const add = (
      register: RegisterInfo,
      field: FieldInfo,
      values: readonly EnumValue[],
      suffix: string,
    ): void => {
      if (values.length === 0) return;
      const member = `${typeName(field.name)}${suffix}`;
      const list = byField.get(member) ?? [];
      list.push({ values, member, register });
      byField.set(member, list);
    };
    for (const register of this.#blocks.flatMap(({ registers }) => registers)) {
      for (const field of register.fields) {
        add(register, field, field.values, '');
        if (field.writeValues !== field.values) add(register, field, field.writeValues, 'Write');
      }
    }
    return [...byField.values()].flatMap((list) => this.#enumerationsOf(list));
  }

  #enumerationsOf(list: readonly Enumeration[]): string[] {
    const byValues = new Map<string, { name: string; text: string }>();
    for (const { values, member, register } of list) {
      const key = JSON.stringify(values.map(({ name, value }) => [name, String(value)]));
      let known = byValues.get(key);
      if (known === undefined) {
        const name = this.#name(byValues.size === 0 ? member : `${typeName(register.name)}${member}`);
        known = { name, text: enumText(name, values, register) };
        byValues.set(key, known);
      }
      this.#enumNames.set(values, known.name);
    }
    return [...byValues.values()].map(({ text }) => text);
  }

  #block(block: BlockInfo): string {
    const type = this.#name(typeName(block.name));
    this.#interfaces.push(this.#groupText(type, block, `${block.name}${described(block.description)}`));
    const bind = this.#name(`bind${typeName(block.name)}`);
    return [
      `/** Binds ${comment(block.name)} to where it is. */`,
      `export function ${bind}(target: RegisterTarget, options?: BindOptions): ${type} {`,
      `  const block = MAP.block(${quoted(block.name)});`,
      `  return bindRegisters(block, target, options).members<${type}>();`,
      '}',
    ].join('\n');
  }

  #groupText(type: string, group: GroupInfo, title: string): string {
    const names = memberNames(group.members.map(({ name }) => name));
    const members = group.members.map((member, i) => this.#memberText(type, member, names[i] ?? member.name));
    return [`/** ${comment(title)} */`, `export interface ${type} {`, ...members, '}'].join('\n');
  }

  #memberText(outer: string, { name, isArray, items }: MemberInfo, member: string): string {
    const [first] = items;
    const wanted = `${outer}${typeName(name)}`;
    const type =
      first === undefined
        ? 'never'
        : isRegister(first)
          ? this.#register(wanted, first)
          : this.#group(wanted, first);
    const text =
      first === undefined
        ? name
        : isRegister(first)
          ? registerTitle(first)
          : `${name}${described(first.description)}`;
    return `  /** ${comment(text)} */\n  readonly ${member}: ${isArray ? `readonly ${type}[]` : type};`;
  }

  #group(wanted: string, group: GroupInfo): string {
    const name = this.#name(wanted);
    this.#interfaces.push(this.#groupText(name, group, `${group.name}${described(group.description)}`));
    return name;
  }

  #register(wanted: string, register: RegisterInfo): string {
    const names = memberNames(register.fields.map(({ name }) => name));
    const fields = register.fields.map((field, i) => ({ field, member: names[i] ?? field.name }));
    const value = register.bits === 64 ? 'bigint' : 'number';
    const readable = fields.filter(({ field }) => field.access.readable);
    const writable = fields.filter(({ field }) => field.access.writable);
    const members = fields.map(({ field, member }) => {
      const type = valueType(field);
      const { readable: canRead, writable: canWrite } = field.access;
      return `  /** ${comment(this.#fieldTitle(field))} */\n  readonly ${member}: Field<${canRead ? type : 'never'}, ${canWrite ? type : 'never'}>;`;
    });
    const text = JSON.stringify([value, members]);
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const name = this.#name(wanted);
    this.#known.set(text, name);
    this.#hasFields ||= fields.length > 0;
    const alias = (suffix: string, some: typeof fields): string => {
      if (some.length === 0) return 'object';
      const own = this.#name(`${name}${suffix}`);
      const lines = some.map(({ field, member }) => `  readonly ${member}: ${valueType(field)};`);
      this.#interfaces.push(
        [`/** Fields of ${comment(register.name)}. */`, `export interface ${own} {`, ...lines, '}'].join(
          '\n',
        ),
      );
      return own;
    };
    const read = alias('Fields', readable);
    const write = sameMembers(readable, writable) ? read : alias('Writes', writable);
    const head = `export interface ${name} extends Register<${value}, ${read}, ${write}> {`;
    this.#interfaces.push(
      [
        `/** ${comment(registerTitle(register))} */`,
        ...(members.length === 0 ? [`${head}}`] : [head, ...members, '}']),
      ].join('\n'),
    );
    return name;
  }

  #fieldTitle(field: FieldInfo): string {
    const { lsb, bits, access, values, writeValues } = field;
    const where = bits === 1 ? `Bit ${lsb}` : `Bits ${lsb + bits - 1}:${lsb}`;
    const names = [...new Set([this.#enumNames.get(values), this.#enumNames.get(writeValues)])].filter(
      (name) => name !== undefined,
    );
    const called = names.length === 0 ? '' : `, ${names.join(', ')}`;
    return `${where}, ${accessWords(access)}${called}${described(field.description)}`;
  }

  /** The map with what a program needs of it, a register on a line. */
  #data(): string {
    const blocks = this.#blocks.map(
      (block) =>
        `    {\n      name: ${quoted(block.name)},\n      base: ${JSON.stringify(integerData(block.base))},\n      children: [\n${this.#children(
          block,
          0,
        )
          .map((line) => `        ${line},\n`)
          .join('')}      ],\n    },\n`,
    );
    return [
      '// prettier-ignore',
      'const DATA: RegisterMapData = {',
      "  format: 'vfio-user-registers/1',",
      `  name: ${quoted(this.#map.name)},`,
      `  blocks: [\n${blocks.join('')}  ],`,
      '};',
      '',
      'const MAP = RegisterMap.from(DATA);',
    ].join('\n');
  }

  #children(group: GroupInfo, start: number): string[] {
    return group.members.map(({ name, isArray, items }) => {
      const [first, second] = items;
      const offset = first === undefined ? 0 : firstOffset(first);
      const own = { name, offset: offset - start };
      const stride = second === undefined ? 0 : firstOffset(second) - offset;
      const array = isArray ? { count: items.length, stride } : {};
      if (first === undefined || isRegister(first)) {
        return JSON.stringify({ ...own, ...array, ...(first !== undefined && registerData(first)) });
      }
      const children = this.#children(first, offset).join(', ');
      return `${JSON.stringify({ ...own, ...array }).slice(0, -1)},"children":[${children}]}`;
    });
  }
}

/** Where a group begins does not count, only where its registers are: it is put where its first one is. */
function firstOffset(item: RegisterInfo | GroupInfo): number {
  if (isRegister(item)) return item.offset;
  const offsets = item.members.flatMap(({ items }) => items.slice(0, 1).map(firstOffset));
  return offsets.length === 0 ? 0 : Math.min(...offsets);
}

function registerData(register: RegisterInfo): object {
  const { bits, access, reset, resetMask, fields, volatile: isVolatile, noTest } = register;
  const all = (1n << BigInt(bits)) - 1n;
  return {
    ...(bits !== 32 && { bits }),
    ...accessData(access, READ_WRITE),
    ...(isVolatile && { volatile: true }),
    ...(noTest && { noTest: true }),
    ...(reset !== undefined && { reset: integerData(reset) }),
    ...(reset !== undefined && resetMask !== all && { resetMask: integerData(resetMask) }),
    ...(fields.length > 0 && { fields: fields.map((field) => fieldData(field, register)) }),
  };
}

function fieldData(field: FieldInfo, register: RegisterInfo): object {
  const { name, lsb, bits, values, writeValues } = field;
  const valueData = (list: readonly EnumValue[]): object[] =>
    list.map((one) => ({ name: one.name, value: integerData(one.value) }));
  return {
    name,
    lsb,
    ...(bits !== 1 && { bits }),
    access: 'RW',
    ...accessData(field.access),
    ...(field.volatile !== register.volatile && { volatile: field.volatile }),
    ...(field.noTest !== register.noTest && { noTest: field.noTest }),
    ...(values.length > 0 && { values: valueData(values) }),
    ...(writeValues !== values && { writeValues: valueData(writeValues) }),
  };
}

function registerTitle(register: RegisterInfo): string {
  const { name, bits, reset, access, fields, description } = register;
  const words = fields.length === 0 ? `, ${accessWords(access)}` : '';
  const value = reset === undefined ? '' : `, reset 0x${reset.toString(16).padStart(bits / 4, '0')}`;
  return `${name}: ${bits} bits${words}${value}${described(description)}`;
}

function enumText(name: string, values: readonly EnumValue[], register: RegisterInfo): string {
  const lines = values.map(({ name: own, value, description }) => {
    const text = description === '' ? '' : `  /** ${comment(description)} */\n`;
    const key = /^[A-Za-z_]\w*$/.test(own) ? own : quoted(own);
    return `${text}  ${key}: ${value > BigInt(Number.MAX_SAFE_INTEGER) ? `${value}n` : value},`;
  });
  return [
    `/** Values of ${comment(register.block)}.${comment(register.name)} and its like. */`,
    `export const ${name} = {`,
    ...lines,
    '} as const;',
  ].join('\n');
}

function valueType({ bits }: FieldInfo): string {
  return bits > 32 ? 'bigint' : 'number';
}

function sameMembers(a: readonly { member: string }[], b: readonly { member: string }[]): boolean {
  return a.length === b.length && a.every((one, i) => one.member === b[i]?.member);
}

function described(description: string): string {
  return description === '' ? '.' : `. ${description}`;
}

/** What may stand in a comment: files of strangers must not get out of it. */
function comment(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\u2028\u2029]+/gu, ' ')
    .replaceAll('*/', '* /')
    .trim();
}

function quoted(text: string): string {
  return `'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}
