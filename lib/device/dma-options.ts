/** What the functions of `device.dma` take. */
import type { CallOptions } from '../connection/index.js';
import { UINT64_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import type { DmaHandler } from './dma-handler.js';
import { HUGE_PAGE_SIZE } from './dma-map-manager.js';
import { MAX_FD } from '../system-numbers.js';

/** How `device.dma` works: options of `connect`. */
export interface DmaOptions {
  /** Never gives the server an fd of DMA memory: it reads and writes by message only. Default false. */
  secureDma?: boolean | undefined;
  /** Backs DMA memory with huge pages of 2 MiB. Default false. */
  hugePages?: boolean | undefined;
  /**
   * How much memory small buffers share, and get more of, at a time; rounded up to 2 MiB. Default 4 MiB. With more than
   * eight mappings it doubles each time, up to 256 MiB: some servers take 16 mappings.
   */
  arenaBytes?: number | undefined;
}

/** How the device may use memory. */
export interface DmaAccessOptions extends CallOptions {
  /** The device may read it. Default true. */
  readable?: boolean | undefined;
  /** The device may write it. Default true. */
  writable?: boolean | undefined;
  /**
   * The server is given the fd and maps the memory. With false it reads and writes by message. Default true where fds can
   * be passed and `secureDma` is not set.
   */
  share?: boolean | undefined;
  /** How many address bits the device has: the library chooses addresses below that. Default 64. */
  addressBits?: number | undefined;
}

/** Options of `Dma.alloc`. */
export interface DmaAllocOptions extends DmaAccessOptions {
  /** What the address must be a multiple of, a power of two up to 2 MiB. Default 4,096. */
  alignment?: number | undefined;
}

/** Options of `Dma.map` for memory that a file descriptor names. */
export interface DmaMapOptions extends DmaAccessOptions {
  /** A memfd, a file, a dma-buf. It is duplicated: the caller may close it at once. */
  fd: number;
  /** Where the memory begins in it, a multiple of 4,096. Default 0. */
  offset?: number | undefined;
  /** In bytes, a multiple of the server's page size (`negotiated.capabilities.pgsizes`). */
  size: number;
  /** The device's address of it, a multiple of the server's page size. By default the library chooses. */
  iova?: bigint | undefined;
  /**
   * The server reads and writes the file (pread, pwrite) instead of mapping it: DMA_MAP's FILE_IO, which the newest
   * libvfio-user has. Default false.
   */
  fileIo?: boolean | undefined;
}

/** Functions of the caller's behind DMA addresses: the server gets no fd, and reaches them by message. */
export interface DmaHandlerOptions extends Omit<DmaAccessOptions, 'share'> {
  /** What the requests of the server come to. */
  handler: DmaHandler;
  /**
   * The handler gives promises. Up to 16 of its requests run at once. While it is mapped no synchronous call can be made:
   * it would block the thread in which the handler has to answer first. Default false.
   */
  async?: boolean | undefined;
  /** In bytes, a multiple of the server's page size. */
  size: number;
  /** The device's address of it, a multiple of the server's page size. By default the library chooses. */
  iova?: bigint | undefined;
}

const ADDRESS_BITS = option.wholeNumber(16, 64);
export const ALLOC_OPTIONS = new option.OptionTable<DmaAllocOptions>({
  ...option.CALL_CHECKS,
  readable: option.boolean,
  writable: option.boolean,
  share: option.boolean,
  addressBits: ADDRESS_BITS,
  alignment: option.wholeNumber(1, HUGE_PAGE_SIZE),
});
const MAP_OPTIONS = new option.OptionTable<DmaMapOptions>(
  {
    ...option.CALL_CHECKS,
    readable: option.boolean,
    writable: option.boolean,
    share: option.boolean,
    addressBits: ADDRESS_BITS,
    fd: option.wholeNumber(0, MAX_FD),
    offset: option.wholeNumber(),
    size: option.wholeNumber(1),
    iova: option.bigInteger(0n, UINT64_MAX),
    fileIo: option.boolean,
  },
  ['fd', 'size'],
);
/** What goes with an fd only is refused with the reason. */
const HANDLER_OPTIONS = new option.OptionTable<DmaHandlerOptions & Partial<DmaMapOptions>>(
  {
    ...option.CALL_CHECKS,
    readable: option.boolean,
    writable: option.boolean,
    addressBits: ADDRESS_BITS,
    handler: (value, caller, name) => {
      const { read, write } = (value ?? {}) as Partial<DmaHandler>;
      if (typeof read === 'function' && typeof write === 'function') return undefined;
      return wrongType(
        `${caller}: ${name}`,
        'an object with functions read(address, length) and write(address, bytes)',
        value,
      );
    },
    async: option.boolean,
    size: option.wholeNumber(1),
    iova: option.bigInteger(0n, UINT64_MAX),
    fd: notWithHandler,
    offset: notWithHandler,
    share: notWithHandler,
    fileIo: notWithHandler,
  },
  ['handler', 'size'],
);

export function checkMapOptions(caller: string, options: DmaMapOptions | DmaHandlerOptions): void {
  const isHandler = typeof options === 'object' && options !== null && 'handler' in options;
  if (isHandler) HANDLER_OPTIONS.check(caller, options);
  else MAP_OPTIONS.check(caller, options);
}

function notWithHandler(_value: unknown, caller: string, name: string): TypeError {
  return new TypeError(`${caller}: a handler and ${name} exclude each other`);
}
