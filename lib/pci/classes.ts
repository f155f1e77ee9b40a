/** Names of class codes, after the PCI Code and ID Assignment Specification. */

const BASE_CLASSES: Readonly<Record<number, string>> = {
  0x00: 'Unclassified device',
  0x01: 'Mass storage controller',
  0x02: 'Network controller',
  0x03: 'Display controller',
  0x04: 'Multimedia controller',
  0x05: 'Memory controller',
  0x06: 'Bridge',
  0x07: 'Communication controller',
  0x08: 'System peripheral',
  0x09: 'Input device controller',
  0x0a: 'Docking station',
  0x0b: 'Processor',
  0x0c: 'Serial bus controller',
  0x0d: 'Wireless controller',
  0x0e: 'Intelligent I/O controller',
  0x0f: 'Satellite communication controller',
  0x10: 'Encryption controller',
  0x11: 'Signal processing controller',
  0x12: 'Processing accelerator',
  0x13: 'Non-essential instrumentation',
  0x40: 'Coprocessor',
  0xff: 'Device of no defined class',
};

/** Keyed by base class and subclass: 0xBBSS. Subclass 0x80, «other», is the base class's name. */
const SUBCLASSES: Readonly<Record<number, string>> = {
  0x0001: 'VGA-compatible unclassified device',
  0x0100: 'SCSI controller',
  0x0101: 'IDE controller',
  0x0102: 'Floppy disk controller',
  0x0103: 'IPI bus controller',
  0x0104: 'RAID controller',
  0x0105: 'ATA controller',
  0x0106: 'Serial ATA controller',
  0x0107: 'Serial attached SCSI controller',
  0x0108: 'Non-volatile memory controller',
  0x0109: 'Universal flash storage controller',
  0x0200: 'Ethernet controller',
  0x0201: 'Token ring controller',
  0x0202: 'FDDI controller',
  0x0203: 'ATM controller',
  0x0204: 'ISDN controller',
  0x0207: 'InfiniBand controller',
  0x0208: 'Fabric controller',
  0x0300: 'VGA-compatible controller',
  0x0301: 'XGA controller',
  0x0302: '3D controller',
  0x0400: 'Video device',
  0x0401: 'Audio device',
  0x0402: 'Telephony device',
  0x0403: 'High definition audio device',
  0x0500: 'RAM controller',
  0x0501: 'Flash controller',
  0x0502: 'CXL memory device',
  0x0600: 'Host bridge',
  0x0601: 'ISA bridge',
  0x0602: 'EISA bridge',
  0x0604: 'PCI-to-PCI bridge',
  0x0605: 'PCMCIA bridge',
  0x0607: 'CardBus bridge',
  0x0609: 'Semi-transparent PCI-to-PCI bridge',
  0x060a: 'InfiniBand-to-PCI host bridge',
  0x060b: 'Advanced switching to PCI host bridge',
  0x0700: 'Serial controller',
  0x0701: 'Parallel controller',
  0x0702: 'Multiport serial controller',
  0x0703: 'Modem',
  0x0704: 'GPIB controller',
  0x0705: 'Smart card controller',
  0x0800: 'Interrupt controller',
  0x0801: 'DMA controller',
  0x0802: 'System timer',
  0x0803: 'Real-time clock controller',
  0x0804: 'PCI hot-plug controller',
  0x0805: 'SD host controller',
  0x0806: 'IOMMU',
  0x0807: 'Root complex event collector',
  0x0900: 'Keyboard controller',
  0x0901: 'Digitizer pen',
  0x0902: 'Mouse controller',
  0x0903: 'Scanner controller',
  0x0904: 'Gameport controller',
  0x0a00: 'Generic docking station',
  0x0b40: 'Coprocessor',
  0x0c00: 'IEEE 1394 controller',
  0x0c01: 'ACCESS.bus controller',
  0x0c02: 'SSA controller',
  0x0c03: 'USB controller',
  0x0c04: 'Fibre channel controller',
  0x0c05: 'SMBus controller',
  0x0c06: 'InfiniBand controller',
  0x0c07: 'IPMI interface',
  0x0c08: 'SERCOS interface',
  0x0c09: 'CANbus controller',
  0x0c0a: 'MIPI I3C controller',
  0x0d00: 'IrDA controller',
  0x0d01: 'Consumer infrared controller',
  0x0d10: 'RF controller',
  0x0d11: 'Bluetooth controller',
  0x0d12: 'Broadband controller',
  0x1000: 'Network and computing encryption device',
  0x1010: 'Entertainment encryption device',
  0x1100: 'DPIO module',
  0x1101: 'Performance counters',
  0x1110: 'Communication synchronizer',
  0x1120: 'Signal processing management card',
};

/** Keyed by the whole class code, 0xBBSSPP: where the programming interface says which driver fits. */
const INTERFACES: Readonly<Record<number, string>> = {
  0x010601: 'AHCI',
  0x010802: 'NVMe',
  0x010803: 'NVMe administrative',
  0x050210: 'CXL 2.0',
  0x070002: '16550',
  0x0c0010: 'OHCI',
  0x0c0300: 'UHCI',
  0x0c0310: 'OHCI',
  0x0c0320: 'EHCI',
  0x0c0330: 'xHCI',
  0x0c0340: 'USB4',
  0x0c03fe: 'USB device',
};

/**
 * The name of a class code, as exactly as the assignment knows it: `Non-volatile memory controller (NVMe)`.
 * A number stands in for a name that is not known.
 */
export function pciClassName(base: number, sub: number, progIf = 0): string {
  const baseName = BASE_CLASSES[base];
  if (baseName === undefined) return `Class 0x${twoDigits(base)}`;
  const name = SUBCLASSES[(base << 8) | sub];
  const interfaceName = INTERFACES[(base << 16) | (sub << 8) | progIf];
  if (name !== undefined) return interfaceName === undefined ? name : `${name} (${interfaceName})`;
  const isOther = sub === 0x80 || base === 0xff || (base === 0 && sub === 0);
  return isOther ? baseName : `${baseName} (subclass 0x${twoDigits(sub)})`;
}

function twoDigits(value: number): string {
  return value.toString(16).padStart(2, '0');
}
