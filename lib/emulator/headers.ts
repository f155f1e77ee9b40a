/** Headers of what a server receives and answers. */
import { closeFds } from '../native.js';
import { HEADER_FLAG_ERROR, HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { decodeHeader, writeHeader, type Header } from '../protocol/header.js';

/**
 * The header of a message that came with `fds`.
 *
 * @throws ProtocolError where it is malformed; then the fds are closed.
 */
export function takeHeader(bytes: Buffer, start: number, fds: readonly number[]): Header {
  try {
    return decodeHeader(bytes, start);
  } catch (error) {
    closeFds(fds);
    throw error;
  }
}

/** Writes an error reply, which is a bare header, into `into`. */
export function writeErrorReply(into: Buffer, id: number, command: number, errno: number): void {
  writeHeader(into, 0, id, command, HEADER_SIZE, HEADER_FLAG_REPLY | HEADER_FLAG_ERROR, errno);
}
