/** Expectations of a device, within a time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ClosedError, TimeoutError } from '../errors.js';
import { notInteger, wrongType } from '../fields.js';
import { DmaBuffer, Vector } from '../index.js';
import * as option from '../options.js';
import type { Field, FieldValues, Register, RegisterValue } from '../registers/index.js';
import { valueName } from '../register-map/values.js';
import { ExpectationError } from './rig-error.js';

/** How long something may take. */
export interface WithinOptions {
  /** In milliseconds. Default 1,000; of registers 0, which is now. */
  within?: number | undefined;
}

/** How long an interrupt may take, and how many must come. */
export interface InterruptOptions extends WithinOptions {
  /** How many, at least. Default 1. */
  count?: number | undefined;
}

/** How long nothing may come. */
export interface NoInterruptOptions {
  /** In milliseconds. Default 50. */
  for?: number | undefined;
}

/** What a device is to have written. */
export interface DmaExpectation extends WithinOptions {
  /** What must be there; where nothing is said, anything else than when it was asked. */
  bytes?: Uint8Array | undefined;
}

/** Memory that a device writes: a buffer, or a part of one. */
export type DmaRange =
  DmaBuffer | { readonly buffer: DmaBuffer; readonly offset?: number; readonly length?: number };

const DEFAULT_WITHIN_MS = 1_000;
const DEFAULT_FOR_MS = 50;
const POLL_MS = 1;
const MOST_SHOWN = 32;

const INTERRUPT = new option.OptionTable<InterruptOptions>({
  within: option.timeout,
  count: option.wholeNumber(1),
});
const NO_INTERRUPT = new option.OptionTable<NoInterruptOptions>({ for: option.timeout });
const WITHIN = new option.OptionTable<WithinOptions>({ within: option.pause });
const DMA = new option.OptionTable<DmaExpectation>({ within: option.timeout, bytes: option.bytes });

function requireVector(caller: string, vector: Vector): void {
  if (!(vector instanceof Vector)) throw wrongType(`${caller}: vector`, 'a Vector', vector);
}

function titleOf({ index, subindex }: Vector): string {
  return `${['INTx', 'MSI', 'MSI-X', 'ERR', 'REQ'][index] ?? `interrupt ${index}`} ${subindex}`;
}

/**
 * Waits for interrupts, those that have come already included, and gives how many came.
 * @throws ExpectationError where they do not come in time; TypeError and RangeError for arguments that make no sense; ClosedError
 * where the device is closed.
 */
export async function expectInterrupt(vector: Vector, options: InterruptOptions = {}): Promise<number> {
  requireVector('expectInterrupt', vector);
  INTERRUPT.check('expectInterrupt', options);
  const { within = DEFAULT_WITHIN_MS, count = 1 } = options;
  const deadline = performance.now() + within;
  let came = 0;
  while (came < count) {
    const left = Math.max(deadline - performance.now(), Number.MIN_VALUE);
    try {
      came += await vector.wait({ timeoutMs: left });
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
      const wanted = count === 1 ? 'did not come' : `came ${came} times, not ${count},`;
      throw new ExpectationError(`${titleOf(vector)} ${wanted} within ${within} ms`, came, count, {
        cause: error,
      });
    }
  }
  return came;
}

/**
 * Waits, and fails where an interrupt comes meanwhile, or has come before.
 * @throws ExpectationError where one comes; TypeError and RangeError for arguments that make no sense.
 */
export async function expectNoInterrupt(vector: Vector, options: NoInterruptOptions = {}): Promise<void> {
  requireVector('expectNoInterrupt', vector);
  NO_INTERRUPT.check('expectNoInterrupt', options);
  const { for: ms = DEFAULT_FOR_MS } = options;
  const begun = performance.now();
  let count: number;
  try {
    count = await vector.wait({ timeoutMs: ms });
  } catch (error) {
    if (error instanceof TimeoutError) return;
    throw error;
  }
  const after = (performance.now() - begun).toFixed(1);
  throw new ExpectationError(
    `${titleOf(vector)} came ${count} times, after ${after} ms; none was expected within ${ms} ms`,
    count,
    0,
  );
}

/** A value of a register or field, the name of a field's value, or values of a register's fields. */
export type ExpectedValue = RegisterValue | string | boolean | FieldValues;

/**
 * Reads until the register has the value.
 * @throws ExpectationError that says what it was instead.
 */
export async function expectValue(
  name: string,
  register: Register,
  field: Field | undefined,
  expected: ExpectedValue,
  options: WithinOptions = {},
): Promise<void> {
  WITHIN.check('expectRegister', options);
  const { within = 0 } = options;
  const wanted = wantedOf(register, field, expected);
  const deadline = performance.now() + within;
  for (;;) {
    const value = await register.read();
    if ((BigInt(value) & wanted.mask) === wanted.value) return;
    if (performance.now() >= deadline) throw notAs(name, register, field, { value, expected, within });
    await sleep(POLL_MS);
  }
}

interface Wanted {
  readonly mask: bigint;
  readonly value: bigint;
}

