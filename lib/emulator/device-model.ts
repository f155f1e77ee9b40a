/**
 * What a device is to the server, and what a client is to the device.
 *
 * ```
 *   client ──commands──▶ session ──▶ DeviceModel       regions, irqs, reset
 *   client ◀─interrupts, DMA─ ClientContext ◀──┘
 * ```
 * A device belongs to its creator: the server neither creates nor closes it, and its state outlives a client
 * ("Client Disconnection"). Handlers are called one at a time for each client, in the order of its commands; while a
 * handler's promise is pending the client's later commands wait. A handler that throws a `DeviceError` answers with
 * its errno, one that throws anything else with EIO.
 */
import type { AddressRange } from './address-range.js';
import type { NativeMapping } from '../native.js';
import type { DmaMap } from '../protocol/dma-map.js';
import type { SetIrqs } from '../protocol/set-irqs.js';
import type { MmapArea } from '../protocol/region-capabilities.js';
import type { SubRegion } from '../protocol/region-io-fds.js';

/** A device. `PciDevice` is a base with a configuration space; anything of this shape can be served. */
export interface DeviceModel {
  /** `DEVICE_FLAG_…` bits. By default PCI, and RESET where there is a `reset`. */
  readonly flags?: number;
  /** The regions that exist; every other index is answered with size 0. */
  readonly regions: readonly RegionModel[];
  /** The interrupt indexes that exist; every other index is answered with count 0. */
  readonly irqs: readonly IrqModel[];
  /** A client has negotiated and may be interrupted and accessed from now on. */
  attach?(client: ClientContext): void;
  /** The client has gone: its interrupts do nothing and its memory is out of reach. */
  detach?(client: ClientContext): void;
  /** DEVICE_RESET. Without it the command is answered ENOTSUP. */
  reset?: ((client: ClientContext) => void | Promise<void>) | undefined;
  /** DEVICE_FEATURE. Without it every feature is answered ENOTSUP. */
  feature?(request: FeatureRequest, client: ClientContext): Uint8Array | void | Promise<Uint8Array | void>;
  /** @internal Undefined for models. */
  readonly hardware?: Hardware | undefined;
  /** MIG_DATA_READ and MIG_DATA_WRITE. Without it both are answered ENOTSUP. */
  readonly migrationData?: MigrationData | undefined;
}

/**
 * What stands behind a device that is hardware: it takes the place of what a session does for models. What is thrown
 * is the answer's errno.
 */
export interface Hardware {
  /** The addresses that the client's memory can be given; undefined where nobody says. */
  readonly addresses?: readonly AddressRange[] | undefined;
  /** Why the device has no `reset`, where that is known. */
  readonly whyNoReset?: string | undefined;
  /** What its IOMMU takes: page sizes, or'ed together, and how many mappings; undefined where nobody says. */
  readonly limits?: { readonly pgsizes: bigint; readonly maxDmaMaps: number | undefined } | undefined;
  /** Lets the device reach the client's memory, all of the mapping, at these addresses. */
  mapDma(memory: NativeMapping, request: Pick<DmaMap, 'address' | 'size' | 'flags'>): void;
  unmapDma(request: Pick<DmaMap, 'address' | 'size'>): void;
  /** Hands eventfds to the device, or acts on interrupts itself. The fds stay the caller's. */
  setIrqs(request: SetIrqs, fds: readonly number[]): void;
  /** The client is going: the device is kept from its memory and its eventfds, before they are taken back. */
  quiesce(): void;
}

/** A region: reached by messages through `handler` or, without one, as the bytes of `memory`. */
export interface RegionModel {
  /** `PciRegion` numbers for a PCI device. */
  readonly index: number;
  /** Bytes. */
  readonly size: number;
  /** `REGION_FLAG_READ` and `REGION_FLAG_WRITE`; both by default. */
  readonly flags?: number;
  /** Answers accesses by message. Without it they read and write `memory`. */
  readonly handler?: RegionHandler;
  /**
   * Memory of `size` bytes. Where it has an fd, clients whose transport passes fds can map it; accesses to a mapping
   * are seen by nobody.
   */
  readonly memory?: RegionMemory;
  /** @internal The file that clients can map where there is no `memory`, and where in it the region begins. */
  readonly file?: { readonly fd: number; readonly offset: number } | undefined;
  /** The parts that can be mapped, in whole pages; all of a memory that has an fd by default. */
  readonly mappable?: readonly Pick<MmapArea, 'offset' | 'size'>[];
  /** What GET_REGION_IO_FDS answers to clients whose transport passes fds; nothing by default. */
  readonly ioFds?: RegionIoFdOffer;
}

