/** A PCI function of this machine as sysfs has it, for verbs that only look. */
import { VfioUserError } from '../errors.js';
import {
  configReader,
  decodeConfigSpace,
  findCapability,
  PCI_HEADER_SIZE,
  type ConfigSpace,
} from '../pci/index.js';
import {
  DEVICE_FLAG_PCI,
  DEVICE_FLAG_RESET,
  PciIrq,
  PciRegion,
  REGION_FLAG_READ,
  REGION_FLAG_WRITE,
  deviceFlagNames,
  regionFlagNames,
} from '../protocol/index.js';
import type { Machine } from '../vfio/machine.js';
import { DEVICES, isVfioDriver, pciFunction, type PciFunction } from '../vfio/pci-functions.js';
import { PciNames } from '../vfio/pci-names.js';
import type { DeviceReport, IrqReport, RegionReport } from './describe-device.js';
import { pciFunctionOf } from './endpoint.js';
import { printable, UsageError } from './errors.js';
import { thisMachine } from './machine.js';
import { regionName } from './region-names.js';

export const SYSFS_FLAGS = '--sysfs';
export const SYSFS_DESCRIPTION =
  'pci:ADDRESS: read sysfs also where vfio-pci has the function, and do not open it';
const REGIONS = 9;
const IRQ_NAMES = ['INTx', 'MSI', 'MSI-X', 'ERR', 'REQ'];

export interface LocalFunction {
  machine: Machine;
  one: PciFunction;
  /** vfio-pci has it: the kernel's vfio says more than sysfs. */
  isToBeOpened: boolean;
}

/**
 * Undefined for what is no PCI function of this machine.
 * @throws UsageError for an address that is none, and for `sysfs` of a socket; VfioUserError ENODEV where there is no such function.
 */
export function localFunction(socket: string, sysfs: boolean): LocalFunction | undefined {
  const address = pciFunctionOf(socket);
  if (address === undefined) {
    if (sysfs) throw new UsageError('--sysfs is for pci:ADDRESS');
    return undefined;
  }
  const machine = thisMachine();
  const one = pciFunction(machine, new PciNames(machine), address);
  return { machine, one, isToBeOpened: !sysfs && isVfioDriver(one.driver) };
}

/** Its config space; says on stderr where there is less of it than root would see. */
export function configOf({ machine, one: { address } }: LocalFunction): Buffer {
  const bytes = machine.bytes(DEVICES, address, 'config');
  if (bytes === undefined || bytes.length === 0) {
    throw new VfioUserError(
      'EIO',
      `the config space of ${address} cannot be read (${machine.path(DEVICES, address, 'config')})`,
    );
  }
  if (bytes.length <= PCI_HEADER_SIZE) {
    process.stderr.write(
      `vfio-user: ${printable(`the first ${bytes.length} bytes of config space: all of it is for root`)}\n`,
    );
  }
  return bytes;
}

/** What `info` says of it. */
export function describeFunction(pci: LocalFunction): DeviceReport {
  const { machine, one } = pci;
  const bytes = configOf(pci);
  const config = decodeConfigSpace(configReader(bytes));
  const canReset = machine.has(DEVICES, one.address, 'reset');
  const flags = DEVICE_FLAG_PCI | (canReset ? DEVICE_FLAG_RESET : 0);
  return {
    socket: `pci:${one.address}`,
    vendorId: one.vendorId,
    deviceId: one.deviceId,
    name: one.deviceName ?? one.className,
    flags,
    flagNames: deviceFlagNames(flags),
    negotiated: null,
    pci: one,
    regions: regionsOf(machine, one.address, bytes.length),
    irqs: irqsOf(config),
    config: { size: bytes.length, ...config },
  };
}

/** `resource` has a line for each BAR and the ROM: the first address, the last one, and flags. */
function regionsOf(machine: Machine, address: string, configSize: number): RegionReport[] {
  const lines = (machine.text(DEVICES, address, 'resource') ?? '').split('\n');
  return Array.from({ length: REGIONS }, (_, index) => {
    let size = index === (PciRegion.CONFIG as number) ? configSize : 0;
    if (index <= PciRegion.ROM) size = sizeOf(lines[index]);
    const isWritable = index !== (PciRegion.ROM as number);
    const flags = size === 0 ? 0 : REGION_FLAG_READ | (isWritable ? REGION_FLAG_WRITE : 0);
    return { index, name: regionName(index, true), size, flags, flagNames: regionFlagNames(flags), mmap: [] };
  });
}

function sizeOf(line = ''): number {
  const numbers = /^0x([\da-f]{1,16}) 0x([\da-f]{1,16}) 0x[\da-f]{1,16}$/i.exec(line);
  if (numbers === null) return 0;
  const [first, last] = [BigInt(`0x${numbers[1]}`), BigInt(`0x${numbers[2]}`)];
  return last === 0n || last < first ? 0 : Number(last - first + 1n);
}

/** As far as the header and the capabilities go, which vfio-pci looks at as well. */
function irqsOf({ header, capabilities }: ConfigSpace): IrqReport[] {
  const counts = new Map<number, number>([
    [PciIrq.INTX, header.interruptPin === 0 ? 0 : 1],
    [PciIrq.MSI, findCapability(capabilities, 'msi')?.vectorsCapable ?? 0],
    [PciIrq.MSIX, findCapability(capabilities, 'msix')?.tableSize ?? 0],
  ]);
  return IRQ_NAMES.slice(0, counts.size).map((name, index) => {
    const count = counts.get(index) ?? 0;
    return { index, name, count, reportedCount: count, flags: 0, flagNames: [] };
  });
}
