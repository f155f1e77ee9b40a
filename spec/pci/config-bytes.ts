/** Configuration spaces written by hand from the specifications, for the specs of this folder. */
import { configReader, type ConfigReader } from '../../lib/pci/index.js';

/** Zeroes, with rows of bytes (in hexadecimal, spaces at will) at the offsets given. */
export function space(size: number, rows: Readonly<Record<number, string>>): Buffer {
  const bytes = Buffer.alloc(size);
  for (const [offset, row] of Object.entries(rows)) {
    const part = Buffer.from(row.replaceAll(/\s/g, ''), 'hex');
    if (part.copy(bytes, Number(offset)) !== part.length)
      throw new Error(`the row at ${offset} does not fit`);
  }
  return bytes;
}

export function reader(size: number, rows: Readonly<Record<number, string>>): ConfigReader {
  return configReader(space(size, rows));
}

/** A conventional device with a list of capabilities that begins at `first`. */
export function withCapabilities(first: string, rows: Readonly<Record<number, string>>): ConfigReader {
  return reader(256, { 0x06: '1000', 0x34: first, ...rows });
}

/**
 * What libvfio-user's `lspci` sample makes: power management, vendor specific and PCI Express capabilities, then a
 * serial number and two vendor specific ones in the extended space. All BARs are unassigned I/O.
 */
export const LIBVFIO_USER_LSPCI_SAMPLE = space(4096, {
  0x006: '1000',
  0x010: '01000000 01000000 01000000 01000000 01000000 01000000',
  0x034: '40',
  0x040: '01 48 0000 0800 0000',
  0x048: '09 58 10 6162636465666768',
  0x058: '10 00 0000 00000010',
  0x100: '0300 c010 efbeadde bebafeca',
  0x10c: '0b00 0040 0100 5101',
  0x400: '0b00 0000 0200 5201',
});

/** An NVMe controller as SPDK shows it: class 010802, 64-bit BAR0, MSI-X in BAR4 and BAR5, 512 vectors. */
export const NVME = space(4096, {
  0x000: '584e 0100 0604 1000 00 02 08 01 10 00 00 00',
  0x010: '04000080 01000000 00000000 00000000 000000a0 000000b0',
  0x02c: '584e 0200',
  0x034: '40',
  0x03c: '0b 01 00 00',
  0x040: '01 4c 0300 0800 0000',
  0x04c: '11 60 ff81 04000000 05000000',
  0x060: '10 00 0200 02800010 3028 0000 41380000 0000 4310',
});

/** QEMU's edu: 1234:11e8, 1 MiB of 32-bit memory at BAR0, one MSI vector with a 64-bit address. */
export const EDU = space(256, {
  0x00: '3412 e811 0301 1000 10 00 ff 00 00 00 00 00',
  0x10: '000000fe',
  0x2c: 'f41a 0011',
  0x34: '40',
  0x3c: '0b 01 00 00',
  0x40: '05 00 8100 00e0fefe 01000000 2140',
});
