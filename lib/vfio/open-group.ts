/**
 * Opening a device by the legacy interface, in the kernel's order (Documentation/driver-api/vfio.rst); what each step's failure
 * means, and what mends it.
 *
 * ```
 *   container ─ API_VERSION ─ group ─ viable? ─ SET_CONTAINER ─ SET_IOMMU ─ IOMMU_GET_INFO ─ GET_DEVICE_FD
 * ```
 */
import { constants, openSync } from 'node:fs';
import { constants as system } from 'node:os';
import { TransportError, UnsupportedError, VfioUserError, errnoName } from '../errors.js';
import { check, holdFd, native, type HeldFd } from '../native.js';

import { decodeIommuInfo, type IommuInfo } from './iommu-info.js';
import { driverOf, groupOf, membersOf, ownerOf } from './sysfs.js';

const { EACCES, EBUSY, ENOENT, EPERM } = system.errno;
const CONTAINER = '/dev/vfio/vfio';
const API_VERSION = 0;
const TYPE1V2_IOMMU = 3;
const GROUP_VIABLE = 1;
const IOMMU_INFO_SIZE = 24;
const MOST_INFO = 65_536;

/** An open device. All of it is closed by `close`, and the kernel then takes the memory away and resets the device. */
export interface OpenedDevice {
  readonly container: number;
  readonly device: number;
  /** The number of its IOMMU group, and the group's fd. */
  readonly group: string;
  readonly groupFd: number;
  readonly iommu: IommuInfo;
  close(): void;
}

/**
 * Opens the device at `address`.
 * @throws VfioUserError with the errno's name, and what to do about it.
 */
export function openGroup(address: string): OpenedDevice {
  const group = groupOf(address);
  checkDriver(address);
  const held: HeldFd[] = [];
  const own = (fd: number): number => {
    held.push(holdFd(fd));
    return fd;
  };
  const close = (): void => {
    for (const one of held.splice(0).reverse()) one.close();
  };
  try {
    const container = own(openFile(CONTAINER, 'load the module: `modprobe vfio-pci`'));
    checkContainer(container);
    const file = `/dev/vfio/${group}`;
    const groupFd = own(openFile(file, `bind ${address} to vfio-pci`));
    checkViable(group, check(native().vfioGroupStatus(groupFd), 'VFIO_GROUP_GET_STATUS'));
    check(native().vfioSetContainer(groupFd, container), 'VFIO_GROUP_SET_CONTAINER', file);
    setIommu(container);
    const iommu = iommuInfo(container);
    const device = native().vfioOpenDevice(groupFd, address);
    if (device < 0) throw new TransportError('VFIO_GROUP_GET_DEVICE_FD', -device, address);
    own(device);
    return { container, device, group, groupFd, iommu, close };
  } catch (error) {
    close();
    throw error;
  }
}

function checkDriver(address: string): void {
  const driver = driverOf(address);
  if (driver === 'vfio-pci') return;
  const bound = driver === undefined ? 'has no driver' : `is bound to ${driver}`;
  throw new VfioUserError(
    'ENODEV',
    `${address} ${bound}, and vfio-pci must have it. As root: ` +
      `\`echo vfio-pci > /sys/bus/pci/devices/${address}/driver_override\`, then the address to ` +
      `${driver === undefined ? '' : `/sys/bus/pci/drivers/${driver}/unbind and `}/sys/bus/pci/drivers_probe`,
  );
}

function openFile(file: string, remedy: string): number {
  try {
    return openSync(file, constants.O_RDWR);
  } catch (cause) {
    const errno = -((cause as NodeJS.ErrnoException).errno ?? 0);
    const name = errnoName(errno);
    const why = new Map([
      [ENOENT, `it does not exist: ${remedy}`],
      [EACCES, `it is for ${ownerOf(file)}; this process runs as user ${process.getuid?.()}`],
      [EPERM, `it is for ${ownerOf(file)}; this process runs as user ${process.getuid?.()}`],
      [EBUSY, 'another process has a device of this group open'],
    ]);
    throw new VfioUserError(name, `open ${file}: ${name} (${why.get(errno) ?? (cause as Error).message})`, {
      cause,
    });
  }
}

function checkContainer(container: number): void {
  const version = check(native().vfioApiVersion(container), 'VFIO_GET_API_VERSION');
  if (version !== API_VERSION)
    throw new UnsupportedError(`the kernel speaks VFIO ${version}, not ${API_VERSION}`);
  if (check(native().vfioCheckExtension(container, TYPE1V2_IOMMU), 'VFIO_CHECK_EXTENSION') !== 1) {
    throw new UnsupportedError(
      'the kernel has no type 1 IOMMU for VFIO: load the module, `modprobe vfio_iommu_type1`. Without an IOMMU there is none',
    );
  }
}

function checkViable(group: string, flags: number): void {
  if ((flags & GROUP_VIABLE) !== 0) return;
  const others = membersOf(group)
    .filter(({ driver }) => driver !== undefined && driver !== 'vfio-pci' && driver !== 'pcieport')
    .map(({ address, driver }) => `${address} (${driver})`);
  throw new VfioUserError(
    'EPERM',
    `IOMMU group ${group} is not viable: all of its devices must be bound to vfio-pci or to no driver, and these are not: ` +
      others.join(', '),
  );
}

function setIommu(container: number): void {
  const result = native().vfioSetIommu(container, TYPE1V2_IOMMU);
  if (result >= 0) return;
  const detail =
    -result === EPERM
      ? 'interrupt remapping is off, so that a device could raise any interrupt: enable it in the firmware, or, where all ' +
        'devices are trusted, load vfio_iommu_type1 with allow_unsafe_interrupts=1'
      : undefined;
  throw new TransportError('VFIO_SET_IOMMU', -result, detail);
}

function iommuInfo(container: number): IommuInfo {
  let into = Buffer.alloc(IOMMU_INFO_SIZE);
  const needed = check(native().vfioIommuInfo(container, into), 'VFIO_IOMMU_GET_INFO');
  if (needed > into.length && needed <= MOST_INFO) {
    into = Buffer.alloc(needed);
    check(native().vfioIommuInfo(container, into), 'VFIO_IOMMU_GET_INFO');
  }
  return decodeIommuInfo(into);
}
