/**
 * A message as one line of text:
 *
 * ```
 *   0.001204 nvme.sock → #7 REGION_READ offset=0x1c region=0 count=4
 *   0.001226 nvme.sock ← #7 REGION_READ reply offset=0x1c region=0 count=4 data=01000000 after 22.4µs
 *   0.001301 nvme.sock → #8 DMA_MAP argsz=32 flags=READ|WRITE offset=0x0 address=0x100000 size=0x200000 fds=[21]
 *   0.001344 nvme.sock ← #8 DMA_MAP reply EINVAL after 43.0µs
 *   0.001390 nvme.sock ← interrupt index=2 subindex=1 count=1
 * ```
 */
import { wrongType } from '../fields.js';
import * as option from '../options.js';
import { DEFAULT_PREVIEW_BYTES, describe, type Description, type Preview } from './describe.js';
import { LatencyTracker } from './latency.js';
import type { TracedInterrupt, TracedMessage } from './traced-message.js';
import type { Fields, FieldValue } from './payload-fields.js';

/** What registers are called: a `RegisterPlacement` of `vfio-user/registers` is one. */
export interface TraceRegisters {
  /** What an access of so many bytes is called; undefined where no register is. */
  nameAt(region: number, offset: number, length: number): string | undefined;
  /** The same, and what the bytes say. */
  describe(region: number, offset: number, data: Uint8Array): string | undefined;
}

/** How lines are made. */
export interface LineOptions {
  /** The most bytes of data in a line. Default 32; `Infinity` for all. */
  previewBytes?: number | undefined;
  /** Names of registers, at the end of the lines of accesses. */
  registers?: TraceRegisters | undefined;
}

/** The check of `registers`. */
export const registersCheck: option.Check = (value, caller, name) => {
  const { nameAt, describe } = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  if (typeof nameAt === 'function' && typeof describe === 'function') return undefined;
  return wrongType(`${caller}: ${name}`, 'a RegisterPlacement', value);
};

const OPTIONS = new option.OptionTable<LineOptions>({
  previewBytes: option.limit,
  registers: registersCheck,
});

/** The bytes of the widest register. */
const WIDEST_REGISTER = 8;

/** What people read in hexadecimal; all other numbers are counts and indexes. */
const HEXADECIMAL = new Set([
  'address',
  'datamatch',
  'fd_offset',
  'iova',
  'length',
  'offset',
  'page_size',
  'pgsize',
  'shadow_offset',
  'size',
  'subtype',
  'type',
  'user_data',
]);
/** The stream of migration data is counted, not addressed. */
const COUNTED_COMMANDS = new Set(['MIG_DATA_READ', 'MIG_DATA_WRITE']);
const NO_NAMES: ReadonlySet<string> = new Set();
/** A list may have thousands of entries, version data 64 KiB: a line shows their beginning. */
const MAX_LIST = 16;
const MAX_TEXT = 1_000;
/** Said in other words than by their names. */
const IMPLIED_FLAGS = new Set(['REPLY', 'ERROR']);

/**
 * Makes lines of the messages of one connection, or of one capture: times count from the first.
 *
 * @example
 * ```ts
 * const formatter = new LineFormatter();
 * for await (const message of new CaptureReader('dev.pcapng')) console.log(formatter.format(message));
 * ```
 */
export class LineFormatter {
  readonly #previewBytes: number;
  readonly #registers: TraceRegisters | undefined;
  readonly #latencies = new LatencyTracker();
  #start: bigint | undefined;

  /** @throws TypeError and RangeError for options that make no sense. */
  constructor(options: LineOptions = {}) {
    OPTIONS.check('LineFormatter', options);
    this.#previewBytes = options.previewBytes ?? DEFAULT_PREVIEW_BYTES;
    this.#registers = options.registers;
  }

