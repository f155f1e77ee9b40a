/** Registers and fields of a device, read and written by name, with what reads and writes do to them in mind. */
import { Exclusive, checkSignal, pause, withDeadline } from '../connection/index.js';
import { RemoteError, TimeoutError, UnsupportedError } from '../errors.js';
import { notBigInteger, notInteger, wrongType } from '../fields.js';
import type { CallOptions, SyncCallOptions } from '../index.js';
import * as option from '../options.js';
import { byName, type FieldInfo, type RegisterInfo } from '../register-map/map.js';
import { memberNames } from '../register-map/names.js';
import type { Port } from './port.js';
import {
  fieldTitle,
  fieldValue,
  formatRegister,
  isReadable,
  isReadSafe,
  isWritable,
  maskOf,
  valueName,
  writePlan,
  type WritePlan,
} from '../register-map/values.js';

/** What a register or a field holds: a bigint where it has more than 32 bits. */
export type RegisterValue = number | bigint;

/** Values of fields, by the names of the members. */
export type FieldValues = { readonly [field: string]: RegisterValue };

/** Options of `waitFor`. */
export interface RegisterWaitOptions extends CallOptions {
  /** The longest pause between two reads, in milliseconds. Default 10. */
  intervalMs?: number | undefined;
}

/** Options of `waitForSync`. */
export interface RegisterWaitSyncOptions extends SyncCallOptions {
  /** The longest pause between two reads, in milliseconds. Default 10. */
  intervalMs?: number | undefined;
}

/** One access, for those who count them. */
export interface RegisterAccessEvent {
  /** What was accessed. */
  readonly register: RegisterInfo;
  /** How. */
  readonly kind: 'read' | 'write';
}

/** Where nothing is said. */
const DEFAULT_TIMEOUT_MS = 5_000;
const FIRST_PAUSE_MS = 0.05;
const LONGEST_PAUSE_MS = 10;

const WAIT_OPTIONS = new option.OptionTable<RegisterWaitOptions>({
  ...option.CALL_CHECKS,
  intervalMs: option.pause,
});
const WAIT_SYNC_OPTIONS = new option.OptionTable<RegisterWaitSyncOptions>({
  timeoutMs: option.timeout,
  intervalMs: option.pause,
});

/** A field with the name of its member, and its bits. */
interface Member {
  readonly name: string;
  readonly info: FieldInfo;
  readonly mask: bigint;
}

/** What is waited for. */
interface Target {
  readonly mask: bigint;
  readonly wanted: bigint;
  readonly field: FieldInfo | undefined;
}

/**
 * A register. Its fields are members of it, in camelCase: `ctrl.mode` of `CTRL.MODE`. Values of 64-bit registers are bigints.
 *
 * `modify` leaves alone what it is not told of: it writes 0 to bits that a 1 clears, keeps the others, and takes what cannot be
 * read from what was written last. Nothing reads a register that changes by being read unless it is asked to.
 *
 * @example
 * ```ts
 * await ctrl.modify({ enable: 1, mode: Mode.FAST });
 * await status.ready.waitFor(1, { timeoutMs: 100 });
 * ```
 */
export class Register<
  V extends RegisterValue = RegisterValue,
  R extends object = FieldValues,
  W extends object = FieldValues,
