/**
 * vfio-user for Node.js: drives PCI devices that live in other processes.
 * @packageDocumentation
 */
export { DEVICE_CHANNEL, connect, type ConnectOptions, type PciEndpoint } from './device/connect.js';
export type { ModelEndpoint } from './emulator/in-process.js';
export { Device, type DeviceEvents } from './device/device.js';
export type { ReconnectOptions } from './device/reconnect.js';
export { ConfigSpace, type ConfigWidth } from './device/config-space.js';
export { Features, type FeatureMethods } from './device/features.js';
export { IoFd, IoFds } from './device/io-fds.js';
export { MappedArea } from './device/mapped-area.js';
export {
  Migration,
  type MigrationSupport,
  type RestoreOptions,
  type PreCopyLimits,
  type SaveOptions,
} from './device/migration.js';
export {
  migrate,
  type MemoryPair,
  type MigrateOptions,
  type MigrateProgress,
  type MigrateReport,
  type MigratedMemory,
} from './device/live-migration.js';
export { OMISSIBLE_COMMANDS, type OmissibleCommand, type Quirks } from './device/quirks.js';
export { Region, type WaitForOptions } from './device/region.js';
export type { RegionName } from './device/region-names.js';
export type { Width } from './device/region-access.js';
export type { MmapPolicy } from './device/device-context.js';
export {
  DirtyPages,
  Dma,
  DmaBuffer,
  DmaMapping,
  type DirtyMethod,
  type DirtyOptions,
  type DirtyRange,
  type DmaAccessOptions,
  type DmaAllocOptions,
  type DmaHandler,
  type DmaHandlerOptions,
  type DmaMapOptions,
  type DmaOptions,
  type DmaTransaction,
} from './device/dma.js';
export { IrqIndex, type DisableOptions, type IrqOptions, type IrqRange } from './device/irq-index.js';
export { Irqs } from './device/irqs.js';
export { Vector, type InterruptListener, type VectorEvents } from './device/irq-vector.js';
export type {
  CallOptions,
  Counters,
  DeviceCounters,
  SpinState,
  Negotiated,
  RequestTrace,
  SyncCallOptions,
} from './connection/index.js';
export type { Dial, Endpoint, SocketPermissions, TlsSettings, VsockAddress } from './transport/index.js';
export type { CaptureOptions, TraceOptions } from './trace/trace-tap.js';
export type { Bar, Capability, ConfigReader, ExtendedCapability, PciHeader } from './pci/index.js';
export { MigrationState } from './protocol/constants.js';
export type { RegionWrite } from './protocol/region-write-multi.js';
export type { DeviceInfo } from './protocol/device-info.js';
export type { MmapArea } from './protocol/region-info.js';
export type { Capabilities } from './protocol/version.js';
export {
  ClosedError,
  DmaBatchError,
  DmaHandlerError,
  type DmaFailure,
  MigrationError,
  ProtocolError,
  RemoteError,
  TimeoutError,
  TransportError,
  UnsupportedError,
  VfioUserError,
} from './errors.js';
