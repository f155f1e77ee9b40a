/**
 * The 16 bytes in front of every message ("Header").
 *
 * ```
 *  0        2        4                 8                 12                16
 *  | id u16 | cmd u16|    size u32     |    flags u32    |    errno u32    |
 * ```
 *
 * `size` counts the header. `flags` are the type in bits 0 to 3, NO_REPLY in bit 4 and ERROR in bit 5; `errno` only
 * has a meaning beside ERROR, and may be 0 even there. The functions on single fields are for the hot path: they
 * check nothing but that the bytes exist.
 */
import { integer } from '../fields.js';
import { ProtocolError } from '../errors.js';
import { checkBuffer, readUInt16, readUInt32, writeUInt16, writeUInt32 } from './bytes.js';
import {
  commandName,
  HEADER_FLAG_COMMAND,
  HEADER_FLAG_REPLY,
  HEADER_FLAG_TYPE_MASK,
  HEADER_SIZE,
  HEADER_SIZE_AT,
} from './constants.js';

/** A decoded header. */
export interface Header {
  /** Message id, 16 bits, chosen by the sender of the command. */
  id: number;
  /** Which command: `Command`. */
  command: number;
  /** Bytes of the whole message, the header's 16 included. */
  size: number;
  /** `HEADER_FLAG_…` bits. */
  flags: number;
  /** A positive errno, or 0. */
  errno: number;
}

/** Writes a header to `into[at..at+16)`. Hot. @throws TypeError, RangeError for what a field cannot hold. */
export function writeHeader(
  into: Buffer,
  at: number,
  id: number,
  command: number,
  size: number,
  flags: number,
  errno: number,
): void {
  writeUInt16(into, at, id, 'header: id');
  writeUInt16(into, at + 2, command, 'header: command');
  writeUInt32(into, at + HEADER_SIZE_AT, size, 'header: size');
  writeUInt32(into, at + 8, flags, 'header: flags');
  writeUInt32(into, at + 12, errno, 'header: errno');
}

/** Writes a header's id alone: of a message that was encoded before it had one. */
export function writeHeaderId(into: Buffer, at: number, id: number): void {
  writeUInt16(into, at, id, 'header: id');
}

/** The id of the header at `bytes[start]`. */
export function headerId(bytes: Buffer, at: number): number {
  return readUInt16(bytes, at);
}

/** The command of the header at `bytes[start]`. */
export function headerCommand(bytes: Buffer, at: number): number {
  return readUInt16(bytes, at + 2);
}

/** The size of the message whose header is at `bytes[start]`, the header included, bytes. */
export function headerSize(bytes: Buffer, at: number): number {
  return readUInt32(bytes, at + HEADER_SIZE_AT);
}

/** The flags of the header at `bytes[start]`. */
export function headerFlags(bytes: Buffer, at: number): number {
  return readUInt32(bytes, at + 8);
}

/** The errno of the header at `bytes[start]`. */
export function headerErrno(bytes: Buffer, at: number): number {
  return readUInt32(bytes, at + 12);
}

/**
 * Reads the header at `bytes[at..at+16)`.
 *
 * @throws ProtocolError where the size is less than the header's own, or the type is neither command nor reply:
 * after either the stream has no known next message.
 */
export function decodeHeader(bytes: Buffer, at: number): Header {
  checkBuffer('bytes', bytes);
  integer('at', at, 0, bytes.length);
  if (bytes.length - at < HEADER_SIZE) {
    throw new ProtocolError(`header: ${bytes.length - at} bytes, a header is exactly ${HEADER_SIZE}`);
  }
  const header: Header = {
    id: headerId(bytes, at),
    command: headerCommand(bytes, at),
    size: headerSize(bytes, at),
    flags: headerFlags(bytes, at),
    errno: headerErrno(bytes, at),
  };
  const type = header.flags & HEADER_FLAG_TYPE_MASK;
  if (type !== HEADER_FLAG_COMMAND && type !== HEADER_FLAG_REPLY) {
    throw new ProtocolError(
      `${commandName(header.command)} header: the message type is ${type}, neither command (0) nor reply (1)`,
    );
  }
  if (header.size < HEADER_SIZE) {
    throw new ProtocolError(
      `${commandName(header.command)} header: the message size is ${header.size}, less than the header's ${HEADER_SIZE}`,
    );
  }
  return header;
}
