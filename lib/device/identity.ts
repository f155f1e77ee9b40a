/** What tells a PCI device from another one that has the same regions and interrupts. */
import type { ConfigSpace } from './config-space.js';

/**
 * Ids, class, revision, subsystem, the capabilities and where they stand, and the Device Serial Number where there is one:
 * none of it changes while a device lives. Two devices of one kind without a serial number cannot be told apart by it.
 */
export function identityOf(config: ConfigSpace): string {
  const { header } = config;
  const { base, sub, progIf } = header.classCode;
  const parts = [
    `${hex(header.vendorId, 4)}:${hex(header.deviceId, 4)}`,
    `class ${hex((base << 16) | (sub << 8) | progIf, 6)}`,
    `revision ${hex(header.revisionId, 2)}`,
    `subsystem ${hex(header.subsystemVendorId, 4)}:${hex(header.subsystemId, 4)}`,
  ];
  const places = [...config.capabilities, ...config.extendedCapabilities].map(
    ({ id, offset }) => `${hex(id, 2)}@${hex(offset, 2)}`,
  );
  if (places.length > 0) parts.push(`capabilities ${places.join(' ')}`);
  for (const capability of config.extendedCapabilities)
    if (capability.kind === 'serial-number') parts.push(`serial number ${capability.text}`);
  return parts.join(', ');
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
