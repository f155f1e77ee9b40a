/** Where a map's registers are in a device: which region, and from which offset. */
import { UINT64_MAX, outOfRange, wrongType } from '../fields.js';
import * as option from '../options.js';
import {
  RegisterMap,
  byName,
  registerByPath,
  type BlockInfo,
  type FieldInfo,
  type RegisterInfo,
} from './map.js';
import { formatRegister } from './values.js';

/** Where a map applies. */
export interface PlacementOptions {
  /** The block that is there; all of them, at their distances, where nothing is said. */
  block?: string | undefined;
  /** The region's number. Default 0, which is BAR 0 of a PCI device. */
  region?: number | undefined;
  /** Where the block begins in the region, or of all the one at the lowest address; in bytes. Default 0. */
  offset?: number | undefined;
}

/** A register, and where it is. */
export interface PlacedRegister {
  /** `CTRL`; `UART0.CTRL` where the map has several blocks. */
  readonly name: string;
  /** What the map says of it. */
  readonly register: RegisterInfo;
  /** In its region, in bytes. */
  readonly offset: number;
}

const OPTIONS = new option.OptionTable<PlacementOptions>({
  block: option.string,
  region: option.wholeNumber(0, 0xffff_ffff),
  offset: option.wholeNumber(),
});

/**
 * A map's registers by their names and by their offsets in a region.
 *
 * @example
 * ```ts
 * const placed = new RegisterPlacement(map, { block: 'UART0', region: 0, offset: 0x100 });
 * console.log(placed.find('CTRL.MODE').offset, placed.nameAt(0, 0x104, 4));
 * ```
 */
export class RegisterPlacement {
  /** The region's number. */
  readonly region: number;
  /** By their offsets. */
  readonly registers: readonly PlacedRegister[];
  readonly #map: RegisterMap;
  readonly #blocks: readonly { block: BlockInfo; start: number }[];
  readonly #widest: number;

  /** @throws RangeError for a block that the map does not have; RangeError where a block is beyond 53 bits. */
  constructor(map: RegisterMap, options: PlacementOptions = {}) {
    if (!(map instanceof RegisterMap)) throw wrongType('RegisterPlacement: map', 'a RegisterMap', map);
    OPTIONS.check('RegisterPlacement', options);
    const { region = 0, offset = 0, block } = options;
    this.#map = map;
    this.region = region;
    const blocks = block === undefined ? map.blocks : [map.block(block)];
    const lowest = blocks.reduce((least, { base }) => (base < least ? base : least), UINT64_MAX);
    this.#blocks = blocks.map((one) => ({ block: one, start: Number(one.base - lowest) + offset }));
    const registers = this.#blocks.flatMap(({ block: one, start }) =>
      one.registers.map((register) => ({
        name: blocks.length > 1 ? `${one.name}.${register.path}` : register.path,
        register,
        offset: start + register.offset,
      })),
    );
    if (registers.some((one) => !Number.isSafeInteger(one.offset))) {
      throw outOfRange(`the blocks of ${map.name} are farther from each other than 53 bits`);
    }
    this.registers = registers.sort((a, b) => a.offset - b.offset);
    this.#widest = registers.reduce((most, { register }) => Math.max(most, register.bits / 8), 1);
  }

  /** Its blocks, and where each begins in the region, in bytes. */
  get blocks(): readonly { readonly block: BlockInfo; readonly start: number }[] {
    return this.#blocks;
  }

  /**
   * The register or field of a name: `CTRL`, `CTRL.MODE`, `UART0.CTRL.MODE`. Where no name is exactly so, upper and lower case
   * do not count.
   * @throws RangeError where there is none, or several blocks have one
   */
  find(name: string): PlacedRegister & { readonly field: FieldInfo | undefined } {
    const [first, second] = this.findAll(name);
    if (first === undefined) {
      throw outOfRange(
        `the map ${this.#map.name} has no register or field ${JSON.stringify(name.slice(0, 80))}`,
      );
    }
    if (second !== undefined) {
      const names = `${first.register.block}.${name} and ${second.register.block}.${name}`;
      throw outOfRange(`${name} is the name of several registers: say ${names}`);
    }
    const placed = this.registers.find(({ register }) => register === first.register);
    if (placed === undefined) throw outOfRange(`the map ${this.#map.name} has no register ${name}`);
    return { ...placed, field: first.field };
  }

  /** @internal All that are called so. */
  findAll(name: string): { register: RegisterInfo; field: FieldInfo | undefined }[] {
    return this.#blocks.flatMap(({ block }) => {
      const own = name.toLowerCase().startsWith(`${block.name.toLowerCase()}.`);
      const paths = own ? [name, name.slice(block.name.length + 1)] : [name];
      return paths.flatMap((path) => findIn(block, path));
    });
  }

  /** The registers that an access of so many bytes touches. */
  at(region: number, offset: number, length: number): readonly PlacedRegister[] {
    if (region !== this.region || length < 1) return [];
    const found: PlacedRegister[] = [];
    for (let i = this.#firstFrom(offset - this.#widest + 1); i < this.registers.length; i++) {
      const placed = this.registers[i];
      if (placed === undefined || placed.offset >= offset + length) break;
      if (placed.offset + placed.register.bits / 8 > offset) found.push(placed);
    }
    return found;
  }

  /** What an access of so many bytes is called: `CTRL`, `CTRL+2`, `CTRL…STATUS`; undefined where no register is. */
  nameAt(region: number, offset: number, length: number): string | undefined {
    const found = this.at(region, offset, length);
    const [first] = found;
    const last = found.at(-1);
    if (first === undefined || last === undefined) return undefined;
    if (first.offset !== last.offset) return `${first.name}…${last.name}`;
    return offset > first.offset ? `${first.name}+${offset - first.offset}` : first.name;
  }

  /** `nameAt`, and what the bytes say where they are one register: `STATUS 0x00000102 {busy, err=2}`. */
  describe(region: number, offset: number, data: Uint8Array): string | undefined {
    const name = this.nameAt(region, offset, data.length);
    const exact = this.at(region, offset, data.length).find((one) => one.offset === offset);
    if (name === undefined || exact?.register.bits !== data.length * 8) return name;
    let value = 0n;
    for (const byte of [...data].reverse()) value = (value << 8n) | BigInt(byte);
    return `${name} ${formatRegister(exact.register, value)}`;
  }

  /** The index of the first register at an offset or beyond. */
  #firstFrom(offset: number): number {
    let low = 0;
    let high = this.registers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.registers[middle]?.offset ?? Infinity) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function findIn(block: BlockInfo, path: string): { register: RegisterInfo; field: FieldInfo | undefined }[] {
  const register = registerByPath(block, path);
  if (register !== undefined) return [{ register, field: undefined }];
  const dot = path.lastIndexOf('.');
  const parent = dot < 1 ? undefined : registerByPath(block, path.slice(0, dot));
  const field = parent === undefined ? undefined : byName(parent.fields, path.slice(dot + 1));
  return parent === undefined || field === undefined ? [] : [{ register: parent, field }];
}
