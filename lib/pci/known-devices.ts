/** Names of virtual devices that vfio-user servers are known to offer. Not a vendor database. */
const NAMES: Readonly<Record<string, string>> = {
  '1234:11e8': 'QEMU edu',
  '1b36:000d': 'QEMU xHCI',
  '1b36:0010': 'QEMU NVMe',
  '494f:0dc8': 'ACCES PCI-IDIO-16',
  '4e58:0001': 'SPDK NVMe',
  '8086:10c9': 'Intel 82576 (igb)',
  '8086:10d3': 'Intel 82574L (e1000e)',
  'dead:beef': 'libvfio-user sample',
};

/** Device types by number, Virtual I/O Device 1.2 section 5: device ids are 0x1040 plus these. */
const VIRTIO_TYPES: Readonly<Record<number, string>> = {
  1: 'network',
  2: 'block',
  3: 'console',
  4: 'entropy',
  5: 'balloon',
  8: 'SCSI host',
  9: '9P transport',
  16: 'GPU',
  18: 'input',
  19: 'socket',
  20: 'crypto',
  25: 'sound',
  26: 'file system',
};
const VIRTIO_VENDOR_ID = 0x1af4;
const VIRTIO_FIRST_DEVICE_ID = 0x1040;

/** `vendor:device`, as people write it: `4e58:0001`. */
export function pciId(vendorId: number, deviceId: number): string {
  return `${fourDigits(vendorId)}:${fourDigits(deviceId)}`;
}

/** The name of a device that is often met behind vfio-user, undefined for all others. */
export function knownDeviceName(vendorId: number, deviceId: number): string | undefined {
  if (vendorId === VIRTIO_VENDOR_ID) {
    const type = VIRTIO_TYPES[deviceId - VIRTIO_FIRST_DEVICE_ID];
    return type === undefined ? undefined : `virtio ${type}`;
  }
  return NAMES[pciId(vendorId, deviceId)];
}

function fourDigits(value: number): string {
  return value.toString(16).padStart(4, '0');
}
