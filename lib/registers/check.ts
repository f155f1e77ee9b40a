/**
 * What a map says of a device, compared with the device: values after a reset, bits that must not be writable, bits that must,
 * and registers that turn out to be the same.
 *
 * Only what is harmless by the map is done. A register is written where each of its fields can be left alone by a write; what
 * changes by being read is not read; `volatile` and `noTest` are left alone. Registers have their old values afterwards.
 */
import type { CallOptions } from '../index.js';
import * as option from '../options.js';
import type { FieldInfo, RegisterInfo } from '../register-map/map.js';
import type { Register } from './register.js';
import {
  allBits,
  formatRegister,
  isReadSafe,
  isReadable,
  isWritable,
  maskOf,
  writePlan,
} from '../register-map/values.js';

/** What is compared. */
export type RegisterTest = 'reset' | 'read-only' | 'clear' | 'bits' | 'alias';

/** Something that is not as the map says. */
export interface RegisterFinding {
  /** What was compared. */
  readonly test: RegisterTest;
  /** The register. */
  readonly register: RegisterInfo;
  /** The one that it is the same as, for `alias`. */
  readonly other?: RegisterInfo | undefined;
  /** In words: `STATUS is 0x00000001 {ready} after a reset, not 0x00000000`. */
  readonly message: string;
}

/** What came of it. */
export interface RegisterCheckReport {
  /** What is not as the map says, in the order of the tests. */
  readonly findings: readonly RegisterFinding[];
  /** How many registers each test was made of. */
  readonly tested: Readonly<Record<RegisterTest, number>>;
  /** Registers of which nothing was tested, and why. */
  readonly skipped: readonly { readonly register: RegisterInfo; readonly reason: string }[];
}

/** How registers are checked. */
export interface RegisterCheckOptions extends CallOptions {
  /** Which tests are made. Default all; `['reset']` writes nothing. */
  tests?: readonly RegisterTest[] | undefined;
}

const TESTS: readonly RegisterTest[] = ['reset', 'read-only', 'clear', 'bits', 'alias'];

const OPTIONS = new option.OptionTable<RegisterCheckOptions>({
  ...option.CALL_CHECKS,
  tests: option.listOf('tests', option.oneOf(...TESTS)),
});

/** Of so many registers the one that they are the same as is looked for. */
const MOST_ALIASES = 16;

/** A register, and which of its bits may be written to see what becomes of them. */
interface Candidate {
  readonly register: Register;
  readonly info: RegisterInfo;
  /** Takes and gives any value. */
  readonly free: bigint;
}

/**
 * Compares registers with their map. Values after a reset are those that they have now: reset the device before, and call
 * `forget` of what binds them.
 * @throws TypeError and RangeError for options that make no sense; what accesses throw.
 *
 * @example
 * ```ts
 * await device.reset();
 * const { findings } = await checkRegisters(bindRegisters(map.block('UART0'), device.bar(0)).registers());
 * ```
 */
export async function checkRegisters(
  registers: Iterable<Register>,
  options: RegisterCheckOptions = {},
): Promise<RegisterCheckReport> {
  OPTIONS.check('checkRegisters', options);
  return new Check(registers, options).run();
}

class Check {
  readonly #registers: readonly Register[];
  readonly #tests: readonly RegisterTest[];
  readonly #call: CallOptions;
  readonly #findings: RegisterFinding[] = [];
  readonly #tested: Record<RegisterTest, number> = { reset: 0, 'read-only': 0, clear: 0, bits: 0, alias: 0 };
  /** Of these the bits did not keep what was written: what another test sees of them tells nothing. */
  readonly #faulty = new Set<Register>();

  constructor(registers: Iterable<Register>, { tests = TESTS, ...call }: RegisterCheckOptions) {
    this.#registers = [...registers];
    this.#tests = tests;
    this.#call = call;
  }

