/**
 * A PCI device behind the kernel's vfio-pci, as a device model: accesses by message are reads and writes of its fd, mappings
 * are the kernel's own, the client's memory goes into the IOMMU and its eventfds to the kernel.
 */
import { readSync, writeSync } from 'node:fs';
import { rangesText } from '../emulator/address-range.js';
import { DeviceError, EINVAL, EIO, ENOSPC } from '../emulator/device-error.js';
import type { DeviceModel, Hardware, IrqModel, RegionModel } from '../emulator/device-model.js';
import { TransportError } from '../errors.js';
import { check, holdFd, native, type HeldFd, type NativeMapping } from '../native.js';
import { PciCommand, PciConfig } from '../pci/index.js';
import {
  DEVICE_FLAG_PCI,
  DEVICE_FLAG_RESET,
  DMA_MAP_FLAG_READ,
  DMA_MAP_FLAG_WRITE,
  IRQ_FLAG_NORESIZE,
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_BOOL,
  IRQ_SET_DATA_EVENTFD,
  PciRegion,
  REGION_FLAG_MMAP,
  REGION_FLAG_READ,
  REGION_FLAG_WRITE,
} from '../protocol/constants.js';
import { decodeDeviceInfo } from '../protocol/device-info.js';
import type { DmaMap } from '../protocol/dma-map.js';
import { decodeIrqInfo } from '../protocol/irq-info.js';
import { decodeRegionInfo, type RegionInfo } from '../protocol/region-info.js';
import type { SetIrqs } from '../protocol/set-irqs.js';
import { EEXIST, EFAULT, ENOMEM } from '../system-numbers.js';
import type { IommuInfo } from './iommu-info.js';
import { noMoreMappings, tooMuchLocked } from './iommu-limits.js';
import { openGroup, type OpenedDevice } from './open-group.js';
import { pciAddress } from './pci-address.js';

/** The fixed parts of the kernel's structures, in bytes; of device info what the protocol has of it, and room for all. */
const DEVICE_INFO_SIZE = 16;
const DEVICE_INFO_ROOM = 64;
const REGION_INFO_SIZE = 32;
const IRQ_INFO_SIZE = 16;
/** More than any answer takes. */
const MOST_INFO = 65_536;
const ACTIONS = IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK | IRQ_SET_ACTION_TRIGGER;
const READ_WRITE = REGION_FLAG_READ | REGION_FLAG_WRITE;
const NO_FD = -1;

/** A device of the kernel's. Its owner closes it; one client at a time has it. */
export class KernelDevice implements DeviceModel {
  /** In full. */
  readonly address: string;
  readonly flags: number;
  readonly regions: readonly RegionModel[];
  readonly irqs: readonly IrqModel[];
  /** Undefined where the function has no way to be reset. */
  readonly reset: (() => void) | undefined;
  readonly hardware: Hardware;
  readonly #opened: OpenedDevice;
  readonly #configOffset: number;
  /** The eventfds of each index: what the kernel is given again when it can only take all of them at once. */
  readonly #armed = new Map<number, Map<number, HeldFd>>();

