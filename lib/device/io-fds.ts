/**
 * Doorbells without a message (specification: VFIO_USER_DEVICE_GET_REGION_IO_FDS): the server hands out an fd for a part
 * of a region, and is told of a write by the fd instead of by REGION_WRITE.
 */
import { forbidCloning } from '../cloning.js';
import { withDeadline, type CallOptions } from '../connection/index.js';
import { ProtocolError, RemoteError, TransportError, UnsupportedError } from '../errors.js';
import { bigInteger, integer } from '../fields.js';
import * as option from '../options.js';
import { closeFds, native, type NativeEventFd } from '../native.js';
import { writeUInt64 } from '../protocol/bytes.js';
import { Command, IO_FD_TYPE_IOEVENTFD_SHADOW, IO_FD_TYPE_IOREGIONFD } from '../protocol/constants.js';
import {
  decodeRegionIoFds,
  encodeGetRegionIoFds,
  type RegionIoFds,
  type SubRegion,
} from '../protocol/region-io-fds.js';
import { mapFile, type MappedArea } from './mapped-area.js';
import type { DeviceContext } from './device-context.js';

/** Room for some eighty sub-regions, so that asking once is enough. */
const FIRST_ARGSZ = 4096;
/** KVM_IOEVENTFD_FLAG_DATAMATCH: only a write of one value signals. */
const DATAMATCH = 1;
/** A shadow holds what a register access may have. */
const SHADOW_BYTES = 8;

/**
 * A part of a region whose writes an fd announces.
 *
 * @example
 * ```ts
 * using fds = await device.bar(0).ioFds();
 * fds.at(0x1000)?.write(1);
 * ```
 */
export class IoFd {
  /**
   * How a write is announced: by an eventfd, by an eventfd with the value in shared memory, or by messages of
   * KVM.
   */
  readonly kind: 'ioeventfd' | 'shadow-ioeventfd' | 'ioregionfd';
  /** Where the part begins in its region. */
  readonly offset: number;
  /** In bytes; 0 where the size of an access does not matter. */
  readonly size: number;
  /** The only value that may be written this way, where there is one. */
  readonly datamatch: bigint | undefined;
  readonly #eventFd: NativeEventFd | undefined;
  readonly #shadow: MappedArea | undefined;
  readonly #shadowOffset: number;

  /** @internal */
  constructor(sub: SubRegion, eventFd: NativeEventFd | undefined, shadow: MappedArea | undefined) {
    this.kind = kindOf(sub);
    this.offset = sub.offset;
    this.size = sub.size;
    this.datamatch = 'datamatch' in sub && (sub.flags & DATAMATCH) !== 0 ? sub.datamatch : undefined;
    this.#eventFd = eventFd;
    this.#shadow = shadow;
    this.#shadowOffset = 'shadowOffset' in sub ? sub.shadowOffset : 0;
    forbidCloning(this, 'an IoFd');
  }

  /**
   * Writes the register: puts the value where the server looks for it, if it does, and signals. Nothing is waited for.
   * @throws TypeError, RangeError for a value that does not fit the part's size (8 bytes where it has none) or does not
   * signal; UnsupportedError for an ioregionfd, whose messages are KVM's.
   */
  write(value: number | bigint): void {
    if (this.#eventFd === undefined) {
      throw new UnsupportedError(
        'an ioregionfd takes messages of KVM; write to the region by message instead',
      );
    }
    const wanted = this.#checked(value);
    if (this.datamatch !== undefined && wanted !== this.datamatch) {
      throw new RangeError(
        `only ${this.datamatch} is signalled here; write ${wanted} to the region by message`,
      );
    }
    this.#placeInShadow(wanted);
    const result = this.#eventFd.signal(1);
    if (result < 0) throw new TransportError('write', -result, 'the ioeventfd');
  }

  #placeInShadow(value: bigint): void {
    if (this.#shadow === undefined) return;
    const bytes = Buffer.alloc(SHADOW_BYTES);
    writeUInt64(bytes, 0, value, 'value');
    // Not a raw store: the file is the server's, and one that has shrunk must end in an error.
    this.#shadow.copyIn(this.#shadowOffset, bytes.subarray(0, this.#width));
  }

  /** Bytes of a value that is written. */
  get #width(): number {
    return this.size === 0 ? SHADOW_BYTES : Math.min(this.size, SHADOW_BYTES);
  }

  #checked(value: number | bigint): bigint {
    const most = (1n << BigInt(8 * this.#width)) - 1n;
    if (typeof value === 'bigint') return bigInteger('value', value, 0n, most);
    return BigInt(integer('value', value, 0, Math.min(Number(most), Number.MAX_SAFE_INTEGER)));
  }
}

/**
 * A region's I/O fds, closed together (specification: VFIO_USER_DEVICE_GET_REGION_IO_FDS). `Region.ioFds` makes it.
 *
 * @example
 * ```ts
 * using fds = await device.bar(0).ioFds();
 * for (const { offset, kind } of fds) console.log(offset, kind);
 * ```
 */
export class IoFds implements Iterable<IoFd> {
  readonly #context: DeviceContext;
  readonly #items: readonly IoFd[];
  readonly #eventFds: readonly NativeEventFd[];
  readonly #shadows: readonly MappedArea[];
  #isClosed = false;

  /** @internal */
  constructor(context: DeviceContext, items: IoFd[], eventFds: NativeEventFd[], shadows: MappedArea[]) {
    this.#context = context;
    this.#items = items;
    this.#eventFds = eventFds;
    this.#shadows = shadows;
    context.addResource(this);
    // Whoever rings them after that rings for nobody: the next server hands out others.
    void context.connection.closed.then(() => this.close());
    forbidCloning(this, 'an IoFds');
  }

