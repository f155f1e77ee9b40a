/** VERSION, the first command of a client ("VFIO_USER_VERSION"). */
import { ProtocolError } from '../errors.js';
import { decodeVersion, encodeVersion, type Capabilities, type Version } from '../protocol/version.js';
import { DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_MSG_FDS, DEFAULT_PGSIZES } from '../protocol/constants.js';
import type { Settings } from './emulator-options.js';

const MAJOR = 0;
/** Bytes before the version data. */
const VERSION_SIZE = 4;

/** What both sides agreed upon. */
export interface Negotiated {
  minor: number;
  /** What the client can do, defaults filled in. */
  client: Capabilities;
  twinSocket: boolean;
  writeMultiple: boolean;
  /** The capabilities that the client named, whatever it said of them. */
  proposed: ReadonlySet<string>;
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
    proposed: namesIn(bytes, start, end),
  };
}

/** Decoding fills in the defaults: what was said has to be looked up in the text. It has been found to be sound. */
function namesIn(bytes: Buffer, start: number, end: number): ReadonlySet<string> {
  const text = bytes.toString('utf8', start + VERSION_SIZE, end).replace(/\0$/, '');
  const data = text === '' ? {} : (JSON.parse(text) as { capabilities?: object });
  return new Set(Object.keys(data.capabilities ?? {}));
}

/**
 * The payload of the reply: a subset of what the client proposed, and the limits that it would break unless they were
 * named.
 */
export function negotiationReply(
  { minor, twinSocket, writeMultiple, proposed }: Negotiated,
  settings: Settings,
): Buffer {
  const { maxDataXferSize, maxMsgFds, maxDmaMaps, tellsMaxDmaMaps, pgsizes, dirtyPages } = settings;
  const named = (name: string, isDefault: boolean): boolean => proposed.has(name) || !isDefault;
  return encodeVersion({
    major: MAJOR,
    minor,
    capabilities: {
      ...(named('max_msg_fds', maxMsgFds >= DEFAULT_MAX_MSG_FDS) && { maxMsgFds }),
      ...(named('max_data_xfer_size', maxDataXferSize === DEFAULT_MAX_DATA_XFER_SIZE) && { maxDataXferSize }),
      ...(named('max_dma_maps', !tellsMaxDmaMaps) && { maxDmaMaps }),
      ...(named('pgsizes', pgsizes === DEFAULT_PGSIZES) && { pgsizes }),
      ...(twinSocket && { twinSocket: { supported: true, fdIndex: 0 } }),
      ...(writeMultiple && { writeMultiple }),
      // Where servers of that time said which pages DIRTY_PAGES is about.
      ...(dirtyPages === 'legacy' && { migration: { pgsize: 4096 } }),
    },
  });
}
