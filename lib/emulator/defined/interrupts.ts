/** The interrupts of a device made of a register map: MSI-X with its table, MSI, INTx, whichever the host has enabled. */
import { outOfRange } from '../../fields.js';
import * as option from '../../options.js';
import { MSIX_ENTRY_SIZE, MSIX_MAX_VECTORS, type BarLocation } from '../../pci/index.js';
import { IRQ_FLAG_EVENTFD, IRQ_FLAG_MASKABLE, PciIrq } from '../../protocol/constants.js';
import type { ClientContext, IrqModel } from '../device-model.js';
import type { MsixTable } from '../msix-table.js';
import { msiCapability, msixCapability, type ConfigCapability, type PciConfigSpace } from '../pci-config.js';
import type { Interrupts } from './device-state.js';

/** MSI-X, and where its table is. */
export interface DeviceMsix {
  /** 1 to 2,048. */
  readonly vectors: number;
  /**
   * The BAR of the table and the pending bits. By default one of its own, after the others. In a BAR of the device's, `table` and
   * `pba` say where.
   */
  readonly bar?: number | undefined;
  /** Where the table begins in its BAR, in bytes: a multiple of 8. Default 0, in a BAR of its own. */
  readonly table?: number | undefined;
  /** Where the pending bits begin, as `table`. Default half of a BAR of its own. */
  readonly pba?: number | undefined;
}

/** The interrupts that a device has. */
export interface DeviceInterrupts {
  /** How many vectors of MSI-X; 0 by default. */
  readonly msix?: number | DeviceMsix | undefined;
  /** How many vectors of MSI: a power of two up to 32; 0 by default. */
  readonly msi?: number | undefined;
  /** Whether it has INTx, as INTA; false by default. */
  readonly intx?: boolean | undefined;
}

const MSIX = new option.OptionTable<DeviceMsix>(
  {
    vectors: option.wholeNumber(1, MSIX_MAX_VECTORS),
    bar: option.wholeNumber(0, 5),
    table: option.wholeNumber(0, 0xffff_fff8),
    pba: option.wholeNumber(0, 0xffff_fff8),
  },
  ['vectors'],
);

/** The options of `interrupts`. */
export const DEVICE_INTERRUPTS = new option.OptionTable<DeviceInterrupts>({
  msix: option.byType('a number of vectors, or an object', {
    number: option.wholeNumber(0, MSIX_MAX_VECTORS),
    object: option.options(MSIX),
  }),
  msi: option.wholeNumber(0, 32),
  intx: option.boolean,
});

const PAGE = 4096;

/** Where MSI-X is, once the BARs are known. */
export interface MsixPlace {
  readonly vectors: number;
  readonly bar: number;
  readonly table: number;
  readonly pba: number;
  /** The size of a BAR of its own; undefined where it is in another. */
  readonly ownSize: number | undefined;
}

/** Finds MSI-X its place among the BARs, by index. @throws RangeError where there is none. */
export function placeMsix(
  msix: number | DeviceMsix | undefined,
  bars: ReadonlyMap<number, { readonly is64: boolean }>,
): MsixPlace | undefined {
  const wanted = typeof msix === 'number' ? { vectors: msix } : msix;
  if (wanted === undefined || wanted.vectors === 0) return undefined;
  const { vectors, bar = freeBar(bars), table, pba } = wanted;
  if (bars.has(bar)) {
    if (table !== undefined && pba !== undefined) return { vectors, bar, table, pba, ownSize: undefined };
    throw outOfRange(`defineDevice: MSI-X is in BAR ${bar}, which the device has: say table and pba`);
  }
  const tableBytes = vectors * MSIX_ENTRY_SIZE;
  let size = PAGE;
  while (size < 2 * tableBytes) size *= 2;
  const place = { vectors, bar, table: table ?? 0, pba: pba ?? size / 2 };
  while (size < Math.max(place.table + tableBytes, place.pba + pbaBytes(vectors))) size *= 2;
  return { ...place, ownSize: size };
}

