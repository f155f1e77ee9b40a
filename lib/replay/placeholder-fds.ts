/**
 * Replies that brought fds. What was behind the fds is not in a capture: such replies are served without, or with
 * something that is empty.
 *
 * The length of a reply and its `argsz` stay as they are recorded: a client that asks twice, first for the length, asks
 * the same again. So a capability that is withheld keeps its place and loses its areas.
 */
import { SharedMemory } from '../emulator/shared-memory.js';
import { VfioUserError } from '../errors.js';
import { check, closeFds, native } from '../native.js';
import {
  Command,
  HEADER_FLAG_ERROR,
  HEADER_SIZE,
  IO_FD_TYPE_IOEVENTFD_SHADOW,
  IO_FD_TYPE_IOREGIONFD,
  REGION_CAP_SPARSE_MMAP,
  REGION_CAP_SPARSE_MMAP_FDS,
  REGION_CAP_SPARSE_MMAP_FDS_EARLY,
  REGION_FLAG_CAPS,
  REGION_FLAG_MMAP,
  commandName,
} from '../protocol/constants.js';
import { headerCommand, headerFlags } from '../protocol/header.js';
import { decodeRegionInfo, REGION_INFO_SIZE, type RegionInfo } from '../protocol/region-info.js';
import { decodeRegionIoFds } from '../protocol/region-io-fds.js';
import type { RecordedMessage } from './exchange.js';

/** What a reply is served as. The fds stay the stand-ins'. */
export interface ServedReply {
  /** From its header on, which has the recorded id. */
  bytes: Buffer;
  fds: readonly number[];
}

/** `'withhold'`: regions cannot be mapped. `'blank'`: they can, and what is mapped is zeros that nobody looks at. */
export type MappingPolicy = 'withhold' | 'blank';

const FLAGS_AT = HEADER_SIZE + 4;
const CAP_OFFSET_AT = HEADER_SIZE + 12;
/** In a capability: its `next`, and how many areas it has. */
const NEXT_AT = 4;
const AREAS_AT = 8;
const AREA_CAPABILITIES: ReadonlySet<number> = new Set([
  REGION_CAP_SPARSE_MMAP,
  REGION_CAP_SPARSE_MMAP_FDS,
  REGION_CAP_SPARSE_MMAP_FDS_EARLY,
]);
const PAGE = 4096;
/** A capture is not trusted with more of our memory. */
const MAX_BLANK = 1 << 28;

export class PlaceholderFds {
  readonly #policy: MappingPolicy;
  readonly #note: (note: string) => void;
  /** Of regions, by index: a region that is asked for twice has one memory. */
  readonly #regions = new Map<number, readonly number[]>();
  readonly #memories: SharedMemory[] = [];
  readonly #fds: number[] = [];
  /** What replies with fds are served as, by their numbers: a client may ask as often as it likes. */
  readonly #served = new Map<number, ServedReply>();
  #blankBytes = 0;

  /** `note` is told what is not as it was recorded. */
  constructor(policy: MappingPolicy, note: (note: string) => void) {
    this.#policy = policy;
    this.#note = note;
  }

  /** @throws TransportError where the system gives no fds or no memory. */
  serve(message: RecordedMessage): ServedReply {
    const known = this.#served.get(message.number);
    if (known !== undefined) return known;
    const served = this.#make(message);
    if (message.fds > 0) this.#served.set(message.number, served);
    return served;
  }

