/** The twin socket, for the server's own requests: the reply to VERSION brings the client's end of it. */
import { VfioUserError } from '../errors.js';
import { native } from '../native.js';
import { Command, HEADER_FLAG_ERROR, HEADER_FLAG_REPLY, HEADER_SIZE } from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { decodeVersion } from '../protocol/version.js';

/** Whether a message is an answer to VERSION: there is only one on a connection. */
export function isVersionReply(bytes: Buffer, start: number): boolean {
  return (
    headerCommand(bytes, start) === Command.VERSION && (headerFlags(bytes, start) & HEADER_FLAG_REPLY) !== 0
  );
}

/**
 * Which of the fds of an answer to VERSION is the twin socket; undefined where none is, as far as can be told: what is
 * wrong with the answer is the client's to say.
 */
export function twinIndex(
  bytes: Buffer,
  start: number,
  end: number,
  fds: readonly number[],
): number | undefined {
  if ((headerFlags(bytes, start) & HEADER_FLAG_ERROR) !== 0) return undefined;
  try {
    const { supported, fdIndex } = decodeVersion(bytes, start + HEADER_SIZE, end).capabilities.twinSocket;
    return supported && fdIndex !== undefined && fdIndex < fds.length ? fdIndex : undefined;
  } catch (error) {
    if (error instanceof VfioUserError) return undefined;
    throw error;
  }
}

/** A pair to put in the place of a twin socket; an errno where there is none to be had, or the fd is no socket. */
export function twinPair(fd: number): [ours: number, clients: number] | number {
  const usable = native().adoptSocket(fd);
  if (usable < 0) return -usable;
  const pair = native().socketPair();
  return typeof pair === 'number' ? -pair : pair;
}
