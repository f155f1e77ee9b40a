/**
 * Memory that the device can reach. Three ways lead to the same bytes: this process has them as `buffer.bytes`, the
 * server maps the fd that it was given, and where it was given none it asks, with DMA_READ and DMA_WRITE.
 *
 * dma-map-manager.ts tells the server of memory, dma-server.ts answers it, arena-pool.ts cuts memory into buffers.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { forbidCloning } from '../cloning.js';
import { Exclusive, ownOr, type CallOptions } from '../connection/index.js';
import { ClosedError, TransportError, UnsupportedError } from '../errors.js';
import { bigInteger, integer, outOfRange, wrongType } from '../fields.js';
import { check, native, type FdInfo } from '../native.js';
import * as option from '../options.js';
import { ArenaPool } from './arena-pool.js';
import type { ArenaKind } from './arena.js';
import { DirtyPages } from './dirty-tracking.js';
import { DmaBuffer } from './dma-buffer.js';
import { HandlerBacking } from './dma-handler.js';
import { DmaMapping } from './dma-mapping.js';
import {
  ALLOC_OPTIONS,
  checkMapOptions,
  type DmaAccessOptions,
  type DmaAllocOptions,
  type DmaHandlerOptions,
  type DmaMapOptions,
  type DmaOptions,
} from './dma-options.js';
import { DmaServer } from './dma-server.js';
import { IovaMap, END_PAGE, PAGE_SIZE, alignUp, pageOf } from './iova-map.js';
import { TransactionBuffers, TransactionLog, type DmaTransaction } from './dma-transaction.js';
import { MAX_VIEW_BYTES, type DmaRegion, type DmaRegionAccess, type DmaRegionMemory } from './dma-region.js';
import { DmaMapManager, HUGE_PAGE_SIZE, hex } from './dma-map-manager.js';
import type { DeviceContext } from './device-context.js';
import { EINVAL, ENODEV } from '../system-numbers.js';

export { DmaBuffer } from './dma-buffer.js';
export { DirtyPages, type DirtyMethod, type DirtyOptions, type DirtyRange } from './dirty-tracking.js';
export type { DmaHandler } from './dma-handler.js';
export { DmaMapping } from './dma-mapping.js';
export type {
  DmaAccessOptions,
  DmaAllocOptions,
  DmaHandlerOptions,
  DmaMapOptions,
  DmaOptions,
} from './dma-options.js';
export type { DmaTransaction } from './dma-transaction.js';

const DEFAULT_ARENA_BYTES = 4 << 20;
const DEFAULT_ALIGNMENT = 4096;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/**
 * Memory that the device can reach (specification: VFIO_USER_DMA_MAP, VFIO_USER_DMA_UNMAP, VFIO_USER_DMA_READ,
 * VFIO_USER_DMA_WRITE). This process has it as `buffer.bytes`; the server maps the fd that it was given, and
 * where it was given none it asks by message.
 *
 * @example
 * ```ts
 * await using buffer = await device.dma.alloc(4096);
 * buffer.bytes.write('hello, device');
 * await device.bar(0).writeUInt64(0x80, buffer.iova);
 * ```
 */
export class Dma {
  /** Which memory the device has written. */
  readonly dirty: DirtyPages;
  readonly #context: DeviceContext;
  readonly #secure: boolean;
  readonly #table = new IovaMap<DmaRegion>();
  readonly #server: DmaServer;
  readonly #manager: DmaMapManager;
  readonly #pool: ArenaPool;
  /** One transaction at a time: what one undoes, another must not build upon. */
  readonly #exclusive = new Exclusive();
  readonly #inTransaction = new AsyncLocalStorage<true>();

