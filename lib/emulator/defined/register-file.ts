/**
 * The registers of a BAR: what they hold, and what reads and writes do to them by their map.
 *
 * An access touches bytes, so each effect has those bits of a field alone that the access has. Bits that no field has keep
 * their value of after a reset. Where a field that is only written shares bits with one that is read, each has its own.
 */
import { outOfRange } from '../../fields.js';
import type { Access } from '../../register-map/access.js';
import type { FieldInfo, RegisterInfo } from '../../register-map/map.js';
import type { PlacedRegister, RegisterPlacement } from '../../register-map/placement.js';
import { allBits, isReadable, isWritable, maskOf } from '../../register-map/values.js';
import { andThen, isPromise } from '../maybe-async.js';
import type { DeviceHandle } from './device-handle.js';
import type { DeviceValue, Named, RegisterBehaviour } from './behaviour.js';

/** A field, or a register without fields; `lsb` and `bits` are its place. */
interface Part {
  readonly name: string;
  readonly lsb: number;
  readonly bits: number;
  readonly mask: bigint;
  readonly access: Access;
  readonly field: FieldInfo | undefined;
  behaviour: RegisterBehaviour | undefined;
}

/** What happens beside a write that has been answered. */
export type Beside = (device: DeviceHandle, work: Promise<unknown>) => void;

/** A register, and what it holds. */
class Cell {
  readonly info: RegisterInfo;
  readonly offset: number;
  readonly parts: readonly Part[];
  readonly indexes: readonly number[];
  /** The bits that reads are answered with: those of no register before it at the same place. */
  readonly answered: bigint;
  /** The bits of parts that cannot be read, and of no others. */
  readonly unread: bigint;
  /** Of a register that has fields: beside theirs. */
  behaviour: RegisterBehaviour | undefined;
  value = 0n;
  /** Of parts that cannot be read. */
  written = 0n;
  /** Parts that were written once. */
  readonly locked = new Set<Part>();

  constructor({ register, offset }: PlacedRegister, answered: bigint) {
    this.info = register;
    this.offset = offset;
    this.answered = answered;
    this.indexes = [...register.path.matchAll(/\[(\d+)\]/g)].map(([, index]) => Number(index));
    const whole = { lsb: 0, bits: register.bits, mask: allBits(register) };
    const { path: name, access } = register;
    this.parts =
      register.fields.length === 0
        ? [{ name, ...whole, access, field: undefined, behaviour: undefined }]
        : register.fields.map((field) => ({
            name: `${name}.${field.name}`,
            lsb: field.lsb,
            bits: field.bits,
            mask: maskOf(field),
            access: field.access,
            field,
            behaviour: undefined,
          }));
    const masksOf = (readable: boolean): bigint =>
      this.parts.reduce((all, { access, mask }) => (access.readable === readable ? all | mask : all), 0n);
    this.unread = masksOf(false) & ~masksOf(true);
    this.reset();
  }

  reset(): void {
    this.value = this.written = this.info.reset ?? 0n;
    this.locked.clear();
  }

  /** The part of a field; of a register without fields the whole. */
  partOf(field: FieldInfo | undefined): Part | undefined {
    return this.parts.find((part) => part.field === field);
  }

  holds(part: Part): bigint {
    return ((part.access.readable ? this.value : this.written) & part.mask) >> BigInt(part.lsb);
  }

  keep(part: Part, bits: bigint): void {
    if (part.access.readable) this.value = (this.value & ~part.mask) | bits;
    else this.written = (this.written & ~part.mask) | bits;
  }
}

/** What holds the registers of a BAR. */
export class RegisterFile {
  readonly #cells = new Map<RegisterInfo, Cell>();
  readonly #placement: RegisterPlacement;
  readonly #beside: Beside;

  constructor(placement: RegisterPlacement, beside: Beside) {
    this.#placement = placement;
    this.#beside = beside;
    let readTo = 0;
    for (const placed of placement.registers) {
      const hidden = BigInt(Math.max(0, readTo - placed.offset) * 8);
      const answered = isReadable(placed.register) ? (allBits(placed.register) >> hidden) << hidden : 0n;
      this.#cells.set(placed.register, new Cell(placed, answered));
      if (answered !== 0n) readTo = Math.max(readTo, placed.offset + placed.register.bits / 8);
    }
  }

