/** The twin socket in VERSION and its reply: what else stands there is served as it is recorded. */
import { VfioUserError } from '../errors.js';
import { HEADER_SIZE } from '../protocol/constants.js';
import { writeHeader, headerCommand, headerFlags, headerId } from '../protocol/header.js';
import { decodeVersion, encodeVersion, type Version } from '../protocol/version.js';

/** Whether VERSION, or its reply, says that there is to be one. */
export function offersTwinSocket(message: Buffer): boolean {
  return decoded(message)?.capabilities.twinSocket.supported === true;
}

/** The reply of a server that has none. */
export function withoutTwinSocket(message: Buffer): Buffer {
  const { major, minor, capabilities } = decoded(message)!;
  const payload = encodeVersion({
    major,
    minor,
    capabilities: { ...capabilities, twinSocket: { supported: false } },
  });
  const bytes = Buffer.concat([Buffer.alloc(HEADER_SIZE), payload]);
  writeHeader(
    bytes,
    0,
    headerId(message, 0),
    headerCommand(message, 0),
    bytes.length,
    headerFlags(message, 0),
    0,
  );
  return bytes;
}

/** Undefined for one that is malformed. */
function decoded(message: Buffer): Version | undefined {
  try {
    return decodeVersion(message, HEADER_SIZE, message.length);
  } catch (error) {
    if (error instanceof VfioUserError) return undefined;
    throw error;
  }
}
