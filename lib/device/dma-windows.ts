/**
 * The windows that the server has been told of, and the commands that tell it (specification: VFIO_USER_DMA_MAP,
 * VFIO_USER_DMA_UNMAP).
 *
 * A window is in the table from before its DMA_MAP is sent until after its DMA_UNMAP is answered: the server may use it
 * as soon as it knows of it, and until it has said that it does not.
 */
import type { CallOptions, TrackedCallOptions } from '../connection/index.js';
import { ClosedError, ProtocolError, UnsupportedError } from '../errors.js';
import { Command, DMA_MAP_FLAG_READ, DMA_MAP_FLAG_WRITE } from '../protocol/constants.js';
import { decodeDmaUnmapReply, encodeDmaMap, encodeDmaUnmap } from '../protocol/dma-map.js';
import type { DmaServer } from './dma-server.js';
import { PAGE_SIZE, addressOf, pageOf, type DmaTable } from './dma-table.js';
import { DmaWindow, type WindowAccess, type WindowMemory } from './dma-window.js';
import type { Session } from './session.js';

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

export class DmaWindows {
  readonly #session: Session;
  readonly #table: DmaTable<DmaWindow>;
  readonly #server: DmaServer;
  /** Windows whose fd the server has not got. */
  #unshared = 0;
  /** What `inFlightLimit` was before it had to be 1. */
  #inFlightBefore: number | undefined;

  constructor(session: Session, table: DmaTable<DmaWindow>, server: DmaServer) {
    this.#session = session;
    this.#table = table;
    this.#server = server;
  }

  /** What addresses and sizes must be multiples of: the server's smallest page, and no less than ours. Bytes. */
  get granule(): number {
    const { pgsizes } = this.#session.negotiated.capabilities;
    return Math.max(PAGE_SIZE, Number(pgsizes & -pgsizes));
  }

  /** Whether the server can be given fds. */
  get canShare(): boolean {
    return this.#session.maxMsgFds > 0;
  }

  /** The window that has exactly these addresses. */
  findExact(page: number, pages: number): DmaWindow | undefined {
    const window = this.#table.find(page);
    return window?.page === page && window.pages === pages ? window : undefined;
  }

