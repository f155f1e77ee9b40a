/**
 * Whether a device agrees with itself: its regions and interrupts with each other, and with what its config space says.
 * A host believes both, and finds out late; so a server refuses to serve one that contradicts itself.
 */
import { integer, wrongType } from '../fields.js';
import {
  configReader,
  decodeCapabilities,
  MSIX_ENTRY_SIZE,
  MSIX_MAX_VECTORS,
  PciConfig,
  type BarLocation,
  type Capability,
  type MsixFields,
} from '../pci/index.js';
import { DEVICE_FLAG_PCI, PciIrq, PciRegion } from '../protocol/constants.js';
import type { DeviceModel, IrqModel, RegionModel } from './device-model.js';
import { PciConfigSpace } from './pci-config.js';

/** Interrupts of one index are an object each, for each client. */
const MOST_INTERRUPTS = 65_536;
const MOST_INDEXES = 65_536;
/** Of the indexes that PCI devices have. */
const MOST_OF_PCI: Readonly<Record<number, number>> = {
  [PciIrq.INTX]: 1,
  [PciIrq.MSI]: 32,
  [PciIrq.MSIX]: MSIX_MAX_VECTORS,
};

/** @throws TypeError and RangeError, which say what contradicts what. */
export function checkDevice(device: DeviceModel): void {
  if (typeof device !== 'object' || device === null) throw wrongType('the device', 'a DeviceModel', device);
  const { regions, irqs, flags = DEVICE_FLAG_PCI } = device;
  integer('the device: flags', flags);
  if (!Array.isArray(regions)) throw wrongType('the device: regions', 'a list', regions);
  if (!Array.isArray(irqs)) throw wrongType('the device: irqs', 'a list', irqs);
  const isPci = (flags & DEVICE_FLAG_PCI) !== 0;
  for (const irq of irqs as readonly IrqModel[]) checkIrq(irq, isPci);
  checkOnce('interrupt', irqs);
  for (const region of regions as readonly RegionModel[]) checkRegion(region);
  checkOnce('region', regions);
  const config = (regions as readonly RegionModel[]).find(({ index }) => index === PciRegion.CONFIG)?.handler;
  // What other handlers answer is not known before a client asks.
  if (isPci && config instanceof PciConfigSpace) new PciCheck(device, config).run();
}

function checkIrq({ index, count, flags = 0 }: IrqModel, isPci: boolean): void {
  integer('the device: an interrupt index', index, 0, MOST_INDEXES - 1);
  const most = (isPci ? MOST_OF_PCI[index] : undefined) ?? MOST_INTERRUPTS;
  integer(`interrupt ${index}: count`, count, 0, most);
  integer(`interrupt ${index}: flags`, flags);
}

function checkRegion(region: RegionModel): void {
  const { index, size, flags = 0, handler, memory, mappable = [] } = region;
  integer('the device: a region index', index, 0, MOST_INDEXES - 1);
  integer(`region ${index}: size`, size, 0, Number.MAX_SAFE_INTEGER);
  integer(`region ${index}: flags`, flags);
  if (handler === undefined && memory === undefined) {
    throw new TypeError(`region ${index} has neither handler nor memory`);
  }
  if (handler !== undefined && (typeof handler.read !== 'function' || typeof handler.write !== 'function')) {
    throw new TypeError(`region ${index}: its handler must have the functions read and write`);
  }
  if (memory !== undefined && !(memory.bytes instanceof Uint8Array)) {
    throw wrongType(`region ${index}: memory.bytes`, 'a Uint8Array or Buffer', memory.bytes);
  }
  if (memory !== undefined && memory.bytes.byteLength < size) {
    throw new RangeError(`region ${index} has ${size} bytes, its memory ${memory.bytes.byteLength}`);
  }
  if (mappable.length > 0 && (memory?.fd ?? region.file?.fd) === undefined) {
    throw new TypeError(`region ${index} has mappable areas and no fd`);
  }
  for (const area of mappable) {
    integer(`region ${index}: offset of a mappable area`, area.offset, 0, size);
    integer(`region ${index}: size of a mappable area`, area.size, 1, Number.MAX_SAFE_INTEGER);
    if (area.size > size - area.offset) {
      throw new RangeError(`a mappable area of region ${index} is outside of its ${size} bytes`);
    }
  }
}