> {
  /** What the map says of it. */
  readonly info: RegisterInfo;
  /** Where it is in what it is bound to, in bytes. */
  readonly offset: number;
  readonly #port: Port;
  readonly #members: readonly Member[];
  readonly #onAccess: ((access: RegisterAccessEvent) => void) | undefined;
  readonly #exclusive = new Exclusive();
  #plan: WritePlan | undefined;
  /** How many `modify` are under way: a blocking one cannot wait for them. */
  #modifying = 0;
  /** What was written last; `lost` where nobody knows whether it arrived. */
  #mirror: bigint | 'lost' | undefined;

  /** @internal */
  constructor(
    port: Port,
    info: RegisterInfo,
    offset: number,
    onAccess?: (access: RegisterAccessEvent) => void,
  ) {
    this.#port = port;
    this.info = info;
    this.offset = offset;
    this.#onAccess = onAccess;
    const names = memberNames(info.fields.map(({ name }) => name));
    this.#members = info.fields.map((field, i) => ({
      name: names[i] ?? field.name,
      info: field,
      mask: maskOf(field),
    }));
    for (const { name, info: field } of this.#members) {
      let made: Field | undefined;
      const get = (): Field => (made ??= new Field(this as unknown as Register, field, name));
      Object.defineProperty(this, name, { get, enumerable: true, configurable: true });
    }
  }

  /** The field of this name, as the map or the program writes it. @throws RangeError */
  field(name: string): Field {
    const member = this.#members.find((one) => one.name === name);
    const info = member?.info ?? byName(this.info.fields, name);
    const own = this.#members.find((one) => one.info === info);
    if (info !== undefined && own !== undefined) return (this as unknown as Record<string, Field>)[own.name]!;
    throw new RangeError(
      `${this.info.path} has no field ${name}; it has ${this.info.fields.map((one) => one.name).join(', ')}`,
    );
  }

  /** Reads it, whatever reading does to it. @throws RangeError where it cannot be read; what the access throws. */
  async read(options?: CallOptions): Promise<V> {
    option.CALL_OPTIONS.check('Register.read', options);
    this.#requireReadable();
    return (await this.#read(options)) as V;
  }

  /** `read`, blocking. */
  readSync(options?: SyncCallOptions): V {
    option.SYNC_CALL_OPTIONS.check('Register.readSync', options);
    this.#requireReadable();
    return this.#readSync(options) as V;
  }

  /** Reads it, and gives its fields' values. Errors as of `read`. */
  async readFields(options?: CallOptions): Promise<R> {
    option.CALL_OPTIONS.check('Register.readFields', options);
    return this.decode(await this.read(options));
  }

  /** `readFields`, blocking. */
  readFieldsSync(options?: SyncCallOptions): R {
    option.SYNC_CALL_OPTIONS.check('Register.readFieldsSync', options);
    return this.decode(this.readSync(options));
  }

  /** The fields' values in a value of the register. */
  decode(value: V): R {
    const whole = BigInt(value);
    const readable = this.#members.filter(({ info }) => info.access.readable);
    return Object.fromEntries(
      readable.map(({ name, info }) => [name, plain(fieldValue(info, whole), info.bits)]),
    ) as R;
  }

  /** A value of the register for people: `0x00000102 {busy, err=2}`. */
  format(value: V): string {
    return formatRegister(this.info, BigInt(value));
  }

  /**
   * Writes a value, or the fields that are named: all others have their value after a reset, and bits that act when they are
   * written do nothing. Nothing is read.
   * @throws RangeError, TypeError for a field that cannot be written or a value that does not fit; what the access throws.
   */
  async write(value: V | Partial<W>, options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Register.write', options);
    await this.#write(this.#wholeOf(value), options);
  }

  /** `write`, blocking. */
  writeSync(value: V | Partial<W>, options?: SyncCallOptions): void {
    option.SYNC_CALL_OPTIONS.check('Register.writeSync', options);
    this.#writeSync(this.#wholeOf(value), options);
  }

  /**
   * Writes the fields that are named and leaves all others as they are. What has to be kept is read first, unless reading would
   * change something: then, and for what cannot be read, it is what was written last or the value after a reset. Calls come one
   * after the other.
   * @throws RangeError, TypeError as `write`; RangeError where every write would change another field (WC, WS); UnsupportedError
   * where what must be kept is not known; what the accesses throw.
   */
  async modify(fields: Partial<W>, options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Register.modify', options);
    const { mask, bits } = this.#bitsOf(fields);
    const plan = this.#planFor(mask);
    this.#modifying++;
    try {
      await this.#exclusive.run(`modifying ${this.info.path}`, options, async (call) => {
        const old = (plan.keptFromRead & ~mask) === 0n ? 0n : BigInt(await this.#read(call));
        await this.#write(this.#merged(plan, old, mask, bits), call);
      });
    } finally {
      this.#modifying--;
    }
  }

  /** `modify`, blocking. @throws UnsupportedError, too, while a `modify` that does not block is under way. */
  modifySync(fields: Partial<W>, options?: SyncCallOptions): void {
    option.SYNC_CALL_OPTIONS.check('Register.modifySync', options);
    const { mask, bits } = this.#bitsOf(fields);
    const plan = this.#planFor(mask);
    if (this.#modifying > 0) {
      throw new UnsupportedError(`${this.info.path}: modifySync while a modify is under way would undo it`);
    }
    const call = withDeadline(options);
    const old = (plan.keptFromRead & ~mask) === 0n ? 0n : BigInt(this.#readSync(call));
    this.#writeSync(this.#merged(plan, old, mask, bits), call);
  }

  /**
   * Reads until all of the fields have these values, and gives the register's value. Where reads change the register, each
   * of them does.
   * @throws TimeoutError after `timeoutMs` (5,000 where nothing is said), which says what it was instead.
   */
  async waitFor(fields: Partial<R>, options?: RegisterWaitOptions): Promise<V> {
    return (await this.waitForBits(this.#targetOf(fields), options)) as V;
  }

  /** `waitFor`, blocking. */
  waitForSync(fields: Partial<R>, options?: RegisterWaitSyncOptions): V {
    return this.waitForBitsSync(this.#targetOf(fields), options) as V;
  }

  /** @internal Forgets what was written: the device has been reset. */
  forget(): void {
    this.#mirror = undefined;
  }

  /** @internal Writes all of it, whatever the map says of its fields. */
  async poke(value: bigint, options?: CallOptions): Promise<void> {
    await this.#port.write(this.offset, this.info.bits, plainOf(value, this.info.bits), options);
  }

  /** @internal */
  async waitForBits(target: Target, options: RegisterWaitOptions = {}): Promise<RegisterValue> {
    WAIT_OPTIONS.check('Register.waitFor', options);
    const { timeoutMs = DEFAULT_TIMEOUT_MS, intervalMs = LONGEST_PAUSE_MS, signal } = options;
    checkSignal(signal);
    this.#requireReadable();
    const deadline = performance.now() + timeoutMs;
    let last: RegisterValue | undefined;
    for (let ms = FIRST_PAUSE_MS; ; ms = Math.min(intervalMs, ms * 2)) {
      const left = deadline - performance.now();
      if (left <= 0) throw this.#late(target, last, timeoutMs);
      try {
        last = await this.#read({ timeoutMs: left, signal });
      } catch (error) {
        // The read had what was left of the time: what is over is the wait.
        throw error instanceof TimeoutError ? this.#late(target, last, timeoutMs) : error;
      }
      if ((BigInt(last) & target.mask) === target.wanted) return last;
      if (ms >= 1) await pause(Math.min(ms, left), signal);
      // A mapping's reads settle at once: the loop must turn, so that others can do what is waited for.
      else await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  /** @internal */
  waitForBitsSync(target: Target, options: RegisterWaitSyncOptions = {}): RegisterValue {
    WAIT_SYNC_OPTIONS.check('Register.waitForSync', options);
    const { timeoutMs = DEFAULT_TIMEOUT_MS, intervalMs = LONGEST_PAUSE_MS } = options;
    this.#requireReadable();
    const deadline = performance.now() + timeoutMs;
    let last: RegisterValue | undefined;
    for (let ms = FIRST_PAUSE_MS; ; ms = Math.min(intervalMs, ms * 2)) {
      const left = deadline - performance.now();
      if (left <= 0) throw this.#late(target, last, timeoutMs);
      try {
        last = this.#readSync({ timeoutMs: left });
      } catch (error) {
        throw error instanceof TimeoutError ? this.#late(target, last, timeoutMs) : error;
      }
      if ((BigInt(last) & target.mask) === target.wanted) return last;
      if (ms >= 1) Atomics.wait(NOBODY, 0, 0, Math.min(ms, left));
    }
  }

  async #read(options: CallOptions | undefined): Promise<RegisterValue> {
    this.#onAccess?.({ register: this.info, kind: 'read' });
    try {
      return await this.#port.read(this.offset, this.info.bits, options);
    } catch (error) {
      throw this.#named(error);
    }
  }

  #readSync(options: SyncCallOptions | undefined): RegisterValue {
    this.#onAccess?.({ register: this.info, kind: 'read' });
    try {
      return this.#port.readSync(this.offset, this.info.bits, options);
    } catch (error) {
      throw this.#named(error);
    }
  }

  async #write(value: bigint, options: CallOptions | undefined): Promise<void> {
    this.#requireWritable();
    this.#onAccess?.({ register: this.info, kind: 'write' });
    this.#mirror = 'lost';
    try {
      await this.#port.write(this.offset, this.info.bits, plainOf(value, this.info.bits), options);
    } catch (error) {
      throw this.#named(error);
    }
    this.#mirror = value;
  }

  #writeSync(value: bigint, options: SyncCallOptions | undefined): void {
    this.#requireWritable();
    this.#onAccess?.({ register: this.info, kind: 'write' });
    this.#mirror = 'lost';
    try {
      this.#port.writeSync(this.offset, this.info.bits, plainOf(value, this.info.bits), options);
    } catch (error) {
      throw this.#named(error);
    }
    this.#mirror = value;
  }

  /** The value that `write` sends. */
  #wholeOf(value: V | Partial<W>): bigint {
    const { info } = this;
    if (typeof value !== 'object') return checkValue(info.path, value, info.bits, info.bits === 64);
    const { mask, bits } = this.#bitsOf(value);
    const { keptFromRead, keptFromMirror, keptFromReset, ones } = (this.#plan ??= writePlan(info));
    const kept = (info.reset ?? 0n) & (keptFromRead | keptFromMirror | keptFromReset);
    return ((kept | ones) & ~mask) | bits;
  }

  #planFor(mask: bigint): WritePlan {
    const plan = (this.#plan ??= writePlan(this.info));
    const changed = plan.unavoidable.find((field) => (maskOf(field) & mask) === 0n);
    if (changed === undefined) return plan;
    throw new RangeError(
      `${this.info.path}: any write changes ${fieldTitle(this.info, changed)}: name it, or use write()`,
    );
  }

  #merged(plan: WritePlan, old: bigint, mask: bigint, bits: bigint): bigint {
    const fromMirror = plan.keptFromMirror & ~mask;
    const mirror = fromMirror === 0n ? 0n : this.#knownMirror(fromMirror);
    const unclaimed = (this.info.reset ?? 0n) & plan.keptFromReset;
    return (((old & plan.keptFromRead) | (mirror & fromMirror) | unclaimed | plan.ones) & ~mask) | bits;
  }

  /** What was written last, as far as it must be known. */
  #knownMirror(needed: bigint): bigint {
    const { reset, resetMask, path } = this.info;
    if (typeof this.#mirror === 'bigint') return this.#mirror;
    const isKnown = reset !== undefined && (needed & ~resetMask) === 0n;
    if (this.#mirror === undefined && isKnown) return reset;
    const why =
      this.#mirror === 'lost'
        ? 'its last write failed'
        : 'it was not written yet and the map has no reset value';
    throw new UnsupportedError(
      `${path}: what bits 0x${needed.toString(16)} hold cannot be read, and ${why}: write() all of it first`,
    );
  }

  #bitsOf(fields: Partial<W>): { mask: bigint; bits: bigint } {
    const { path } = this.info;
    if (typeof fields !== 'object' || fields === null)
      throw wrongType(`${path}: fields`, 'an object', fields);
    let mask = 0n;
    let bits = 0n;
    for (const [name, value] of Object.entries<unknown>(fields)) {
      if (value === undefined) continue;
      const member = this.#member(name);
      const { info } = member;
      if (!info.access.writable) throw new RangeError(`${fieldTitle(this.info, info)} cannot be written`);
      mask |= member.mask;
      bits |= checkValue(`${path}.${info.name}`, value, info.bits, info.bits > 32) << BigInt(info.lsb);
    }
    return { mask, bits };
  }

  #targetOf(fields: Partial<R>): Target {
    const { path } = this.info;
    let mask = 0n;
    let wanted = 0n;
    const entries = Object.entries<unknown>(fields).filter(([, value]) => value !== undefined);
    for (const [name, value] of entries) {
      const { info, mask: own } = this.#member(name);
      if (!info.access.readable) throw new RangeError(`${fieldTitle(this.info, info)} cannot be read`);
      mask |= own;
      wanted |= checkValue(`${path}.${info.name}`, value, info.bits, info.bits > 32) << BigInt(info.lsb);
    }
    const [first, ...others] = entries;
    const field = first !== undefined && others.length === 0 ? this.#member(first[0]).info : undefined;
    return { mask, wanted, field };
  }

  #member(name: string): Member {
    const member = this.#members.find((one) => one.name === name);
    if (member !== undefined) return member;
    const names = this.#members.map((one) => one.name).join(', ');
    throw new RangeError(`${this.info.path} has no field ${name}; it has ${names}`);
  }

  #requireReadable(): void {
    if (!isReadable(this.info)) throw new RangeError(`${this.info.path} cannot be read: it is write-only`);
  }

  #requireWritable(): void {
    const { path } = this.info;
    if (!isWritable(this.info)) throw new RangeError(`${path} cannot be written: it is read-only`);
    if (!this.#port.readsBack || isReadSafe(this.info)) return;
    throw new UnsupportedError(
      `${path} changes when it is read, and config space reads back what is written: bind to device.region('config')`,
    );
  }

  #late({ mask, wanted, field }: Target, last: RegisterValue | undefined, timeoutMs: number): TimeoutError {
    const { path } = this.info;
    const error = new TimeoutError(`waiting for ${path}`, timeoutMs);
    if (last === undefined) return error;
    const value = BigInt(last);
    const was = `${path} was ${formatRegister(this.info, value)} after ${Math.round(timeoutMs)} ms`;
    if (field === undefined) {
      const hex = (bits: bigint): string => `0x${bits.toString(16)}`;
      error.message = `${path} stayed ${hex(value & mask)} under ${hex(mask)}, not ${hex(wanted)}; ${was}`;
    } else {
      const own = fieldValue(field, value);
      error.message = `${path}.${field.name} stayed ${valueName(field.values, own) ?? own}; ${was}`;
    }
    return error;
  }

  /** An error of this access alone, with the register's name. */
  #named(error: unknown): unknown {
    if (error instanceof RemoteError) error.message = `${this.info.path}: ${error.message}`;
    return error;
  }
}

