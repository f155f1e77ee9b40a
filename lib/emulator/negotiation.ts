/** VERSION, the first command of a client ("VFIO_USER_VERSION"). */
import { ProtocolError } from '../errors.js';
import { decodeVersion, encodeVersion, type Capabilities, type Version } from '../protocol/version.js';
import type { Settings } from './emulator-options.js';

const MAJOR = 0;

/** What both sides agreed upon. */
export interface Negotiated {
  minor: number;
  /** What the client can do, defaults filled in. */
  client: Capabilities;
  twinSocket: boolean;
  writeMultiple: boolean;
}

/**
 * Reads the proposal and decides.
 *
 * @throws ProtocolError for what cannot be read, and for a major version other than 0.
 */
export function negotiate(
  bytes: Buffer,
  start: number,
  end: number,
  settings: Settings,
  passesFds: boolean,
): Negotiated {
  const proposal: Version = decodeVersion(bytes, start, end);
  if (proposal.major !== MAJOR)
    throw new ProtocolError(`the client speaks version ${proposal.major}.${proposal.minor}`);
  const { capabilities } = proposal;
  return {
    minor: Math.min(proposal.minor, settings.minor),
    client: capabilities,
    // The client's end travels as an fd: it must be able to take one.
    twinSocket:
      settings.twinSocket && passesFds && capabilities.twinSocket.supported && capabilities.maxMsgFds > 0,
    writeMultiple: settings.writeMultiple && capabilities.writeMultiple,
  };
}

/** The payload of the reply. Capabilities beyond the limits are named only where the client proposed them. */
export function negotiationReply(
  { minor, twinSocket, writeMultiple }: Negotiated,
  settings: Settings,
): Buffer {
  const { maxDataXferSize, maxMsgFds, maxDmaMaps, pgsizes, dirtyPages } = settings;
  return encodeVersion({
    major: MAJOR,
    minor,
    capabilities: {
      maxMsgFds,
      maxDataXferSize,
      maxDmaMaps,
      pgsizes,
      ...(twinSocket && { twinSocket: { supported: true, fdIndex: 0 } }),
      ...(writeMultiple && { writeMultiple }),
      // Where servers of that time said which pages DIRTY_PAGES is about.
      ...(dirtyPages === 'legacy' && { migration: { pgsize: 4096 } }),
    },
  });
}
