/** VERSION: what we offer, what the server made of it, and the twin socket that may come with the answer. */
import { ProtocolError, UnsupportedError } from '../errors.js';
import { closeFds } from '../native.js';
import { Command, DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_DMA_MAPS } from '../protocol/constants.js';
import { decodeVersion, encodeVersion, type Capabilities, type Version } from '../protocol/version.js';
import { MAX_MESSAGE_FDS, openFd } from '../transport/index.js';
import type { CallOptions } from './call-options.js';
import type { Connection } from './connection.js';

/** The version that this library speaks; a server may answer any minor up to it. */
export const OUR_VERSION = { major: 0, minor: 2 } as const;

export interface HandshakeOptions {
  /** Asks for a socket of its own for the server's commands, where fds can be passed. Default true. */
  twinSocket?: boolean | undefined;
  /** The version to propose. Default `OUR_VERSION`. */
  version?: { major: number; minor: number } | undefined;
}

/** What both sides agreed on (specification: VFIO_USER_VERSION). */
export interface Negotiated {
  /** The protocol's major version: 0. */
  readonly major: number;
  /** The protocol's minor version, as the server chose it: 0 to 2. */
  readonly minor: number;
  /** The server's capabilities, the specification's defaults filled in. */
  readonly capabilities: Capabilities;
  /** Whether the server's commands come on a socket of their own. */
  readonly twinSocket: boolean;
}

/**
 * Negotiates the protocol version; the first thing on every connection.
 * @throws RemoteError where the server refuses, ProtocolError where its answer breaks the specification's rules,
 * UnsupportedError where it speaks another major version, ClosedError, TimeoutError.
 */
export async function negotiate(
  connection: Connection,
  options: HandshakeOptions,
  call: CallOptions,
): Promise<Negotiated> {
  const version = options.version ?? OUR_VERSION;
  const wantTwin = (options.twinSocket ?? true) && connection.passesFds;
  const payload = encodeVersion({
    ...version,
    capabilities: {
      maxMsgFds: connection.passesFds ? MAX_MESSAGE_FDS : 0,
      maxDataXferSize: DEFAULT_MAX_DATA_XFER_SIZE,
      maxDmaMaps: DEFAULT_MAX_DMA_MAPS,
      pgsizes: 4096n,
      writeMultiple: true,
      ...(wantTwin ? { twinSocket: { supported: true } } : {}),
    },
  });
  return connection.mutex.runExclusive(async () => {
    const answer = await connection.call(Command.VERSION, payload, null, decodeAnswer, call);
    try {
      checkVersion(answer.version, version);
      const twinSocket = attachTwin(connection, answer, wantTwin);
      const { major, minor, capabilities } = answer.version;
      return { major, minor, capabilities, twinSocket };
    } finally {
      closeFds(answer.fds.filter((fd) => fd >= 0));
    }
  });
}

interface Answer {
  version: Version;
  fds: number[];
}

function decodeAnswer(bytes: Buffer, start: number, end: number, fds: number[]): Answer {
  const version = decodeVersion(bytes, start, end);
  const own = fds.slice();
  fds.fill(-1);
  return { version, fds: own };
}

function checkVersion(theirs: Version, ours: { major: number; minor: number }): void {
  if (theirs.major !== ours.major) {
    throw new UnsupportedError(
      `the server speaks protocol version ${theirs.major}.${theirs.minor}, not ${ours.major}`,
    );
  }
  if (theirs.minor > ours.minor) {
    throw new ProtocolError(
      `VERSION: the server answered minor ${theirs.minor} to a proposal of ${ours.minor}`,
    );
  }
}

/** The specification: supported with a valid index succeeds, not supported is fine, anything between is inconsistent. */
function attachTwin(connection: Connection, answer: Answer, wanted: boolean): boolean {
  const { supported, fdIndex } = answer.version.capabilities.twinSocket;
  if (!supported || !wanted) return false;
  const fd = fdIndex === undefined ? undefined : answer.fds[fdIndex];
  if (fd === undefined || fd < 0) {
    throw new ProtocolError(
      'VERSION: twin_socket is supported but its fd_index names no file descriptor that came',
    );
  }
  connection.attachTwin((handler) => {
    // Not before: a connection that has ended meanwhile takes no socket.
    answer.fds[fdIndex!] = -1;
    return openFd(fd, `the twin socket of ${connection.peer}`)(handler);
  });
  return true;
}