  /**
   * Free addresses, on a huge page, that a device with `addressBits` address lines can reach.
   * @throws RangeError where there are none; UnsupportedError where the server takes no more windows.
   */
  choosePage(pages: number, addressBits: number): number {
    this.#checkRoom();
    const alignment = Math.max(HUGE_PAGE_SIZE, this.granule) / PAGE_SIZE;
    const end = pageOf(1n << BigInt(addressBits));
    const page =
      end > HIGH_FROM
        ? this.#table.findGap(pages, alignment, HIGH_FROM, Math.min(end, HIGH_TO))
        : (this.#table.findGap(pages, alignment, LOW_FROM, Math.min(end, MSI_FROM)) ??
          this.#table.findGap(pages, alignment, MSI_TO, end));
    if (page !== undefined) return page;
    throw new RangeError(
      `no ${pages * PAGE_SIZE} bytes of DMA addresses are free below 2^${Math.min(addressBits, 47)}`,
    );
  }

  /** Refuses addresses that are in use. @throws RangeError; UnsupportedError where the server takes no more windows. */
  checkFree(page: number, pages: number): void {
    this.#checkRoom();
    const other = this.#table.overlap(page, pages);
    if (other === undefined) return;
    const why = other.state === 'quarantined' ? ' (kept since its DMA_MAP or DMA_UNMAP was given up)' : '';
    throw new RangeError(
      `${pages * PAGE_SIZE} bytes at ${hex(addressOf(page))} overlap ` +
        `the mapping of ${other.size} bytes at ${hex(other.iova)}${why}`,
    );
  }

  /**
   * DMA_MAP. `page` has just been chosen, or found free. Owns what is in `memory` from here on, also on failure.
   * @throws RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async map(
    page: number,
    pages: number,
    access: WindowAccess,
    memory: WindowMemory,
    fileOffset: number,
    options: CallOptions | undefined,
  ): Promise<DmaWindow> {
    const window = new DmaWindow(page, pages, access, memory, fileOffset);
    this.#add(window);
    let abandoned = false;
    try {
      await this.#sendMap(window, { ...options, onAbandoned: () => (abandoned = true) });
    } catch (error) {
      if (abandoned && !window.closed) window.state = 'quarantined';
      else this.#remove(window);
      throw error;
    }
    if (window.closed) throw new ClosedError('DMA_MAP: the device is closed');
    window.state = 'mapped';
    return window;
  }

  /**
   * DMA_UNMAP, after which the memory is given back. Asked for again, it is the one that is under way; nothing is done
   * where the window is closed or quarantined. With the connection gone, only the memory is given back.
   * @throws RemoteError, which leaves it mapped; TimeoutError, ProtocolError and the signal's reason, which quarantine it.
   */
  unmap(window: DmaWindow, options: CallOptions | undefined): Promise<void> {
    if (window.state === 'closed' || window.state === 'quarantined') return Promise.resolve();
    return (window.unmapping ??= this.#unmap(window, options).finally(() => (window.unmapping = undefined)));
  }

  /**
   * The server has come back and knows of nothing: tells it of every window again. What was quarantined because of its
   * predecessor is free.
   * @throws RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async restore(options: CallOptions | undefined): Promise<void> {
    this.#inFlightBefore = undefined;
    const windows = [...this.#table];
    for (const window of windows) if (window.state === 'quarantined') this.#remove(window);
    this.#adjustInFlight();
    const mapped = windows.filter((window) => window.state === 'mapped');
    await Promise.all(mapped.map((window) => this.#sendMap(window, options)));
  }

  /** The connection is gone: gives everything back. */
  close(): void {
    for (const window of this.#table) this.#remove(window);
  }

  #sendMap(
    { access, fileOffset, iova, size, fd }: DmaWindow,
    options: TrackedCallOptions | undefined,
  ): Promise<void> {
    // The MMAP flag of newest servers is what an fd without it means; older ones refuse it.
    const flags = (access.readable ? DMA_MAP_FLAG_READ : 0) | (access.writable ? DMA_MAP_FLAG_WRITE : 0);
    const offset = access.shared ? fileOffset : 0;
    const payload = encodeDmaMap({ flags, offset, address: iova, size: BigInt(size) });
    const fds = access.shared ? [fd] : null;
    return this.#session.connection.call(Command.DMA_MAP, payload, fds, ignoreReply, options);
  }

  async #unmap(window: DmaWindow, options: CallOptions | undefined): Promise<void> {
    const { connection } = this.#session;
    window.state = 'unmapping';
    let abandoned = false;
    try {
      if (connection.endReason === undefined) {
        const payload = encodeDmaUnmap({ flags: 0, address: window.iova, size: BigInt(window.size) });
        const decode = (_slot: unknown, bytes: Buffer, start: number, end: number): void =>
          checkUnmapReply(window, bytes, start, end);
        await connection.call(Command.DMA_UNMAP, payload, null, decode, {
          ...options,
          onAbandoned: () => (abandoned = true),
        } satisfies TrackedCallOptions);
      }
      this.#remove(window);
    } catch (error) {
      if (window.closed) return;
      if (error instanceof ClosedError) {
        this.#remove(window);
        return;
      }
      // After a reply that makes no sense nobody knows either.
      window.state = abandoned || error instanceof ProtocolError ? 'quarantined' : 'mapped';
      throw error;
    }
  }

  #add(window: DmaWindow): void {
    this.#table.insert(window);
    if (!window.access.shared) this.#unshared++;
    this.#adjustInFlight();
  }

  #remove(window: DmaWindow): void {
    if (window.closed) return;
    this.#table.delete(window);
    this.#server.forget(window);
    this.#session.connection.copyLentBodies();
    window.close();
    if (!window.access.shared) this.#unshared--;
    this.#adjustInFlight();
  }

  /**
   * Without a twin socket, libvfio-user reads the reply to its DMA_READ from the command socket, and loses step when it
   * finds a command there. Streams are at 1 anyway.
   */
  #adjustInFlight(): void {
    const { connection, options } = this.#session;
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
    const { maxDmaMaps } = this.#session.negotiated.capabilities;
    if (this.#table.size < maxDmaMaps) return;
    throw new UnsupportedError(
      `the server takes at most ${maxDmaMaps} DMA mappings at a time (max_dma_maps)`,
    );
  }
}

/** Old servers answer with nothing, newer ones with the request. */
function checkUnmapReply(window: DmaWindow, bytes: Buffer, start: number, end: number): void {
  const reply = decodeDmaUnmapReply(bytes, start, end);
  if (reply === undefined || (reply.address === window.iova && reply.size === BigInt(window.size))) return;
  throw new ProtocolError(
    `DMA_UNMAP reply: ${reply.size} bytes at ${hex(reply.address)}, asked for ${window.size} at ${hex(window.iova)}`,
  );
}

function ignoreReply(): void {}

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
