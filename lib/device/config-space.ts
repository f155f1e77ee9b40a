/**
 * Config space behind a shadow. A write that was aborted, or whose read-back failed, leaves bytes of which nobody knows what the
 * device has (stale ones): they are read again at once.
 */
import { forbidCloning } from '../cloning.js';
import { Exclusive, withDeadline, type CallOptions, type SyncCallOptions } from '../connection/index.js';
import { RemoteError, UnsupportedError } from '../errors.js';
import { integer, outOfRange, wrongType } from '../fields.js';
import * as option from '../options.js';
import {
  PciConfig,
  decodeConfigSpace,
  findCapability,
  type Bar,
  type Capability,
  type ConfigReader,
  type ConfigSpace as DecodedConfigSpace,
  type ExtendedCapability,
  type PciHeader,
} from '../pci/index.js';
import { forSettingUp } from './device-context.js';
import type { MemorySpace } from './memory-space.js';
import type { Region } from './region.js';
import { StaleBytes } from './stale-bytes.js';

/** The widths that config space is accessed in. */
export type ConfigWidth = 1 | 2 | 4;

/** Bytes `[start, end)` that the device changes by itself. */
type Range = readonly [start: number, end: number];

const DWORD = 4;
/** With more stale bytes than this the whole space is read. */
const FEW_DWORDS = 8;

/**
 * The device's configuration space (PCI Local Bus 3.0, section 6.1), and a copy of it as it was read last, the
 * shadow: fields and `getUInt…` are of the shadow and cost no round trip, `read…` and `write…` are messages to
 * the device, which bring the shadow up to date. Values are little-endian.
 *
 * @example
 * ```ts
 * const { vendorId, capabilities } = device.config;
 * await device.config.update(PciConfig.COMMAND, 2, PciCommand.BUS_MASTER, PciCommand.BUS_MASTER);
 * const status = await device.config.read(PciConfig.STATUS, 2);
 * ```
 */
export class ConfigSpace implements ConfigReader {
  readonly #region: Region;
  readonly #shadow: Buffer;
  /** Read in dwords: a server that answered minor 0 knows no longer reads (and some abort at them). */
  readonly #byDword: boolean;
  readonly #exclusive = new Exclusive();
  readonly #space: MemorySpace;
  readonly #stale: StaleBytes;
  /** Stale bytes are being read again. */
  #isRefreshingStale = false;
  #decoded: DecodedConfigSpace | undefined;
  #volatile: readonly Range[] | undefined;

  /** @internal Filled by the first `refresh`. */
  constructor(region: Region, size: number, byDword: boolean, space: MemorySpace) {
    this.#region = region;
    this.#byDword = byDword;
    this.#space = space;
    region.tellOfWrites(space);
    this.#shadow = Buffer.alloc(size);
    this.#stale = new StaleBytes(size);
    forbidCloning(this, 'a ConfigSpace');
  }

  /** In bytes: 256, or 4,096 with the extended space. */
  get size(): number {
    return this.#shadow.length;
  }

  /** The vendor, as the PCI-SIG assigned it; from the shadow. */
  get vendorId(): number {
    return this.getUInt16(PciConfig.VENDOR_ID);
  }

  /** The device's id, which its vendor assigns; from the shadow. */
  get deviceId(): number {
    return this.getUInt16(PciConfig.DEVICE_ID);
  }

  /** PciCommand bits, as last read; as written where reading back failed. */
  get command(): number {
    return this.getUInt16(PciConfig.COMMAND);
  }

  /** The header's fields, decoded. */
  get header(): PciHeader {
    return this.#decode().header;
  }

  /** The base address registers, decoded from the shadow. */
  get bars(): readonly Bar[] {
    return this.header.bars;
  }

  /** The conventional capabilities in the order of their list, decoded from the shadow. */
  get capabilities(): readonly Capability[] {
    return this.#decode().capabilities;
  }

  /**
   * The extended capabilities in the order of their list, decoded from the shadow; empty without an extended
   * space.
   */
  get extendedCapabilities(): readonly ExtendedCapability[] {
    return this.#decode().extendedCapabilities;
  }

  /** What is wrong with the bytes, in words; empty where nothing is. */
  get problems(): readonly string[] {
    return this.#decode().problems;
  }

