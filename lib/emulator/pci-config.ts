/**
 * The configuration space of a PCI device with a type 0 header (PCI Local Bus 3.0 section 6), as a region.
 *
 * A mask says which bits software can write. It makes BARs answer sizing by itself: of an address only the bits above
 * the size can be written, so all ones read back as the size's mask with the type bits below.
 */
import {
  barOffset,
  MsiControl,
  MsixControl,
  MSIX_MAX_VECTORS,
  PCI_CONFIG_SIZE,
  PCI_EXTENDED_CONFIG_SIZE,
  PCI_HEADER_SIZE,
  PciCapabilityId,
  PciCommand,
  PciConfig,
  PciStatus,
  type BarKind,
  type BarLocation,
} from '../pci/index.js';
import { byteArray, integer, outOfRange, UINT16_MAX, UINT8_MAX } from '../fields.js';
import * as option from '../options.js';
import type { RegionHandler } from './device-model.js';

/** A base address register. */
export interface PciBar {
  /** 0 to 5; a 64-bit one takes the register after it as well. */
  readonly index: number;
  /** A power of two, at least 16 for memory and 4 for I/O. */
  readonly size: number;
  /** `memory32` by default. */
  readonly kind?: BarKind;
  /** Bit 3 of a memory BAR; false by default. */
  readonly prefetchable?: boolean;
}

/** What follows the two bytes that every capability begins with. */
export interface ConfigCapability {
  /** The capability's id (`PciCapabilityId`). */
  readonly id: number;
  /** Its registers from offset 2 on. */
  readonly body: Uint8Array;
  /** The bits of `body` that software can write. */
  readonly writable: Uint8Array;
}

/** What config space says of a device, and its capabilities. */
export interface PciConfigOptions {
  /** 16 bits. */
  readonly vendorId: number;
  /** 16 bits. */
  readonly deviceId: number;
  /** Base class, sub-class and programming interface in 24 bits; 0xff0000, of no defined class, by default. */
  readonly classCode?: number;
  /** 8 bits; 0 by default. */
  readonly revisionId?: number;
  /** 16 bits; 0 by default. */
  readonly subsystemVendorId?: number;
  /** 16 bits; 0 by default. */
  readonly subsystemId?: number;
  /** 1 to 4 for INTA to INTD; none by default. */
  readonly interruptPin?: number;
  /** Base address registers; none by default. */
  readonly bars?: readonly PciBar[];
  /** In the order of the list. */
  readonly capabilities?: readonly ConfigCapability[];
  /** 256 bytes, by default, or the 4096 of PCI Express. */
  readonly size?: 256 | 4096;
}

const BAR = new option.OptionTable<PciBar>(
  {
    index: option.wholeNumber(0, 5),
    size: option.wholeNumber(1),
    kind: option.oneOf('memory32', 'memory64', 'io'),
    prefetchable: option.boolean,
  },
  ['index', 'size'],
);
const CAPABILITY = new option.OptionTable<ConfigCapability>(
  { id: option.wholeNumber(0, UINT8_MAX), body: option.bytes, writable: option.bytes },
  ['id', 'body', 'writable'],
);
const OPTIONS = new option.OptionTable<PciConfigOptions>(
  {
    vendorId: option.wholeNumber(0, UINT16_MAX),
    deviceId: option.wholeNumber(0, UINT16_MAX),
    classCode: option.wholeNumber(0, 0xff_ffff),
    revisionId: option.wholeNumber(0, UINT8_MAX),
    subsystemVendorId: option.wholeNumber(0, UINT16_MAX),
    subsystemId: option.wholeNumber(0, UINT16_MAX),
    interruptPin: option.wholeNumber(0, 4),
    bars: option.listOf('BARs', option.options(BAR)),
    capabilities: option.listOf('capabilities', option.options(CAPABILITY)),
    size: option.oneOf(PCI_CONFIG_SIZE, PCI_EXTENDED_CONFIG_SIZE),
  },
  ['vendorId', 'deviceId'],
);
const LOCATION = new option.OptionTable<BarLocation>(
  { bir: option.wholeNumber(0, 5), offset: option.wholeNumber(0, 0xffff_fff8) },
  ['bir', 'offset'],
);