  async run(): Promise<RegisterCheckReport> {
    const skipped: { register: RegisterInfo; reason: string }[] = [];
    const readable = this.#registers.filter(({ info }) => {
      const reason = skipReason(info);
      if (reason !== undefined) skipped.push({ register: info, reason });
      return reason === undefined;
    });
    if (this.#does('reset')) for (const one of readable) await this.#checkReset(one);
    const writable = readable.filter(({ info }) => canBeWritten(info));
    if (this.#does('read-only')) for (const one of writable) await this.#checkReadOnly(one);
    if (this.#does('clear')) for (const one of writable) await this.#checkClear(one);
    const free = writable.flatMap((register): Candidate[] => {
      const bits = freeBits(register.info);
      return bits === 0n ? [] : [{ register, info: register.info, free: bits }];
    });
    if (this.#does('bits')) for (const one of free) await this.#checkBits(one);
    if (this.#does('alias')) await this.#checkAliases(free);
    return { findings: this.#findings, tested: this.#tested, skipped };
  }

  #does(test: RegisterTest): boolean {
    return this.#tests.includes(test);
  }

  #find(test: RegisterTest, register: RegisterInfo, message: string, other?: RegisterInfo): void {
    this.#findings.push({ test, register, message, ...(other !== undefined && { other }) });
  }

  async #read(register: Register): Promise<bigint> {
    return BigInt(await register.read(this.#call));
  }

  async #write(register: Register, value: bigint): Promise<void> {
    await register.poke(value, this.#call);
  }

  async #checkReset(register: Register): Promise<void> {
    const { info } = register;
    const mask = info.resetMask & ~ignoredBits(info) & readableBits(info);
    if (info.reset === undefined || mask === 0n) return;
    this.#tested.reset++;
    const value = await this.#read(register);
    const wrong = (value ^ info.reset) & mask;
    if (wrong === 0n) return;
    const expected = formatRegister(info, info.reset & mask);
    const names = fieldsIn(info, wrong);
    this.#find(
      'reset',
      info,
      `${info.path} is ${formatRegister(info, value)} after a reset, not ${expected}${names === '' ? '' : ` (${names})`}`,
    );
  }

  /** Writes read-only bits inverted, and all others so that nothing happens. */
  async #checkReadOnly(register: Register): Promise<void> {
    const { info } = register;
    const mask = bitsWhere(info, ({ access }) => !access.writable && access.readable);
    if (mask === 0n) return;
    this.#tested['read-only']++;
    const before = await this.#read(register);
    await this.#write(register, neutral(info, before) ^ mask);
    const after = await this.#read(register);
    const changed = (before ^ after) & mask;
    if (changed === 0n) return;
    await this.#write(register, neutral(info, before) | (before & mask));
    // What comes and goes with what is written was written; all else the device does by itself.
    if ((((await this.#read(register)) ^ before) & changed) !== 0n) return;
    const names = fieldsIn(info, changed);
    this.#find(
      'read-only',
      info,
      `${info.path} is read-only, and took what was written${names === '' ? '' : ` to ${names}`}: ` +
        `0x${after.toString(16)} where it was 0x${before.toString(16)}`,
    );
  }

  /** Of bits that are set and that writing clears: whether they stay without, and go with it. */
  async #checkClear(register: Register): Promise<void> {
    const { info } = register;
    const ones = bitsWhere(info, ({ access }) => access.onWrite === 'W1C' && access.readable);
    const zeros = bitsWhere(info, ({ access }) => access.onWrite === 'W0C' && access.readable);
    const before = await this.#read(register);
    const set = before & (ones | zeros);
    if (set === 0n) return;
    this.#tested.clear++;
    await this.#write(register, neutral(info, before));
    const lost = set & ~(await this.#read(register));
    if (lost !== 0n) {
      this.#find('clear', info, `${info.path}: ${fieldsIn(info, lost)} went without being cleared`);
    }
    await this.#write(register, (neutral(info, before) | (set & ones)) & ~(set & zeros));
    const left = set & (await this.#read(register));
    if (left === 0n) return;
    this.#find('clear', info, `${info.path}: ${fieldsIn(info, left)} stayed when it was cleared`);
  }

  /** All bits off, all on, and each alone. */
  async #checkBits({ register, info, free }: Candidate): Promise<void> {
    this.#tested.bits++;
    const before = await this.#read(register);
    const rest = neutral(info, before) & ~free;
    const patterns = [0n, free];
    for (let bit = 0n; bit < BigInt(info.bits); bit++) {
      if (((free >> bit) & 1n) === 1n) patterns.push(1n << bit);
    }
    for (const pattern of patterns) {
      await this.#write(register, rest | pattern);
      const seen = (await this.#read(register)) & free;
      if (seen === pattern) continue;
      this.#faulty.add(register);
      const names = fieldsIn(info, seen ^ pattern);
      this.#find(
        'bits',
        info,
        `${info.path} was written 0x${pattern.toString(16)} and has 0x${seen.toString(16)}${names === '' ? '' : ` (${names})`}`,
      );
      break;
    }
    await this.#write(register, neutral(info, before));
  }

  /**
   * All registers are written before any is read, each with all of its bits on or off, as a bit of its number says: registers that
   * are one differ from each other in one of the rounds.
   */
  async #checkAliases(candidates: readonly Candidate[]): Promise<void> {
    const sound = candidates.filter(({ register }) => !this.#faulty.has(register));
    this.#tested.alias = sound.length;
    const before: bigint[] = [];
    for (const { register } of sound) before.push(await this.#read(register));
    const suspects = new Set<number>();
    const pattern = (index: number, round: number): bigint => {
      const { info, free } = sound[index]!;
      const rest = neutral(info, before[index]!) & ~free;
      return ((index + 1) >> round) & 1 ? rest | free : rest;
    };
    for (let round = 0; 1 << round <= sound.length; round++) {
      for (const [i, { register }] of sound.entries()) await this.#write(register, pattern(i, round));
      for (const [i, { register, free }] of sound.entries()) {
        if ((((await this.#read(register)) ^ pattern(i, round)) & free) !== 0n) suspects.add(i);
      }
    }
    const told = new Set<RegisterInfo>();
    for (const suspect of [...suspects].slice(0, MOST_ALIASES)) {
      const one = sound[suspect]!;
      const other = await this.#aliasOf(one, sound, before);
      if (told.has(one.info) || (other !== undefined && told.has(other))) continue;
      told.add(one.info);
      const message =
        other === undefined
          ? `${one.info.path} changes when other registers are written`
          : `${one.info.path} and ${other.path} are the same: what is written to one is in the other`;
      this.#find('alias', one.info, message, other);
    }
    for (const [i, { register, info }] of sound.entries())
      await this.#write(register, neutral(info, before[i]!));
  }

  /** The register whose writes change this one. */
  async #aliasOf(
    { register, info, free }: Candidate,
    all: readonly Candidate[],
    before: readonly bigint[],
  ): Promise<RegisterInfo | undefined> {
    const own = neutral(info, before[all.findIndex((one) => one.register === register)]!) & ~free;
    for (const [i, other] of all.entries()) {
      if (other.register === register) continue;
      const rest = neutral(other.info, before[i]!) & ~other.free;
      for (const [mine, theirs] of [
        [free, 0n],
        [0n, other.free],
      ] as const) {
        await this.#write(register, own | mine);
        await this.#write(other.register, rest | theirs);
        if ((((await this.#read(register)) ^ mine) & free) !== 0n) return other.info;
      }
    }
    return undefined;
  }
}

function skipReason(info: RegisterInfo): string | undefined {
  if (!isReadable(info)) return 'it cannot be read';
  if (!isReadSafe(info)) return 'it changes when it is read';
  return info.noTest ? 'the map says noTest' : undefined;
}

/** Whether there is a value that can be written and changes nothing. */
function canBeWritten(info: RegisterInfo): boolean {
  const { unavoidable, keptFromMirror } = writePlan(info);
  if (info.fields.some(({ access }) => access.once) || info.access.once) return false;
  if (!isWritable(info)) return true;
  return unavoidable.length === 0 && keptFromMirror === 0n && !changesByItself(info);
}

/** What is kept may have changed between the read and the write. */
function changesByItself(info: RegisterInfo): boolean {
  return info.fields.some(
    (field) => field.volatile && field.access.writable && field.access.onWrite === 'value',
  );
}

/** The value that changes nothing. */
function neutral(info: RegisterInfo, value: bigint): bigint {
  const { keptFromRead, keptFromReset, ones } = writePlan(info);
  return (value & keptFromRead) | ((info.reset ?? 0n) & keptFromReset) | ones;
}

/** Bits that keep any value that is written, by the map. */
function freeBits(info: RegisterInfo): bigint {
  const isPlain = ({ access, values, writeValues }: FieldInfo): boolean =>
    access.readable &&
    access.writable &&
    access.onWrite === 'value' &&
    !access.selfClearing &&
    values.length === 0 &&
    writeValues.length === 0;
  return bitsWhere(info, isPlain);
}

function bitsWhere(info: RegisterInfo, test: (field: FieldInfo) => boolean): bigint {
  const fields = fieldsOf(info).filter((field) => !field.noTest && !field.volatile && test(field));
  return fields.reduce((bits, field) => bits | maskOf(field), 0n) & ~ignoredBits(info);
}

/** Bits of fields that change by themselves, or are to be left alone. */
function ignoredBits(info: RegisterInfo): bigint {
  return fieldsOf(info)
    .filter((field) => field.noTest || field.volatile)
    .reduce((bits, field) => bits | maskOf(field), 0n);
}

function readableBits(info: RegisterInfo): bigint {
  const hidden = fieldsOf(info).filter(({ access }) => !access.readable);
  const shown = fieldsOf(info).filter(({ access }) => access.readable);
  const sum = (fields: readonly FieldInfo[]): bigint =>
    fields.reduce((bits, field) => bits | maskOf(field), 0n);
  return allBits(info) & ~(sum(hidden) & ~sum(shown));
}

/** A register without fields is one of all its bits. */
function fieldsOf(info: RegisterInfo): readonly FieldInfo[] {
  if (info.fields.length > 0) return info.fields;
  const { bits, access, volatile: isVolatile, noTest, description } = info;
  return [
    {
      name: info.name,
      description,
      lsb: 0,
      bits,
      access,
      volatile: isVolatile,
      noTest,
      values: [],
      writeValues: [],
    },
  ];
}

function fieldsIn(info: RegisterInfo, bits: bigint): string {
  return info.fields
    .filter((field) => (maskOf(field) & bits) !== 0n)
    .map(({ name }) => name)
    .join(', ');
}