  /** How many there are. */
  get length(): number {
    return this.#items.length;
  }

  /** The one that covers `offset` of the region. */
  at(offset: number): IoFd | undefined {
    integer('IoFds.at: offset', offset, 0, Number.MAX_SAFE_INTEGER);
    return this.#items.find((io) => io.offset <= offset && offset < io.offset + Math.max(io.size, 1));
  }

  /** All of them, in the order in which the server told of them. */
  [Symbol.iterator](): Iterator<IoFd> {
    return this.#items[Symbol.iterator]();
  }

  /** Whether the fds are closed, by their user or with the device. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Closes every fd and mapping; idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#context.removeResource(this);
    for (const eventFd of this.#eventFds) eventFd.close();
    for (const shadow of this.#shadows) shadow.close();
  }

  /** Does what `close` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}

interface Reply {
  info: RegionIoFds;
  fds: number[];
}

/** Asks for a region's I/O fds; empty where it has none or the server does not know the command. */
export async function getIoFds(
  context: DeviceContext,
  region: { index: number; size: number },
  options?: CallOptions,
): Promise<IoFds> {
  option.CALL_OPTIONS.check('Region.ioFds', options);
  if (!context.mayTryOptional) {
    throw new UnsupportedError(
      'GET_REGION_IO_FDS is not sent to a server that answered minor 0: some lose step (option tryOptional)',
    );
  }
  const call = withDeadline(options);
  try {
    let reply = await ask(context, region.index, FIRST_ARGSZ, call);
    if (reply.info.truncated) {
      closeFds(reply.fds);
      reply = await ask(context, region.index, reply.info.argsz, call);
    }
    return open(context, region.size, reply);
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    return new IoFds(context, [], [], []);
  }
}

async function ask(
  context: DeviceContext,
  index: number,
  argsz: number,
  options?: CallOptions,
): Promise<Reply> {
  return context.userConnection.call(
    Command.DEVICE_GET_REGION_IO_FDS,
    encodeGetRegionIoFds(index, argsz),
    null,
    (bytes, start, end, fds) => ({
      info: decodeRegionIoFds(bytes, start, end, index),
      fds: fds.splice(0),
    }),
    options,
  );
}

/** Makes objects of a reply. What fails half way leaves nothing open. */
function open(context: DeviceContext, regionSize: number, { info, fds }: Reply): IoFds {
  const eventFds = new Map<number, NativeEventFd>();
  const shadows = new Map<number, MappedArea>();
  try {
    const items = info.subRegions.map((sub) => {
      checkSubRegion(sub, regionSize, fds.length);
      if (sub.type === IO_FD_TYPE_IOREGIONFD) return new IoFd(sub, undefined, undefined);
      return new IoFd(sub, eventFdOf(sub.fdIndex, fds, eventFds), shadowOf(context, sub, fds, shadows));
    });
    return new IoFds(context, items, [...eventFds.values()], [...shadows.values()]);
  } catch (error) {
    for (const eventFd of eventFds.values()) eventFd.close();
    for (const shadow of shadows.values()) shadow.close();
    throw error;
  } finally {
    closeFds(fds.filter((fd) => fd >= 0));
  }
}

function eventFdOf(index: number, fds: number[], made: Map<number, NativeEventFd>): NativeEventFd {
  const known = made.get(index);
  if (known !== undefined) return known;
  // `checkSubRegion` has checked the index.
  const eventFd = new (native().EventFd)(fds[index]!, () => undefined);
  fds[index] = -1;
  made.set(index, eventFd);
  return eventFd;
}

function shadowOf(
  context: DeviceContext,
  sub: SubRegion,
  fds: readonly number[],
  made: Map<number, MappedArea>,
): MappedArea | undefined {
  if (sub.type !== IO_FD_TYPE_IOEVENTFD_SHADOW) return undefined;
  const known = made.get(sub.shadowFdIndex);
  if (known !== undefined) return known;
  const fd = fds[sub.shadowFdIndex] ?? -1;
  if (fd < 0) throw new ProtocolError('GET_REGION_IO_FDS: one fd is both an eventfd and shadow memory');
  const info = native().fdInfo(fd);
  const size = typeof info === 'number' ? 0 : info.size;
  if (sub.shadowOffset + Math.max(sub.size, 1) > size) {
    throw new ProtocolError(
      `GET_REGION_IO_FDS: a shadow at offset ${sub.shadowOffset} of a file of ${size} bytes`,
    );
  }
  const part = { fd, offset: 0, size, readable: true, writable: true };
  const shadow = mapFile(context, 'the shadow memory of an ioeventfd', part, 0);
  made.set(sub.shadowFdIndex, shadow);
  return shadow;
}

function checkSubRegion(sub: SubRegion, regionSize: number, fdCount: number): void {
  if (sub.offset + sub.size > regionSize) {
    throw new ProtocolError(
      `GET_REGION_IO_FDS: a part of ${sub.size} bytes at ${sub.offset} lies outside the region`,
    );
  }
  const shadowIndex = sub.type === IO_FD_TYPE_IOEVENTFD_SHADOW ? sub.shadowFdIndex : 0;
  if (sub.fdIndex >= fdCount || shadowIndex >= fdCount) {
    throw new ProtocolError('GET_REGION_IO_FDS: an fd index names no file descriptor that came');
  }
}

function kindOf(sub: SubRegion): IoFd['kind'] {
  if (sub.type === IO_FD_TYPE_IOREGIONFD) return 'ioregionfd';
  return sub.type === IO_FD_TYPE_IOEVENTFD_SHADOW ? 'shadow-ioeventfd' : 'ioeventfd';
}