const WRITABLE_COMMAND =
  PciCommand.IO |
  PciCommand.MEMORY |
  PciCommand.BUS_MASTER |
  PciCommand.SERR_ENABLE |
  PciCommand.INTX_DISABLE;
/** Bits below a BAR's address. */
const BAR_IO = 0x1;
const BAR_64 = 0x4;
const BAR_PREFETCHABLE = 0x8;
const DWORD = 0xffffffff;

/**
 * The config space of a PCI device with a header of type 0 (PCI Local Bus Specification 3.0, section 6.1). Software writes the
 * bits that are writable; BARs can be sized and assigned.
 *
 * @example
 * ```ts
 * const config = new PciConfigSpace({ vendorId: 0x1234, deviceId: 1, bars: [{ index: 0, size: 4096 }] });
 * ```
 */
export class PciConfigSpace implements RegionHandler {
  /** In bytes, 256 or 4,096. */
  readonly size: number;
  /** Called after software wrote something. */
  onWrite: (() => void) | undefined;
  readonly #bytes: Buffer;
  readonly #writable: Buffer;
  /** What a reset goes back to. */
  readonly #initial: Buffer;
  readonly #bars = new Map<number, PciBar>();
  /** Where each capability stands. */
  readonly #capabilities = new Map<number, number>();

  /** @throws TypeError and RangeError for what a config space cannot hold. */
  constructor(options: PciConfigOptions) {
    OPTIONS.check('PciConfigSpace', options);
    this.size = options.size ?? PCI_CONFIG_SIZE;
    this.#bytes = Buffer.alloc(this.size);
    this.#writable = Buffer.alloc(this.size);
    this.#layHeader(options);
    for (const bar of options.bars ?? []) this.#layBar(bar);
    this.#layCapabilities(options.capabilities ?? []);
    this.#initial = Buffer.from(this.#bytes);
  }

  /** Bits as in `PciCommand`. */
  get command(): number {
    return this.#bytes.readUInt16LE(PciConfig.COMMAND);
  }

