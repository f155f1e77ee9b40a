/** What Identify gives (section 5.17): structures of 4,096 bytes. */
import type { EmulatedNamespace } from './namespace.js';
import { PAGE } from './constants.js';

/** What the controller says of itself. */
export interface Personality {
  serialNumber: string;
  modelNumber: string;
  subsystemNqn: string;
  firmwareRevision: string;
  /** MDTS: a power of two of pages; 0 for no limit. */
  mdts: number;
  /** VS. */
  version: number;
  hasShadowDoorbells: boolean;
  takesSgls: boolean;
  namespaces: readonly EmulatedNamespace[];
}

export const VENDOR_ID = 0x1234;
export const DEVICE_ID = 0x5845;
/** Zero-based. */
export const ABORT_LIMIT = 3;
export const ASYNC_EVENT_LIMIT = 3;
export const ERROR_LOG_ENTRIES = 64;
/** Kelvin. */
const WARNING_TEMPERATURE = 343;
const CRITICAL_TEMPERATURE = 353;
/** Of an NVMe Qualified Name (section 4.5). */
const MOST_NQN_BYTES = 223;
/** Compare, Dataset Management, Write Zeroes, Timestamp. */
const ONCS = 0b100_1101;
const OACS_FORMAT = 1 << 1;
const OACS_DOORBELL_BUFFER = 1 << 8;
/** Metadata is transferred in a buffer of its own. */
const MC_SEPARATE = 1 << 1;
/** Namespace Attribute Notices. */
const OAES_NAMESPACE_NOTICES = 1 << 8;
/** Log pages can be read from an offset. */
const LPA = 1 << 2;
/** Of any alignment; no bit buckets, no more bytes than the data has. */
const SGLS = 1;
/** Of a namespace identification descriptor: what type it is of, and what stands before the identifier. */
const NIDT_EUI64 = 1;
const NIDT_NGUID = 2;
const DESCRIPTOR_HEADER = 4;
/** There is a cache, and Flush takes all namespaces at once. */
const VWC = 0b111;

export function identifyController(is: Personality): Buffer {
  const bytes = Buffer.alloc(PAGE);
  bytes.writeUInt16LE(VENDOR_ID, 0);
  bytes.writeUInt16LE(VENDOR_ID, 2);
  putText(bytes, 4, 20, is.serialNumber);
  putText(bytes, 24, 40, is.modelNumber);
  putText(bytes, 64, 8, is.firmwareRevision);
  bytes[72] = 6;
  bytes[77] = is.mdts;
  bytes.writeUInt16LE(1, 78);
  bytes.writeUInt32LE(is.version, 80);
  bytes.writeUInt32LE(OAES_NAMESPACE_NOTICES, 92);
  bytes[111] = 1;
  bytes.writeUInt16LE(OACS_FORMAT | (is.hasShadowDoorbells ? OACS_DOORBELL_BUFFER : 0), 256);
  bytes[258] = ABORT_LIMIT;
  bytes[259] = ASYNC_EVENT_LIMIT;
  // One firmware slot, read-only.
  bytes[260] = 0b11;
  bytes[261] = LPA;
  bytes[262] = ERROR_LOG_ENTRIES - 1;
  bytes.writeUInt16LE(WARNING_TEMPERATURE, 266);
  bytes.writeUInt16LE(CRITICAL_TEMPERATURE, 268);
  const capacity = is.namespaces.reduce(
    (sum, { blocks, blockSize }) => sum + BigInt(blocks) * BigInt(blockSize),
    0n,
  );
  bytes.writeBigUInt64LE(capacity, 280);
  // Entries of 64 and 16 bytes, no others.
  bytes[512] = 0x66;
  bytes[513] = 0x44;
  bytes.writeUInt32LE(is.namespaces.length, 516);
  bytes.writeUInt16LE(ONCS, 520);
  bytes[525] = VWC;
  bytes.writeUInt32LE(is.takesSgls ? SGLS : 0, 536);
  putText(bytes, 768, MOST_NQN_BYTES, is.subsystemNqn, '\0');
  // Power state 0: 25 W.
  bytes.writeUInt16LE(2500, 2048);
  return bytes;
}

export function identifyNamespace(namespace: EmulatedNamespace): Buffer {
  const { blocks, blockSize, metadataSize, formats, formatIndex, eui64, nguid } = namespace;
  const bytes = Buffer.alloc(PAGE);
  for (const at of [0, 8, 16]) bytes.writeBigUInt64LE(BigInt(blocks), at);
  bytes[25] = formats.length - 1;
  bytes[26] = formatIndex;
  bytes[27] = MC_SEPARATE;
  // Deallocated blocks read as zeroes, and Write Zeroes may deallocate.
  bytes[33] = 0b1001;
  bytes.writeBigUInt64LE(BigInt(blocks) * BigInt(blockSize + metadataSize), 48);
  nguid.copy(bytes, 104);
  eui64.copy(bytes, 120);
  for (const [i, format] of formats.entries())
    bytes.writeUInt32LE((Math.log2(format.blockSize) << 16) | format.metadataSize, 128 + 4 * i);
  return bytes;
}

/** The identifiers above `after`, in order (5.17.2.2). */
export function activeNamespaces(namespaces: readonly EmulatedNamespace[], after: number): Buffer {
  const bytes = Buffer.alloc(PAGE);
  const ids = namespaces.map(({ id }) => id).filter((id) => id > after);
  for (const [i, id] of ids.slice(0, PAGE / 4).entries()) bytes.writeUInt32LE(id, 4 * i);
  return bytes;
}

/** Namespace Identification Descriptors (5.17.2.3): the EUI-64 and the NGUID, where there are such. */
export function namespaceDescriptors({ eui64, nguid }: EmulatedNamespace): Buffer {
  const bytes = Buffer.alloc(PAGE);
  let at = 0;
  for (const [type, identifier] of [
    [NIDT_EUI64, eui64],
    [NIDT_NGUID, nguid],
  ] as const) {
    if (identifier.every((byte) => byte === 0)) continue;
    bytes[at] = type;
    bytes[at + 1] = identifier.length;
    identifier.copy(bytes, at + DESCRIPTOR_HEADER);
    at += DESCRIPTOR_HEADER + identifier.length;
  }
  return bytes;
}

/** Text is padded with spaces, names with NUL. */
function putText(bytes: Buffer, at: number, length: number, text: string, padding = ' '): void {
  bytes.write(text.slice(0, length).padEnd(length, padding), at, length, 'latin1');
}