  /** Whether the register is one of these. */
  has(register: RegisterInfo): boolean {
    return this.#cells.has(register);
  }

  /** Adds what happens. */
  on({ register, field }: Named, behaviour: RegisterBehaviour): void {
    const cell = this.#cells.get(register);
    const target = cell?.partOf(field) ?? cell;
    if (target !== undefined) target.behaviour = { ...target.behaviour, ...behaviour };
  }

  get({ register, field }: Named): bigint {
    const cell = this.#cells.get(register)!;
    const part = cell.partOf(field);
    if (part !== undefined) return cell.holds(part);
    return (cell.value & ~cell.unread) | (cell.written & cell.unread);
  }

  /** @throws RangeError for a value that does not fit */
  set({ register, field }: Named, value: bigint): void {
    const cell = this.#cells.get(register)!;
    const bits = field?.bits ?? register.bits;
    if (value < 0n || value >> BigInt(bits) !== 0n) {
      const name = field === undefined ? register.path : `${register.path}.${field.name}`;
      throw outOfRange(`${name} must be an unsigned integer of ${bits} bits, got ${value}`);
    }
    const lsb = BigInt(field?.lsb ?? 0);
    if (field === undefined) cell.value = cell.written = value;
    else cell.keep(cell.partOf(field)!, value << lsb);
  }