  /** @throws TypeError for what is no address; VfioUserError that says which step failed, and what mends it. */
  constructor(address: string) {
    this.address = pciAddress('a PCI device', address);
    const opened = (this.#opened = openGroup(this.address));
    try {
      const info = deviceInfo(opened.device);
      const found = range(info.numRegions).flatMap((index) => regionInfo(opened.device, index) ?? []);
      this.#configOffset = found.find(({ index }) => index === (PciRegion.CONFIG as number))?.offset ?? 0;
      this.regions = found.map((region) => this.#region(region));
      this.irqs = range(info.numIrqs).flatMap((index) => irqInfo(opened.device, index) ?? []);
      this.flags = info.flags & (DEVICE_FLAG_PCI | DEVICE_FLAG_RESET);
    } catch (error) {
      opened.close();
      throw error;
    }
    this.reset = (this.flags & DEVICE_FLAG_RESET) === 0 ? undefined : () => this.#reset();
    this.hardware = {
      addresses: opened.iommu.ranges,
      mapDma: (memory, request) => this.#mapDma(memory, request),
      unmapDma: (request) => this.#unmapDma(request),
      setIrqs: (request, fds) => this.#setIrqs(request, fds),
      quiesce: () => this.#quiesce(),
    };
  }

  /** What its IOMMU can do. */
  get iommu(): IommuInfo {
    return this.#opened.iommu;
  }

  /** Nobody has it: what the next client finds is a device that was reset, where it can be. */
  detach(): void {
    if (this.reset !== undefined) native().vfioReset(this.#opened.device);
  }

  /** Gives it back to the kernel, which resets it. Idempotent. */
  close(): void {
    this.#forgetEventFds();
    this.#opened.close();
  }

  #region({ index, flags, size, offset, capabilities }: RegionInfo): RegionModel {
    const { device } = this.#opened;
    const canMap = (flags & REGION_FLAG_MMAP) !== 0;
    const areas = capabilities.sparseMmap?.areas;
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

  #reset(): void {
    const result = native().vfioReset(this.#opened.device);
    if (result < 0) throw new DeviceError(-result, `VFIO_DEVICE_RESET of ${this.address}`);
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

  #setIrqs({ index, start, count, flags, data }: SetIrqs, fds: readonly number[]): void {
    const action = flags & ACTIONS;
    if ((flags & IRQ_SET_DATA_EVENTFD) !== 0) {
      this.#assign(index, start, action, fds.length > 0 ? fds : new Array<number>(count).fill(NO_FD));
    } else if ((flags & IRQ_SET_DATA_BOOL) !== 0) {
      for (let i = 0; i < count; i++) if (data?.[i] !== 0) this.#act(index, start + i, 1, action);
    } else {
      this.#act(index, start, count, action);
      if (count === 0) this.#forgetEventFds(index);
    }
  }

  /** DATA_NONE: does the action, or disables the whole index where `count` is 0. */
  #act(index: number, start: number, count: number, action: number): void {
    const result = native().vfioSetIrqs(this.#opened.device, index, start, count, action, null);
    if (result < 0) throw refused(index, result);
  }

  #assign(index: number, start: number, action: number, fds: readonly number[]): void {
    const { device } = this.#opened;
    let result = native().vfioSetIrqs(device, index, start, fds.length, action, fds);
    if (action !== IRQ_SET_ACTION_TRIGGER) {
      if (result < 0) throw refused(index, result);
      return;
    }
    const armed = this.#armed.get(index) ?? new Map<number, HeldFd>();
    // An index that is NORESIZE takes no more vectors than it was enabled with: it is enabled again, with all of them.
    if (result === -EINVAL && armed.size > 0) {
      const before: number[] = [];
      for (const [sub, held] of armed) before[sub] = held.fd;
      const all = [...before];
      fds.forEach((fd, i) => (all[start + i] = fd));
      const enable = (some: readonly (number | undefined)[]): number => {
        const whole = Array.from(some, (fd) => fd ?? NO_FD);
        return native().vfioSetIrqs(device, index, 0, whole.length, action, whole);
      };
      this.#act(index, 0, 0, IRQ_SET_ACTION_TRIGGER);
      result = enable(all);
      // Those that were enabled stay so.
      if (result < 0) enable(before);
    }
    if (result < 0) throw refused(index, result);
    fds.forEach((fd, i) => {
      armed.get(start + i)?.close();
      armed.delete(start + i);
      if (fd !== NO_FD) armed.set(start + i, holdFd(check(native().dupFd(fd), 'dup')));
    });
    this.#armed.set(index, armed);
  }

  /** Bus mastering off, so that it writes nowhere, and interrupts disabled. */
  #quiesce(): void {
    const { device } = this.#opened;
    const command = Buffer.alloc(2);
    const at = this.#configOffset + PciConfig.COMMAND;
    try {
      transfer('pread', 2, () => readSync(device, command, 0, 2, at));
      command.writeUInt16LE(command.readUInt16LE() & ~PciCommand.BUS_MASTER);
      transfer('pwrite', 2, () => writeSync(device, command, 0, 2, at));
    } finally {
      // Also of a device that does not answer any more.
      for (const index of this.#armed.keys())
        native().vfioSetIrqs(device, index, 0, 0, IRQ_SET_ACTION_TRIGGER, null);
      this.#forgetEventFds();
    }
  }

  #forgetEventFds(which?: number): void {
    for (const [index, held] of this.#armed) {
      if (which !== undefined && index !== which) continue;
      for (const one of held.values()) one.close();
      this.#armed.delete(index);
    }
  }
}

function range(count: number): number[] {
  return Array.from({ length: Math.min(count, 64) }, (_, i) => i);
}

function refused(index: number, result: number): DeviceError {
  return new DeviceError(-result, `VFIO_DEVICE_SET_IRQS of index ${index}`);
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
