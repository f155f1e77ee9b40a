/**
 * What Identify gives: Identify Controller (NVM Express Base 2.0, figure 275), Identify Namespace (NVM Command Set 1.0,
 * figure 97), and the list of active namespaces (NVM Express Base 2.0, 5.17.2.2).
 */
import { ProtocolError } from '../index.js';
import { versionText } from './registers.js';

export const IDENTIFY_SIZE = 4096;

/** Optional admin commands, OACS bits. */
export const OptionalAdminCommands = {
  SECURITY: 1 << 0,
  FORMAT: 1 << 1,
  FIRMWARE: 1 << 2,
  NAMESPACE_MANAGEMENT: 1 << 3,
  SELF_TEST: 1 << 4,
  DIRECTIVES: 1 << 5,
  MANAGEMENT_INTERFACE: 1 << 6,
  VIRTUALIZATION: 1 << 7,
  DOORBELL_BUFFER_CONFIG: 1 << 8,
} as const;

/** Optional NVM commands, ONCS bits. */
export const OptionalNvmCommands = {
  COMPARE: 1 << 0,
  WRITE_UNCORRECTABLE: 1 << 1,
  DATASET_MANAGEMENT: 1 << 2,
  WRITE_ZEROES: 1 << 3,
  SAVE_FEATURES: 1 << 4,
  RESERVATIONS: 1 << 5,
  TIMESTAMP: 1 << 6,
  VERIFY: 1 << 7,
} as const;

/**
 * Identify Controller (NVM Express Base 2.0, figure 275). Names are the specification's, spelled out; units are in the names
 * or the comments.
 */
export interface ControllerIdentity {
  /** VID, the PCI vendor. */
  vendorId: number;
  /** SSVID, the PCI subsystem vendor. */
  subsystemVendorId: number;
  /** SN, without its padding. What the device sends, not checked to be printable. */
  serialNumber: string;
  /** MN, as `serialNumber`. */
  modelNumber: string;
  /** FR, as `serialNumber`. */
  firmwareRevision: string;
  /** RAB, as commands in a burst. */
  arbitrationBurst: number;
  /** IEEE OUI, six hexadecimal digits. */
  ieeeOui: string;
  /** CMIC bits. */
  multiPath: number;
  /** MDTS: the power of two of minimum pages that one command may transfer; 0 for no limit. */
  maxDataTransfer: number;
  /** CNTLID, unique in the NVM subsystem. */
  controllerId: number;
  /** VER as text; empty where the controller reports none (before 1.2). */
  version: string;
  /** RTD3R, microseconds. */
  resumeLatencyUs: number;
  /** RTD3E, microseconds: how long an orderly shutdown may take; 0 where unknown. */
  entryLatencyUs: number;
  /** OAES bits. */
  asyncEvents: number;
  /** CTRATT bits. */
  attributes: number;
  /** CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative; 0 where not reported. */
  controllerType: number;
  /** OACS: `OptionalAdminCommands` bits. */
  optionalAdminCommands: number;
  /** ACL: how many Abort commands may be outstanding, made one-based. */
  abortCommandLimit: number;
  /** AERL, made one-based. */
  asyncEventLimit: number;
  /** FRMW bits. */
  firmwareUpdates: number;
  /** LPA bits. */
  logPageAttributes: number;
  /** ELPE: entries of the error log, made one-based. */
  errorLogEntries: number;
  /** NPSS: power states, made one-based. */
  powerStates: number;
  /** WCTEMP, kelvin; 0 where not reported. */
  warningTemperatureKelvin: number;
  /** CCTEMP, kelvin; 0 where not reported. */
  criticalTemperatureKelvin: number;
  /** TNVMCAP, bytes. */
  totalCapacityBytes: bigint;
  /** UNVMCAP, bytes. */
  unallocatedCapacityBytes: bigint;
  /** KAS, in units of 100 ms; 0 for no keep-alive. */
  keepAlive: number;
  /** SQES: required and maximum size of an entry as powers of two. */
  submissionEntrySize: { required: number; maximum: number };
  /** CQES. */
  completionEntrySize: { required: number; maximum: number };
  /** MAXCMD: outstanding commands a queue; 0 where not reported. */
  maxOutstandingCommands: number;
  /** NN: namespaces are numbered 1 to here. */
  namespaces: number;
  /** ONCS: `OptionalNvmCommands` bits. */
  optionalNvmCommands: number;
  /** FUSES bits. */
  fusedOperations: number;
  /** FNA bits. */
  formatAttributes: number;
  /** VWC bit 0: writes may be held in a cache that Flush empties. */
  volatileWriteCache: boolean;
  /** VWC bits 2:1 are 11b: Flush of all namespaces (NSID ffffffffh) is supported. */
  flushesAllNamespaces: boolean;
  /** AWUN, blocks, made one-based. */
  atomicWriteUnit: number;
  /** AWUPF, blocks, made one-based. */
  atomicWriteUnitPowerFail: number;
  /** SGLS bits. */
  sgls: number;
  /** SUBNQN. */
  subsystemNqn: string;
}

