/** All that is known of a device, as plain data: what `info --json` prints and what `info` says in words. */
import type { Device, Negotiated } from '../index.js';
import {
  knownDeviceName,
  pciClassName,
  type Capability,
  type ExtendedCapability,
  type PciHeader,
} from '../pci/index.js';
import { deviceFlagNames, irqFlagNames, regionFlagNames } from '../protocol/index.js';
import type { PciFunction } from '../vfio/pci-functions.js';
import { regionName } from './region-names.js';

export interface DeviceReport {
  socket: string;
  /** null without a config space. */
  vendorId: number | null;
  deviceId: number | null;
  /** What the device is called, or at least its class. */
  name: string | null;
  flags: number;
  flagNames: string[];
  /** null for a PCI function of this machine that was not opened: sysfs was read. */
  negotiated: Negotiated | null;
  /** A PCI function of this machine: its driver and IOMMU group; null for all else. */
  pci: PciFunction | null;
  regions: RegionReport[];
  irqs: IrqReport[];
  config: ConfigReport | null;
}

export interface RegionReport {
  index: number;
  name: string;
  /** 0 for a region that the device does not have. */
  size: number;
  flags: number;
  flagNames: string[];
  /** The areas that can be mapped. */
  mmap: { offset: number; size: number }[];
}

export interface IrqReport {
  index: number;
  name: string;
  count: number;
  /** What the server said, where config space knows better. */
  reportedCount: number;
  flags: number;
  flagNames: string[];
}

export interface ConfigReport {
  size: number;
  header: PciHeader;
  capabilities: readonly Capability[];
  extendedCapabilities: readonly ExtendedCapability[];
  /** What is wrong with the bytes. */
  problems: readonly string[];
}

export function describeDevice(device: Device, socket: string, pci: PciFunction | null = null): DeviceReport {
  const config = device.hasConfig ? describeConfig(device) : null;
  return {
    socket,
    vendorId: config?.header.vendorId ?? null,
    deviceId: config?.header.deviceId ?? null,
    name: config === null ? null : nameOf(config.header),
    flags: device.info.flags,
    flagNames: deviceFlagNames(device.info.flags),
    negotiated: device.negotiated,
    pci,
    regions: device.regions.map(({ index, size, flags, areas }) => ({
      index,
      name: regionName(index, device.isPci),
      size,
      flags,
      flagNames: regionFlagNames(flags),
      mmap: areas.map((area) => ({ offset: area.offset, size: area.size })),
    })),
    irqs: [...device.irqs].map(({ index, name, count, reportedCount, flags }) => ({
      index,
      name,
      count,
      reportedCount,
      flags,
      flagNames: irqFlagNames(flags),
    })),
    config,
  };
}

function describeConfig({ config }: Device): ConfigReport {
  const { size, header, capabilities, extendedCapabilities, problems } = config;
  return { size, header, capabilities, extendedCapabilities, problems };
}

function nameOf({ vendorId, deviceId, classCode }: PciHeader): string {
  const { base, sub, progIf } = classCode;
  return knownDeviceName(vendorId, deviceId) ?? pciClassName(base, sub, progIf);
}
