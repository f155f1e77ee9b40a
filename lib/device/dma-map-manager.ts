/**
 * The regions that the server has been told of, and the commands that tell it (specification: VFIO_USER_DMA_MAP,
 * VFIO_USER_DMA_UNMAP).
 *
 * A region is in the table from before its DMA_MAP is sent until after its DMA_UNMAP is answered: the server may use it
 * as soon as it knows of it, and until it has said that it does not.
 */
import {
  withDeadline,
  within,
  type CallOptions,
  type Connection,
  type TrackedCallOptions,
} from '../connection/index.js';
import { ClosedError, DmaBatchError, ProtocolError, RemoteError, UnsupportedError } from '../errors.js';
import {
  Command,
  DMA_MAP_FLAG_FILE_IO,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  DMA_UNMAP_FLAG_ALL,
  DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
} from '../protocol/constants.js';
import {
  decodeDmaUnmapReply,
  encodeDmaMap,
  encodeDmaUnmap,
  type DmaUnmap,
  type DmaUnmapReply,
} from '../protocol/dma-map.js';
import type { DmaServer } from './dma-server.js';
import { PAGE_SIZE, addressOf, pageOf, type IovaMap } from './iova-map.js';
import { IovaRanges } from './iova-ranges.js';
import { DmaRegion, type DmaRegionAccess, type DmaRegionMemory } from './dma-region.js';
import type { DeviceContext } from './device-context.js';

/** Libraries and devices like their mappings on, and in, huge pages of this size (SPDK registers no other). */
export const HUGE_PAGE_SIZE = 2 << 20;

/** Addresses that we choose lie above 4 GiB, where no device has its registers, and within what every IOMMU can do. */
const HIGH_FROM = pageOf(1n << 32n);
const HIGH_TO = pageOf(1n << 47n);
/** Below, for devices that cannot count further: not at 0, which many take for no address. */
const LOW_FROM = pageOf(BigInt(HUGE_PAGE_SIZE));
/** Where x86 devices write their MSIs (Intel SDM volume 3, section 11.11.1): not memory. */
const MSI_FROM = pageOf(0xfee0_0000n);
const MSI_TO = pageOf(0xff00_0000n);

/** QEMU accepts 16 mappings but does not advertise a limit. */
const QEMU_MAP_LIMIT = 16;

export type UnmapBitmap = NonNullable<DmaUnmap['bitmap']>;

/** Wants to know what the device wrote to memory that is about to be unmapped. */
export interface UnmapWatcher {
  /** The bitmap that DMA_UNMAP is to bring; undefined where it is to bring none. */
  bitmapFor(region: DmaRegion): UnmapBitmap | undefined;
  /** What is asked before DMA_UNMAP is sent; undefined where nothing is. */
  collect(region: DmaRegion, options: CallOptions | undefined): Promise<void> | undefined;
  onUnmapped(region: DmaRegion, bitmap: DmaUnmapReply['bitmap']): void | Promise<void>;
  /** DMA_UNMAP with a bitmap was answered with that error; it is sent without one when this is done. */
  onBitmapRefused(region: DmaRegion, error: RemoteError, options: CallOptions | undefined): Promise<void>;
  /** It is gone, or kept from use, and nobody was told what the device wrote to it last. */
  onLost(region: DmaRegion): void;
}

export class DmaMapManager {
  watcher: UnmapWatcher | undefined;
  readonly #context: DeviceContext;
  readonly #table: IovaMap<DmaRegion>;
  readonly #server: DmaServer;
  readonly #ranges: IovaRanges;
  /** DMA regions whose fd the server has not got. */
  #unshared = 0;
  /** DMA regions with asynchronous handlers. */
  #asynchronous = 0;
  /** The server does not know DMA_UNMAP's ALL flag. */
  #allRefused = false;
  /** The connection whose server is told of memory: one that has come back is not before it has been looked at. */
  #mappedOn: Connection;
  /** What `inFlightLimit` was before it had to be 1. */
  #inFlightBefore: number | undefined;

  constructor(context: DeviceContext, table: IovaMap<DmaRegion>, server: DmaServer) {
    this.#context = context;
    this.#table = table;
    this.#server = server;
    this.#ranges = new IovaRanges(context.options.addresses);
    this.#mappedOn = context.connection;
  }

  /** The default deadline. */
  get timeoutMs(): number {
    return this.#context.connection.timeoutMs;
  }

  /** What addresses and sizes must be multiples of: the server's smallest page, and no less than ours. Bytes. */
  get granule(): number {
    const { pgsizes } = this.#context.negotiated.capabilities;
    return Math.max(PAGE_SIZE, Number(pgsizes & -pgsizes));
  }