/** Decodes what Identify, CNS 01h, gives. @throws ProtocolError for fewer than 4,096 bytes. */
export function decodeControllerIdentity(bytes: Buffer): ControllerIdentity {
  requireBytes(bytes, IDENTIFY_SIZE, 'Identify Controller');
  const version = bytes.readUInt32LE(80);
  const vwc = bytes.readUInt8(525);
  return {
    vendorId: bytes.readUInt16LE(0),
    subsystemVendorId: bytes.readUInt16LE(2),
    serialNumber: text(bytes, 4, 20),
    modelNumber: text(bytes, 24, 40),
    firmwareRevision: text(bytes, 64, 8),
    arbitrationBurst: 2 ** bytes.readUInt8(72),
    ieeeOui: bytes.readUIntLE(73, 3).toString(16).padStart(6, '0'),
    multiPath: bytes.readUInt8(76),
    maxDataTransfer: bytes.readUInt8(77),
    controllerId: bytes.readUInt16LE(78),
    version: version === 0 ? '' : versionText(version),
    resumeLatencyUs: bytes.readUInt32LE(84),
    entryLatencyUs: bytes.readUInt32LE(88),
    asyncEvents: bytes.readUInt32LE(92),
    attributes: bytes.readUInt32LE(96),
    controllerType: bytes.readUInt8(111),
    optionalAdminCommands: bytes.readUInt16LE(256),
    abortCommandLimit: bytes.readUInt8(258) + 1,
    asyncEventLimit: bytes.readUInt8(259) + 1,
    firmwareUpdates: bytes.readUInt8(260),
    logPageAttributes: bytes.readUInt8(261),
    errorLogEntries: bytes.readUInt8(262) + 1,
    powerStates: bytes.readUInt8(263) + 1,
    warningTemperatureKelvin: bytes.readUInt16LE(266),
    criticalTemperatureKelvin: bytes.readUInt16LE(268),
    totalCapacityBytes: uint128(bytes, 280),
    unallocatedCapacityBytes: uint128(bytes, 296),
    keepAlive: bytes.readUInt16LE(320),
    submissionEntrySize: { required: bytes.readUInt8(512) & 0xf, maximum: bytes.readUInt8(512) >>> 4 },
    completionEntrySize: { required: bytes.readUInt8(513) & 0xf, maximum: bytes.readUInt8(513) >>> 4 },
    maxOutstandingCommands: bytes.readUInt16LE(514),
    namespaces: bytes.readUInt32LE(516),
    optionalNvmCommands: bytes.readUInt16LE(520),
    fusedOperations: bytes.readUInt16LE(522),
    formatAttributes: bytes.readUInt8(524),
    volatileWriteCache: (vwc & 1) !== 0,
    flushesAllNamespaces: ((vwc >>> 1) & 3) === 3,
    atomicWriteUnit: bytes.readUInt16LE(526) + 1,
    atomicWriteUnitPowerFail: bytes.readUInt16LE(528) + 1,
    sgls: bytes.readUInt32LE(536),
    subsystemNqn: text(bytes, 768, 256),
  };
}

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

/** Text in ASCII, without the padding. Bytes that are none stay as they are: whoever prints it knows how. */
export function text(bytes: Buffer, offset: number, length: number): string {
  const raw = bytes.toString('latin1', offset, offset + length);
  const end = raw.indexOf('\0');
  return (end === -1 ? raw : raw.slice(0, end)).trim();
}

export function uint128(bytes: Buffer, offset: number): bigint {
  return bytes.readBigUInt64LE(offset) | (bytes.readBigUInt64LE(offset + 8) << 64n);
}

/** @throws ProtocolError for a structure that is shorter than the specification has it. */
export function requireBytes(bytes: Buffer, size: number, what: string): void {
  if (bytes.byteLength >= size) return;
  throw new ProtocolError(`${what} must have ${size} bytes, got ${bytes.byteLength}`);
}
