/**
 * MSI-X of an emulated device (PCI Local Bus 3.0 section 6.8.2): the table and the pending bits, as a region.
 *
 * - A client that writes the table programs the function as a PCI host does. MSI-X Enable, Function Mask and the vectors'
 *   Mask bits apply: an interrupt of a masked vector sets its pending bit, and is sent when the vector is unmasked.
 * - A client that never writes the table uses VFIO's interface alone: a vector that SET_IRQS gave an eventfd is signalled.
 *   QEMU is one. It emulates the table for its guest, keeps what is masked pending there, and forwards no access to it, so
 *   that the table here stays as it is at first, with all vectors masked. (libvfio-user signals the eventfd of any client.)
 */
import { outOfRange } from '../fields.js';
import {
  configReader,
  decodeCapabilities,
  MsixEntryOffset,
  MSIX_ENTRY_SIZE,
  MSIX_VECTOR_MASKED,
  msixEntryOffset,
  msixPendingBit,
} from '../pci/index.js';
import { PciIrq } from '../protocol/constants.js';
import type { ClientContext, RegionHandler } from './device-model.js';
import type { PciConfigSpace } from './pci-config.js';

export interface MsixLayout {
  /** 1 to 2,048. */
  readonly vectors: number;
  /** Where the table begins. */
  readonly table: number;
  /** Where the pending bits begin. */
  readonly pending: number;
}

/** Its device needs an MSI-X capability, and interrupts of `PciIrq.MSIX`, that agree with the layout. */
export class MsixTable implements RegionHandler {
  readonly #config: PciConfigSpace;
  readonly #layout: MsixLayout;
  readonly #table: Buffer;
  /** The pending vectors of each client that has written the table. */
  readonly #pending = new Map<ClientContext, Set<number>>();

  /** @throws RangeError for a layout that is not that of the capability. */
  constructor(config: PciConfigSpace, layout: MsixLayout) {
    checkLayout(config, layout);
    this.#config = config;
    this.#layout = layout;
    this.#table = Buffer.alloc(layout.vectors * MSIX_ENTRY_SIZE);
    this.#maskAll();
  }

  /** Signals the client's eventfd, or sets the pending bit. */
  interrupt(client: ClientContext, vector: number): void {
    if (!client.isConnected) return;
    const pending = this.#pending.get(client);
    // `IrqLine.raise` reports a vector that does not exist.
    const isThere = Number.isInteger(vector) && vector >= 0 && vector < this.#layout.vectors;
    if (!isThere || pending === undefined || this.#isUnmasked(vector))
      client.irq(PciIrq.MSIX, vector).trigger();
    // While MSI-X is disabled there is no request that could be pending.
    else if (this.#config.msixEnabled) pending.add(vector);
  }

  /** To be called when config space was written: Enable and Function Mask are there. */
  update(): void {
    for (const [client, pending] of this.#pending) {
      if (!this.#config.msixEnabled) pending.clear();
      for (const vector of pending) {
        if (!this.#isUnmasked(vector)) continue;
        pending.delete(vector);
        client.irq(PciIrq.MSIX, vector).trigger();
      }
    }
  }

  read(offset: number, count: number, client: ClientContext): Buffer {
    const bytes = Buffer.alloc(count);
    const { table, pending } = this.#layout;
    copyOverlap(this.#table, table, bytes, offset);
    copyOverlap(this.#pendingBits(client), pending, bytes, offset);
    return bytes;
  }

  /** Nothing in the region can be written but the table. */
  write(offset: number, data: Buffer, client: ClientContext): void {
    if (!copyOverlap(data, offset, this.#table, this.#layout.table)) return;
    if (!this.#pending.has(client)) this.#pending.set(client, new Set());
    this.update();
  }

  /** All vectors are masked, none is pending. */
  reset(): void {
    this.#maskAll();
    for (const pending of this.#pending.values()) pending.clear();
  }

  detach(client: ClientContext): void {
    this.#pending.delete(client);
  }

  #isUnmasked(vector: number): boolean {
    const control = this.#table[msixEntryOffset(MsixEntryOffset.VECTOR_CONTROL, vector)]!;
    return this.#config.msixEnabled && !this.#config.msixMasked && (control & MSIX_VECTOR_MASKED) === 0;
  }

  #maskAll(): void {
    this.#table.fill(0);
    for (let vector = 0; vector < this.#layout.vectors; vector++) {
      this.#table[msixEntryOffset(MsixEntryOffset.VECTOR_CONTROL, vector)] = MSIX_VECTOR_MASKED;
    }
  }

  /** In whole quadwords, as section 6.8.2 has it. */
  #pendingBits(client: ClientContext): Buffer {
    const bits = Buffer.alloc(Math.ceil(this.#layout.vectors / 64) * 8);
    for (const vector of this.#pending.get(client) ?? []) {
      const { offset, bit } = msixPendingBit(0, vector);
      bits[offset + (bit >>> 3)]! |= 1 << (bit & 7);
    }
    return bits;
  }
}

function checkLayout(config: PciConfigSpace, { vectors, table, pending }: MsixLayout): void {
  const { capabilities } = decodeCapabilities(configReader(config.read(0, config.size)));
  const msix = capabilities.find((capability) => capability.kind === 'msix');
  if (msix === undefined) throw new RangeError('MsixTable: config space has no MSI-X capability');
  const there = { vectors: msix.tableSize, table: msix.table.offset, pending: msix.pba.offset };
  for (const [name, value] of Object.entries({ vectors, table, pending })) {
    const said = there[name as keyof MsixLayout];
    if (value === said) continue;
    throw outOfRange(`MsixTable: ${name} must be ${said}, as the capability says, got ${value}`);
  }
}

/** Copies what `from`, which begins at `fromAt`, and `to`, at `toAt`, have in common. Says whether there is anything. */
function copyOverlap(from: Buffer, fromAt: number, to: Buffer, toAt: number): boolean {
  const begin = Math.max(fromAt, toAt);
  const end = Math.min(fromAt + from.length, toAt + to.length);
  if (begin >= end) return false;
  from.copy(to, begin - toAt, begin - fromAt, end - fromAt);
  return true;
}
