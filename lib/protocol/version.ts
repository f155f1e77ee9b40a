/**
 * VERSION, the first message on a connection and its reply ("VFIO_USER_VERSION").
 *
 * ```
 *  0            2            4
 *  |  major u16 |  minor u16 |  version data: JSON in UTF-8, NUL at its end; may be missing
 * ```
 *
 * Besides the capabilities of the specification this knows `migration`, which libvfio-user and QEMU exchange, and
 * `sparse_mmap_fds` of the draft that lets each mappable area of a region have an fd of its own ("vfio-user: support
 * multiple FDs for sparse mmap regions", version 5, qemu-devel, October 2026).
 */
import { ProtocolError } from '../errors.js';
import { bigInteger, boolean, integer, outOfRange, UINT32_MAX, UINT64_MAX, wrongType } from '../fields.js';
import { atLeast, checkObject, isPowerOfTwo, writeUInt16 } from './bytes.js';
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_DMA_MAPS,
  DEFAULT_MAX_MSG_FDS,
  DEFAULT_PGSIZES,
} from './constants.js';
import { requirePageSize } from './dirty-bitmap.js';
import { isJsonObject, parseJson } from './json.js';

/** Bytes before the version data. */
const VERSION_SIZE = 4;
/** The most version data that is read; real peers send about 200 bytes. */
const MAX_VERSION_DATA = 65536;
/** libvfio-user's limit for `max_msg_fds`, and so for an index into a message's fds. */
const MAX_MSG_FDS_LIMIT = 1024;

/** What a peer can do. In an encoded message every member is optional; in a decoded one the defaults are filled in. */
export interface Capabilities {
  /** `max_msg_fds`: fds that the sender can receive in one message, 0 to 1024; 1 by default. */
  maxMsgFds: number;
  /** `max_data_xfer_size`: bytes of data that the sender accepts in one transfer; 1 MiB by default. */
  maxDataXferSize: number;
  /** `max_dma_maps`: DMA mappings at the same time; 65535 by default. */
  maxDmaMaps: number;
  /** `pgsizes`: page sizes for DMA mappings, or'ed together; 4096 by default. */
  pgsizes: bigint;
  /** `twin_socket`: server-to-client commands on a socket of their own. `fdIndex` is among the fds of the reply. */
  twinSocket: { supported: boolean; fdIndex?: number };
  /** `write_multiple`: REGION_WRITE_MULTI is understood. */
  writeMultiple: boolean;
  /** `sparse_mmap_fds`: the sender knows the region capability that has one fd for each area. */
  sparseMmapFds: boolean;
  /** `migration`: the page size of dirty bitmaps in bytes, and the most bytes of one bitmap. */
  migration?: { pgsize: number; maxBitmapSize?: number | undefined } | undefined;
  /**
   * Everything else under its JSON name, in an object without prototype. Integers beyond 2^53 are strings of their
   * digits. When encoding, members that have a name above are not taken from here.
   */
  other: Record<string, unknown>;
}

/** VFIO_USER_VERSION. */
export interface Version {
  /** The major number. */
  major: number;
  /** The minor number. */
  minor: number;
  /** What the sender can do; what is left out has the default of the specification. */
  capabilities: Capabilities;
}

/**
 * The payload of VERSION or of its reply. The version data is always there and ends in NUL, because some servers
 * accept nothing else; capabilities that are not given are left to their defaults.
 *
 * @throws TypeError, RangeError for a value that `decodeVersion` would refuse, for one in `other` that JSON has no word
 * for, and for more than 64 KiB of version data.
 */
export function encodeVersion(version: {
  major: number;
  minor: number;
  capabilities?: Partial<Capabilities> | undefined;
}): Buffer {
  checkObject('version', version);
  const { capabilities = {} } = version;
  checkCapabilities(capabilities);
  const members: string[] = [];
  for (const [name, value] of Object.entries(jsonNames(capabilities))) {
    if (value !== undefined) members.push(`${JSON.stringify(name)}:${literal(name, value)}`);
  }
  const data = Buffer.from(`{"capabilities":{${members.join(',')}}}\0`, 'utf8');
  if (data.length > MAX_VERSION_DATA) {
    throw outOfRange(
      `VERSION: the version data must be at most ${MAX_VERSION_DATA} bytes, got ${data.length}`,
    );
  }
  const head = Buffer.alloc(VERSION_SIZE);
  writeUInt16(head, 0, version.major, 'VERSION: major');
  writeUInt16(head, 2, version.minor, 'VERSION: minor');
  return Buffer.concat([head, data]);
}