/** The bytes of the pending bits: whole quadwords. */
export function pbaBytes(vectors: number): number {
  return Math.ceil(vectors / 64) * 8;
}

/** The first after all others; else the first that is free. */
function freeBar(bars: ReadonlyMap<number, { readonly is64: boolean }>): number {
  const isFree = (index: number): boolean => !bars.has(index) && bars.get(index - 1)?.is64 !== true;
  const after = Math.max(-1, ...bars.keys()) + 1;
  const found = [after, after + 1, 0, 1, 2, 3, 4, 5].find((index) => index <= 5 && isFree(index));
  if (found === undefined) throw outOfRange('defineDevice: no BAR is free for MSI-X: say bar, table and pba');
  return found;
}

/** The capabilities, in the order in which devices mostly have them. */
export function interruptCapabilities(msi: number, msix: MsixPlace | undefined): ConfigCapability[] {
  const at = (offset: number): BarLocation => ({ bir: msix?.bar ?? 0, offset });
  return [
    ...(msi > 0 ? [msiCapability(msi)] : []),
    ...(msix === undefined ? [] : [msixCapability(msix.vectors, at(msix.table), at(msix.pba))]),
  ];
}

/** What a client is told of them. */
export function interruptModels(intx: boolean, msi: number, msix: number): IrqModel[] {
  const flags = IRQ_FLAG_EVENTFD | IRQ_FLAG_MASKABLE;
  return [
    ...(intx ? [{ index: PciIrq.INTX, count: 1, flags }] : []),
    ...(msi > 0 ? [{ index: PciIrq.MSI, count: msi, flags }] : []),
    ...(msix > 0 ? [{ index: PciIrq.MSIX, count: msix }] : []),
  ];
}

/** Sends interrupts in the way that each host has enabled: in config space, or by SET_IRQS alone, as VFIO's clients may. */
export class InterruptLines implements Interrupts {
  readonly vectors: number;
  readonly #config: PciConfigSpace;
  readonly #table: MsixTable | undefined;
  readonly #msi: number;
  readonly #msix: number;
  readonly #clients: () => ReadonlySet<ClientContext>;
  readonly #setIntx: ((level: boolean) => void) | undefined;
  readonly #raised = new Set<number>();

  constructor(parts: {
    config: PciConfigSpace;
    table: MsixTable | undefined;
    msi: number;
    msix: number;
    clients: () => ReadonlySet<ClientContext>;
    setIntx: ((level: boolean) => void) | undefined;
  }) {
    this.#config = parts.config;
    this.#table = parts.table;
    this.#msi = parts.msi;
    this.#msix = parts.msix;
    this.#clients = parts.clients;
    this.#setIntx = parts.setIntx;
    this.vectors = Math.max(parts.msix, parts.msi, parts.setIntx === undefined ? 0 : 1);
  }

  raise(vector: number): void {
    for (const client of this.#clients()) {
      if (this.#usesMsix(client, vector)) this.#table?.interrupt(client, vector);
      else if (this.#usesMsi(client)) client.irq(PciIrq.MSI, vector % this.#msi).trigger();
    }
    this.#raised.add(vector);
    this.#updateIntx();
  }

  lower(vector: number): void {
    this.#raised.delete(vector);
    this.#updateIntx();
  }

  /** A function that sends messages leaves INTx alone (PCI Local Bus 3.0 section 6.8). */
  #updateIntx(): void {
    if (this.#setIntx === undefined) return;
    const isUsed = [...this.#clients()].some(
      (client) =>
        this.#usesMsi(client) ||
        (this.#msix > 0 && client.irq(PciIrq.MSIX).isArmed) ||
        this.#config.msixEnabled,
    );
    this.#setIntx(this.#raised.size > 0 && !isUsed);
  }

  #usesMsix(client: ClientContext, vector: number): boolean {
    if (vector >= this.#msix) return false;
    return this.#config.msixEnabled || client.irq(PciIrq.MSIX, vector).isArmed;
  }

  #usesMsi(client: ClientContext): boolean {
    return this.#msi > 0 && (this.#config.msiEnabled || client.irq(PciIrq.MSI).isArmed);
  }
}
