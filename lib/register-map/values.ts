/** A register's value and its fields': which bits are whose, and how they are shown. */
import { accessWords, neutralBits } from './access.js';
import type { EnumValue, FieldInfo, RegisterInfo } from './map.js';
import { memberNames } from './names.js';

/** The bits of a field, in its register's value. */
export function maskOf({ lsb, bits }: FieldInfo): bigint {
  return ((1n << BigInt(bits)) - 1n) << BigInt(lsb);
}

/** All bits of a register. */
export function allBits({ bits }: RegisterInfo): bigint {
  return (1n << BigInt(bits)) - 1n;
}

/** The field's value within the register's. */
export function fieldValue({ lsb, bits }: FieldInfo, value: bigint): bigint {
  return BigInt.asUintN(bits, value >> BigInt(lsb));
}

/** The name of a value, where it has one. */
export function valueName(values: readonly EnumValue[], value: bigint): string | undefined {
  return values.find((one) => one.value === value)?.name;
}

/**
 * The value for people: `0x00000102 {busy, err=2}`. Fields that are 0 are not said; of one bit the name is enough; values that
 * have names are called by them.
 */
export function formatRegister(register: RegisterInfo, value: bigint): string {
  const digits = `0x${value.toString(16).padStart(register.bits / 4, '0')}`;
  const members = memberNames(register.fields.map(({ name }) => name));
  const said = register.fields.flatMap((field, i) => {
    const own = fieldValue(field, value);
    if (own === 0n || !field.access.readable) return [];
    const name = members[i] ?? field.name;
    const called = valueName(field.values, own);
    if (field.bits === 1 && called === undefined) return [name];
    return [`${name}=${called ?? own}`];
  });
  return said.length === 0 ? digits : `${digits} {${said.join(', ')}}`;
}

/** What a write to a register has to know of its bits. */
export interface WritePlan {
  /** Bits that have to be written as they are, and that a read tells. */
  readonly keptFromRead: bigint;
  /** Bits that have to be written as they are, which only memory of the last write tells. */
  readonly keptFromMirror: bigint;
  /** Bits that no field has and that cannot be read: they are written as after a reset. */
  readonly keptFromReset: bigint;
  /** Bits of which a 1 changes nothing. */
  readonly ones: bigint;
  /** Fields that every write to the register changes. */
  readonly unavoidable: readonly FieldInfo[];
}

/** Whether reading the register changes nothing. */
export function isReadSafe(register: RegisterInfo): boolean {
  const { access, fields } = register;
  return access.onRead === 'none' && fields.every((field) => field.access.onRead === 'none');
}

/** Whether a read tells anything of the register. */
export function isReadable({ access, fields }: RegisterInfo): boolean {
  return fields.length === 0 ? access.readable : fields.some((field) => field.access.readable);
}

/** Whether a write reaches anything of the register. */
export function isWritable({ access, fields }: RegisterInfo): boolean {
  return fields.length === 0 ? access.writable : fields.some((field) => field.access.writable);
}

/** How a write leaves alone what it is not about. */
export function writePlan(register: RegisterInfo): WritePlan {
  const isSafe = isReadSafe(register);
  let keptFromRead = 0n;
  let keptFromMirror = 0n;
  let ones = 0n;
  let claimed = 0n;
  const unavoidable: FieldInfo[] = [];
  const claim = (mask: bigint, access: RegisterInfo['access']): boolean => {
    const neutral = neutralBits(access);
    if (neutral === undefined) return false;
    if (neutral === 1) ones |= mask;
    if (neutral !== 'kept') return true;
    if (access.readable && isSafe) keptFromRead |= mask;
    else keptFromMirror |= mask;
    return true;
  };
  for (const field of register.fields) {
    const mask = maskOf(field);
    claimed |= mask;
    if (!claim(mask, field.access)) unavoidable.push(field);
  }
  // Of bits that no field has the register's own words count; a write that does something to them is the register's nature.
  const unclaimed = allBits(register) & ~claimed;
  claim(unclaimed, register.access);
  const keptFromReset = register.fields.length === 0 ? 0n : keptFromMirror & unclaimed;
  // Bits of two fields, one that is read and one that is written: what a 1 or 0 does comes first.
  let acting = 0n;
  for (const field of register.fields) {
    if (neutralBits(field.access) !== 'kept' && field.access.writable) acting |= maskOf(field);
  }
  keptFromRead &= ~acting;
  keptFromMirror &= ~acting;
  keptFromMirror &= ~(keptFromRead | keptFromReset);
  return { keptFromRead, keptFromMirror, keptFromReset, ones, unavoidable };
}

/** `CTRL.MODE (RW)`. */
export function fieldTitle(register: RegisterInfo, field: FieldInfo): string {
  return `${register.path}.${field.name} (${accessWords(field.access)})`;
}