/** What is undefined is left out of the message, and any value for that. */
function checkCapabilities(capabilities: Partial<Capabilities>): void {
  checkObject('VERSION: capabilities', capabilities);
  for (const [name, value] of Object.entries(capabilities)) {
    if (value !== undefined) CHECKS[name as keyof Capabilities]?.(value as never, `VERSION: ${name}`);
  }
}

const CHECKS: {
  readonly [K in keyof Capabilities]?: (value: NonNullable<Capabilities[K]>, name: string) => unknown;
} = {
  maxMsgFds: (value, name) => integer(name, value, 0, MAX_MSG_FDS_LIMIT),
  maxDataXferSize: (value, name) => integer(name, value, 1),
  maxDmaMaps: (value, name) => integer(name, value),
  pgsizes: (value, name) => bigInteger(name, value, 1n),
  twinSocket: (value, name) => {
    checkObject(name, value);
    const { supported, fdIndex } = value;
    boolean(`${name}.supported`, supported);
    if (fdIndex !== undefined) integer(`${name}.fdIndex`, fdIndex, 0, MAX_MSG_FDS_LIMIT - 1);
  },
  writeMultiple: (value, name) => boolean(name, value),
  sparseMmapFds: (value, name) => boolean(name, value),
  other: (value, name) => checkObject(name, value),
  migration: (value, name) => {
    checkObject(name, value);
    const { pgsize, maxBitmapSize } = value;
    requirePageSize(`${name}.pgsize`, pgsize);
    if (maxBitmapSize !== undefined)
      integer(`${name}.maxBitmapSize`, maxBitmapSize, 0, Number.MAX_SAFE_INTEGER);
  },
};

function jsonNames(capabilities: Partial<Capabilities>): Record<string, unknown> {
  const { twinSocket, migration } = capabilities;
  return {
    ...capabilities.other,
    max_msg_fds: capabilities.maxMsgFds,
    max_data_xfer_size: capabilities.maxDataXferSize,
    max_dma_maps: capabilities.maxDmaMaps,
    pgsizes: capabilities.pgsizes,
    twin_socket: twinSocket && { supported: twinSocket.supported, fd_index: twinSocket.fdIndex },
    write_multiple: capabilities.writeMultiple,
    sparse_mmap_fds: capabilities.sparseMmapFds,
    migration: migration && { pgsize: migration.pgsize, max_bitmap_size: migration.maxBitmapSize },
  };
}

/** JSON has no limit on integers, JSON.stringify does; and it makes null of numbers that JSON has no word for. */
function literal(name: string, value: unknown): string {
  if (typeof value === 'bigint') return value.toString();
  const text = JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner === 'number' && !Number.isFinite(inner))
      throw outOfRange(`VERSION: ${name} has ${inner}, which JSON cannot say`);
    return inner;
  }) as string | undefined;
  if (text === undefined) throw wrongType(`VERSION: ${name}`, 'a value that JSON can say', value);
  return text;
}

/**
 * Reads VERSION or its reply.
 *
 * The version data may be missing, and may lack its NUL; nothing may follow the NUL. Unknown capabilities are kept in
 * `other`, unknown members beside `capabilities` are ignored. Whether a reply keeps to what was proposed is not
 * looked at, nor whether `twin_socket` names an fd.
 *
 * @throws ProtocolError for a payload of less than 4 bytes or more than 64 KiB of version data, for what is not a
 * JSON object in UTF-8, and for a known capability of a wrong type or out of its range.
 */
export function decodeVersion(bytes: Buffer, start: number, end: number): Version {
  atLeast('VERSION', 'the version structure', bytes, start, end, VERSION_SIZE);
  const dataEnd = endOfText(bytes, start + VERSION_SIZE, end);
  const data =
    dataEnd === start + VERSION_SIZE ? {} : parseJson('VERSION', bytes, start + VERSION_SIZE, dataEnd);
  if (!isJsonObject(data)) throw new ProtocolError('VERSION: the version data is not a JSON object');
  return {
    major: bytes.readUInt16LE(start),
    minor: bytes.readUInt16LE(start + 2),
    capabilities: capabilitiesOf(objectAt(data, 'capabilities') ?? {}),
  };
}

function endOfText(bytes: Buffer, start: number, end: number): number {
  if (end - start > MAX_VERSION_DATA) {
    throw new ProtocolError(
      `VERSION: ${end - start} bytes of version data, at most ${MAX_VERSION_DATA} are read`,
    );
  }
  const nul = bytes.subarray(start, end).indexOf(0);
  if (nul === -1) return end;
  if (start + nul === end - 1) return end - 1;
  throw new ProtocolError(
    `VERSION: ${end - start - nul - 1} bytes follow the NUL that ends the version data`,
  );
}