  #make({ bytes, fds, number }: RecordedMessage): ServedReply {
    const command = headerCommand(bytes, 0);
    if ((headerFlags(bytes, 0) & HEADER_FLAG_ERROR) === 0) {
      if (command === Command.DEVICE_GET_REGION_INFO) return this.#regionInfo(bytes, fds);
      if (command === Command.DEVICE_GET_REGION_IO_FDS && fds > 0) return this.#ioFds(bytes, fds);
    }
    if (fds > 0) {
      this.#note(`the reply ${number} to ${commandName(command)} came with fds: it is served without them`);
    }
    return { bytes, fds: [] };
  }

  close(): void {
    for (const memory of this.#memories.splice(0)) memory.close();
    closeFds(this.#fds.splice(0));
    this.#regions.clear();
    this.#served.clear();
  }

  #regionInfo(bytes: Buffer, fds: number): ServedReply {
    const info = readable(() => decodeRegionInfo(bytes, HEADER_SIZE, bytes.length));
    if (info === undefined || (info.flags & REGION_FLAG_MMAP) === 0) return { bytes, fds: [] };
    const blank = this.#policy === 'blank' && fds > 0 ? this.#blankRegion(info, fds) : undefined;
    if (blank !== undefined) return { bytes, fds: blank };
    if (!info.truncated)
      this.#note(`region ${info.index} could be mapped: it is served without the MMAP flag`);
    return { bytes: withoutMapping(bytes, info), fds: [] };
  }

  /** Memory for each fd that the reply came with; undefined where that would be too much. */
  #blankRegion(info: RegionInfo, fds: number): readonly number[] | undefined {
    const known = this.#regions.get(info.index);
    if (known !== undefined) return known.slice(0, fds);
    const sizes = Array.from({ length: fds }, (_, i) => sizeBehind(info, i));
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (!(this.#blankBytes + total <= MAX_BLANK)) return undefined;
    this.#blankBytes += total;
    const blank = sizes.map((size) => this.#memory(size));
    // A reply without its areas may not need all of it.
    if (!info.truncated) this.#regions.set(info.index, blank);
    this.#note(`region ${info.index} can be mapped: its memory is zeros, and writes to it have no effect`);
    return blank;
  }

  #memory(size: number): number {
    const memory = new SharedMemory(size, 'vfio-user-replay');
    this.#memories.push(memory);
    return memory.fd;
  }

  /** Eventfds that nobody reads do what the recorded ones did on the wire: nothing. */
  #ioFds(bytes: Buffer, count: number): ServedReply {
    const info = readable(() => decodeRegionIoFds(bytes, HEADER_SIZE, bytes.length));
    const shadows = new Map<number, number>();
    const streams = new Set<number>();
    for (const sub of info?.subRegions ?? []) {
      if (sub.type === IO_FD_TYPE_IOREGIONFD) streams.add(sub.fdIndex);
      if (sub.type !== IO_FD_TYPE_IOEVENTFD_SHADOW) continue;
      const size = pages(Math.min(sub.shadowOffset, MAX_BLANK) + sub.size + 8);
      shadows.set(sub.shadowFdIndex, Math.max(size, shadows.get(sub.shadowFdIndex) ?? 0));
    }
    const fds = Array.from({ length: count }, (_, i) => {
      const shadow = shadows.get(i);
      if (shadow !== undefined) return this.#memory(Math.min(shadow, MAX_BLANK));
      return streams.has(i) ? this.#stream() : this.#own(native().eventfd(0), 'eventfd');
    });
    this.#note('the I/O fds of a region are placeholders: signals on them have no effect');
    return { bytes, fds };
  }

  #stream(): number {
    const [near, far] = check(native().socketPair(), 'socketpair') as [number, number];
    this.#fds.push(near, far);
    return far;
  }

  #own(fd: number, syscall: string): number {
    check(fd, syscall);
    this.#fds.push(fd);
    return fd;
  }
}

/** What the recorded server sent may be malformed: then it is sent as it is. */
function readable<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (error instanceof VfioUserError) return undefined;
    throw error;
  }
}

/** Up to where the areas reach that are in the reply's fd number `fd`. */
function sizeBehind({ size, offset, capabilities }: RegionInfo, fd: number): number {
  const own = capabilities.sparseMmapFds?.areas.filter(({ fdIndex }) => fdIndex === fd);
  if (own !== undefined) return pages(Math.max(0, ...own.map((area) => area.fdOffset + area.size)));
  return pages(offset + size);
}

function pages(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / PAGE)) * PAGE;
}

/** The reply without the MMAP flag, and without areas in its capabilities. The codec has checked the chain. */
function withoutMapping(reply: Buffer, info: RegionInfo): Buffer {
  const bytes = Buffer.from(reply);
  bytes.writeUInt32LE((info.flags & ~REGION_FLAG_MMAP) >>> 0, FLAGS_AT);
  if (info.truncated || (info.flags & REGION_FLAG_CAPS) === 0) return bytes;
  for (let at = bytes.readUInt32LE(CAP_OFFSET_AT); at >= REGION_INFO_SIZE;) {
    const capability = HEADER_SIZE + at;
    if (AREA_CAPABILITIES.has(bytes.readUInt16LE(capability))) bytes.writeUInt32LE(0, capability + AREAS_AT);
    at = bytes.readUInt32LE(capability + NEXT_AT);
  }
  return bytes;
}