/** Parts of a region that are written by fd. `fdIndex` and `shadowFdIndex` are indexes of `fds`, the device's own. */
export interface RegionIoFdOffer {
  /** What each fd covers ("VFIO_USER_DEVICE_GET_REGION_IO_FDS"). */
  readonly subRegions: readonly SubRegion[];
  /** The device's own fds, which stay open as long as it is served. */
  readonly fds: readonly number[];
}

/** Answers accesses by message. Bounds and flags have been checked; access sizes are the device's own business. */
export interface RegionHandler {
  /** The `count` bytes from `offset`. What is returned is sent before the next command is looked at. */
  read(offset: number, count: number, client: ClientContext): Uint8Array | Promise<Uint8Array>;
  /** `data` is the handler's to keep. */
  write(offset: number, data: Buffer, client: ClientContext): void | Promise<void>;
}

/** What lies behind a region: `SharedMemory`, or `{ bytes }` for memory that only messages reach. */
export interface RegionMemory {
  /** The memory, as this process sees it. */
  readonly bytes: Uint8Array;
  /** The file that clients can map; without it they reach the memory by messages. */
  readonly fd?: number;
}

/** A type of interrupts ("VFIO_USER_DEVICE_GET_IRQ_INFO"). */
export interface IrqModel {
  /** `PciIrq` numbers for a PCI device. */
  readonly index: number;
  /** How many interrupts of this type there are. */
  readonly count: number;
  /** `IRQ_FLAG_…` bits; EVENTFD by default. */
  readonly flags?: number;
  /**
   * Makes it level-triggered, as INTx is: says whether it is raised now. Asked when a client unmasks it, which is what
   * QEMU sends at the end of each interrupt, whether or not it was masked: while it is raised the client is signalled
   * again.
   */
  readonly isRaised?: () => boolean;
}

/** A DEVICE_FEATURE command ("VFIO_USER_DEVICE_FEATURE"). */
export interface FeatureRequest {
  /** `Feature` numbers. */
  readonly feature: number;
  /** `DEVICE_FEATURE_GET`, `_SET` and `_PROBE` bits. */
  readonly operations: number;
  /** What follows the flags: the value for SET, arguments for GET. */
  readonly data: Buffer;
}

/** The stream of a device's state while it migrates. */
export interface MigrationData {
  /** At most `size` bytes of what is left; fewer end the stream. */
  read(size: number, client: ClientContext): Uint8Array | Promise<Uint8Array>;
  /** `data` is the device's to keep. */
  write(data: Buffer, client: ClientContext): void | Promise<void>;
}

/** A client, as long as it is connected. */
export interface ClientContext {
  /** Whether the client is connected. Once it is not, its memory and interrupts are out of reach. */
  readonly isConnected: boolean;
  /** The client's memory. */
  readonly dma: ClientMemory;
  /**
   * Interrupt `sub` (default 0) of type `index` (`PciIrq`). Where the device has no such interrupt, triggering the line
   * calls `onError` with a RangeError and does nothing else.
   */
  irq(index: number, sub?: number): IrqLine;
}

/** The way to interrupt a client. */
export interface IrqLine {
  /** Whether the client has given an eventfd for it. */
  readonly isArmed: boolean;
  /** Whether the client has masked it (SET_IRQS with ACTION_MASK). */
  readonly isMasked: boolean;
  /**
   * Signals the client. A masked interrupt is remembered, once, until it is unmasked; one that is not armed is lost.
   * True where an eventfd was signalled.
   */
  trigger(): boolean;
}

/** The client's memory, as far as it has mapped it for us ("Client memory access"). */
export interface ClientMemory {
  /**
   * Reads `length` bytes: through the mapping where the client shared an fd, by DMA_READ messages otherwise.
   *
   * @throws DmaError where that is not possible, ClosedError when the client goes meanwhile.
   */
  read(address: bigint, length: number): Promise<Buffer>;
  /** Writes, in the same ways. `bytes` may be reused when the promise settles. */
  write(address: bigint, bytes: Uint8Array): Promise<void>;
}
