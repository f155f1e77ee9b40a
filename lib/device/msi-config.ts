/**
 * What a host does for interrupts in a device's own registers (PCI Local Bus Specification 3.0, section 6.8): the enable
 * bits, the message addresses, the MSI-X table. Some servers look at them.
 *
 * The order is eventfds, then message address and data, then the enable bit:
 * - QEMU's device models signal MSI and MSI-X only when they are enabled and unmasked (msi_notify, msix_notify), and
 *   deliver what is pending the moment that happens: by then the eventfd must be there, or the interrupt is lost.
 * - libvfio-user signals the eventfd whatever the registers say, so for it the order is of no matter; SPDK looks at the
 *   enable bit or INTX_DISABLE before it signals at all.
 *
 * INTX_DISABLE in COMMAND is clear only while INTx is enabled here. It is set before any eventfd goes out: INTx, MSI and
 * MSI-X share one array of eventfds in these servers, and a level that is asserted would signal vector 0. For INTx itself
 * setting and clearing it makes QEMU signal a level that was asserted before its eventfd was there.
 */
import type { CallOptions } from '../connection/index.js';
import { RemoteError } from '../errors.js';
import {
  MsiControl,
  MsixControl,
  MsixEntryOffset,
  PCI_HEADER_SIZE,
  PciCommand,
  PciConfig,
  encodeMsixEntry,
  findCapability,
  msixEntryOffset,
  MSIX_ENTRY_SIZE,
  type Capability,
} from '../pci/index.js';
import { PciIrq, PciRegion } from '../protocol/constants.js';
import type { ConfigSpace } from './config-space.js';
import type { Region } from './region.js';

/** The parts of a device that interrupts need. */
export interface MsiConfigParts {
  /** Whether the device is on PCI: what is done here is PCI's alone. */
  readonly isPci: boolean;
  readonly config: ConfigSpace | undefined;
  /** The region of that index; a RangeError where there is none. */
  region(index: number): Region;
}

/** Where the hosts of x86 take interrupt messages; the servers known look at the vector's number alone. */
const MESSAGE_ADDRESS = 0xfee0_0000;
const DWORD = 4;
const LAST_BAR = 5;

type Msi = Extract<Capability, { kind: 'msi' }>;
type Msix = Extract<Capability, { kind: 'msix' }>;

export class MsiConfig {
  readonly #access: MsiConfigParts;
  /** The server refused the MSI-X table: it is not asked again. */
  #tableRefused = false;

  constructor(access: MsiConfigParts) {
    this.#access = access;
  }

  /**
   * How many interrupts an index really has, where the server reported `reported`. QEMU reports MSI for devices that
   * have none; a device without the capability cannot be told of message interrupts at all.
   */
  limit(index: number, reported: number): number {
    const config = this.#config();
    if (config === undefined) return reported;
    if (index === PciIrq.MSI) return Math.min(reported, this.#msi(config)?.vectorsCapable ?? 0);
    if (index === PciIrq.MSIX) return Math.min(reported, this.#msix(config)?.tableSize ?? reported);
    return reported;
  }

  /** Before eventfds are set. */
  async prepare(index: number, options?: CallOptions): Promise<void> {
    if (isPinOrMessage(index)) await this.#setIntxDisable(true, options);
  }

  /** After the eventfds of `subindexes` (ascending) were set. */
  async apply(index: number, subindexes: readonly number[], options?: CallOptions): Promise<void> {
    const config = this.#config();
    if (config === undefined || subindexes.length === 0) return;
    if (index === PciIrq.INTX) await this.#setIntxDisable(false, options);
    if (index === PciIrq.MSI) await enableMsi(config, this.#msi(config), subindexes, options);
    if (index === PciIrq.MSIX) await this.#enableMsix(config, subindexes, options);
  }

  /** Before the index is disabled. */
  async undo(index: number, options?: CallOptions): Promise<void> {
    const config = this.#config();
    if (config === undefined) return;
    if (index === PciIrq.INTX) await this.#setIntxDisable(true, options);
    const msi = index === PciIrq.MSI ? this.#msi(config) : undefined;
    if (msi !== undefined) await config.update(msi.offsets.control, 2, MsiControl.ENABLE, 0, options);
    const msix = index === PciIrq.MSIX ? this.#msix(config) : undefined;
    if (msix !== undefined) await config.update(msix.controlOffset, 2, MsixControl.ENABLE, 0, options);
  }

  /** Config space, where it can be written and has a header at all. */
  #config(): ConfigSpace | undefined {
    const { config } = this.#access;
    if (config === undefined || config.size < PCI_HEADER_SIZE) return undefined;
    return this.#region(PciRegion.CONFIG)?.writable === true ? config : undefined;
  }

  #msi(config: ConfigSpace): Msi | undefined {
    return findCapability(config.capabilities, 'msi');
  }

  #msix(config: ConfigSpace): Msix | undefined {
    return findCapability(config.capabilities, 'msix');
  }