  /** MSI Enable; false where there is no MSI capability. */
  get msiEnabled(): boolean {
    return (this.#control(PciCapabilityId.MSI) & MsiControl.ENABLE) !== 0;
  }

  /** MSI-X Enable; false where there is no MSI-X capability. */
  get msixEnabled(): boolean {
    return (this.#control(PciCapabilityId.MSIX) & MsixControl.ENABLE) !== 0;
  }

  /** Function Mask: all vectors of MSI-X are masked. */
  get msixMasked(): boolean {
    return (this.#control(PciCapabilityId.MSIX) & MsixControl.FUNCTION_MASK) !== 0;
  }

  /** The interrupt bit of the status register, which follows the INTx line. */
  setInterruptStatus(raised: boolean): void {
    const status = this.#bytes.readUInt16LE(PciConfig.STATUS);
    const others = status & ~PciStatus.INTERRUPT;
    this.#bytes.writeUInt16LE(others | (raised ? PciStatus.INTERRUPT : 0), PciConfig.STATUS);
  }

  /** In bytes; 0 where there is no such BAR, as for the upper half of one of 64 bits. */
  barSize(index: number): number {
    return this.#bar('barSize', index)?.size ?? 0;
  }

  /** Undefined where there is no such BAR. */
  barKind(index: number): BarKind | undefined {
    const bar = this.#bar('barKind', index);
    return bar === undefined ? undefined : (bar.kind ?? 'memory32');
  }

  /** Where software has put a BAR; 0n before it has, or where there is no such BAR. */
  barAddress(index: number): bigint {
    const bar = this.#bar('barAddress', index);
    if (bar === undefined) return 0n;
    const at = barOffset(index);
    const high = bar.kind === 'memory64' ? this.#bytes.readUInt32LE(at + 4) : 0;
    return ((BigInt(high) << 32n) | BigInt(this.#bytes.readUInt32LE(at))) & -BigInt(bar.size);
  }

  /** Whether the device would answer accesses to the BAR: it is assigned, and enabled in the command register. */
  isBarEnabled(index: number): boolean {
    const bar = this.#bar('isBarEnabled', index);
    if (bar === undefined) return false;
    const enable = bar.kind === 'io' ? PciCommand.IO : PciCommand.MEMORY;
    if ((this.command & enable) === 0) return false;
    const address = this.barAddress(index);
    const last = address + BigInt(bar.size) - 1n;
    // All ones are what sizing leaves there.
    return address !== 0n && last < (bar.kind === 'memory64' ? (1n << 64n) - 1n : BigInt(DWORD));
  }

  /** `count` bytes from `offset` on, as software reads them. */
  read(offset: number, count: number): Uint8Array {
    this.#checkRange('read', offset, 'count', count);
    return this.#bytes.subarray(offset, offset + count);
  }

  /** Writes as software does: bits that are not writable keep their value. Calls `onWrite`. */
  write(offset: number, data: Uint8Array): void {
    byteArray('PciConfigSpace.write: data', data);
    this.#checkRange('write', offset, 'length of data', data.byteLength);
    data.forEach((byte, i) => {
      const mask = this.#writable[offset + i]!;
      this.#bytes[offset + i] = (this.#bytes[offset + i]! & ~mask) | (byte & mask);
    });
    this.onWrite?.();
  }

  /** Every register as it was at first. Does not call `onWrite`. */
  reset(): void {
    this.#initial.copy(this.#bytes);
  }

  #bar(method: string, index: number): PciBar | undefined {
    return this.#bars.get(integer(`PciConfigSpace.${method}: index`, index, 0, 5));
  }

  #checkRange(method: string, offset: number, name: string, count: number): void {
    integer(`PciConfigSpace.${method}: offset`, offset, 0, this.#bytes.length);
    integer(`PciConfigSpace.${method}: ${name}`, count, 0, this.#bytes.length - offset);
  }

  #control(id: number): number {
    const at = this.#capabilities.get(id);
    return at === undefined ? 0 : this.#bytes.readUInt16LE(at + 2);
  }

  #layHeader(options: PciConfigOptions): void {
    const bytes = this.#bytes;
    bytes.writeUInt16LE(options.vendorId, PciConfig.VENDOR_ID);
    bytes.writeUInt16LE(options.deviceId, PciConfig.DEVICE_ID);
    bytes.writeUInt8(options.revisionId ?? 0, PciConfig.REVISION_ID);
    bytes.writeUIntLE(options.classCode ?? 0xff0000, PciConfig.CLASS_PROG_IF, 3);
    bytes.writeUInt16LE(options.subsystemVendorId ?? 0, PciConfig.SUBSYSTEM_VENDOR_ID);
    bytes.writeUInt16LE(options.subsystemId ?? 0, PciConfig.SUBSYSTEM_ID);
    bytes.writeUInt8(options.interruptPin ?? 0, PciConfig.INTERRUPT_PIN);
    this.#writable.writeUInt16LE(WRITABLE_COMMAND, PciConfig.COMMAND);
    for (const register of [PciConfig.CACHE_LINE_SIZE, PciConfig.INTERRUPT_LINE]) {
      this.#writable.writeUInt8(0xff, register);
    }
  }

  #layBar(bar: PciBar): void {
    const { index, size, kind = 'memory32', prefetchable = false } = bar;
    const least = kind === 'io' ? 4 : 16;
    if (size < least || !Number.isInteger(Math.log2(size)) || (kind !== 'memory64' && size > 2 ** 31)) {
      throw new RangeError(`BAR ${index}: ${size} bytes cannot be the size of a ${kind} BAR`);
    }
    if (kind === 'memory64' && index === 5)
      throw new RangeError('BAR 5 has no register after it for 64 bits');
    const taken = [index, ...(kind === 'memory64' ? [index + 1] : [])].some((i) => this.#takesRegister(i));
    if (taken) throw new RangeError(`BAR ${index}: the register is taken`);
    const at = barOffset(index);
    const mask = -BigInt(size);
    const type =
      kind === 'io' ? BAR_IO : (kind === 'memory64' ? BAR_64 : 0) | (prefetchable ? BAR_PREFETCHABLE : 0);
    this.#bytes.writeUInt32LE(type, at);
    this.#writable.writeUInt32LE(Number(BigInt.asUintN(32, mask)), at);
    if (kind === 'memory64') this.#writable.writeUInt32LE(Number(BigInt.asUintN(32, mask >> 32n)), at + 4);
    this.#bars.set(index, bar);
  }

  #takesRegister(index: number): boolean {
    return this.#bars.has(index) || this.#bars.get(index - 1)?.kind === 'memory64';
  }

  /** One after the other behind the header, each at a multiple of 4. */
  #layCapabilities(capabilities: readonly ConfigCapability[]): void {
    let pointer: number = PciConfig.CAPABILITIES_POINTER;
    let at = PCI_HEADER_SIZE;
    for (const [i, { id, body, writable }] of capabilities.entries()) {
      if (writable.length !== body.length) {
        const name = `PciConfigSpace: capabilities[${i}].writable`;
        throw outOfRange(`${name} must have as many bytes as body, ${body.length}, got ${writable.length}`);
      }
      if (at + 2 + body.byteLength > PCI_CONFIG_SIZE) throw new RangeError('the capabilities do not fit');
      this.#bytes.writeUInt8(at, pointer);
      this.#bytes.writeUInt8(id, at);
      this.#bytes.set(body, at + 2);
      this.#writable.set(writable, at + 2);
      this.#capabilities.set(id, at);
      pointer = at + 1;
      at = (at + 2 + body.byteLength + 3) & ~3;
    }
    if (capabilities.length > 0) this.#bytes.writeUInt16LE(PciStatus.CAPABILITIES_LIST, PciConfig.STATUS);
  }
}

/** MSI with a 64-bit address and no mask bits. `vectors` is 1, 2, 4 … 32. */
export function msiCapability(vectors: number): ConfigCapability {
  const log2 = Math.log2(integer('msiCapability: vectors', vectors, 1, 32));
  if (!Number.isInteger(log2)) {
    throw outOfRange(`msiCapability: vectors must be a power of two up to 32, got ${vectors}`);
  }
  const body = Buffer.alloc(12);
  body.writeUInt16LE(MsiControl.ADDRESS_64 | (log2 << 1), 0);
  const writable = Buffer.alloc(12);
  writable.writeUInt16LE(MsiControl.ENABLE | (vectors > 1 ? MsiControl.MULTIPLE_MESSAGE_ENABLE : 0), 0);
  writable.writeUInt32LE(0xfffffffc, 2);
  writable.writeUInt32LE(DWORD, 6);
  writable.writeUInt16LE(0xffff, 10);
  return { id: PciCapabilityId.MSI, body, writable };
}

/** MSI-X, its table and pending bits at multiples of 8 in memory BARs. `vectors` is 1 to 2048. */
export function msixCapability(vectors: number, table: BarLocation, pba: BarLocation): ConfigCapability {
  integer('msixCapability: vectors', vectors, 1, MSIX_MAX_VECTORS);
  for (const [name, location] of Object.entries({ table, pba })) {
    const problem = LOCATION.find('msixCapability', `${name}.`, location);
    if (problem !== undefined) throw problem;
    if (location.offset % 8 === 0) continue;
    throw outOfRange(`msixCapability: ${name}.offset must be a multiple of 8, got ${location.offset}`);
  }
  const body = Buffer.alloc(10);
  body.writeUInt16LE(vectors - 1, 0);
  body.writeUInt32LE(table.offset + table.bir, 2);
  body.writeUInt32LE(pba.offset + pba.bir, 6);
  const writable = Buffer.alloc(10);
  writable.writeUInt16LE(MsixControl.ENABLE | MsixControl.FUNCTION_MASK, 0);
  return { id: PciCapabilityId.MSIX, body, writable };
}