  /** The line for `message`, without a line break. To be called once for each, in order. */
  format(message: TracedMessage): string {
    const { direction, fds, bytes, note } = message;
    const description = describe(bytes, { direction, fds, previewBytes: this.#previewBytes });
    const arrow = direction === 'sent' ? '→' : '←';
    const latency = this.#latencies.latencyOf(message);
    const register = registerOf(bytes, this.#registers);
    return printable(
      `${this.#begin(message)} ${arrow} ${formatDescription(description)}` +
        (latency === undefined ? '' : ` after ${formatDuration(latency)}`) +
        (note === undefined ? '' : ` (${note})`) +
        (register === undefined ? '' : ` ${register}`),
    );
  }

  /** The line for an interrupt. */
  formatInterrupt(interrupt: TracedInterrupt): string {
    const { index, subindex, count } = interrupt;
    const text = `${this.#begin(interrupt)} ← interrupt index=${index} subindex=${subindex} count=${count}`;
    return printable(text);
  }

  /** The line for a stream that has ended. */
  formatEnd(socket: string, time: bigint, reason: Error): string {
    return printable(`${this.#begin({ socket, time })} ended: ${reason.message}`);
  }

  #begin({ socket, time }: { socket: string; time: bigint }): string {
    this.#start ??= time;
    return `${formatSeconds(time - this.#start).padStart(10)} ${shortName(socket)}`;
  }
}

/** Which register an access is of, and what it says where the message has the data. */
export function registerOf(message: Buffer, registers: TraceRegisters | undefined): string | undefined {
  if (registers === undefined) return undefined;
  const { command, fields, data } = describe(message, { previewBytes: WIDEST_REGISTER });
  if (command !== 'REGION_READ' && command !== 'REGION_WRITE') return undefined;
  const [region, offset, count] = [fields['region'], fields['offset'], fields['count']].map(Number);
  if (region === undefined || offset === undefined || count === undefined || Number.isNaN(offset))
    return undefined;
  const isWhole = data !== undefined && data.length === count && count <= WIDEST_REGISTER;
  if (isWhole) return registers.describe(region, offset, Buffer.from(data.preview, 'hex'));
  return registers.nameAt(region, offset, count);
}

/** Everything of a message but when and where. */
export function formatDescription(description: Description): string {
  const { command, kind, id, flags, errno, fields, data, fds, malformed } = description;
  const words = [`#${id}`, command];
  if (kind === 'reply') words.push('reply');
  const unusual = flags.filter((flag) => !IMPLIED_FLAGS.has(flag));
  if (unusual.length > 0) words.push(unusual.join('|'));
  if (errno !== undefined) words.push(errno === 'none' ? 'error without errno' : errno);
  if (malformed !== undefined) words.push(`MALFORMED (${malformed})`);
  words.push(...formatFields(fields, COUNTED_COMMANDS.has(command) ? NO_NAMES : HEXADECIMAL));
  if (data !== undefined) words.push(`data=${formatData(data)}`);
  if (fds.length > 0) words.push(`fds=[${fds.join(' ')}]`);
  return words.join(' ');
}

/** The value of one of a message's fields, as lines show it. */
export function formatField(command: string, name: string, value: FieldValue): string {
  const hexadecimal = COUNTED_COMMANDS.has(command) ? NO_NAMES : HEXADECIMAL;
  return printable(formatValue(value, hexadecimal.has(name), hexadecimal));
}

function formatFields(fields: Fields, hexadecimal: ReadonlySet<string>): string[] {
  return Object.entries(fields).map(([name, value]) => {
    // The peer's own words: as they are, and not mixed up with ours.
    if (name === 'version_data') return `${name}=${cutText(JSON.stringify(value))}`;
    return `${name}=${formatValue(value, hexadecimal.has(name), hexadecimal)}`;
  });
}

function formatValue(value: FieldValue, asHex: boolean, hexadecimal: ReadonlySet<string>): string {
  if (typeof value === 'number' || typeof value === 'bigint') {
    return asHex ? `0x${value.toString(16)}` : value.toString();
  }
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return String(value);
  if (isList(value)) return formatList(value, asHex, hexadecimal);
  return `{${formatFields(value, hexadecimal).join(' ')}}`;
}

/** A list of words is the names of flags. */
function formatList(list: readonly FieldValue[], asHex: boolean, hexadecimal: ReadonlySet<string>): string {
  if (list.every((value) => typeof value === 'string')) return list.length === 0 ? '0' : list.join('|');
  const shown = list.slice(0, MAX_LIST).map((value) => formatValue(value, asHex, hexadecimal));
  if (list.length > MAX_LIST) shown.push(`… ${list.length - MAX_LIST} more`);
  return `[${shown.join(' ')}]`;
}

function isList(value: readonly FieldValue[] | Fields): value is readonly FieldValue[] {
  return Array.isArray(value);
}

function formatData({ length, preview }: Preview): string {
  return length * 2 === preview.length ? preview : `${preview}… (${length} bytes)`;
}

function cutText(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… (${text.length} characters)`;
}

/** Seconds with microseconds. */
export function formatSeconds(nanoseconds: bigint): string {
  const micros = nanoseconds / 1_000n;
  const sign = micros < 0n ? '-' : '';
  const digits = (micros < 0n ? -micros : micros).toString().padStart(7, '0');
  return `${sign}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}

/** `22.4µs`, `1.204ms`, `5.000204s`. */
export function formatDuration(nanoseconds: bigint): string {
  const value = Number(nanoseconds);
  if (Math.abs(value) < 1e6) return `${(value / 1e3).toFixed(1)}µs`;
  if (Math.abs(value) < 1e9) return `${(value / 1e6).toFixed(3)}ms`;
  return `${(value / 1e9).toFixed(6)}s`;
}

/** Only the file name of a path, which distinguishes the lines of several devices. */
function shortName(socket: string): string {
  return socket.slice(socket.lastIndexOf('/') + 1);
}

/** Control characters, and those that turn the direction of text: a server must not steer the terminal. */
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