/**
 * A field of a register.
 *
 * @example
 * ```ts
 * await ctrl.mode.write(Mode.FAST);
 * if ((await status.ready.read()) === 0) await status.ready.waitFor(1, { timeoutMs: 100 });
 * ```
 */
export class Field<R = RegisterValue, W = RegisterValue> {
  /** What the map says of it. */
  readonly info: FieldInfo;
  readonly #register: Register;
  readonly #name: string;

  /** @internal */
  constructor(register: Register, info: FieldInfo, name: string) {
    this.#register = register;
    this.info = info;
    this.#name = name;
  }

  /** Reads its register, whatever that does, and gives the field's value. @throws RangeError where it cannot be read. */
  async read(options?: CallOptions): Promise<R> {
    this.#requireReadable();
    return this.#of(await this.#register.read(options));
  }

  /** `read`, blocking. */
  readSync(options?: SyncCallOptions): R {
    this.#requireReadable();
    return this.#of(this.#register.readSync(options));
  }

  /** Writes it and leaves the other fields as they are: `modify` of the register, with this field alone. */
  async write(value: W, options?: CallOptions): Promise<void> {
    await this.#register.modify({ [this.#name]: value } as unknown as FieldValues, options);
  }

  /** `write`, blocking. */
  writeSync(value: W, options?: SyncCallOptions): void {
    this.#register.modifySync({ [this.#name]: value } as unknown as FieldValues, options);
  }