  /** @internal See `device.dma`. */
  constructor(context: DeviceContext, options: DmaOptions = {}) {
    const arenaBytes = options.arenaBytes ?? DEFAULT_ARENA_BYTES;
    checkWhole('arenaBytes', arenaBytes, MAX_VIEW_BYTES);
    this.#server = new DmaServer(this.#table, () => context.connection.copyLentBodies());
    this.#context = context;
    this.#secure = options.secureDma ?? false;
    this.#manager = new DmaMapManager(context, this.#table, this.#server);
    const pooled = alignUp(arenaBytes, HUGE_PAGE_SIZE);
    this.#pool = new ArenaPool(this.#manager, pooled, options.hugePages ?? false);
    this.dirty = new DirtyPages({
      context,
      table: this.#table,
      server: this.#server,
      manager: this.#manager,
      isSecure: this.#secure,
    });
    context.connection.requestHandler = this.#server;
    context.addResource(this);
    forbidCloning(this, 'a Dma');
  }

  /**
   * Zeroed memory of `size` bytes, up to 4 GiB. Small buffers share memory that is mapped a few MiB at a time; a buffer
   * larger than that takes a DMA_MAP, and a DMA_UNMAP when it is freed, of its own.
   * @throws RangeError for sizes and alignments that make no sense, or where no addresses are free; UnsupportedError
   * where the server takes no more mappings, or off Linux; TransportError where memory is short; RemoteError,
   * TimeoutError, ClosedError; the signal's reason.
   */
  async alloc(size: number, options: DmaAllocOptions = {}): Promise<DmaBuffer> {
    ALLOC_OPTIONS.check('Dma.alloc', options);
    const { alignment, kind } = this.#wanted(size, options);
    const allocation = await this.#pool.allocate(size, alignment, kind, options);
    // The device may have been closed since the allocation was found.
    if (allocation.arena.region.isClosed) throw new ClosedError('DMA_MAP: the device is closed');
    return new DmaBuffer(this.#pool, allocation, size);
  }

  /**
   * Lets the device use memory of the caller's, or what a handler of the caller's makes of it: DMA_MAP. What is behind
   * the fd may be truncated by others; then the server's requests are refused, but a server that maps the fd itself may
   * die of it.
   * @throws RangeError for addresses that are unaligned, in use, or beyond the file's end; UnsupportedError where the
   * server takes no more mappings or fds; TransportError for an fd that cannot be used; RemoteError, TimeoutError,
   * ClosedError; the signal's reason.
   */
  async map(options: DmaMapOptions | DmaHandlerOptions): Promise<DmaMapping> {
    checkMapOptions('Dma.map', options);
    const { region, mapped } = this.#begin(options);
    await mapped;
    return new DmaMapping(this.#manager, region);
  }

  /**
   * Maps, allocates and unmaps together: commands are sent as `tx` is told, without waiting, and all are awaited when the callback
   * has ended. Where one fails, or the callback throws, the rest is undone. Transactions of a device run one after the
   * other, and do not nest. The time that `options` give is for waiting for its turn, the callback and all commands that have
   * none of their own.
   * @returns what the callback returned.
   * @throws DmaBatchError, whose `failures` say which failed; what the callback threw; TypeError for nested ones.
   */
  async transaction<T>(callback: (tx: DmaTransaction) => T | Promise<T>, options?: CallOptions): Promise<T> {
    if (typeof callback !== 'function') throw wrongType('Dma.transaction: callback', 'a function', callback);
    option.CALL_OPTIONS.check('Dma.transaction', options);
    this.#refuseNested();
    return this.#exclusive.run('Dma.transaction', options, async (call) => {
      const log = new TransactionLog(this.#manager);
      const buffers = new TransactionBuffers(this.#pool);
      let isDone = false;
      try {
        const result = await this.#run(callback, log, buffers, call);
        await log.commit(call);
        isDone = true;
        buffers.commit();
        return result;
      } finally {
        if (!isDone) buffers.undo();
      }
    });
  }

  /**
   * Undoes every `map` and `alloc`: at once where the server can, else one by one. Waits for transactions.
   * @throws DmaBatchError, whose `failures` say what is still mapped; TimeoutError, ProtocolError and the signal's reason,
   * after which addresses and memory may be reserved until the device is closed.
   */
  async unmapAll(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Dma.unmapAll', options);
    this.#refuseNested();
    await this.#exclusive.run('Dma.unmapAll', options, (call) => this.#manager.unmapAll(call));
  }

  /**
   * Undoes `map`, given exactly what was mapped; see `DmaMapping.unmap`.
   * @throws RangeError where nothing is mapped like that; TypeError, RangeError for what is no address or size.
   */
  async unmap(iova: bigint, size: number, options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Dma.unmap', options);
    checkWhole('size', size, Number.MAX_SAFE_INTEGER, PAGE_SIZE);
    const pages = size / PAGE_SIZE;
    const page = checkIova(iova, pages, PAGE_SIZE);
    const region = this.#manager.findExact(page, pages);
    if (region === undefined || region.isArena || region.state !== 'mapped') {
      throw new RangeError(`map() has mapped nothing of ${size} bytes at ${hex(iova)}`);
    }
    await this.#manager.unmap(region, options);
  }

  /** @internal On a new connection: the server may ask again, and is told of all memory. */
  async restore(options?: CallOptions): Promise<void> {
    this.#context.connection.requestHandler = this.#server;
    await this.#manager.restore(options);
    await this.dirty.restore(options);
  }

  /** @internal With the device: the server is gone, every buffer and mapping is closed. */
  close(): void {
    this.#manager.close();
  }

  #refuseNested(): void {
    if (this.#inTransaction.getStore() === true) {
      throw new TypeError('neither transactions nor unmapAll can be called within a transaction');
    }
  }

  async #run<T>(
    callback: (tx: DmaTransaction) => T | Promise<T>,
    log: TransactionLog,
    buffers: TransactionBuffers,
    options: CallOptions | undefined,
  ): Promise<T> {
    try {
      return await this.#inTransaction.run(true, () => callback(this.#transactionOn(log, buffers, options)));
    } catch (error) {
      await log.rollBack(error, options);
      throw error;
    }
  }

