/**
 * An NVMe driver on the public API.
 *
 * ```ts
 * await using device = await connect('/run/nvme/cntrl');
 * await using controller = await NvmeController.open(device);
 * const queue = await controller.createQueue();
 * const data = await queue.read(0, 8);
 * ```
 * @packageDocumentation
 */

// NvmeController ── DeviceLifecycle (states) ── ControllerSetup (start, shutdown)
//   ├ AdminQueue ───── NvmeCommandQueue ── QueuePair
//   └ IoQueues ─┬───── IoQueuePair ─── NvmeCommandQueue ── QueuePair ── SubmissionQueue, CompletionQueue, CommandSlots
//               └───── NvmeQueue ──── BlockCommands (promises), SubmitPoll
export { VfioUserError, type CallOptions, type Device, type DmaBuffer } from '../index.js';
export type {
  AdminCommand,
  AdminResult,
  FeatureOptions,
  GetFeatureOptions,
  LogPageOptions,
  SetFeatureOptions,
} from './admin-commands.js';
export type { BlockRange, NvmeData } from './block-commands.js';
export { NvmeController } from './controller.js';
export type { ControllerState } from './controller-setup.js';
export type { NvmeBufferOptions, NvmeOptions, NvmeQueueOptions } from './controller-options.js';
export type { FormatOptions, IoCommand, IoResult, RawCommand } from './passthrough.js';
export type { DoorbellKind } from './rings.js';
export { NvmeControllerError, NvmeNamespaceError, NvmeResetError } from './errors.js';
export {
  decodeControllerIdentity,
  OptionalAdminCommands,
  OptionalNvmCommands,
  type ControllerIdentity,
} from './identify.js';
export {
  decodeNamespaceIdentity,
  decodeNamespaceList,
  type LbaFormat,
  type NamespaceIdentity,
} from './identify.js';
export {
  decodeErrorLog,
  decodeFirmwareLog,
  decodeSmartLog,
  type ErrorLogEntry,
  type FirmwareLog,
  type SmartLog,
} from './log-pages.js';
export type { IoOptions, TransferOptions, WriteZeroesOptions } from './block-commands.js';
export { NvmeNamespace } from './namespace.js';
export { AdminOpcode, ALL_NAMESPACES, FeatureId, IdentifyCns, LogPageId, NvmOpcode } from './opcodes.js';
export { NvmeQueue } from './queue.js';
export type { ControllerCapabilities } from './registers.js';
export { decodeStatus, NvmeStatusError, statusName, StatusCodeType, type NvmeStatus } from './status.js';
