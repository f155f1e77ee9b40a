/**
 * A PCI device behind the kernel's vfio-pci, as a device model: accesses by message are reads and writes of its fd, mappings
 * are the kernel's own, the client's memory goes into the IOMMU and its eventfds to the kernel.
 */
import { readSync, writeSync } from 'node:fs';
import { rangesText } from '../emulator/address-range.js';
import { DeviceError, EINVAL, EIO, ENOSPC } from '../emulator/device-error.js';
import type { DeviceModel, Hardware, IrqModel, RegionModel } from '../emulator/device-model.js';
import { TransportError } from '../errors.js';
import { check, native, type NativeMapping } from '../native.js';
import { PciConfig } from '../pci/index.js';
import {
  DEVICE_FLAG_PCI,
  DEVICE_FLAG_RESET,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  IRQ_FLAG_NORESIZE,
  PciRegion,
  REGION_FLAG_MMAP,
  REGION_FLAG_READ,
  REGION_FLAG_WRITE,
} from '../protocol/constants.js';
import { decodeDeviceInfo } from '../protocol/device-info.js';
import type { DmaMap } from '../protocol/dma-map.js';
import { decodeIrqInfo } from '../protocol/irq-info.js';
import { decodeRegionInfo, type RegionInfo } from '../protocol/region-info.js';
import { EEXIST, EFAULT, ENOMEM } from '../system-numbers.js';
import type { IommuInfo } from './iommu-info.js';
import { noMoreMappings, tooMuchLocked } from './iommu-limits.js';
import { hotResetOf } from './hot-reset.js';
import { KernelIrqs } from './kernel-irqs.js';
import { msixTable, withoutPages, type BarRange } from './msix-pages.js';
import { openGroup, type OpenedDevice } from './open-group.js';
import { pciAddress } from './pci-address.js';
import { quiesce, type CommandRegister } from './quiesce.js';

/** The fixed parts of the kernel's structures, in bytes; of device info what the protocol has of it, and room for all. */
const DEVICE_INFO_SIZE = 16;
const DEVICE_INFO_ROOM = 64;
const REGION_INFO_SIZE = 32;
const IRQ_INFO_SIZE = 16;
/** More than any answer takes. */
const MOST_INFO = 65_536;
const READ_WRITE = REGION_FLAG_READ | REGION_FLAG_WRITE;

/** What `reset` does: FLR or another way of the function alone, or a reset of its bus. */
export type ResetKind = 'function' | 'hot';

/** A device of the kernel's. Its owner closes it; one client at a time has it. */
export class KernelDevice implements DeviceModel {
  /** In full. */
  readonly address: string;
  readonly flags: number;
  readonly regions: readonly RegionModel[];
  readonly irqs: readonly IrqModel[];
  /** Undefined where the function has no way to be reset. */
  readonly reset: (() => void) | undefined;
  /** @internal */
  readonly hardware: Hardware;
  readonly #opened: OpenedDevice;
  readonly #configOffset: number;
  readonly #irqs: KernelIrqs;

