/**
 * What the bytes of a PCI configuration space mean: `vfio-user/pci`. Knows no sockets; `configReader` makes the input
 * of the decoders from any bytes, for example a file of sysfs.
 */
export { assignBars, BAR_WINDOWS } from './bar-assignment.js';
export type { AddressWindow, BarAssignment, BarRequest } from './bar-assignment.js';
export { barOffset, barSizeFromMask, decodeBars, encodeBarAddress } from './bars.js';
export type { Bar, BarKind } from './bars.js';
export { capabilityName, decodeCapabilities, findCapability, PciCapabilityId } from './capabilities.js';
export type {
  Capability,
  CapabilityHeader,
  OtherFields,
  PowerManagementFields,
  VendorSpecificFields,
} from './capabilities.js';
export { pciClassName } from './classes.js';
export { configReader } from './config-reader.js';
export type { ConfigReader } from './config-reader.js';
export { decodeConfigSpace } from './config-space.js';
export type { ConfigSpace } from './config-space.js';
export type { ExpressFields, LinkState } from './express-capability.js';
export { decodeExtendedCapabilities, extendedCapabilityName } from './extended-capabilities.js';
export type {
  ExtendedCapability,
  SerialNumberFields,
  VendorSpecificExtendedFields,
} from './extended-capabilities.js';
export { decodeHeader } from './header.js';
export type { BridgeBuses, ClassCode, PciHeader } from './header.js';
export { MsiControl, MsixControl } from './interrupt-capabilities.js';
export type { BarLocation, MsiFields, MsiOffsets, MsixFields } from './interrupt-capabilities.js';
export { knownDeviceName, pciId } from './known-devices.js';
export { lspciDump } from './lspci.js';
export {
  decodeMsixEntry,
  encodeMsixEntry,
  MSIX_ENTRY_SIZE,
  MSIX_MAX_VECTORS,
  MSIX_VECTOR_MASKED,
  MsixEntryOffset,
  msixEntryOffset,
  msixPendingBit,
} from './msix-table.js';
export type { MsixEntry } from './msix-table.js';
export {
  PCI_CONFIG_SIZE,
  PCI_EXTENDED_CONFIG_SIZE,
  PCI_HEADER_SIZE,
  PciCommand,
  PciConfig,
  PciHeaderType,
  PciStatus,
} from './registers.js';
