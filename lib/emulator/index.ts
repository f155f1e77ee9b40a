/**
 * Servers for demos and tests: devices in TypeScript, offered over a Unix socket, a file descriptor or a stream. `EduDevice`,
 * `NvmeDevice` and `RamDevice` are ready; `defineDevice` makes a device of your own of a register map, `PciDevice` is its base.
 *
 * ```ts
 * const device = new EduDevice();
 * await using server = await serve(device, { path: '/tmp/edu.sock' });
 * ```
 * @packageDocumentation
 */
export { VfioUserError } from '../errors.js';
export type { BarKind, BarLocation } from '../pci/index.js';
export type { Access, ReadEffect, WriteEffect } from '../register-map/access.js';
export type {
  AccessData,
  ArrayData,
  EnumValueData,
  IntegerData,
  RegisterBlockData,
  RegisterData,
  RegisterFieldData,
  RegisterGroupData,
  RegisterMapData,
} from '../register-map/data.js';
export type {
  BlockInfo,
  EnumValue,
  FieldInfo,
  GroupInfo,
  MemberInfo,
  RegisterInfo,
  RegisterMap,
} from '../register-map/map.js';
export { MigrationState, type MmapArea, type SubRegion } from '../protocol/index.js';
export type {
  DeviceBehaviour,
  DeviceValue,
  RegisterBehaviour,
  RegisterWrite,
  RegisterWriteFunction,
} from './defined/behaviour.js';
export { defineDevice, type DeviceDefinition } from './defined/define-device.js';
export { DefinedDevice, type DeviceIdentity } from './defined/defined-device.js';
export { DeviceHandle } from './defined/device-handle.js';
export type { DeviceInterrupts, DeviceMsix } from './defined/interrupts.js';
export type { DeviceBar } from './defined/layout.js';
export {
  FAULT_PLAN_SCHEMA,
  FaultPlan,
  parseFault,
  type DeviceFault,
  type DmaFault,
  type EventFault,
  type FaultAction,
  type FaultCounting,
  type FaultDma,
  type FaultInteger,
  type FaultInterrupt,
  type FaultPlanSpec,
  type FaultRegisters,
  type FaultReport,
  type FaultSelection,
  type FaultSpec,
  type FaultTarget,
  type FaultTrigger,
  type FiredFault,
  type InterruptFault,
  type MessageFault,
  type RegisterFault,
  type Way,
} from '../faults/index.js';
export { DeviceError, DmaError } from './device-error.js';
export type {
  ClientContext,
  ClientMemory,
  DeviceModel,
  FeatureRequest,
  IrqLine,
  IrqModel,
  MigrationData,
  RegionHandler,
  RegionIoFdOffer,
  RegionMemory,
  RegionModel,
} from './device-model.js';
export {
  EDU_BAR_SIZE,
  EDU_BUFFER_ADDRESS,
  EDU_BUFFER_SIZE,
  EduDevice,
  EduDma,
  EduIrq,
  EduRegister,
  EduStatus,
} from './edu.js';
export type { EduOptions } from './edu.js';
export type { DirtyTelling } from './dirty-tracking.js';
export type { ConnectedClient, EmulatorOptions } from './emulator-options.js';
export type { Intercept, InterceptedMessage, Verdict } from './faults.js';
export { FileStore, MemoryStore, type BlockStore } from './block-store.js';
export {
  EmulatedNamespace,
  type EmulatedLbaFormat,
  type EmulatedNamespaceOptions,
} from './nvme/namespace.js';
export { NvmeDevice, type NvmeDeviceOptions } from './nvme/nvme-device.js';
export {
  onNthCommand,
  type NvmeCompletionFault,
  type NvmeIntercept,
  type NvmeInterceptedCommand,
  type NvmeVerdict,
} from './nvme/nvme-faults.js';
export { msiCapability, msixCapability, PciConfigSpace } from './pci-config.js';
export type { ConfigCapability, PciBar, PciConfigOptions } from './pci-config.js';
export { PciDevice } from './pci-device.js';
export { RAM_BARS, RAM_IDENTIFICATION, RamDevice, RamDma, RamDmaStatus, RamRegister } from './ram.js';
export type { RamOptions } from './ram.js';
export { openRtl, type RtlBar, type RtlOptions } from './rtl/open-rtl.js';
export { RtlDevice } from './rtl/rtl-device.js';
export { RtlError } from './rtl/rtl-error.js';
export { EmulatorServer, serve, serveFd, serveStream } from './server.js';
export type { ServeOptions } from './server.js';
export { SharedMemory } from './shared-memory.js';
export { VirtioBlkDevice, type VirtioBlkDeviceOptions } from './virtio/virtio-blk-device.js';
export {
  onNthRequest,
  type VirtioIntercept,
  type VirtioInterceptedRequest,
  type VirtioUsedFault,
  type VirtioVerdict,
} from './virtio/virtio-faults.js';
export { VirtioNetDevice, type VirtioNetDeviceOptions } from './virtio/virtio-net-device.js';
export { VirtioPciDevice, type VirtioDeviceOptions } from './virtio/virtio-pci-device.js';
export {
  VirtioRngDevice,
  type EntropySource,
  type VirtioRngDeviceOptions,
} from './virtio/virtio-rng-device.js';
export {
  VirtioScsiDevice,
  type VirtioScsiDeviceOptions,
  type VirtioScsiUnit,
} from './virtio/virtio-scsi-device.js';