function checkOnce(what: string, list: readonly { readonly index: number }[]): void {
  const seen = new Set<number>();
  for (const { index } of list) {
    if (seen.has(index)) throw new RangeError(`the device has ${what} ${index} twice`);
    seen.add(index);
  }
}

class PciCheck {
  readonly #regions = new Map<number, RegionModel>();
  readonly #irqs = new Map<number, IrqModel>();
  readonly #config: PciConfigSpace;
  readonly #capabilities: readonly Capability[];

  constructor({ regions, irqs }: DeviceModel, config: PciConfigSpace) {
    for (const region of regions) this.#regions.set(region.index, region);
    for (const irq of irqs) this.#irqs.set(irq.index, irq);
    this.#config = config;
    this.#capabilities = decodeCapabilities(configReader(this.#read(0, config.size))).capabilities;
  }

  /** What the config space holds: its device may answer reads in another way, and at leisure. */
  #read(offset: number, count: number): Uint8Array {
    return PciConfigSpace.prototype.read.call(this.#config, offset, count);
  }

  run(): void {
    this.#checkConfigRegion();
    this.#checkBars();
    const pin = this.#read(PciConfig.INTERRUPT_PIN, 1)[0]!;
    this.#compare(PciIrq.INTX, pin === 0 ? 0 : 1, `its interrupt pin is ${pin}`);
    const msi = this.#capabilities.find((one) => one.kind === 'msi');
    this.#compare(PciIrq.MSI, msi?.vectorsCapable ?? 0, said('MSI', msi?.vectorsCapable));
    const msix = this.#capabilities.find((one) => one.kind === 'msix');
    this.#compare(PciIrq.MSIX, msix?.tableSize ?? 0, said('MSI-X', msix?.tableSize));
    if (msix !== undefined) this.#checkMsix(msix);
  }

  #checkConfigRegion(): void {
    const { size } = this.#regions.get(PciRegion.CONFIG)!;
    if (size === this.#config.size) return;
    throw new RangeError(`region ${PciRegion.CONFIG} has ${size} bytes, config space ${this.#config.size}`);
  }

  #checkBars(): void {
    for (let index = PciRegion.BAR0 as number; index <= PciRegion.BAR5; index++) {
      const inConfig = this.#config.barSize(index);
      const size = this.#regions.get(index)?.size ?? 0;
      if (inConfig === size) continue;
      throw new RangeError(`BAR ${index} has ${inConfig} bytes in config space, and region ${index} ${size}`);
    }
  }

  #compare(index: number, inConfig: number, why: string): void {
    const count = this.#irqs.get(index)?.count ?? 0;
    if (count === inConfig) return;
    throw new RangeError(`the device has ${count} interrupts of index ${index}, and in config space ${why}`);
  }

  #checkMsix({ table, pba, tableSize }: MsixFields): void {
    const tableBytes = tableSize * MSIX_ENTRY_SIZE;
    // In whole quadwords, as section 6.8.2 has it.
    const pbaBytes = Math.ceil(tableSize / 64) * 8;
    this.#checkPlace('table', table, tableBytes);
    this.#checkPlace('pending bits', pba, pbaBytes);
    const overlap = table.offset < pba.offset + pbaBytes && pba.offset < table.offset + tableBytes;
    if (table.bir !== pba.bir || !overlap) return;
    throw new RangeError(`MSI-X: the table and the pending bits overlap in BAR ${table.bir}`);
  }

  #checkPlace(what: string, { bir, offset }: BarLocation, length: number): void {
    const size = this.#config.barSize(bir);
    if (size > 0 && this.#config.barKind(bir) !== 'io' && offset + length <= size) return;
    const is = size === 0 ? 'does not exist' : `has ${size} bytes of ${this.#config.barKind(bir)}`;
    throw new RangeError(
      `MSI-X: the ${what}, ${length} bytes at ${offset} of BAR ${bir}, must be in memory; that BAR ${is}`,
    );
  }
}

function said(what: string, count: number | undefined): string {
  return count === undefined ? `there is no ${what} capability` : `${what} has ${count}`;
}
