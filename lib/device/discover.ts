/** What the device says of itself: GET_INFO, then all regions and interrupts in one pipelined burst. */
import type { CallOptions, Connection } from '../connection/index.js';
import { RemoteError, UnsupportedError } from '../errors.js';
import { Command, REGION_FLAG_CAPS } from '../protocol/constants.js';
import { decodeDeviceInfo, encodeGetInfo, type DeviceInfo } from '../protocol/device-info.js';
import { decodeIrqInfo, encodeGetIrqInfo, type IrqInfo } from '../protocol/irq-info.js';
import {
  MAX_REGION_INFO_SIZE,
  decodeRegionInfo,
  encodeGetRegionInfo,
  type RegionInfo,
} from '../protocol/region-info.js';
import { RegionDescription } from './region-description.js';

/** Room for the capabilities of most regions, so that asking once is enough. */
const FIRST_ARGSZ = 4096;

export interface DeviceDescription {
  info: DeviceInfo;
  regions: RegionDescription[];
  irqs: IrqInfo[];
}

/** Asks for everything. When it fails no fd is left over. */
export async function discover(connection: Connection, options: CallOptions): Promise<DeviceDescription> {
  const info = await connection.call(
    Command.DEVICE_GET_INFO,
    encodeGetInfo(),
    null,
    (bytes, start, end) => decodeDeviceInfo(bytes, start, end),
    options,
  );
  const regionCalls = Array.from({ length: info.numRegions }, (_, index) =>
    askRegion(connection, index, options),
  );
  const irqCalls = Array.from({ length: info.numIrqs }, (_, index) => askIrq(connection, index, options));
  // At once: an answer about an interrupt that is refused while regions are still waited for has a listener too.
  const [regions, irqs] = await Promise.all([Promise.allSettled(regionCalls), Promise.allSettled(irqCalls)]);
  const failed = [...regions, ...irqs].find((result) => result.status === 'rejected');
  if (failed !== undefined) {
    for (const result of regions) if (result.status === 'fulfilled') result.value.close();
    throw failed.reason;
  }
  return { info, regions: regions.map(valueOf), irqs: irqs.map(valueOf) };
}

/** In what two descriptions are not of the same device; undefined where they are. Fds and file offsets may differ. */
export function firstDifference(before: DeviceDescription, after: DeviceDescription): string | undefined {
  const pairs: [what: string, before: unknown, after: unknown][] = [
    ['device flags', before.info.flags, after.info.flags],
    ['number of regions', before.info.numRegions, after.info.numRegions],
    ['number of interrupt types', before.info.numIrqs, after.info.numIrqs],
    ...before.regions.flatMap(({ info }, i): [string, unknown, unknown][] => [
      [`size of region ${i}`, info.size, after.regions[i]?.info.size],
      [`flags of region ${i}`, info.flags, after.regions[i]?.info.flags],
    ]),
    ...before.irqs.map(({ count }, i): [string, unknown, unknown] => [
      `count of interrupts ${i}`,
      count,
      after.irqs[i]?.count,
    ]),
  ];
  const other = pairs.find(([, a, b]) => a !== b);
  return other === undefined ? undefined : `${other[0]} was ${String(other[1])} and is ${String(other[2])}`;
}

async function askRegion(
  connection: Connection,
  index: number,
  options: CallOptions,
): Promise<RegionDescription> {
  try {
    const first = await getRegionInfo(connection, index, FIRST_ARGSZ, options);
    if (!needsMore(first.info)) return first;
    first.close();
    return await getRegionInfo(connection, index, Math.min(first.info.argsz, MAX_REGION_INFO_SIZE), options);
  } catch (error) {
    // As the kernel's VFIO does, some servers refuse to describe what they do not have.
    if (!(error instanceof RemoteError)) throw error;
    return new RegionDescription(absentRegion(index), []);
  }
}

/** A reply that was cut, or that promises capabilities and brings none, is asked for again with the room it wants. */
function needsMore(info: RegionInfo): boolean {
  if (info.truncated) return info.argsz > FIRST_ARGSZ;
  return (info.flags & REGION_FLAG_CAPS) !== 0 && info.argsz > FIRST_ARGSZ;
}

function getRegionInfo(
  connection: Connection,
  index: number,
  argsz: number,
  options: CallOptions,
): Promise<RegionDescription> {
  return connection.call(
    Command.DEVICE_GET_REGION_INFO,
    encodeGetRegionInfo(index, argsz),
    null,
    (bytes, start, end, fds) => {
      const info = decodeRegionInfo(bytes, start, end, index);
      return new RegionDescription(info, fds.splice(0));
    },
    options,
  );
}

async function askIrq(connection: Connection, index: number, options: CallOptions): Promise<IrqInfo> {
  try {
    return await connection.call(
      Command.DEVICE_GET_IRQ_INFO,
      encodeGetIrqInfo(index),
      null,
      (bytes, start, end) => decodeIrqInfo(bytes, start, end, index),
      options,
    );
  } catch (error) {
    // A server that must not be asked (quirk doNotSend) has none that anybody knows of.
    if (!(error instanceof RemoteError) && !(error instanceof UnsupportedError)) throw error;
    return { index, flags: 0, count: 0 };
  }
}

function absentRegion(index: number): RegionInfo {
  return { index, flags: 0, size: 0, offset: 0, argsz: 0, truncated: false, capabilities: { unknown: [] } };
}

function valueOf<T>(result: PromiseSettledResult<T>): T {
  return (result as PromiseFulfilledResult<T>).value;
}
