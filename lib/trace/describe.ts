/**
 * A message as a plain object, for people and for JSON. Nothing here throws for the bytes' sake: what the codec refuses
 * is described as `malformed`, with the codec's reason.
 */
import { VfioUserError, errnoName } from '../errors.js';
import { byteArray } from '../fields.js';
import * as option from '../options.js';
import {
  commandName,
  HEADER_FLAG_ERROR,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  headerFlagNames,
} from '../protocol/constants.js';
import {
  decodeHeader,
  headerCommand,
  headerErrno,
  headerFlags,
  headerId,
  headerSize,
} from '../protocol/header.js';
import type { Direction } from './traced-message.js';
import type { Fields, Payload } from './payload-fields.js';
import { describePayload } from './payload-decoders.js';

export type { Fields, FieldValue } from './payload-fields.js';

/** What a message says, as a plain object: for people and for JSON. */
export interface Description {
  /** `REGION_READ`; `command 99` where the number has no name. */
  command: string;
  /** Whether it is a command or the reply to one. */
  kind: 'request' | 'reply';
  /** The message id of the header: a reply has that of its request. */
  id: number;
  /** Of the whole message, as its header says, in bytes. */
  size: number;
  /** The names of the header's flags; a bit without name as a hexadecimal number. */
  flags: string[];
  /** The errno of an error reply by name; `none` where the error bit came with errno 0. */
  errno?: string;
  /** What the payload says, under the specification's names. Flags and enumerations are names, as far as they have any. */
  fields: Fields;
  /** The payload's part that is not fields: data of an access, a bitmap, or what nothing is known about. */
  data?: Preview;
  /** The fds that came with it, by their numbers. */
  fds: readonly number[];
  /** Who sent it, where that was said. */
  direction?: Direction;
  /** What is wrong with the bytes. Then there are no fields, and the data is the whole payload. */
  malformed?: string;
}

/** The beginning of some bytes. */
export interface Preview {
  /** How many there are. */
  length: number;
  /** The first of them, two hexadecimal digits each. */
  preview: string;
}

/** What `describe` takes besides the bytes. */
export interface DescribeOptions {
  /** Who sent the message. */
  direction?: Direction | undefined;
  /** The numbers of the fds that came with it. Default none. */
  fds?: readonly number[] | undefined;
  /** The most bytes of data that are shown. Default 32; `Infinity` for all. */
  previewBytes?: number | undefined;
}

/** How many bytes of data `describe` shows where nothing is said. */
export const DEFAULT_PREVIEW_BYTES = 32;

const OPTIONS = new option.OptionTable<DescribeOptions>({
  direction: option.oneOf('sent', 'received'),
  fds: option.listOf('numbers of fds', option.unchecked),
  previewBytes: option.limit,
});

/**
 * Describes the message that `bytes` are, from its header to its end. It does not throw for what they say.
 * @throws TypeError and RangeError for arguments that make no sense.
 *
 * @example
 * ```ts
 * const { command, kind, fields } = describe(message.bytes);
 * console.log(command, kind, fields); // REGION_READ request { offset: 28n, region: 0, count: 4 }
 * ```
 */
export function describe(bytes: Uint8Array, options: DescribeOptions = {}): Description {
  byteArray('describe: bytes', bytes);
  OPTIONS.check('describe', options);
  const { direction, fds = [], previewBytes = DEFAULT_PREVIEW_BYTES } = options;
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const payload = decode(message);
  const { data } = payload;
  return {
    ...headerOf(message),
    fields: payload.fields,
    ...(data !== undefined && { data: preview(message.subarray(...data), previewBytes) }),
    fds,
    ...(direction !== undefined && { direction }),
    ...(payload.malformed !== undefined && { malformed: payload.malformed }),
  };
}

/** The header's fields, whether they are sound or not. */
function headerOf(
  message: Buffer,
): Pick<Description, 'command' | 'kind' | 'id' | 'size' | 'flags' | 'errno'> {
  if (message.length < HEADER_SIZE)
    return { command: 'no header', kind: 'request', id: 0, size: 0, flags: [] };
  const flags = headerFlags(message, 0);
  const errno = headerErrno(message, 0);
  return {
    command: commandName(headerCommand(message, 0)),
    kind: (flags & HEADER_FLAG_TYPE_MASK) === HEADER_FLAG_REPLY ? 'reply' : 'request',
    id: headerId(message, 0),
    size: headerSize(message, 0),
    flags: headerFlagNames(flags),
    ...((flags & HEADER_FLAG_ERROR) !== 0 && { errno: errno === 0 ? 'none' : errnoName(errno) }),
  };
}

function decode(message: Buffer): Payload & { malformed?: string } {
  try {
    return decodeMessage(message);
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw error;
    return { ...rest(message), malformed: error.message };
  }
}

function decodeMessage(message: Buffer): Payload & { malformed?: string } {
  const { size, flags, command } = decodeHeader(message, 0);
  if (size > message.length) {
    return { ...rest(message), malformed: `only ${message.length} of ${size} bytes are here` };
  }
  if (size < message.length) {
    return { ...rest(message), malformed: `the header says ${size} bytes, these are ${message.length}` };
  }
  // What an error reply brings besides the header has no meaning; some servers send one.
  if ((flags & HEADER_FLAG_ERROR) !== 0) return rest(message);
  return describePayload(command, (flags & HEADER_FLAG_REPLY) !== 0, message, HEADER_SIZE, message.length);
}

/** Everything behind the header as data. */
function rest(message: Buffer): Payload {
  return message.length > HEADER_SIZE ? { fields: {}, data: [HEADER_SIZE, message.length] } : { fields: {} };
}

function preview(bytes: Buffer, most: number): Preview {
  return { length: bytes.length, preview: bytes.toString('hex', 0, Math.min(bytes.length, most)) };
}
