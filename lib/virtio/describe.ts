/** What a virtio device offers, read without driving it. */
import { withSeat } from '../commands/driver-seat.js';
import { wrongType } from '../fields.js';
import { Device } from '../index.js';
import * as option from '../options.js';
import { DeviceStatus } from './constants.js';
import { readDeviceConfig } from './device-config.js';
import { virtioFeatureNames } from './features.js';
import type { VirtioArea } from './pci-areas.js';
import { VirtioTransport } from './transport.js';

const TYPE_NAMES: Readonly<Record<number, string>> = {
  1: 'network',
  2: 'block',
  3: 'console',
  4: 'entropy',
  8: 'SCSI host',
};
/** Queues that are asked for their size. */
const MOST_QUEUES = 1024;
const DEFAULT_TIMEOUT_MS = 5_000;

/** What a virtio device offers. */
export interface VirtioDescription {
  /** As in `VirtioDeviceType`. */
  type: number;
  /** `block`; `type 25` where there is no name. */
  typeName: string;
  /** The names of the features that it offers. */
  offered: string[];
  /** The same as numbers. */
  offeredBits: bigint;
  /** Where its structures are. */
  structures: { name: string; bar: number; offset: number; length: number }[];
  /** Bytes from one queue's notification register to the next. */
  notifyMultiplier: number;
  /** Each with its most entries. */
  queues: { index: number; entries: number }[];
  /**
   * What the device says of itself, with all features that it offers: of block and network devices, consoles and SCSI hosts.
   * null for other types; a field whose feature is not offered is null as well, or what the specification has without it.
   */
  config: object | null;
}

/** How long a reset of the device may take. */
export interface DescribeVirtioOptions {
  /** Milliseconds; default 5,000. */
  timeoutMs?: number | undefined;
}

const OPTIONS = new option.OptionTable<DescribeVirtioOptions>({ timeoutMs: option.timeout });

/**
 * Asks a virtio device what it offers. It is enabled and reset, and left so.
 * @throws UnsupportedError for a device that is none; TypeError while a driver has it; what the device's calls throw.
 * @example
 * ```ts
 * const { offered, queues } = await describeVirtio(device);
 * ```
 */
export async function describeVirtio(
  device: Device,
  options: DescribeVirtioOptions = {},
): Promise<VirtioDescription> {
  OPTIONS.check('describeVirtio', options);
  if (!(device instanceof Device)) throw wrongType('describeVirtio: device', 'a Device', device);
  const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  return withSeat('describeVirtio', device, async () => {
    const transport = await VirtioTransport.open(device, undefined, timeoutMs, () => undefined);
    await transport.reset();
    await transport.setStatus(DeviceStatus.ACKNOWLEDGE);
    try {
      return await describe(transport);
    } finally {
      await transport.reset();
    }
  });
}

async function describe(transport: VirtioTransport): Promise<VirtioDescription> {
  const { type, areas } = transport;
  const offered = await transport.deviceFeatures();
  const count = Math.min(await transport.queueCount(), MOST_QUEUES);
  const queues: { index: number; entries: number }[] = [];
  for (let index = 0; index < count; index++)
    queues.push({ index, entries: await transport.queueSize(index) });
  const structures: [string, VirtioArea | undefined][] = [
    ['common configuration', areas.common],
    ['notifications', areas.notify],
    ['ISR status', areas.isr],
    ['device configuration', areas.device],
  ];
  return {
    type,
    typeName: TYPE_NAMES[type] ?? `type ${type}`,
    offered: virtioFeatureNames(type, offered),
    offeredBits: offered,
    structures: structures.flatMap(([name, area]) =>
      area === undefined ? [] : [{ name, bar: area.region.index, offset: area.offset, length: area.length }],
    ),
    notifyMultiplier: areas.notifyMultiplier,
    queues,
    config: await readDeviceConfig(transport, offered),
  };
}