  /** Whether the server can be given fds. */
  get canShare(): boolean {
    return this.#context.maxMsgFds > 0;
  }

  /** How many more regions the server takes; no more than one that does not say so would. */
  get slotsLeft(): number {
    return Math.min(this.#context.negotiated.capabilities.maxDmaMaps, QEMU_MAP_LIMIT) - this.#table.size;
  }

  /** How many more regions the server says that it takes. */
  get advertisedSlotsLeft(): number {
    return this.#context.negotiated.capabilities.maxDmaMaps - this.#table.size;
  }

  /** The region that has exactly these addresses. */
  findExact(page: number, pages: number): DmaRegion | undefined {
    const region = this.#table.find(page);
    return region?.page === page && region.pages === pages ? region : undefined;
  }

  /**
   * Free addresses, on a huge page, that a device with `addressBits` address lines can reach.
   * @throws RangeError where there are none; UnsupportedError where the server takes no more regions.
   */
  choosePage(pages: number, addressBits: number): number {
    this.#checkRoom();
    const alignment = Math.max(HUGE_PAGE_SIZE, this.granule) / PAGE_SIZE;
    for (const [from, to] of this.#places(pageOf(1n << BigInt(addressBits)))) {
      const page = this.#table.findGap(pages, alignment, from, to);
      if (page !== undefined) return page;
    }
    const within = this.#ranges.areKnown ? `, and the IOMMU takes ${String(this.#ranges)}` : '';
    throw new RangeError(
      `no ${pages * PAGE_SIZE} bytes of DMA addresses are free below 2^${Math.min(addressBits, 47)}${within}`,
    );
  }

  /** Where addresses below page `end` may be chosen, the best places first. */
  *#places(end: number): Generator<readonly [from: number, to: number]> {
    const isWide = end > HIGH_FROM;
    if (isWide) yield* this.#ranges.within(HIGH_FROM, Math.min(end, HIGH_TO));
    // A narrow IOMMU has no higher ones; of one that nobody knows, the low ones may be a hole.
    if (isWide && !this.#ranges.areKnown) return;
    yield* this.#ranges.within(LOW_FROM, Math.min(end, MSI_FROM));
    yield* this.#ranges.within(MSI_TO, Math.min(end, HIGH_FROM));
  }

  /**
   * Refuses addresses that are in use, or that the IOMMU does not take.
   * @throws RangeError; UnsupportedError where the server takes no more regions.
   */
  checkFree(page: number, pages: number): void {
    this.#checkRoom();
    if (!this.#ranges.has(page, pages)) {
      throw new RangeError(
        `${pages * PAGE_SIZE} bytes at ${hex(addressOf(page))} are not within what the IOMMU takes: ${String(this.#ranges)}`,
      );
    }
    const other = this.#table.overlap(page, pages);
    if (other === undefined) return;
    const why = other.state === 'quarantined' ? ' (kept since its DMA_MAP or DMA_UNMAP was given up)' : '';
    throw new RangeError(
      `${pages * PAGE_SIZE} bytes at ${hex(addressOf(page))} overlap ` +
        `the mapping of ${other.size} bytes at ${hex(other.iova)}${why}`,
    );
  }

  /** `beginMap`, awaited. */
  async map(...of: Parameters<DmaMapManager['beginMap']>): Promise<DmaRegion> {
    const { region, mapped } = this.beginMap(...of);
    await mapped;
    return region;
  }

  /**
   * DMA_MAP, sent at once; `mapped` settles with its reply. `page` has just been chosen, or found free. Owns what is in
   * `memory` from here on, also on failure. Rejects with RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  beginMap(
    page: number,
    pages: number,
    access: DmaRegionAccess,
    memory: DmaRegionMemory,
    fileOffset: number,
    options: CallOptions | undefined,
  ): { region: DmaRegion; mapped: Promise<void> } {
    const region = new DmaRegion(page, pages, access, memory, fileOffset);
    this.#add(region);
    return { region, mapped: this.#completeMap(region, options) };
  }

  /**
   * Undoes `beginUnmap`. What the server refuses is given back; with the connection gone it is mapped as it was, for the
   * server to be told when it comes back.
   * @throws RemoteError, TimeoutError; the signal's reason.
   */
  async undoUnmap(region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    try {
      await this.#completeMap(region, options);
    } catch (error) {
      if (!(error instanceof ClosedError)) throw error;
    }
  }

  /**
   * DMA_UNMAP, after which the memory is given back. Asked for again, it is the one that is under way, waited for as long as
   * these options allow; nothing is done where the region is closed or quarantined. With the connection gone, or a server
   * that was not told of it yet, only the memory is given back.
   * @throws RemoteError, which leaves it mapped; TimeoutError, ProtocolError and the signal's reason, which quarantine it.
   */
  unmap(region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    if (region.state === 'closed' || region.state === 'quarantined') return Promise.resolve();
    const { unmapping } = region;
    if (unmapping === undefined) return this.#track(region, this.#unmap(region, withDeadline(options)));
    return within('DMA_UNMAP', unmapping, withDeadline(options), this.timeoutMs);
  }

  /** Whoever wants the region unmapped meanwhile waits for `work`. */
  #track(region: DmaRegion, work: Promise<void>): Promise<void> {
    return (region.unmapping = work.finally(() => (region.unmapping = undefined)));
  }

