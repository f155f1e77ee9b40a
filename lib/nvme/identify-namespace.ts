/** Identify Namespace (NVM Command Set 1.0, figure 97) and the active list (NVM Express Base 2.0, 5.17.2.2). */
import { requireBytes, uint128 } from './struct-reader.js';
import { IDENTIFY_SIZE } from './identify-controller.js';

/** Namespace identifiers in one list. */
export const NAMESPACES_A_LIST = 1024;

/** One of the formats that a namespace can have. */
export interface LbaFormat {
  /** In bytes; 0 for a format that is not in use. */
  dataSize: number;
  /** In bytes. */
  metadataSize: number;
  /** RP: 0 best, 3 degraded. */
  relativePerformance: number;
}

/** Identify Namespace (NVM Command Set 1.0, figure 97). */
export interface NamespaceIdentity {
  /** NSZE, blocks. */
  size: bigint;
  /** NCAP, blocks. */
  capacity: bigint;
  /** NUSE, blocks. */
  utilization: bigint;
  /** NSFEAT bits. */
  features: number;
  /** FLBAS: the index in `formats` of the one in use. */
  formatIndex: number;
  /** FLBAS bit 4: metadata is transferred at the end of the data. */
  extendedMetadata: boolean;
  /** LBAF0 to NLBAF: the formats that the namespace supports. */
  formats: LbaFormat[];
  /** DPS bits: end-to-end protection. */
  protection: number;
  /** NMIC bits. */
  multiPath: number;
  /** DLFEAT bits: what deallocated blocks read as. */
  deallocation: number;
  /** NOIOB, blocks: requests that stay within multiples of it perform best; 0 where not reported. */
  optimalBoundary: number;
  /** NVMCAP, bytes. */
  capacityBytes: bigint;
  /** NSATTR bit 0. */
  writeProtected: boolean;
  /** 32 hexadecimal digits; zeroes where there is none. */
  nguid: string;
  /** 16 hexadecimal digits; zeroes where there is none. */
  eui64: string;
}

const FORMATS_AT = 128;
const FORMAT_SIZE = 4;
const MAX_FORMATS = 64;

/** Decodes what Identify, CNS 00h, gives. @throws ProtocolError for fewer than 4,096 bytes. */
export function decodeNamespaceIdentity(bytes: Buffer): NamespaceIdentity {
  requireBytes(bytes, IDENTIFY_SIZE, 'Identify Namespace');
  const flbas = bytes.readUInt8(26);
  const count = Math.min(bytes.readUInt8(25) + 1, MAX_FORMATS);
  return {
    size: bytes.readBigUInt64LE(0),
    capacity: bytes.readBigUInt64LE(8),
    utilization: bytes.readBigUInt64LE(16),
    features: bytes.readUInt8(24),
    // With more than 16 formats bits 6:5 are the upper ones.
    formatIndex: (flbas & 0xf) | (count > 16 ? ((flbas >>> 5) & 3) << 4 : 0),
    extendedMetadata: (flbas & 0x10) !== 0,
    formats: Array.from({ length: count }, (_, i) =>
      decodeFormat(bytes.readUInt32LE(FORMATS_AT + i * FORMAT_SIZE)),
    ),
    protection: bytes.readUInt8(29),
    multiPath: bytes.readUInt8(30),
    deallocation: bytes.readUInt8(33),
    optimalBoundary: bytes.readUInt16LE(46),
    capacityBytes: uint128(bytes, 48),
    writeProtected: (bytes.readUInt8(99) & 1) !== 0,
    nguid: bytes.toString('hex', 104, 120),
    eui64: bytes.toString('hex', 120, 128),
  };
}

function decodeFormat(format: number): LbaFormat {
  const exponent = (format >>> 16) & 0xff;
  return {
    dataSize: exponent === 0 ? 0 : 2 ** exponent,
    metadataSize: format & 0xffff,
    relativePerformance: (format >>> 24) & 3,
  };
}

/** The identifiers of one list, which zero ends. @throws ProtocolError where there are fewer than 4,096 bytes. */
export function decodeNamespaceList(bytes: Buffer): number[] {
  requireBytes(bytes, IDENTIFY_SIZE, 'the list of active namespaces');
  const list: number[] = [];
  for (let i = 0; i < NAMESPACES_A_LIST; i++) {
    const nsid = bytes.readUInt32LE(4 * i);
    if (nsid === 0) break;
    list.push(nsid);
  }
  return list;
}