  #transactionOn(
    log: TransactionLog,
    buffers: TransactionBuffers,
    options: CallOptions | undefined,
  ): DmaTransaction {
    return {
      alloc: (size, own = {}) => {
        log.checkOpen();
        ALLOC_OPTIONS.check('DmaTransaction.alloc', own);
        const { alignment, kind } = this.#wanted(size, own);
        return buffers.alloc(size, alignment, kind, log, ownOr(options, own));
      },
      map: (wanted) => {
        log.checkOpen();
        checkMapOptions('DmaTransaction.map', wanted);
        const { region, mapped } = this.#begin(ownOr(options, wanted));
        log.mapped(region, mapped);
        return new DmaMapping(this.#manager, region);
      },
      unmap: (mapping, own) => {
        log.checkOpen();
        if (!(mapping instanceof DmaMapping))
          throw wrongType('DmaTransaction.unmap: mapping', 'a DmaMapping', mapping);
        option.CALL_OPTIONS.check('DmaTransaction.unmap', own);
        log.unmap(mapping.region, ownOr(options, own ?? {}));
      },
    };
  }

  /** Checks everything, then sends DMA_MAP. */
  #begin(options: DmaMapOptions | DmaHandlerOptions): { region: DmaRegion; mapped: Promise<void> } {
    const { size, iova } = options;
    const isHandler = 'handler' in options;
    const { granule } = this.#manager;
    checkWhole('size', size, Number.MAX_SAFE_INTEGER, granule);
    const offset = isHandler ? 0 : (options.offset ?? 0);
    checkWhole('offset', offset, Number.MAX_SAFE_INTEGER - size, PAGE_SIZE, 0);
    const access = isHandler ? this.#access({ ...options, share: false }) : this.#fileAccess(options);
    const backing = isHandler ? handlersMemory(options) : undefined;
    const pages = size / PAGE_SIZE;
    const addressBits = addressBitsOf(options);
    const page =
      iova === undefined ? this.#manager.choosePage(pages, addressBits) : checkIova(iova, pages, granule);
    if (iova !== undefined) this.#manager.checkFree(page, pages);
    const memory = backing ?? callersMemory((options as DmaMapOptions).fd, offset, size, access);
    return this.#manager.beginMap(page, pages, access, memory, offset, options);
  }

  /** Checks what a buffer is to be like. */
  #wanted(size: number, options: DmaAllocOptions): { alignment: number; kind: ArenaKind } {
    checkWhole('size', size, MAX_VIEW_BYTES);
    const alignment = options.alignment ?? DEFAULT_ALIGNMENT;
    if ((integer('alignment', alignment, 1, HUGE_PAGE_SIZE) & (alignment - 1)) !== 0) {
      throw outOfRange(`alignment must be a power of two up to ${HUGE_PAGE_SIZE}, got ${alignment}`);
    }
    return { alignment, kind: { ...this.#access(options), addressBits: addressBitsOf(options) } };
  }

  #fileAccess(options: DmaMapOptions): DmaRegionAccess {
    const access = this.#access(options);
    if (options.fileIo !== true) return access;
    if (!access.shared) throw new UnsupportedError('FILE_IO gives the server the fd, which is withheld here');
    return { ...access, fileIo: true };
  }

  #access({ readable = true, writable = true, share }: DmaAccessOptions): DmaRegionAccess {
    if (!readable && !writable) throw new TypeError('DMA memory is readable or writable, or both');
    const { canShare } = this.#manager;
    if (share === true && this.#secure)
      throw new UnsupportedError('the device was opened with secureDma: nothing is shared');
    if (share === true && !canShare) {
      throw new UnsupportedError(`no file descriptor can be passed to ${this.#context.connection.peer}`);
    }
    return { readable, writable, shared: share ?? (canShare && !this.#secure) };
  }
}

function handlersMemory({ handler, async = false }: DmaHandlerOptions): DmaRegionMemory {
  return { fd: -1, mapping: undefined, sealed: false, handler: new HandlerBacking(handler, async) };
}

/** Our own fd and view of the caller's file. */
function callersMemory(fd: number, offset: number, size: number, access: DmaRegionAccess): DmaRegionMemory {
  const info = check(native().fdInfo(fd), 'fstat', `fd ${fd}`) as FdInfo;
  if ((info.mode & S_IFMT) === S_IFREG && offset + size > info.size) {
    throw new RangeError(`fd ${fd}: [${offset}, ${offset + size}) is out of bounds (size ${info.size})`);
  }
  const own = check(native().dupFd(fd), 'fcntl', `fd ${fd}`);
  const mapping = native().map(own, offset, size, access.readable, access.writable);
  if (typeof mapping !== 'number') return { fd: own, mapping, sealed: false };
  // Files that cannot be mapped, as some dma-bufs: the server may still know what to do with them.
  if (access.shared && (mapping === -ENODEV || mapping === -EINVAL))
    return { fd: own, mapping: undefined, sealed: false };
  native().closeFd(own);
  throw new TransportError('mmap', -mapping, `fd ${fd}, ${size} bytes from offset ${offset}`);
}

function checkIova(iova: bigint, pages: number, granule: number): number {
  if (bigInteger('iova', iova) % BigInt(granule) !== 0n)
    throw outOfRange(`iova must be a multiple of ${granule}, got ${hex(iova)}`);
  const page = pageOf(iova);
  if (page + pages <= END_PAGE) return page;
  throw outOfRange(`${pages * PAGE_SIZE} bytes at ${hex(iova)} run past the 64-bit address space`);
}

function addressBitsOf({ addressBits = 64 }: DmaAccessOptions): number {
  return addressBits;
}

/** A multiple of `step` from `least` to `most`. */
function checkWhole(name: string, value: number, most: number, step = 1, least = step): void {
  if (step === 1) integer(name, value, least, most);
  if (typeof value !== 'number') throw wrongType(name, 'a number', value);
  if (Number.isSafeInteger(value) && value >= least && value <= most && value % step === 0) return;
  throw outOfRange(`${name} must be a multiple of ${step} from ${least} to ${most}, got ${value}`);
}