  reset(): void {
    for (const cell of this.#cells.values()) cell.reset();
  }

  /** Bytes that no register has read as 0. */
  read(offset: number, count: number, device: DeviceHandle): Buffer | Promise<Buffer> {
    const bytes = Buffer.alloc(count);
    let done: void | Promise<void> = undefined;
    for (const { register } of this.#placement.at(this.#placement.region, offset, count)) {
      const cell = this.#cells.get(register)!;
      const lanes = lanesOf(cell, offset, count) & cell.answered;
      if (lanes === 0n) continue;
      done = andThen(done, () =>
        andThen(readCell(cell, lanes, device), (value) => put(bytes, cell, offset, value)),
      );
    }
    return andThen(done, () => bytes);
  }

  /** What no register has is lost. */
  write(offset: number, data: Uint8Array, device: DeviceHandle): void {
    for (const { register } of this.#placement.at(this.#placement.region, offset, data.length)) {
      const cell = this.#cells.get(register)!;
      if (!isWritable(register)) continue;
      writeCell(cell, take(data, cell, offset), lanesOf(cell, offset, data.length), device, this.#beside);
    }
  }
}

/** The bits of a register that an access has. */
function lanesOf({ info, offset: start }: Cell, offset: number, count: number): bigint {
  const first = Math.max(0, offset - start);
  const end = Math.min(info.bits / 8, offset + count - start);
  return ((1n << BigInt((end - first) * 8)) - 1n) << BigInt(first * 8);
}

/** Adds the register's bytes to those of an access. */
function put(bytes: Buffer, { info, offset: start }: Cell, offset: number, value: bigint): void {
  for (let i = 0; i < info.bits / 8; i++) {
    const at = start + i - offset;
    if (at >= 0 && at < bytes.length) bytes[at]! |= Number((value >> BigInt(i * 8)) & 0xffn);
  }
}

/** The register's bits in the bytes of an access; 0 where there are none. */
function take(bytes: Uint8Array, { info, offset: start }: Cell, offset: number): bigint {
  let value = 0n;
  for (let i = info.bits / 8 - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[start + i - offset] ?? 0);
  return value;
}

function readCell(cell: Cell, lanes: bigint, device: DeviceHandle): bigint | Promise<bigint> {
  let value: bigint | Promise<bigint> = cell.value & ~cell.unread;
  const whole = cell.behaviour?.read;
  if (whole !== undefined) {
    value = andThen(whole(device), (given) => fitting(cell.info.path, given, cell.info.bits));
  }
  for (const part of cell.parts) {
    const read = part.behaviour?.read;
    if (read === undefined || (part.mask & lanes) === 0n) continue;
    value = andThen(value, (before) =>
      andThen(
        read(device),
        (given) => (before & ~part.mask) | (fitting(part.name, given, part.bits) << BigInt(part.lsb)),
      ),
    );
  }
  return andThen(value, (read) => {
    for (const { access, mask } of cell.parts) {
      if (access.onRead === 'RC') cell.value &= ~(mask & lanes);
      else if (access.onRead === 'RS') cell.value |= mask & lanes;
    }
    return read & lanes;
  });
}

/** A mistake of the device's author is an error, not a value that is cut. */
function fitting(name: string, given: DeviceValue, bits: number): bigint {
  const isInteger = typeof given === 'bigint' || Number.isSafeInteger(given);
  const value = isInteger ? BigInt(given) : -1n;
  if (value >= 0n && value >> BigInt(bits) === 0n) return value;
  throw outOfRange(
    `what read of ${name} gives must be an unsigned integer of ${bits} bits, got ${String(given)}`,
  );
}

function writeCell(cell: Cell, data: bigint, lanes: bigint, device: DeviceHandle, beside: Beside): void {
  const before = new Map(cell.parts.map((part) => [part, cell.holds(part)]));
  const previous = plain(cell.value, cell.info.bits);
  const acted = cell.parts.filter((part) => writePart(cell, part, data, lanes));
  const { indexes } = cell;
  const whole = cell.behaviour?.write;
  const merged = plain((cell.value & ~lanes) | (data & lanes), cell.info.bits);
  const results = new Map<Part, Promise<unknown> | undefined>();
  let done: Promise<unknown> | undefined;
  try {
    for (const part of acted) {
      const value = plain(valueFor(cell, part, data, lanes), part.bits);
      const write = { name: part.name, indexes, previous: plain(before.get(part) ?? 0n, part.bits) };
      results.set(part, promiseIn(part.behaviour?.write?.(device, value, write)));
    }
    done = promiseIn(whole?.(device, merged, { name: cell.info.path, indexes, previous }));
  } finally {
    // Also where one of them has thrown: what the others began goes on, and what clears itself does so.
    if (done !== undefined) beside(device, done);
    for (const part of acted) {
      const own = results.get(part);
      if (own !== undefined) beside(device, own);
      if (part.access.selfClearing) takeBack(cell, part, own ?? done, device);
    }
  }
}

/** What an author's function gives may be anything: only a promise is waited for. */
function promiseIn(given: unknown): Promise<unknown> | undefined {
  return isPromise(given) ? given : undefined;
}

/** Does what a write does to the part; says whether it did anything that somebody is to be told of. */
function writePart(cell: Cell, part: Part, data: bigint, lanes: bigint): boolean {
  const { access } = part;
  const mask = part.mask & lanes;
  if (mask === 0n || !access.writable || (access.once && cell.locked.has(part))) return false;
  if (access.once) cell.locked.add(part);
  const old = cell.holds(part) << BigInt(part.lsb);
  const ones = data & mask;
  const zeros = ~data & mask;
  switch (access.onWrite) {
    case 'value':
      cell.keep(part, (old & ~mask) | ones);
      return !access.selfClearing || ones !== 0n;
    case 'W1C':
      cell.keep(part, old & ~ones);
      return ones !== 0n;
    case 'W1S':
      cell.keep(part, old | ones);
      return ones !== 0n;
    case 'W1T':
      cell.keep(part, old ^ ones);
      return ones !== 0n;
    case 'W0C':
      cell.keep(part, old & ~zeros);
      return zeros !== 0n;
    case 'W0S':
      cell.keep(part, old | zeros);
      return zeros !== 0n;
    case 'W0T':
      cell.keep(part, old ^ zeros);
      return zeros !== 0n;
    case 'WC':
      cell.keep(part, 0n);
      return true;
    case 'WS':
      cell.keep(part, part.mask);
      return true;
    case 'WM':
      // The map does not tell: it is for the author.
      return true;
  }
}

/** What a function is told of a write. */
function valueFor(cell: Cell, part: Part, data: bigint, lanes: bigint): bigint {
  const isKept = part.access.onWrite === 'value' && !part.access.selfClearing;
  return isKept ? cell.holds(part) : (data & lanes & part.mask) >> BigInt(part.lsb);
}

/** What clears itself does so when what it began is over. */
function takeBack(cell: Cell, part: Part, work: Promise<unknown> | undefined, device: DeviceHandle): void {
  const clear = (): void => {
    if (!device.isStale) cell.keep(part, 0n);
  };
  if (work === undefined) clear();
  else work.then(clear, clear);
}

/** A number where it has at most 32 bits. */
export function plain(value: bigint, bits: number): DeviceValue {
  return bits > 32 ? value : Number(value);
}