  #region(index: number): Region | undefined {
    try {
      return this.#access.region(index);
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw error;
    }
  }

  async #setIntxDisable(on: boolean, options?: CallOptions): Promise<void> {
    const bit = PciCommand.INTX_DISABLE;
    await this.#config()?.update(PciConfig.COMMAND, 2, bit, on ? bit : 0, options);
  }

  async #enableMsix(
    config: ConfigSpace,
    subindexes: readonly number[],
    options?: CallOptions,
  ): Promise<void> {
    const msix = this.#msix(config);
    if (msix === undefined) return;
    await this.#writeTable(config, msix, subindexes, options);
    const { ENABLE, FUNCTION_MASK } = MsixControl;
    await config.update(msix.controlOffset, 2, ENABLE | FUNCTION_MASK, ENABLE, options);
  }

  /** Address and data of each vector, then its mask bit, cleared. SPDK refuses its table, and needs none. */
  async #writeTable(
    config: ConfigSpace,
    { table }: Msix,
    subindexes: readonly number[],
    options?: CallOptions,
  ): Promise<void> {
    const region = table.bir > LAST_BAR ? undefined : this.#region(table.bir);
    // `apply` has checked that there are some.
    const end = msixEntryOffset(table.offset, subindexes.at(-1)!) + MSIX_ENTRY_SIZE;
    if (this.#tableRefused || region === undefined || !region.writable || end > region.size) return;
    try {
      // The first entry alone: where it is refused the others need not be tried.
      for (const part of [subindexes.slice(0, 1), subindexes.slice(1)]) {
        await Promise.all(part.flatMap((vector) => writeEntry(region, table.offset, vector, options)));
      }
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      // QEMU refuses as long as memory decoding is off: that may pass.
      this.#tableRefused = (config.command & PciCommand.MEMORY) !== 0;
    }
  }
}

/** Whether the index is one of those that exclude each other: INTx, MSI and MSI-X. */
export function isPinOrMessage(index: number): boolean {
  return index === PciIrq.INTX || index === PciIrq.MSI || index === PciIrq.MSIX;
}

/** Whole dwords, as the table's rules have it (PCI 3.0 section 6.8.2); the control word comes last and unmasks. */
function writeEntry(
  region: Region,
  tableOffset: number,
  vector: number,
  options: CallOptions | undefined,
): Promise<void>[] {
  const entry = encodeMsixEntry({ address: BigInt(MESSAGE_ADDRESS), data: vector, masked: false });
  const at = msixEntryOffset(tableOffset, vector);
  const { ADDRESS_LOW, ADDRESS_HIGH, DATA, VECTOR_CONTROL } = MsixEntryOffset;
  return [ADDRESS_LOW, ADDRESS_HIGH, DATA, VECTOR_CONTROL].map((register) =>
    region.write(at + register, entry.subarray(register, register + DWORD), options),
  );
}

/** Disabled while address and data change. The device puts the vector's number into the low bits of the data. */
async function enableMsi(
  config: ConfigSpace,
  msi: Msi | undefined,
  subindexes: readonly number[],
  options?: CallOptions,
): Promise<void> {
  if (msi === undefined) return;
  const { control, address, addressHigh, data, mask } = msi.offsets;
  const { ENABLE, MULTIPLE_MESSAGE_ENABLE } = MsiControl;
  await config.update(control, 2, ENABLE, 0, options);
  await config.writeUInt32(address, MESSAGE_ADDRESS, options);
  if (addressHigh !== null) await config.writeUInt32(addressHigh, 0, options);
  await config.writeUInt16(data, 0, options);
  if (mask !== null) {
    const unmasked = subindexes.reduce((bits, vector) => (bits | (1 << vector)) >>> 0, 0);
    await config.update(mask, 4, unmasked, 0, options);
  }
  // Vectors are allotted in powers of two.
  // `apply` has checked that there are some.
  const allotted = Math.ceil(Math.log2(subindexes.at(-1)! + 1)) << 4;
  await config.update(control, 2, ENABLE | MULTIPLE_MESSAGE_ENABLE, ENABLE | allotted, options);
}
