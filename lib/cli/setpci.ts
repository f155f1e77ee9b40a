/**
 * What setpci(8) takes as an operation, `REGISTER[=VALUE[:MASK][,VALUE…]]`, read and resolved against a device.
 *
 * ```
 *   COMMAND=6:6      CAP_PM+4.b      ECAP_DSN+4.l      CAP09+2.w@1      40.l=1,2
 *   name             capability      extended          by id, second    offset; two dwords
 * ```
 * `@n` may also stand in front of the offset.
 *
 * All numbers are hexadecimal, with or without 0x, as they are there.
 */
import { UnsupportedError } from '../errors.js';
import type { ConfigSpace } from '../index.js';
import { UsageError } from './errors.js';
import {
  CAPABILITY_NAMES,
  REGISTERS,
  hasRegister,
  type NamedRegister,
  type RegisterWidth,
} from './setpci-names.js';
import { hex } from './format-text.js';

export interface Operation {
  /** As it was typed, without what is to be written. */
  readonly text: string;
  readonly base: Base;
  /** From the base. */
  readonly offset: number;
  readonly width: RegisterWidth;
  /** For this register and those that follow it; none where it is read. */
  readonly writes: readonly Write[];
}

/**
 * Where the offset counts from: the beginning of config space, which the register is of whose name was given, or the n-th
 * capability with an id.
 */
type Base =
  | { kind: 'space'; register: NamedRegister | undefined }
  | { kind: 'capability'; id: number; extended: boolean; nth: number };

export interface Write {
  readonly value: number;
  /** Which bits are changed. */
  readonly mask: number;
}

const OPERATION = /^(?<register>[^=]+)(?:=(?<values>.*))?$/;
const REGISTER =
  /^(?<name>[0-9a-z_]+?)(?:@(?<before>[0-9a-f]{1,3}))?(?:\+(?<offset>(?:0x)?[0-9a-f]{1,3}))?(?:\.(?<width>[bwl]))?(?:@(?<behind>[0-9a-f]{1,3}))?$/i;
const BY_ID = /^(?<kind>E?CAP)(?<id>[0-9a-f]{1,4})$/i;
const MAX_ID = 0xff;
const MAX_EXTENDED_ID = 0xffff;
const NUMBER = /^(?:0x)?(?<digits>[0-9a-f]{1,8})$/i;
const WIDTHS: Readonly<Record<string, RegisterWidth>> = { b: 1, w: 2, l: 4 };

/** @throws UsageError for what is no operation. */
export function parseOperation(text: string): Operation {
  const { register = '', values } = OPERATION.exec(text)?.groups ?? {};
  const {
    name,
    before,
    behind,
    width: letter,
    offset: distance = '0',
  } = REGISTER.exec(register)?.groups ?? {};
  if (name === undefined || (before !== undefined && behind !== undefined))
    throw invalid(text, 'it is REGISTER[+offset][.b|.w|.l][@n][=VALUE[:MASK],…]');
  const place = placeOf(name, before ?? behind, text);
  const width = letter === undefined ? place.width : WIDTHS[letter.toLowerCase()];
  if (width === undefined) throw invalid(text, 'it wants a width: .b, .w or .l');
  const offset = place.offset + Number.parseInt(distance, 16);
  if (offset % width !== 0) throw invalid(text, `${hex(offset)} is not aligned to ${width} bytes`);
  const writes = values === undefined ? [] : values.split(',').map((value) => parseWrite(value, width, text));
  return { text: register, base: place.base, offset, width, writes };
}

/**
 * Where in config space the operation begins.
 * @throws UnsupportedError where the device has no such capability, or its header no such register; RangeError where the
 * space ends before, or the place is not aligned.
 */