  /**
   * The server has come back and knows of nothing: tells it of every region again. What was quarantined because of its
   * predecessor is free.
   * @throws RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async restore(options: CallOptions | undefined): Promise<void> {
    this.#mappedOn = this.#context.connection;
    this.#inFlightBefore = undefined;
    this.#allRefused = false;
    this.#refuseSync();
    const regions = [...this.#table];
    for (const region of regions) if (region.state === 'quarantined') this.#remove(region);
    this.#adjustInFlight();
    const untold = regions.filter((region) => region.state === 'mapped' && !this.#isKnown(region));
    await Promise.all(untold.map((region) => this.#sendMap(region, options)));
  }

  /** The device is closed: gives everything back. */
  close(): void {
    const reason = new ClosedError('the device was closed');
    const regions = [...this.#table];
    // All of them before the first is taken: who looks at one of them may look at another.
    for (const region of regions) region.announceRelease(reason);
    for (const region of regions) this.#remove(region);
  }

  /** Whether the server was told of it: one that has come back knows of no region before `restore`. */
  #isKnown({ mapSentOn }: DmaRegion): boolean {
    const { connection } = this.#context;
    return mapSentOn === connection && connection.endReason === undefined;
  }

  #sendMap(region: DmaRegion, options: TrackedCallOptions | undefined): Promise<void> {
    const { access, fileOffset, iova, size, fd } = region;
    const { connection } = this.#context;
    region.mapSentOn = connection;
    // The MMAP flag of newest servers is what an fd without it means; older ones refuse it.
    const flags =
      (access.readable ? DMA_MAP_FLAG_READ : 0) |
      (access.writable ? DMA_MAP_FLAG_WRITE : 0) |
      (access.fileIo === true ? DMA_MAP_FLAG_FILE_IO : 0);
    const offset = access.shared ? fileOffset : 0;
    const payload = encodeDmaMap({ flags, offset, address: iova, size: BigInt(size) });
    const fds = access.shared ? [fd] : null;
    return connection.call(Command.DMA_MAP, payload, fds, ignoreReply, options);
  }

  /** Sends DMA_MAP for a region of the table, and gives it its state by the answer. */
  async #completeMap(region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    const isNew = region.state === 'mapping';
    let abandoned = false;
    try {
      // Nobody is to be given memory before it is known who it is: what was there before is told of by `restore`.
      const { unavailable, connection } = this.#context;
      if (unavailable !== undefined && (isNew || this.#mappedOn !== connection)) throw unavailable;
      await this.#sendMap(region, { ...options, onAbandoned: () => (abandoned = true) });
    } catch (error) {
      if (region.isClosed) throw error;
      if (abandoned) region.state = 'quarantined';
      else if (!isNew && error instanceof ClosedError) region.state = 'mapped';
      else this.#remove(region);
      throw this.#explain(region, error);
    }
    if (region.isClosed) throw new ClosedError('DMA_MAP: it was unmapped, or the device closed, meanwhile');
    region.state = 'mapped';
  }

  /** What a server may mean by refusing a mapping without saying why. */
  #explain({ access }: DmaRegion, error: unknown): unknown {
    if (!(error instanceof RemoteError) || error.cause !== undefined) return error;
    const others = this.#table.size;
    const why =
      access.fileIo === true
        ? 'FILE_IO is known to the newest libvfio-user alone'
        : others >= QEMU_MAP_LIMIT
          ? `${others} mappings exist, and some servers, QEMU among them, take ${QEMU_MAP_LIMIT} without saying so`
          : undefined;
    return why === undefined ? error : new RemoteError(error.command, error.errno, { cause: error }, why);
  }

  async #unmap(region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    if (region.isClosed) return;
    await this.beginUnmap(region, options);
    this.#remove(region);
  }

  /**
   * DMA_UNMAP of a mapped region, which keeps its memory and its place in the table: `finishUnmap` or `undoUnmap` it then. With
   * the connection gone, or to a server that was not told of it yet, nothing is sent.
   * @throws RemoteError, which leaves it mapped; TimeoutError, ProtocolError and the signal's reason, which quarantine it.
   */
  async beginUnmap(region: DmaRegion, options: CallOptions | undefined): Promise<void> {
    region.state = 'unmapping';
    region.announceRelease(new ClosedError('the DMA memory was unmapped'));
    const watcher = this.#watcherOf(region);
    if (!this.#isKnown(region)) {
      watcher?.onLost(region);
      return;
    }
    let sent = false;
    let abandoned = false;
    try {
      const collected = watcher?.collect(region, options);
      // Not awaited for nothing: a transaction's commands leave in the order in which it was told.
      if (collected !== undefined) await collected;
      sent = true;
      const bitmap = watcher?.bitmapFor(region);
      await this.#sendUnmap(region, bitmap, { ...options, onAbandoned: () => (abandoned = true) });
    } catch (error) {
      const isGone = region.isClosed || error instanceof ClosedError;
      // After a reply that makes no sense nobody knows either.
      const isUnclear = abandoned || (sent && error instanceof ProtocolError);
      if (isGone || isUnclear) watcher?.onLost(region);
      if (isGone) return;
      region.state = isUnclear ? 'quarantined' : 'mapped';
      throw error;
    }
  }

  /** Frees the memory and the addresses of a region after `beginUnmap`. */
  finishUnmap(region: DmaRegion): void {
    this.#remove(region);
  }

  /**
   * Unmaps every region: at once where the server knows the ALL flag (which frees what is quarantined, too) and nobody
   * watches what is written, else one by one.
   * @throws DmaBatchError where some were refused; TimeoutError, ProtocolError and the signal's reason.
   */
  async unmapAll(options: CallOptions | undefined): Promise<void> {
    const call = withDeadline(options);
    const { negotiated } = this.#context;
    const reason = new ClosedError('the DMA memory was unmapped (unmapAll)');
    for (const region of this.#table) region.announceRelease(reason);
    // What all of them were written last is not told at once.
    const isWatched = [...this.#table].some((region) => this.#watcherOf(region) !== undefined);
    const isTold = [...this.#table].every((region) => this.#isKnown(region));
    const mayAsk = negotiated.minor > 0 && !this.#allRefused && isTold;
    const regions = [...this.#table].filter((region) => region.state !== 'quarantined');
    /** What comes of those that are asked for at once: where that is refused, each is asked for by itself. */
    const begun = new Map<DmaRegion, Promise<void>>();
    if (this.#table.size > 1 && mayAsk && !isWatched) {
      const mapped = regions.filter((region) => region.state === 'mapped');
      const atOnce = this.#sendUnmapAll(mapped, call);
      for (const region of mapped) {
        region.state = 'unmapping';
        const unmapped = this.#track(
          region,
          atOnce.then((isDone) => (isDone ? undefined : this.#unmap(region, call))),
        );
        unmapped.catch(() => undefined);
        begun.set(region, unmapped);
      }
      if (await atOnce) return;
    }
    const outcomes = regions.map((region) =>
      (begun.get(region) ?? this.unmap(region, call)).then(
        () => [],
        (error: unknown) => [
          { operation: 'DMA_UNMAP' as const, iova: region.iova, size: region.size, error },
        ],
      ),
    );
    const failures = (await Promise.all(outcomes)).flat();
    if (failures.length > 0) throw new DmaBatchError(`${failures.length} mappings are left`, failures);
  }

  /** False where the server does not know how: nothing has changed then. */
  async #sendUnmapAll(regions: readonly DmaRegion[], options: CallOptions | undefined): Promise<boolean> {
    let abandoned = false;
    // The server drops what it was told of before it was told this.
    const known = [...this.#table];
    try {
      const payload = encodeDmaUnmap({ flags: DMA_UNMAP_FLAG_ALL, address: 0n, size: 0n });
      await this.#context.connection.call(Command.DMA_UNMAP, payload, null, checkUnmapAllReply, {
        ...options,
        onAbandoned: () => (abandoned = true),
      } satisfies TrackedCallOptions);
    } catch (error) {
      const isGone = error instanceof ClosedError;
      const isUnclear = abandoned || error instanceof ProtocolError;
      for (const region of regions) {
        if (region.isClosed) continue;
        if (isGone || isUnclear) this.#watcherOf(region)?.onLost(region);
        if (isGone) this.#remove(region);
        else region.state = isUnclear ? 'quarantined' : 'mapped';
      }
      if (isGone) return true;
      if (!(error instanceof RemoteError)) throw error;
      this.#allRefused = true;
      return false;
    }
    for (const region of known) {
      // Watching may have begun meanwhile.
      if (!region.isClosed) this.#watcherOf(region)?.onLost(region);
      this.#remove(region);
    }
    return true;
  }

  async #sendUnmap(
    region: DmaRegion,
    bitmap: UnmapBitmap | undefined,
    options: TrackedCallOptions,
  ): Promise<void> {
    const range = { address: region.iova, size: BigInt(region.size) };
    const decode = (bytes: Buffer, start: number, end: number): DmaUnmapReply | undefined =>
      checkUnmapReply(region, bytes, start, end);
    const { connection } = this.#context;
    if (bitmap !== undefined) {
      try {
        const flags = DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
        const payload = encodeDmaUnmap({ flags, ...range, bitmap });
        const reply = await connection.call(Command.DMA_UNMAP, payload, null, decode, options);
        await this.watcher?.onUnmapped(region, reply?.bitmap);
        return;
      } catch (error) {
        if (!(error instanceof RemoteError)) throw error;
        await this.watcher?.onBitmapRefused(region, error, options);
      }
    }
    await connection.call(Command.DMA_UNMAP, encodeDmaUnmap({ flags: 0, ...range }), null, decode, options);
  }

  /** Only what the server maps and may write can it dirty unseen. */
  #watcherOf({ access }: DmaRegion): UnmapWatcher | undefined {
    return access.shared && access.writable ? this.watcher : undefined;
  }

  #add(region: DmaRegion): void {
    this.#table.insert(region);
    if (!region.access.shared) this.#unshared++;
    this.#countAsync(region, 1);
    this.#adjustInFlight();
  }

  #remove(region: DmaRegion): void {
    if (region.isClosed) return;
    this.#table.delete(region);
    this.#server.forget(region);
    this.#context.connection.copyLentBodies();
    region.close();
    if (!region.access.shared) this.#unshared--;
    this.#countAsync(region, -1);
    this.#adjustInFlight();
  }

  #countAsync({ handler }: DmaRegion, by: number): void {
    if (handler?.isAsync !== true) return;
    this.#asynchronous += by;
    this.#refuseSync();
  }

  /** A synchronous call blocks the thread in which an asynchronous handler would have to answer the server first. */
  #refuseSync(): void {
    this.#context.connection.whyNotSync =
      this.#asynchronous === 0
        ? undefined
        : 'no synchronous call can be made while memory with an asynchronous handler is mapped';
  }

  /**
   * Without a twin socket, libvfio-user reads the reply to its DMA_READ from the command socket, and loses step when it
   * finds a command there. Streams are at 1 anyway.
   */
  #adjustInFlight(): void {
    const { connection, options } = this.#context;
    const alone = this.#unshared > 0 && !connection.hasTwin && connection.passesFds && !options.inFlightFixed;
    if (alone && this.#inFlightBefore === undefined) {
      this.#inFlightBefore = connection.inFlightLimit;
      connection.inFlightLimit = 1;
    } else if (!alone && this.#inFlightBefore !== undefined) {
      connection.inFlightLimit = this.#inFlightBefore;
      this.#inFlightBefore = undefined;
    }
  }

  #checkRoom(): void {
    const { maxDmaMaps } = this.#context.negotiated.capabilities;
    if (this.#table.size < maxDmaMaps) return;
    throw new UnsupportedError(
      `the server takes at most ${maxDmaMaps} DMA mappings at a time (max_dma_maps)`,
    );
  }
}

/** Old servers answer with nothing, newer ones with the request. */
function checkUnmapReply(
  region: DmaRegion,
  bytes: Buffer,
  start: number,
  end: number,
): DmaUnmapReply | undefined {
  const reply = decodeDmaUnmapReply(bytes, start, end);
  if (reply === undefined || (reply.address === region.iova && reply.size === BigInt(region.size)))
    return reply;
  throw new ProtocolError(
    `DMA_UNMAP reply: ${reply.size} bytes at ${hex(reply.address)}, asked for ${region.size} at ${hex(region.iova)}`,
  );
}

function checkUnmapAllReply(bytes: Buffer, start: number, end: number): void {
  const reply = decodeDmaUnmapReply(bytes, start, end);
  if (reply === undefined || (reply.address === 0n && reply.size === 0n)) return;
  throw new ProtocolError(
    `DMA_UNMAP reply: ${reply.size} bytes at ${hex(reply.address)}, all was to be unmapped`,
  );
}

function ignoreReply(): void {}

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
