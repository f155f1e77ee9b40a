/** The regions of a device: what a client learns of them, and its accesses by message. */
import { outOfRange, wrongType } from '../fields.js';
import { REGION_FLAG_MMAP, REGION_FLAG_READ, REGION_FLAG_WRITE } from '../protocol/constants.js';
import type { RegionAccess } from '../protocol/region-access.js';
import type { KnownRegionCapabilities, RegionInfo } from '../protocol/region-info.js';
import { DeviceError, EINVAL } from './device-error.js';
import type { ClientContext, RegionIoFdOffer, RegionModel } from './device-model.js';
import { andThen } from './maybe-async.js';

const READ_WRITE = REGION_FLAG_READ | REGION_FLAG_WRITE;
/** Regions that every PCI device is said to have. */
const PCI_REGIONS = 9;

/** What GET_REGION_INFO says of a region, and the memory to map. */
export interface RegionDescription {
  info: Pick<RegionInfo, 'index' | 'flags' | 'size' | 'offset'> & { capabilities: KnownRegionCapabilities };
  fd: number | undefined;
}

export class RegionTable {
  /** Indexes run from 0 to here. */
  readonly count: number;
  readonly #regions = new Map<number, RegionModel>();

  /** Of a device that `checkDevice` has looked at. */
  constructor(regions: readonly RegionModel[]) {
    for (const region of regions) this.#regions.set(region.index, region);
    this.count = Math.max(PCI_REGIONS, ...regions.map(({ index }) => index + 1));
  }

  /** The parts of a region that can be written by fd. */
  ioFds(index: number): RegionIoFdOffer | undefined {
    return this.#regions.get(index)?.ioFds;
  }

  /** Describes a region to a client; `passesFds` says whether the memory's fd can reach it. */
  describe(index: number, passesFds: boolean): RegionDescription {
    if (index >= this.count) throw new DeviceError(EINVAL, `no region ${index}`);
    const region = this.#regions.get(index);
    const info = { index, flags: 0, size: 0, offset: 0, capabilities: {} };
    if (region === undefined) return { info, fd: undefined };
    const file = region.memory?.fd === undefined ? region.file : { fd: region.memory.fd, offset: 0 };
    const fd = passesFds && region.mappable?.length !== 0 ? file?.fd : undefined;
    const offset = fd === undefined ? 0 : (file?.offset ?? 0);
    const flags = (region.flags ?? READ_WRITE) | (fd === undefined ? 0 : REGION_FLAG_MMAP);
    const sparse = fd !== undefined && region.mappable !== undefined;
    const capabilities = sparse ? { sparseMmap: { areas: [...region.mappable] } } : {};
    return { info: { ...info, flags, size: region.size, offset, capabilities }, fd };
  }

  /** The bytes that a REGION_READ asked for. They are sent, or copied, before anything else happens. */
  read(access: RegionAccess, client: ClientContext): Uint8Array | Promise<Uint8Array> {
    const region = this.#find(access, REGION_FLAG_READ);
    const { offset, count } = access;
    if (region.handler === undefined) return region.memory!.bytes.subarray(offset, offset + count);
    return andThen(region.handler.read(offset, count, client), (data) => exactly(access, data));
  }

  /** Does a REGION_WRITE. `data` is borrowed until this returns: a handler gets its own. */
  write(access: RegionAccess, data: Buffer, client: ClientContext): void | Promise<void> {
    const region = this.#find(access, REGION_FLAG_WRITE);
    if (region.handler !== undefined) return region.handler.write(access.offset, Buffer.from(data), client);
    region.memory!.bytes.set(data, access.offset);
  }

  #find({ region: index, offset, count }: RegionAccess, needed: number): RegionModel {
    const region = this.#regions.get(index);
    if (region === undefined) throw new DeviceError(EINVAL, `no region ${index}`);
    if (count > region.size || offset > region.size - count) {
      throw new DeviceError(
        EINVAL,
        `${count} bytes at ${offset} of region ${index}, which has ${region.size}`,
      );
    }
    if (((region.flags ?? READ_WRITE) & needed) === 0) {
      throw new DeviceError(
        EINVAL,
        `region ${index} cannot be ${needed === REGION_FLAG_READ ? 'read' : 'written'}`,
      );
    }
    return region;
  }
}

/** What the device's own read gave, which must be as many bytes as were asked for. */
function exactly({ region, offset, count }: RegionAccess, data: unknown): Uint8Array {
  if (data instanceof Uint8Array && data.byteLength === count) return data;
  const name = `region ${region}: what read(${offset}, ${count}) returns`;
  if (!(data instanceof Uint8Array)) throw wrongType(name, `${count} bytes in a Uint8Array or Buffer`, data);
  throw outOfRange(`${name} must have ${count} bytes, got ${data.byteLength}`);
}