  /**
   * `reset` is what `reset()` does: the function's own way where it has one and a hot reset otherwise, or always that.
   * @throws TypeError for what is no address; VfioUserError that says which step failed, and what mends it.
   */
  constructor(address: string, reset: ResetKind = 'function') {
    this.address = pciAddress('a PCI device', address);
    let whyNoReset: string | undefined;
    const opened = (this.#opened = openGroup(this.address));
    this.#irqs = new KernelIrqs((...call) => native().vfioSetIrqs(opened.device, ...call));
    try {
      const info = deviceInfo(opened.device);
      const found = range(info.numRegions).flatMap((index) => regionInfo(opened.device, index) ?? []);
      this.#configOffset = found.find(({ index }) => index === (PciRegion.CONFIG as number))?.offset ?? 0;
      const table = msixTable(opened.device, found);
      this.regions = found.map((region) => this.#region(region, table));
      this.irqs = range(info.numIrqs).flatMap((index) => irqInfo(opened.device, index) ?? []);
      const way = this.#wayToReset(reset, (info.flags & DEVICE_FLAG_RESET) !== 0);
      this.reset = 'run' in way ? way.run : undefined;
      whyNoReset = 'why' in way ? way.why : undefined;
      this.flags = (info.flags & DEVICE_FLAG_PCI) | (this.reset === undefined ? 0 : DEVICE_FLAG_RESET);
    } catch (error) {
      opened.close();
      throw error;
    }
    const { pageSizes, mappingsLeft } = opened.iommu;
    this.hardware = {
      addresses: opened.iommu.ranges,
      whyNoReset,
      limits: { pgsizes: pageSizes, maxDmaMaps: mappingsLeft },
      mapDma: (memory, request) => this.#mapDma(memory, request),
      unmapDma: (request) => this.#unmapDma(request),
      setIrqs: (request, fds) => this.#irqs.set(request, fds),
      quiesce: () => quiesce(this.#command, this.#irqs),
    };
  }

  /** What its IOMMU can do. */
  get iommu(): IommuInfo {
    return this.#opened.iommu;
  }

  /**
   * Nobody has it: what the next client finds is a device that was reset, where it can be.
   * @throws DeviceError with the kernel's errno, where it has a way to be reset that did not work.
   */
  detach(): void {
    this.reset?.();
  }

  /** Gives it back to the kernel, which resets it. Idempotent. */
  close(): void {
    this.#irqs.close();
    this.#opened.close();
  }

  #region(
    { index, flags, size, offset, capabilities }: RegionInfo,
    table: BarRange | undefined,
  ): RegionModel {
    const { device } = this.#opened;
    const canMap = (flags & REGION_FLAG_MMAP) !== 0;
    const all = capabilities.sparseMmap?.areas;
    // The kernel owns the table: what a mapping would write there, it would not know of.
    const areas = table?.bir === index ? withoutPages(all ?? [{ offset: 0, size }], table) : all;
    return {
      index,
      size,
      flags: flags & READ_WRITE,
      handler: {
        read: (at, count) => {
          const data = Buffer.allocUnsafe(count);
          transfer('pread', count, () => readSync(device, data, 0, count, offset + at));
          return data;
        },
        write: (at, data) => {
          transfer('pwrite', data.length, () => writeSync(device, data, 0, data.length, offset + at));
        },
      },
      ...(canMap && { file: { fd: device, offset } }),
      ...(canMap && areas !== undefined && { mappable: areas }),
    };
  }

  #wayToReset(kind: ResetKind, hasOwn: boolean): { run: () => void } | { why: string } {
    const { device, groupFd, group } = this.#opened;
    const work = (what: string, call: () => number) => () => {
      const result = call();
      if (result < 0) {
        throw new DeviceError(-result, `${what} of ${this.address}; the kernel's log may say more (dmesg)`);
      }
    };
    if (kind === 'function' && hasOwn) {
      return { run: work('VFIO_DEVICE_RESET', () => native().vfioReset(device)) };
    }
    const hot = hotResetOf(device, group);
    if ('functions' in hot) {
      const names = hot.functions.map(({ address }) => address).join(', ');
      const what = `VFIO_DEVICE_PCI_HOT_RESET (with it ${names})`;
      return { run: work(what, () => native().vfioHotReset(device, groupFd)) };
    }
    const own = hasOwn ? '' : 'the function has no way to be reset by itself, and ';
    return { why: `${this.address}: ${own}a hot reset cannot be done: ${hot.why}` };
  }

  get #command(): CommandRegister {
    const { device } = this.#opened;
    const at = this.#configOffset + PciConfig.COMMAND;
    const bytes = Buffer.alloc(2);
    return {
      read: () => {
        transfer('pread', 2, () => readSync(device, bytes, 0, 2, at));
        return bytes.readUInt16LE();
      },
      write: (value) => {
        bytes.writeUInt16LE(value);
        transfer('pwrite', 2, () => writeSync(device, bytes, 0, 2, at));
      },
    };
  }

