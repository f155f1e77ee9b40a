/**
 * Decoders of a PCI configuration space, BAR assignment, and the dump that `lspci -F` reads. No I/O: `configReader` makes
 * the decoders' input from any bytes, for example a file of sysfs.
 *
 * ```ts
 * const config = decodeConfigSpace(configReader(readFileSync('/sys/bus/pci/devices/0000:00:1f.0/config')));
 * ```
 * @packageDocumentation
 */
export { assignBars, BAR_WINDOWS } from './bar-assignment.js';
export type { AddressWindow, BarAssignment, BarRequest } from './bar-assignment.js';
export { barOffset, barSizeFromMask, decodeBars, encodeBarAddress } from './bars.js';
export type { Bar, BarKind } from './bars.js';
export type {
  AddressTranslationFields,
  PageRequestFields,
  PageRequestStatus,
  PasidFields,
  PasidModes,
} from './address-translation.js';
export type { BridgeBuses, BridgeFields, BridgeWindow } from './bridge.js';
export { capabilityName, decodeCapabilities, findCapability } from './capabilities.js';
export type {
  BridgeSubsystemFields,
  Capability,
  CapabilityHeader,
  OtherFields,
  PowerManagementFields,
  VendorSpecificFields,
} from './capabilities.js';
export { PciCapabilityId } from './capability-ids.js';
export { pciClassName } from './classes.js';
export { configReader } from './config-reader.js';
export type { ConfigReader } from './config-reader.js';
export { decodeConfigSpace } from './config-space.js';
export type { ConfigSpace } from './config-space.js';
export type { DataObjectExchangeFields, DataObjectExchangeStatus } from './data-object-exchange.js';
export type {
  AdvancedErrorControl,
  CorrectableErrors,
  DownstreamPortContainmentFields,
  DpcCapabilities,
  DpcControl,
  DpcStatus,
  ErrorReportingFields,
  RootErrorCommand,
  RootErrorFields,
  RootErrorStatus,
  UncorrectableErrors,
} from './error-capabilities.js';
export { ExpressType } from './express-capability.js';
export type {
  ExpressDeviceCapabilities,
  ExpressDeviceControl,
  ExpressDeviceFields,
  ExpressDeviceStatus,
  ExpressFields,
  ExpressLinkCapabilities,
  ExpressLinkControl,
  ExpressLinkFields,
  ExpressLinkStatus,
  LinkState,
} from './express-capability.js';
export type {
  Device2Fields,
  ExpressDeviceCapabilities2,
  ExpressDeviceControl2,
  ExpressLinkCapabilities2,
  ExpressLinkControl2,
  ExpressLinkStatus2,
  Link2Fields,
} from './express-capability-2.js';
export type {
  Indicator,
  RootCapabilities,
  RootControl,
  RootFields,
  RootStatus,
  SlotCapabilities,
  SlotControl,
  SlotFields,
  SlotStatus,
} from './express-ports.js';
export {
  decodeExtendedCapabilities,
  extendedCapabilityName,
  hasExtendedSpace,
  PciExtendedCapabilityId,
} from './extended-capabilities.js';
export type { ExtendedCapability } from './extended-capabilities.js';
export { decodeHeader } from './header.js';
export type { ClassCode, PciHeader } from './header.js';
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
export type {
  L1Substates,
  L1SubstatesFields,
  LatencyToleranceFields,
  PrecisionTimeCapabilities,
  PrecisionTimeControl,
  PrecisionTimeFields,
} from './power-and-time.js';
export type { ResizableBar, ResizableBarFields, VfResizableBarFields } from './resizable-bar.js';
export type {
  AccessControlFields,
  AccessControlServices,
  AlternativeRoutingFields,
  FunctionGroups,
} from './routing-capabilities.js';
export type { SrIovCapabilities, SrIovControl, SrIovFields } from './sr-iov.js';
export type {
  DesignatedVendorSpecificFields,
  SerialNumberFields,
  VendorSpecificExtendedFields,
} from './vendor-capabilities.js';
export {
  decodeVirtioCapability,
  VirtioCapabilityType,
  type VirtioCapability,
} from './virtio-capabilities.js';
