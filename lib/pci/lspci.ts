/** The hex dump that `lspci -F FILE` decodes, so that pciutils can say what a configuration space means. */
import { pciClassName } from './classes.js';
import { configReader, zeroExtended } from './config-reader.js';
import { knownDeviceName, pciId } from './known-devices.js';
import { PCI_EXTENDED_CONFIG_SIZE, PciConfig } from './registers.js';

const BYTES_A_LINE = 16;
/** bus:device.function, with a domain before it where there are several. */
const SLOT = /^(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/i;

/**
 * Dumps a configuration space as `lspci -xxxx` does: a line with the slot and a title, 16 bytes on each line after it,
 * an empty line at the end. Dumps can be put one after the other.
 *
 * @param bytes - the space from offset 0, 1 to 4096 bytes
 * @param slot - `00:00.0` or `0000:00:00.0`
 * @param title - one line for people; the class and the ids where nothing is given
 * @throws RangeError for a space of another size, TypeError for a slot or title of another form
 */
export function lspciDump(bytes: Uint8Array, slot = '00:00.0', title = defaultTitle(bytes)): string {
  if (bytes.length === 0 || bytes.length > PCI_EXTENDED_CONFIG_SIZE) {
    throw new RangeError(`${bytes.length} bytes are no configuration space: it has 1 to 4096`);
  }
  if (!SLOT.test(slot)) throw new TypeError(`'${slot}' is no slot such as 00:00.0`);
  if (/[\r\n]/.test(title)) throw new TypeError('the title has more than one line');

  const lines = [`${slot} ${title}`];
  for (let offset = 0; offset < bytes.length; offset += BYTES_A_LINE) {
    const row = Array.from(bytes.subarray(offset, offset + BYTES_A_LINE), twoDigits);
    lines.push(`${twoDigits(offset)}: ${row.join(' ')}`);
  }
  return `${lines.join('\n')}\n\n`;
}

function defaultTitle(bytes: Uint8Array): string {
  const registers = zeroExtended(configReader(bytes));
  const vendorId = registers.getUInt16(PciConfig.VENDOR_ID);
  const deviceId = registers.getUInt16(PciConfig.DEVICE_ID);
  const className = pciClassName(
    registers.getUInt8(PciConfig.CLASS_BASE),
    registers.getUInt8(PciConfig.CLASS_SUB),
    registers.getUInt8(PciConfig.CLASS_PROG_IF),
  );
  return `${className}: ${knownDeviceName(vendorId, deviceId) ?? 'Device'} ${pciId(vendorId, deviceId)}`;
}

function twoDigits(value: number): string {
  return value.toString(16).padStart(2, '0');
}
