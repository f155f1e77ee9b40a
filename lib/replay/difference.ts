/** Where a client left the recording, for people and for programs. */
import { HEADER_SIZE, commandName } from '../protocol/constants.js';
import { headerCommand } from '../protocol/header.js';
import { describe, formatDescription } from '../trace/index.js';
import { fieldTexts, type Comparable, type Comparison } from './comparison.js';
import type { RecordedMessage } from './exchange.js';

/**
 * `changed`: another request came than is recorded. `beyond`: a request came, and the recording has none like it, or has
 * ended. `answer`: a reply to the server's request is another one. `silence`: none came in time. `skipped`: a request
 * was left out.
 */
export type DifferenceKind = 'changed' | 'beyond' | 'answer' | 'silence' | 'skipped';

/** A field that two messages have different values in. */
export interface FieldDifference {
  /** Its name, `flags` or `capabilities.max_msg_fds`. */
  field: string;
  /** As text; undefined where the recorded message has no such field. */
  expected: string | undefined;
  /** As text; undefined where the message that came has no such field. */
  received: string | undefined;
}

/** Where the data of two messages begins to differ. */
export interface DataDifference {
  /** Bytes from the data's beginning. */
  offset: number;
  /** Bytes of all data. */
  expectedLength: number;
  /** Bytes of all data that came. */
  receivedLength: number;
  /** Up to 16 bytes from there on, in hexadecimal. */
  expected: string;
  /** Up to 16 bytes from `offset` on of what came, in hexadecimal. */
  received: string;
}

/** Where a client did something else than is recorded. */
export interface Difference {
  /** What is different. */
  kind: DifferenceKind;
  /** Which message of the recording, as `capture show` counts them; undefined where there is none to compare with. */
  number: number | undefined;
  /** The recorded message as a line. */
  expected: string | undefined;
  /** The message that came as a line. */
  received: string | undefined;
  /** In the order of the message. */
  fields: readonly FieldDifference[];
  /** Where the data differs; undefined where it does not, or is not compared. */
  data: DataDifference | undefined;
}

const SHOWN_BYTES = 16;

export function differenceOf(
  kind: DifferenceKind,
  expected: RecordedMessage | undefined,
  received: Comparable | undefined,
  comparison: Comparison,
): Difference {
  const difference = {
    kind,
    number: expected?.number,
    expected: expected === undefined ? undefined : lineOf(expected),
    received: received === undefined ? undefined : lineOf(received),
  };
  if (expected === undefined || received === undefined) return { ...difference, fields: [], data: undefined };
  return {
    ...difference,
    fields: fieldDifferences(expected, received, comparison),
    data: dataDifference(expected, received, comparison),
  };
}

/** Ids differ from run to run, so the line has none. */
function lineOf({ bytes, fds }: Comparable): string {
  if (bytes.length < HEADER_SIZE) return `${bytes.length} bytes`;
  const line = formatDescription(describe(bytes)).replace(/^#\d+ /, '');
  return fds === 0 ? line : `${line} with ${fds} ${fds === 1 ? 'fd' : 'fds'}`;
}

function fieldDifferences(
  expected: Comparable,
  received: Comparable,
  comparison: Comparison,
): FieldDifference[] {
  const [commandBefore, commandNow] = [commandOf(expected), commandOf(received)];
  // Fields of different commands have nothing to do with each other.
  if (commandBefore !== commandNow) {
    return [{ field: 'command', expected: commandBefore, received: commandNow }];
  }
  const before = fieldTexts(expected);
  const now = fieldTexts(received);
  const names = new Set([...before.keys(), ...now.keys()]);
  names.delete('data');
  return [...names]
    .filter((name) => before.get(name) !== now.get(name) && !comparison.isIgnored(commandNow, name))
    .map((field) => ({ field, expected: before.get(field), received: now.get(field) }));
}

function dataDifference(
  expected: Comparable,
  received: Comparable,
  comparison: Comparison,
): DataDifference | undefined {
  const command = commandOf(received);
  if (commandOf(expected) !== command || comparison.isIgnored(command, 'data')) return undefined;
  const [before, now] = [dataOf(expected), dataOf(received)];
  if (before.equals(now)) return undefined;
  let offset = 0;
  while (offset < before.length && before[offset] === now[offset]) offset++;
  return {
    offset,
    expectedLength: before.length,
    receivedLength: now.length,
    expected: before.toString('hex', offset, offset + SHOWN_BYTES),
    received: now.toString('hex', offset, offset + SHOWN_BYTES),
  };
}

function dataOf(message: Comparable): Buffer {
  return Buffer.from(fieldTexts(message).get('data') ?? '', 'hex');
}

function commandOf({ bytes }: Comparable): string {
  return commandName(headerCommand(bytes, 0));
}

const HEADLINES: Readonly<Record<DifferenceKind, (message: string) => string>> = {
  changed: (message) => `a request different from ${message}`,
  beyond: (message) => `a request that the recording does not have (the nearest is ${message})`,
  answer: (message) => `a reply different from ${message}`,
  silence: (message) => `no reply in time (${message} is recorded)`,
  skipped: (message) => `${message} was skipped`,
};

/** The first line says what, the others how. */
export function formatDifference(difference: Difference): string {
  const { number, kind, expected, received, fields, data } = difference;
  const headline =
    number === undefined
      ? 'a request after the end of the recording, or unlike all that are left of it'
      : HEADLINES[kind](`message ${number}`);
  const lines = [headline];
  if (expected !== undefined) lines.push(`  recorded  ${expected}`);
  if (received !== undefined) lines.push(`  received  ${received}`);
  for (const { field, expected: before = 'nothing', received: now = 'nothing' } of fields) {
    lines.push(`  ${field}: recorded ${before}, received ${now}`);
  }
  if (data !== undefined) lines.push(`  data from byte ${data.offset} on: ${formatData(data)}`);
  return lines.join('\n');
}

function formatData({ offset, expected, expectedLength, received, receivedLength }: DataDifference): string {
  const shown = (hex: string, length: number) =>
    hex === '' ? `the end at ${length}` : hex + (offset + hex.length / 2 < length ? '…' : '');
  const lengths =
    expectedLength === receivedLength
      ? `of ${receivedLength} bytes`
      : `of ${expectedLength} and ${receivedLength} bytes`;
  return `recorded ${shown(expected, expectedLength)}, received ${shown(received, receivedLength)} (${lengths})`;
}
