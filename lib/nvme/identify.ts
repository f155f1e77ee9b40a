/**
 * What Identify gives: Identify Controller (NVM Express Base 2.0, figure 275), Identify Namespace (NVM Command Set 1.0,
 * figure 97), and the list of active namespaces (NVM Express Base 2.0, 5.17.2.2).
 */
import { ProtocolError } from '../index.js';
import { CONTROLLER, Fields, NAMESPACE } from './layouts.js';
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
  const at = new Fields(bytes, CONTROLLER);
  const version = at.number('ver');
  const vwc = at.number('vwc');
  return {
    vendorId: at.number('vid'),
    subsystemVendorId: at.number('ssvid'),
    serialNumber: at.text('sn'),
    modelNumber: at.text('mn'),
    firmwareRevision: at.text('fr'),
    arbitrationBurst: 2 ** at.number('rab'),
    ieeeOui: at.number('ieee').toString(16).padStart(6, '0'),
    multiPath: at.number('cmic'),
    maxDataTransfer: at.number('mdts'),
    controllerId: at.number('cntlid'),
    version: version === 0 ? '' : versionText(version),
    resumeLatencyUs: at.number('rtd3r'),
    entryLatencyUs: at.number('rtd3e'),
    asyncEvents: at.number('oaes'),
    attributes: at.number('ctratt'),
    controllerType: at.number('cntrltype'),
    optionalAdminCommands: at.number('oacs'),
    abortCommandLimit: at.number('acl') + 1,
    asyncEventLimit: at.number('aerl') + 1,
    firmwareUpdates: at.number('frmw'),
    logPageAttributes: at.number('lpa'),
    errorLogEntries: at.number('elpe') + 1,
    powerStates: at.number('npss') + 1,
    warningTemperatureKelvin: at.number('wctemp'),
    criticalTemperatureKelvin: at.number('cctemp'),
    totalCapacityBytes: at.bigint('tnvmcap'),
    unallocatedCapacityBytes: at.bigint('unvmcap'),
    keepAlive: at.number('kas'),
    submissionEntrySize: entrySizes(at.number('sqes')),
    completionEntrySize: entrySizes(at.number('cqes')),
    maxOutstandingCommands: at.number('maxcmd'),
    namespaces: at.number('nn'),
    optionalNvmCommands: at.number('oncs'),
    fusedOperations: at.number('fuses'),
    formatAttributes: at.number('fna'),
    volatileWriteCache: (vwc & 1) !== 0,
    flushesAllNamespaces: ((vwc >>> 1) & 3) === 3,
    atomicWriteUnit: at.number('awun') + 1,
    atomicWriteUnitPowerFail: at.number('awupf') + 1,
    sgls: at.number('sgls'),
    subsystemNqn: at.text('subnqn'),
  };
}

function entrySizes(value: number): { required: number; maximum: number } {
  return { required: value & 0xf, maximum: value >>> 4 };
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

const FORMAT_SIZE = 4;
const MAX_FORMATS = 64;

/** Decodes what Identify, CNS 00h, gives. @throws ProtocolError for fewer than 4,096 bytes. */
export function decodeNamespaceIdentity(bytes: Buffer): NamespaceIdentity {
  requireBytes(bytes, IDENTIFY_SIZE, 'Identify Namespace');
  const at = new Fields(bytes, NAMESPACE);
  const flbas = at.number('flbas');
  const count = Math.min(at.number('nlbaf') + 1, MAX_FORMATS);
  const formats = at.bytes('lbaf');
  return {
    size: at.bigint('nsze'),
    capacity: at.bigint('ncap'),
    utilization: at.bigint('nuse'),
    features: at.number('nsfeat'),
    // With more than 16 formats bits 6:5 are the upper ones.
    formatIndex: (flbas & 0xf) | (count > 16 ? ((flbas >>> 5) & 3) << 4 : 0),
    extendedMetadata: (flbas & 0x10) !== 0,
    formats: Array.from({ length: count }, (_, i) => decodeFormat(formats.readUInt32LE(i * FORMAT_SIZE))),
    protection: at.number('dps'),
    multiPath: at.number('nmic'),
    deallocation: at.number('dlfeat'),
    optimalBoundary: at.number('noiob'),
    capacityBytes: at.bigint('nvmcap'),
    writeProtected: (at.number('nsattr') & 1) !== 0,
    nguid: at.bytes('nguid').toString('hex'),
    eui64: at.bytes('eui64').toString('hex'),
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

/** @throws ProtocolError for a structure that is shorter than the specification has it. */
export function requireBytes(bytes: Buffer, size: number, what: string): void {
  if (bytes.byteLength >= size) return;
  throw new ProtocolError(`${what} must have ${size} bytes, got ${bytes.byteLength}`);
}