const KNOWN = new Set(Object.keys(jsonNames({})));

function capabilitiesOf(json: Record<string, unknown>): Capabilities {
  const migration = objectAt(json, 'migration');
  return {
    maxMsgFds: integerAt(json, 'max_msg_fds', 0, MAX_MSG_FDS_LIMIT) ?? DEFAULT_MAX_MSG_FDS,
    maxDataXferSize: integerAt(json, 'max_data_xfer_size', 1, UINT32_MAX) ?? DEFAULT_MAX_DATA_XFER_SIZE,
    maxDmaMaps: integerAt(json, 'max_dma_maps', 0, UINT32_MAX) ?? DEFAULT_MAX_DMA_MAPS,
    pgsizes: pageSizesAt(json, 'pgsizes') ?? DEFAULT_PGSIZES,
    twinSocket: twinSocketOf(objectAt(json, 'twin_socket') ?? {}),
    writeMultiple: booleanAt(json, 'write_multiple') ?? false,
    sparseMmapFds: truthAt(json, 'sparse_mmap_fds'),
    ...(migration && { migration: migrationOf(migration) }),
    other: unknownMembers(json),
  };
}

function twinSocketOf(json: Record<string, unknown>): Capabilities['twinSocket'] {
  const supported = booleanAt(json, 'supported', 'twin_socket.supported') ?? false;
  const fdIndex = integerAt(json, 'fd_index', 0, MAX_MSG_FDS_LIMIT - 1, 'twin_socket.fd_index');
  return fdIndex === undefined ? { supported } : { supported, fdIndex };
}

function migrationOf(json: Record<string, unknown>): NonNullable<Capabilities['migration']> {
  const name = 'migration.pgsize';
  const pgsize = integerAt(json, 'pgsize', 1, Number.MAX_SAFE_INTEGER, name) ?? Number(DEFAULT_PGSIZES);
  if (!isPowerOfTwo(BigInt(pgsize))) refuse(name, pgsize, 'a power of two');
  const limit = Number.MAX_SAFE_INTEGER;
  const maxBitmapSize = integerAt(json, 'max_bitmap_size', 0, limit, 'migration.max_bitmap_size');
  return maxBitmapSize === undefined ? { pgsize } : { pgsize, maxBitmapSize };
}

/** A number, or a string of decimal or of `0x` and hexadecimal digits: 64 bits do not fit every JSON writer's number. */
function pageSizesAt(json: Record<string, unknown>, key: string): bigint | undefined {
  const value = json[key];
  if (value === undefined) return undefined;
  const digits = typeof value === 'string' && /^(?:\d{1,20}|0x[\da-f]{1,16})$/i.test(value);
  const pgsizes = digits || Number.isSafeInteger(value) ? BigInt(value as string | number) : 0n;
  if (pgsizes <= 0n || pgsizes > UINT64_MAX) refuse(key, value, "page sizes or'ed together in 64 bits");
  return pgsizes;
}

/** The draft's text for `sparse_mmap_fds` speaks of support, so a boolean; a number counts as true unless it is 0. */
function truthAt(json: Record<string, unknown>, key: string): boolean {
  return typeof json[key] === 'number'
    ? integerAt(json, key, 0, UINT32_MAX) !== 0
    : (booleanAt(json, key) ?? false);
}

function objectAt(json: Record<string, unknown>, key: string): Record<string, unknown> | undefined {
  const value = json[key];
  if (value === undefined || isJsonObject(value)) return value;
  refuse(key, value, 'an object');
}

function booleanAt(json: Record<string, unknown>, key: string, name = key): boolean | undefined {
  const value = json[key];
  if (value === undefined || typeof value === 'boolean') return value;
  refuse(name, value, 'true or false');
}

function integerAt(
  json: Record<string, unknown>,
  key: string,
  least: number,
  most: number,
  name = key,
): number | undefined {
  const value = json[key];
  if (value === undefined) return undefined;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most)
    return value;
  refuse(name, value, `an integer from ${least} to ${most}`);
}

function unknownMembers(json: Record<string, unknown>): Record<string, unknown> {
  // Without a prototype, so that a member called `__proto__` is stored like any other.
  const other = Object.create(null) as Record<string, unknown>;
  for (const [key, value] of Object.entries(json)) if (!KNOWN.has(key)) other[key] = value;
  return other;
}

function refuse(name: string, value: unknown, rule: string): never {
  const shown = JSON.stringify(value).slice(0, 80);
  throw new ProtocolError(`VERSION: capability ${name} is ${shown}, it must be ${rule}`);
}