  /** The shadow's bytes, copied: as last read, and as written where reading back failed. */
  bytes(): Buffer {
    return Buffer.from(this.#shadow);
  }

  /** The byte at `offset`, from the shadow. @throws RangeError for what is not in the space. */
  getUInt8(offset: number): number {
    return this.#shadow.readUInt8(this.#inShadow('getUInt8', offset, 1));
  }

  /** The 16-bit value at `offset`, from the shadow. @throws RangeError for what is not in the space. */
  getUInt16(offset: number): number {
    return this.#shadow.readUInt16LE(this.#inShadow('getUInt16', offset, 2));
  }

  /** The 32-bit value at `offset`, from the shadow. @throws RangeError for what is not in the space. */
  getUInt32(offset: number): number {
    return this.#shadow.readUInt32LE(this.#inShadow('getUInt32', offset, 4));
  }

  #inShadow(method: string, offset: number, width: number): number {
    return integer(`ConfigSpace.${method}: offset`, offset, 0, this.#shadow.length - width);
  }

  /** Another name for `getUInt8`: from the shadow, unlike `Region.readUInt8`. */
  readUInt8(offset: number): number {
    return this.#shadow.readUInt8(this.#inShadow('readUInt8', offset, 1));
  }

  /** Another name for `getUInt16`: from the shadow, unlike `Region.readUInt16`. */
  readUInt16(offset: number): number {
    return this.#shadow.readUInt16LE(this.#inShadow('readUInt16', offset, 2));
  }

  /** Another name for `getUInt32`: from the shadow, unlike `Region.readUInt32`. */
  readUInt32(offset: number): number {
    return this.#shadow.readUInt32LE(this.#inShadow('readUInt32', offset, 4));
  }

  /**
   * Reads a register of `width` bytes from the device, and into the shadow. `isVolatile` says where that tells more than
   * the shadow, unless another client changes the registers.
   * @throws RangeError for a register that is not in the space, or not aligned; RemoteError, TimeoutError, ClosedError; the
   * signal's reason.
   */
  read(offset: number, width: ConfigWidth, options?: CallOptions): Promise<number> {
    return this.#read('read', offset, width, options);
  }

  /** @internal `read`, blocking. */
  readSync(offset: number, width: ConfigWidth, options?: SyncCallOptions): number {
    this.#check(offset, width, options);
    const [start, end] = this.#block(offset, width);
    const { count } = this.#stale;
    this.#region.readIntoSync(start, this.#shadow.subarray(start, end), options);
    this.#stale.clear(start, end, count);
    this.#invalidate();
    this.#space.known(start, this.#shadow.subarray(start, end));
    return this.#shadow.readUIntLE(offset, width);
  }

  /** @internal `write`, blocking. */
  writeSync(offset: number, width: ConfigWidth, value: number, options?: SyncCallOptions): void {
    this.#check(offset, width, options);
    this.#checkWrite(width, value);
    if (width < this.#region.leastWidth) {
      throw new UnsupportedError(`the server takes no accesses of ${width} bytes to config space`);
    }
    this.#stale.mark(offset, offset + width);
    if (width === 1) this.#region.writeUInt8Sync(offset, value, options);
    else if (width === 2) this.#region.writeUInt16Sync(offset, value, options);
    else this.#region.writeUInt32Sync(offset, value, options);
    this.readSync(offset, width, options);
  }

  /** Status, read from the device: PciStatus bits. Errors as of `read`. */
  status(options?: CallOptions): Promise<number> {
    return this.#read('status', PciConfig.STATUS, 2, options);
  }

  /** Whether the device changes any of these bytes by itself, so that the shadow may be out of date. */
  isVolatile(offset: number, width: number): boolean {
    integer('config space: offset', offset);
    integer('config space: width', width);
    this.#volatile ??= volatileRanges(this.capabilities);
    return this.#volatile.some(([start, end]) => offset < end && start < offset + width);
  }

  /** Writes a byte, 0 to 255. See `write` for what it does and throws. */
  writeUInt8(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#write('writeUInt8', offset, 1, value, options);
  }

  /** Writes 16 bits, 0 to 65,535. See `write` for what it does and throws. */
  writeUInt16(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#write('writeUInt16', offset, 2, value, options);
  }

  /** Writes 32 bits, 0 to 4,294,967,295. See `write` for what it does and throws. */
  writeUInt32(offset: number, value: number, options?: CallOptions): Promise<void> {
    return this.#write('writeUInt32', offset, 4, value, options);
  }

  /**
   * Writes through, and reads back in the same round trip: read-only bits stay what they are.
   * @throws RangeError for a register that is not in the space, or not aligned, for a value that does not fit it, and where
   * the space cannot be written; RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  write(offset: number, width: ConfigWidth, value: number, options?: CallOptions): Promise<void> {
    return this.#write('write', offset, width, value, options);
  }

  /**
   * Sets the bits under `mask` to those of `value`, reading first; no other update comes between.
   * @throws RangeError for a register that is not in the space, and for a mask or value that does not fit it; RemoteError,
   * TimeoutError, ClosedError; the signal's reason.
   */
  async update(
    offset: number,
    width: ConfigWidth,
    mask: number,
    value: number,
    options?: CallOptions,
  ): Promise<void> {
    option.CALL_OPTIONS.check('ConfigSpace.update', options);
    this.#check(offset, width, options);
    checkValue('mask', mask, width);
    this.#checkWrite(width, value);
    await this.#exclusive.run('updating config space', options, async (call) => {
      await this.#readRegister(offset, width, call);
      const old = this.#shadow.readUIntLE(offset, width);
      // Bitwise operators give signed numbers from bit 31 on.
      const wanted = ((old & ~mask) | (value & mask)) >>> 0;
      if (wanted !== old) await this.#write('update', offset, width, wanted, call);
    });
  }

  /** Reads all of the space again. @throws RemoteError, TimeoutError, ClosedError; the signal's reason. */
  async refresh(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('ConfigSpace.refresh', options);
    this.#region.requireAvailable(options);
    try {
      await this.#refresh(withDeadline(options));
    } catch (error) {
      this.#refreshStale();
      throw error;
    }
  }

  /**
   * @internal Does what may change all of the space other than by `write`, and reads it again; whatever comes of it, what
   * is not known afterwards is asked for.
   */
  async refreshAfter(change: () => Promise<void>, options?: CallOptions): Promise<void> {
    this.#stale.mark();
    try {
      await change();
    } catch (error) {
      this.#refreshStale();
      throw error;
    }
    await this.refresh(options);
  }

  /** @internal Waits until all of the space is known, for those who read the shadow. */
  async settle(options?: CallOptions): Promise<void> {
    if (!this.#stale.isEmpty) await this.#readStale(withDeadline(options));
  }

  async #refresh(options: CallOptions | undefined): Promise<void> {
    const { count } = this.#stale;
    if (this.#byDword || this.size === 0) await this.#refreshByDword(options);
    else {
      try {
        await this.#region.readInto(0, this.#shadow, options);
        this.#stale.clear(0, this.size, count);
      } catch (error) {
        // Some servers take the widths of a bus alone.
        if (!(error instanceof RemoteError)) throw error;
        await this.#refreshByDword(options);
      }
    }
    this.#invalidate();
    this.#space.seen(this);
  }

  async #read(
    caller: string,
    offset: number,
    width: ConfigWidth,
    options: CallOptions | undefined,
  ): Promise<number> {
    option.CALL_OPTIONS.check(`ConfigSpace.${caller}`, options);
    this.#check(offset, width, options);
    await this.#readRegister(offset, width, options);
    return this.#shadow.readUIntLE(offset, width);
  }

  async #write(
    caller: string,
    offset: number,
    width: ConfigWidth,
    value: number,
    options: CallOptions | undefined,
  ): Promise<void> {
    option.CALL_OPTIONS.check(`ConfigSpace.${caller}`, options);
    this.#check(offset, width, options);
    this.#checkWrite(width, value);
    const call = withDeadline(options);
    const [start, end] = this.#block(offset, width);
    // Neighbours that are written with it have to be known.
    if (end - start > width && this.#stale.includes(start, end))
      await this.#readRegister(offset, width, call);
    this.#stale.mark(start, end);
    const [put, fetched] = await Promise.allSettled([
      this.#writeRegister(offset, width, value, call),
      this.#readRegister(offset, width, call),
    ]);
    if (put.status === 'fulfilled' && fetched.status === 'rejected') {
      // eslint-disable-next-line no-restricted-syntax -- checked above
      this.#shadow.writeUIntLE(value, offset, width);
      this.#invalidate();
    }
    this.#refreshStale();
    for (const result of [put, fetched]) if (result.status === 'rejected') throw result.reason;
  }

  /** Reads again what is stale, if nobody does already. What fails stays stale. */
  #refreshStale(): void {
    if (this.#isRefreshingStale || this.#stale.isEmpty) return;
    this.#isRefreshingStale = true;
    const { count } = this.#stale;
    void this.#readStale(forSettingUp({}))
      .catch(() => undefined)
      .finally(() => {
        this.#isRefreshingStale = false;
        // Only for what was changed meanwhile: a server that refuses would be asked without end.
        if (this.#stale.count !== count) this.#refreshStale();
      });
  }

  async #readStale(options: CallOptions | undefined): Promise<void> {
    const blocks = this.#stale.blocks(DWORD);
    if (blocks.length > FEW_DWORDS) return this.#refresh(options);
    await Promise.all(blocks.map((at) => this.#readRegister(at, DWORD, options)));
  }

  async #refreshByDword(options: CallOptions | undefined): Promise<void> {
    const reads: Promise<void>[] = [];
    for (let at = 0; at + DWORD <= this.size; at += DWORD) reads.push(this.#readRegister(at, DWORD, options));
    // All are waited for: the shadow is theirs until then.
    for (const result of await Promise.allSettled(reads)) {
      if (result.status === 'rejected') throw result.reason;
    }
  }

  async #readRegister(offset: number, width: ConfigWidth, options: CallOptions | undefined): Promise<void> {
    const [start, end] = this.#block(offset, width);
    const { count } = this.#stale;
    await this.#region.readInto(start, this.#shadow.subarray(start, end), options);
    this.#stale.clear(start, end, count);
    this.#invalidate();
    this.#space.known(start, this.#shadow.subarray(start, end));
  }

  /** What has to be accessed for these bytes: more, where the server takes nothing as narrow (quirk accessWidths). */
  #block(offset: number, width: number): Range {
    const block = Math.max(width, this.#region.leastWidth);
    const start = offset - (offset % block);
    return [start, start + block];
  }

  #writeRegister(
    offset: number,
    width: ConfigWidth,
    value: number,
    options: CallOptions | undefined,
  ): Promise<void> {
    if (width < this.#region.leastWidth) return this.#writeBlock(offset, width, value, options);
    if (width === 1) return this.#region.writeUInt8(offset, value, options);
    if (width === 2) return this.#region.writeUInt16(offset, value, options);
    return this.#region.writeUInt32(offset, value, options);
  }

  /** With its neighbours as they were; status has bits that a 1 clears, so it is written as zero. */
  #writeBlock(offset: number, width: number, value: number, options: CallOptions | undefined): Promise<void> {
    const [start, end] = this.#block(offset, width);
    const block = Buffer.from(this.#shadow.subarray(start, end));
    for (const at of [PciConfig.STATUS, PciConfig.STATUS + 1]) {
      if (at >= start && at < end) block[at - start] = 0;
    }
    // eslint-disable-next-line no-restricted-syntax -- checked by `write`
    block.writeUIntLE(value, offset - start, width);
    return this.#region.write(start, block, options);
  }

  #decode(): DecodedConfigSpace {
    return (this.#decoded ??= decodeConfigSpace(this));
  }

  #invalidate(): void {
    this.#decoded = undefined;
    this.#volatile = undefined;
  }

  /** Before the read that goes with every write is sent. */
  #checkWrite(width: number, value: number): void {
    if (!this.#region.writable) throw new RangeError('config space cannot be written: its flags forbid it');
    checkValue('value', value, width);
  }

  #check(offset: number, width: number, options: CallOptions | undefined): void {
    if (typeof width !== 'number') throw wrongType('config space: width', 'a number', width);
    if (width !== 1 && width !== 2 && width !== 4)
      throw outOfRange(`config space: width must be 1, 2 or 4 bytes, got ${String(width)}`);
    integer('config space: offset', offset, 0, this.size - width);
    if (offset % width !== 0)
      throw outOfRange(`config space: offset must be a multiple of the width, ${width}, got ${offset}`);
    this.#region.requireAvailable(options);
  }
}

function checkValue(name: string, value: number, width: number): void {
  integer(`config space: ${name}`, value, 0, 2 ** (8 * width) - 1);
}

/** Status, and the registers of capabilities in which the device reports. */
function volatileRanges(capabilities: readonly Capability[]): Range[] {
  const ranges: Range[] = [
    [PciConfig.STATUS, PciConfig.STATUS + 2],
    [PciConfig.BIST, PciConfig.BIST + 1],
  ];
  const power = findCapability(capabilities, 'power-management');
  if (power !== undefined) ranges.push([power.controlOffset, power.controlOffset + 2]);
  const pending = findCapability(capabilities, 'msi')?.offsets.pending;
  if (pending !== undefined && pending !== null) ranges.push([pending, pending + 4]);
  for (const { offset, name } of capabilities) {
    // Device, link, slot and root status stand between the control registers; VPD's flag and data change together.
    if (name === 'PCI Express') ranges.push([offset + 0x0a, offset + 0x3c]);
    if (name === 'Vital Product Data') ranges.push([offset + 2, offset + 8]);
  }
  return ranges;
}
