/** Where registers are: a region, a mapping or config space, read and written in the same words. */
import type { CallOptions, ConfigSpace, ConfigWidth, MappedArea, Region, SyncCallOptions } from '../index.js';
import { wrongType } from '../fields.js';

/** What registers can be bound to. */
export type RegisterTarget = Region | MappedArea | ConfigSpace;

/** Accesses of 8, 16, 32 or 64 bits. Values of 64 bits are bigints, all others numbers. */
export interface Port {
  read(offset: number, bits: number, options?: CallOptions): Promise<number | bigint>;
  readSync(offset: number, bits: number, options?: SyncCallOptions): number | bigint;
  write(offset: number, bits: number, value: number | bigint, options?: CallOptions): Promise<void>;
  writeSync(offset: number, bits: number, value: number | bigint, options?: SyncCallOptions): void;
  /** Whether a write reads the register afterwards. */
  readonly readsBack: boolean;
}

/** @throws TypeError for what is none of them. */
export function portOf(caller: string, target: RegisterTarget): Port {
  const shape = (typeof target === 'object' && target !== null ? target : {}) as object;
  if ('readUInt32Sync' in shape) return new RegionPort(target as Region);
  if ('loadUInt32' in shape) return new MappedPort(target as MappedArea);
  if ('isVolatile' in shape) return new ConfigPort(target as ConfigSpace);
  throw wrongType(`${caller}: target`, 'a Region, a MappedArea or a ConfigSpace', target);
}

class RegionPort implements Port {
  readonly readsBack = false;
  readonly #region: Region;

  constructor(region: Region) {
    this.#region = region;
  }

  read(offset: number, bits: number, options?: CallOptions): Promise<number | bigint> {
    if (bits === 32) return this.#region.readUInt32(offset, options);
    if (bits === 64) return this.#region.readUInt64(offset, options);
    return bits === 16 ? this.#region.readUInt16(offset, options) : this.#region.readUInt8(offset, options);
  }

  readSync(offset: number, bits: number, options?: SyncCallOptions): number | bigint {
    if (bits === 32) return this.#region.readUInt32Sync(offset, options);
    if (bits === 64) return this.#region.readUInt64Sync(offset, options);
    return bits === 16
      ? this.#region.readUInt16Sync(offset, options)
      : this.#region.readUInt8Sync(offset, options);
  }

  write(offset: number, bits: number, value: number | bigint, options?: CallOptions): Promise<void> {
    if (bits === 64) return this.#region.writeUInt64(offset, value as bigint, options);
    if (bits === 32) return this.#region.writeUInt32(offset, value as number, options);
    return bits === 16
      ? this.#region.writeUInt16(offset, value as number, options)
      : this.#region.writeUInt8(offset, value as number, options);
  }

  writeSync(offset: number, bits: number, value: number | bigint, options?: SyncCallOptions): void {
    if (bits === 64) this.#region.writeUInt64Sync(offset, value as bigint, options);
    else if (bits === 32) this.#region.writeUInt32Sync(offset, value as number, options);
    else if (bits === 16) this.#region.writeUInt16Sync(offset, value as number, options);
    else this.#region.writeUInt8Sync(offset, value as number, options);
  }
}

class MappedPort implements Port {
  readonly readsBack = false;
  readonly #area: MappedArea;

  constructor(area: MappedArea) {
    this.#area = area;
  }

  async read(offset: number, bits: number): Promise<number | bigint> {
    return this.readSync(offset, bits);
  }

  readSync(offset: number, bits: number): number | bigint {
    if (bits === 64) return this.#area.loadUInt64(offset);
    if (bits === 32) return this.#area.loadUInt32(offset);
    return bits === 16 ? this.#area.loadUInt16(offset) : this.#area.loadUInt8(offset);
  }

  async write(offset: number, bits: number, value: number | bigint): Promise<void> {
    this.writeSync(offset, bits, value);
  }

  writeSync(offset: number, bits: number, value: number | bigint): void {
    if (bits === 64) this.#area.storeUInt64(offset, value as bigint);
    else if (bits === 32) this.#area.storeUInt32(offset, value as number);
    else if (bits === 16) this.#area.storeUInt16(offset, value as number);
    else this.#area.storeUInt8(offset, value as number);
  }
}

class ConfigPort implements Port {
  readonly readsBack = true;
  readonly #config: ConfigSpace;

  constructor(config: ConfigSpace) {
    this.#config = config;
  }

  read(offset: number, bits: number, options?: CallOptions): Promise<number | bigint> {
    return this.#config.read(offset, widthOf(bits), options);
  }

  readSync(offset: number, bits: number, options?: SyncCallOptions): number | bigint {
    return this.#config.readSync(offset, widthOf(bits), options);
  }

  write(offset: number, bits: number, value: number | bigint, options?: CallOptions): Promise<void> {
    return this.#config.write(offset, widthOf(bits), value as number, options);
  }

  writeSync(offset: number, bits: number, value: number | bigint, options?: SyncCallOptions): void {
    this.#config.writeSync(offset, widthOf(bits), value as number, options);
  }
}

function widthOf(bits: number): ConfigWidth {
  if (bits === 64) throw new RangeError('config space has no accesses of 64 bits');
  return (bits / 8) as ConfigWidth;
}
