/**
 * When two messages are the same: all of them but the id, and but the fields that are to be ignored. What a capture has
 * of fds is how many came, so that is what counts.
 */
import {
  Command,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  commandName,
} from '../protocol/constants.js';
import { headerCommand, headerErrno, headerFlags } from '../protocol/header.js';
import { describe, formatField, type FieldValue, type Fields } from '../trace/index.js';

/** A message, whole, and how many fds came with it. */
export interface Comparable {
  bytes: Buffer;
  fds: number;
}

/** Fields by their full names, `capabilities.max_msg_fds`, as text. `data` is all of the data. */
export type FieldTexts = ReadonlyMap<string, string>;

const IGNORE = /^(?<command>[A-Z][A-Z_]*)\.(?<field>[a-z][\w.[\]]*)$/;
const COMMANDS: ReadonlySet<string> = new Set(Object.keys(Command));

export class Comparison {
  /** Field names by command. */
  readonly #ignored = new Map<string, Set<string>>();

  /** `ignore` names fields: `DMA_READ.data`. @throws TypeError for what names none. */
  constructor(ignore: readonly string[]) {
    for (const name of ignore) {
      const { command = '', field = '' } = IGNORE.exec(name)?.groups ?? {};
      if (!COMMANDS.has(command)) {
        throw new TypeError(`'${name}' names no field: a command and a field, such as DMA_READ.data`);
      }
      this.#ignored.set(command, (this.#ignored.get(command) ?? new Set()).add(field));
    }
  }

  /** A text that is the same for messages that are. */
  keyOf({ bytes, fds }: Comparable): string {
    const command = headerCommand(bytes, 0);
    const flags = headerFlags(bytes, 0);
    // What a client can do is no part of what it does: the reply tells what counts of it.
    if (command === Command.VERSION && (flags & HEADER_FLAG_TYPE_MASK) !== HEADER_FLAG_REPLY)
      return `VERSION ${flags}`;
    const ignored = this.#ignored.get(commandName(command));
    const texts = ignored === undefined ? undefined : fieldTexts({ bytes, fds });
    if (ignored === undefined || texts === undefined) {
      return `${command} ${flags} ${headerErrno(bytes, 0)} ${fds} ${bytes.toString('latin1', HEADER_SIZE)}`;
    }
    const kept = [...texts].filter(([name]) => !isIgnored(name, ignored));
    return `${command} ${JSON.stringify(kept)}`;
  }

  isSame(one: Comparable, other: Comparable): boolean {
    return this.keyOf(one) === this.keyOf(other);
  }

  isIgnored(command: string, field: string): boolean {
    const ignored = this.#ignored.get(command);
    return ignored !== undefined && isIgnored(field, ignored);
  }
}

/** A name stands for all that is in it. */
function isIgnored(field: string, ignored: ReadonlySet<string>): boolean {
  return [...ignored].some(
    (name) => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`),
  );
}

/** What a message says, field by field; its fds, flags and errno among them. Malformed ones are `data` alone. */
export function fieldTexts({ bytes, fds }: Comparable): FieldTexts {
  const description = describe(bytes, { previewBytes: bytes.length });
  const { command, fields, flags, errno, data, malformed } = description;
  const texts = new Map<string, string>([['flags of the header', flags.join('|') || '0']]);
  if (errno !== undefined) texts.set('errno', errno);
  for (const [name, value] of Object.entries(fields)) addTexts(command, name, value, texts);
  if (malformed !== undefined) texts.set('malformed', malformed);
  if (data !== undefined) texts.set('data', data.preview);
  texts.set('fds', String(fds));
  return texts;
}

function addTexts(command: string, name: string, value: FieldValue, into: Map<string, string>): void {
  if (isFields(value)) {
    for (const [inner, field] of Object.entries(value)) addTexts(command, `${name}.${inner}`, field, into);
  } else if (isList(value) && value.some((entry) => typeof entry === 'object')) {
    value.forEach((entry, i) => addTexts(command, `${name}[${i}]`, entry, into));
  } else {
    const last = name.slice(name.lastIndexOf('.') + 1);
    into.set(name, formatField(command, last, value));
  }
}

function isList(value: FieldValue): value is readonly FieldValue[] {
  return Array.isArray(value);
}

function isFields(value: FieldValue): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