  #mapDma(memory: NativeMapping, { address, size, flags }: Pick<DmaMap, 'address' | 'size' | 'flags'>): void {
    const allowed = flags & (DMA_MAP_FLAG_READ | DMA_MAP_FLAG_WRITE);
    const result = memory.mapForDma(this.#opened.container, address, allowed);
    if (result < 0) throw new DeviceError(-result, this.#whyNotMapped(-result, address, size));
  }

  #whyNotMapped(errno: number, address: bigint, size: bigint): string {
    const what = `VFIO_IOMMU_MAP_DMA of ${size} bytes at 0x${address.toString(16)}`;
    if (errno === EEXIST) return `${what}: the addresses are mapped already`;
    if (errno === EFAULT) return `${what}: the memory does not allow what was asked for`;
    if (errno === ENOSPC) return `${what}: ${noMoreMappings(this.iommu.mappingsLeft)}`;
    if (errno === ENOMEM) return `${what}: ${tooMuchLocked(size)}`;
    if (errno !== EINVAL) return what;
    const { ranges, pageSizes } = this.iommu;
    const places = ranges === undefined ? 'of other ranges' : rangesText(ranges);
    return `${what}: the IOMMU takes addresses ${places}, in pages of ${pageSizes & -pageSizes}`;
  }

  /** The kernel calls it a success where nothing was mapped. */
  #unmapDma({ address, size }: Pick<DmaMap, 'address' | 'size'>): void {
    const unmapped = native().vfioUnmapDma(this.#opened.container, address, Number(size));
    const what = `VFIO_IOMMU_UNMAP_DMA of ${size} bytes at 0x${address.toString(16)}`;
    if (unmapped < 0) throw new DeviceError(-unmapped, what);
    if (BigInt(unmapped) !== size) throw new DeviceError(EINVAL, `${what}: ${unmapped} were mapped`);
  }
}

function range(count: number): number[] {
  return Array.from({ length: Math.min(count, 64) }, (_, i) => i);
}

/** All of the bytes, or the errno. */
function transfer(call: string, count: number, work: () => number): void {
  let done: number;
  try {
    done = work();
  } catch (cause) {
    const { errno } = cause as NodeJS.ErrnoException;
    throw new DeviceError(errno === undefined ? EIO : -errno, `${call}: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (done !== count) throw new DeviceError(EIO, `${call}: ${done} of ${count} bytes`);
}

function deviceInfo(device: number): ReturnType<typeof decodeDeviceInfo> {
  const into = Buffer.alloc(DEVICE_INFO_ROOM);
  check(native().vfioDeviceInfo(device, into), 'VFIO_DEVICE_GET_INFO');
  into.writeUInt32LE(DEVICE_INFO_SIZE, 0);
  return decodeDeviceInfo(into, 0, DEVICE_INFO_SIZE);
}

/** Undefined where the device has no such region. */
function regionInfo(device: number, index: number): RegionInfo | undefined {
  let into = Buffer.alloc(REGION_INFO_SIZE);
  let needed = native().vfioRegionInfo(device, index, into);
  if (needed > into.length && needed <= MOST_INFO) {
    into = Buffer.alloc(needed);
    needed = native().vfioRegionInfo(device, index, into);
  }
  if (needed === -EINVAL) return undefined;
  check(needed, 'VFIO_DEVICE_GET_REGION_INFO');
  const info = decodeRegionInfo(into, 0, into.length, index);
  return info.size === 0 ? undefined : info;
}

/** Undefined where the device has no such interrupts. */
function irqInfo(device: number, index: number): IrqModel | undefined {
  const into = Buffer.alloc(IRQ_INFO_SIZE);
  const result = native().vfioIrqInfo(device, index, into);
  if (result === -EINVAL) return undefined;
  if (result < 0) throw new TransportError('VFIO_DEVICE_GET_IRQ_INFO', -result);
  const info = decodeIrqInfo(into, 0, into.length, index);
  // The model adds vectors to those that are enabled where the kernel does not: see `#assign`.
  return info.count === 0 ? undefined : { ...info, flags: info.flags & ~IRQ_FLAG_NORESIZE };
}