function wantedOf(register: Register, field: Field | undefined, expected: ExpectedValue): Wanted {
  const { path, bits } = register.info;
  if (typeof expected === 'object' && expected !== null) {
    let wanted: Wanted = { mask: 0n, value: 0n };
    for (const [name, value] of Object.entries(expected)) {
      const one = wantedOf(register, register.field(name), value);
      wanted = { mask: wanted.mask | one.mask, value: wanted.value | one.value };
    }
    return wanted;
  }
  const { lsb = 0, bits: width = bits, values = [] } = field?.info ?? {};
  const title = field === undefined ? path : `${path}.${field.info.name}`;
  const value = numberOf(title, expected, values);
  const most = (1n << BigInt(width)) - 1n;
  if (value < 0n || value > most)
    throw notInteger(`expectRegister: ${title}`, Number(value), 0, Number(most));
  return { mask: most << BigInt(lsb), value: value << BigInt(lsb) };
}

function numberOf(
  title: string,
  expected: RegisterValue | string | boolean,
  values: readonly { readonly name: string; readonly value: bigint }[],
): bigint {
  if (typeof expected === 'bigint') return expected;
  if (typeof expected === 'boolean') return expected ? 1n : 0n;
  if (typeof expected === 'number' && Number.isSafeInteger(expected)) return BigInt(expected);
  const named = typeof expected === 'string' ? values.find(({ name }) => name === expected) : undefined;
  if (named !== undefined) return named.value;
  const names = values.length === 0 ? '' : `, or one of ${values.map(({ name }) => name).join(', ')}`;
  throw wrongType(`expectRegister: ${title}`, `an integer${names}`, expected);
}

function notAs(
  name: string,
  register: Register,
  field: Field | undefined,
  { value, expected, within }: { value: RegisterValue; expected: ExpectedValue; within: number },
): ExpectationError {
  const whole = `${register.info.path} is ${register.format(value)}`;
  const after = within === 0 ? '' : ` after ${within} ms`;
  if (field !== undefined) {
    const own = BigInt.asUintN(field.info.bits, BigInt(value) >> BigInt(field.info.lsb));
    const shown = valueName(field.info.values, own) ?? own.toString();
    const message = `${name} is ${shown}, not ${shownValue(expected)}${after}; ${whole}`;
    return new ExpectationError(message, typeof expected === 'string' ? shown : Number(own), expected);
  }
  const actual = typeof expected === 'object' ? register.decode(value) : value;
  return new ExpectationError(`${whole}, not ${shownValue(expected)}${after}`, actual, expected);
}

function shownValue(value: ExpectedValue): string {
  if (typeof value === 'object')
    return `{${Object.entries(value)
      .map(([name, one]) => `${name}=${one}`)
      .join(', ')}}`;
  return typeof value === 'number' && value > 9 ? `0x${value.toString(16)}` : String(value);
}

/**
 * Waits until the device has written the memory. To be called before the device is told to, where `bytes` are not said.
 * @throws ExpectationError where it does not in time; ClosedError where the buffer is closed; TypeError and RangeError for
 * arguments that make no sense.
 */
export async function expectDma(range: DmaRange, options: DmaExpectation = {}): Promise<void> {
  DMA.check('expectDma', options);
  const { within = DEFAULT_WITHIN_MS, bytes } = options;
  const part = partOf(range);
  const before = Buffer.from(part());
  if (bytes !== undefined && (bytes.length === 0 || bytes.length > before.length)) {
    throw notInteger('expectDma: bytes.length', bytes.length, 1, before.length);
  }
  const isDone = (): boolean =>
    bytes === undefined ? !part().equals(before) : part().subarray(0, bytes.length).equals(bytes);
  const deadline = performance.now() + within;
  while (!isDone()) {
    if (performance.now() >= deadline) {
      const now = part().subarray(0, Math.min(MOST_SHOWN, bytes?.length ?? MOST_SHOWN));
      const wanted = bytes === undefined ? 'nothing was written' : 'what was expected was not written';
      const what = `${wanted} to ${before.length} bytes of DMA memory within ${within} ms; it has ${now.toString('hex')}`;
      throw new ExpectationError(what, now.toString('hex'), bytes && Buffer.from(bytes).toString('hex'));
    }
    await sleep(POLL_MS);
  }
}

function partOf(range: DmaRange): () => Buffer {
  const { buffer, offset = 0, length } = range instanceof DmaBuffer ? { buffer: range } : range;
  if (!(buffer instanceof DmaBuffer))
    throw wrongType('expectDma: range', 'a DmaBuffer, or { buffer, offset, length }', range);
  const count = length ?? buffer.size - offset;
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > buffer.size)
    throw notInteger('expectDma: offset', offset, 0, buffer.size);
  if (!Number.isSafeInteger(count) || count < 1 || count > buffer.size - offset)
    throw notInteger('expectDma: length', count, 1, buffer.size - offset);
  return () => {
    if (buffer.isClosed) throw new ClosedError('the DMA buffer is closed');
    return buffer.bytes.subarray(offset, offset + count);
  };
}
