/**
 * Virtio drivers on the public API (Virtual I/O Device 1.2, over PCI).
 *
 * ```ts
 * await using device = await connect('/run/virtio/blk');
 * await using disk = await VirtioBlk.open(device);
 * const data = await disk.read(0, 8);
 * ```
 * @packageDocumentation
 */

// VirtioDriver ── DeviceLifecycle (states) ── DriverSetup (start, reset) ── VirtioTransport (registers)
//   ├ VirtioScsi ── ScsiUnit ── RequestQueue; ReceiveQueue (events)
//   ├ VirtioRng (a Readable) ── RngDriver ── RequestQueue
//   └ VirtioBlk ── VirtioBlkQueue ── RequestQueue ── CommandQueue ── Virtqueue ── SplitRing, PackedRing
export { VfioUserError, type CallOptions, type Device, type DmaBuffer } from '../index.js';
export type { BlkRangeLimits, VirtioBlkConfig } from './blk-config.js';
export type {
  BlkData,
  BlkRange,
  BlkTransferOptions,
  BlkWriteZeroesOptions,
  VirtioBlkOptions,
  VirtioBufferOptions,
} from './blk-options.js';
export { blkStatusName, VirtioBlkQueue } from './blk-queue.js';
export { VirtioBlk } from './blk.js';
export { VirtioDeviceType } from './constants.js';
export { describeVirtio, type DescribeVirtioOptions, type VirtioDescription } from './describe.js';
export type { VirtioOptions } from './driver-options.js';
export { VirtioDriver, type VirtioState } from './driver.js';
export { VirtioDeviceError, VirtioResetError, VirtioStatusError } from './errors.js';
export {
  BlkFeature,
  ConsoleFeature,
  NetFeature,
  ScsiFeature,
  VirtioFeature,
  virtioFeatureNames,
} from './features.js';
export { VirtioNet, type VirtioNetEvents, type VirtioNetOptions } from './net.js';
export type { NotifierKind } from './notify.js';
export type { VirtioScsiConfig } from './scsi-config.js';
export type { ScsiCapacity, ScsiDesignator, ScsiInquiry } from './scsi-data.js';
export { ScsiError, scsiResponseName } from './scsi-error.js';
export type { ScsiChangeEvent, ScsiHotplugEvent, VirtioScsiEvents } from './scsi-events.js';
export type {
  ScsiCommand,
  ScsiData,
  ScsiResult,
  ScsiTransferOptions,
  VirtioScsiOptions,
} from './scsi-options.js';
export { decodeSense, type ScsiSense } from './scsi-sense.js';
export { ScsiUnit } from './scsi-unit.js';
export { VirtioScsi, type ScannedUnit } from './scsi.js';
export { VirtioRng, type VirtioRngOptions } from './rng.js';