  /**
   * Reads until the field has this value. Where reads change the register, each of them does.
   * @throws TimeoutError after `timeoutMs` (5,000 where nothing is said): `STATUS.READY stayed 0; STATUS was 0x00000102 {busy, err=2}`.
   */
  async waitFor(value: R, options?: RegisterWaitOptions): Promise<void> {
    await this.#register.waitFor({ [this.#name]: value } as unknown as FieldValues, options);
  }

  /** `waitFor`, blocking. */
  waitForSync(value: R, options?: RegisterWaitSyncOptions): void {
    this.#register.waitForSync({ [this.#name]: value } as unknown as FieldValues, options);
  }

  #of(value: RegisterValue): R {
    return plain(fieldValue(this.info, BigInt(value)), this.info.bits) as R;
  }

  #requireReadable(): void {
    if (this.info.access.readable) return;
    throw new RangeError(`${fieldTitle(this.#register.info, this.info)} cannot be read`);
  }
}

/** Memory that nobody wakes. */
const NOBODY = new Int32Array(new SharedArrayBuffer(4));

/** As a number where the field is narrow enough. */
function plain(value: bigint, bits: number): RegisterValue {
  return bits > 32 ? value : Number(value);
}

/** As the port wants it. */
function plainOf(value: bigint, bits: number): RegisterValue {
  return bits === 64 ? value : Number(value);
}

/** A value that so many bits hold, given as a number or, for wide ones, as a bigint; true and false are 1 and 0. */
function checkValue(name: string, value: unknown, bits: number, isWide: boolean): bigint {
  const given = typeof value === 'boolean' && bits === 1 ? Number(value) : value;
  const most = (1n << BigInt(bits)) - 1n;
  if (isWide) {
    if (typeof given === 'bigint' && given >= 0n && given <= most) return given;
    throw notBigInteger(name, given, 0n, most);
  }
  if (typeof given === 'number' && Number.isInteger(given) && given >= 0 && given <= Number(most))
    return BigInt(given);
  throw notInteger(name, given, 0, Number(most));
}