export function resolve({ text, base, offset, width, writes }: Operation, config: ConfigSpace): number {
  if (base.kind === 'space') checkHeader(base.register, config, text);
  const at = base.kind === 'space' ? offset : capabilityOffset(base, config, text) + offset;
  if (at % width !== 0) throw new RangeError(`${text}: ${hex(at)} is not aligned to ${width} bytes`);
  const end = at + width * Math.max(1, writes.length);
  if (end > config.size) {
    throw new RangeError(`${text}: config space has ${hex(config.size)} bytes; this ends at ${hex(end)}`);
  }
  return at;
}

/** Another register stands in its place in a header of another type. */
function checkHeader(register: NamedRegister | undefined, config: ConfigSpace, text: string): void {
  const { headerType } = config.header;
  if (register === undefined || hasRegister(register, headerType)) return;
  throw new UnsupportedError(
    `${text}: a header of type ${headerType} has no register ${register.name}, only type ${register.headerTypes.join(' and ')} has`,
  );
}

function capabilityOffset(
  { id, extended, nth }: Extract<Base, { kind: 'capability' }>,
  config: ConfigSpace,
  text: string,
): number {
  const list = extended ? config.extendedCapabilities : config.capabilities;
  const found = list.filter((capability) => capability.id === id)[nth];
  if (found !== undefined) return found.offset;
  const what = `${extended ? 'extended capability' : 'capability'} ${hex(id, 2)}`;
  throw new UnsupportedError(`${text}: the device has no ${nth === 0 ? '' : `${nth + 1}. `}${what}`);
}

interface Place {
  base: Base;
  offset: number;
  width: RegisterWidth | undefined;
}

function placeOf(name: string, nth: string | undefined, text: string): Place {
  const capability = capabilityOf(name);
  if (capability !== undefined) {
    const base: Base = { kind: 'capability', ...capability, nth: Number.parseInt(nth ?? '0', 16) };
    return { base, offset: 0, width: undefined };
  }
  if (nth !== undefined) throw invalid(text, '@n counts capabilities of one id');
  const register = REGISTERS.find((candidate) => candidate.name === name.toUpperCase());
  if (register !== undefined) {
    return { base: { kind: 'space', register }, offset: register.offset, width: register.width };
  }
  const digits = NUMBER.exec(name)?.groups?.['digits'];
  if (digits === undefined) throw invalid(text, `unknown register ${name}; --names lists them`);
  return {
    base: { kind: 'space', register: undefined },
    offset: Number.parseInt(digits, 16),
    width: undefined,
  };
}

function capabilityOf(name: string): { id: number; extended: boolean } | undefined {
  const upper = name.toUpperCase();
  const known = CAPABILITY_NAMES.find((candidate) => candidate.name === upper);
  if (known !== undefined) return { id: known.id, extended: known.extended };
  const { kind, id: digits } = BY_ID.exec(name)?.groups ?? {};
  if (kind === undefined || digits === undefined) return undefined;
  const id = Number.parseInt(digits, 16);
  const extended = kind.toUpperCase() === 'ECAP';
  return id <= (extended ? MAX_EXTENDED_ID : MAX_ID) ? { id, extended } : undefined;
}

function parseWrite(text: string, width: RegisterWidth, operation: string): Write {
  const [value = '', mask, ...rest] = text.split(':');
  if (rest.length > 0) throw invalid(operation, 'a value has one mask');
  const all = 2 ** (8 * width) - 1;
  return {
    value: parseValue(value, all, operation),
    mask: mask === undefined ? all : parseValue(mask, all, operation),
  };
}

function parseValue(text: string, most: number, operation: string): number {
  const digits = NUMBER.exec(text)?.groups?.['digits'];
  if (digits === undefined) throw invalid(operation, `'${text}' is not a hexadecimal number`);
  const value = Number.parseInt(digits, 16);
  if (value > most) throw invalid(operation, `${hex(value)} does not fit the register`);
  return value;
}

function invalid(text: string, why: string): UsageError {
  return new UsageError(`'${text}' is not a register: ${why}`);
}
