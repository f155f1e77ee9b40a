/** The emulated NVMe controller. Where to start: nvme-device.ts has the registers, engine.ts the queues. */
export { FileStore, MemoryStore, type BlockStore } from './block-store.js';
export { EmulatedNamespace, type EmulatedNamespaceOptions } from './namespace.js';
export { NvmeDevice, type NvmeDeviceOptions } from './nvme-device.js';
export {
  onNthCommand,
  type NvmeCompletionFault,
  type NvmeIntercept,
  type NvmeInterceptedCommand,
  type NvmeVerdict,
} from './nvme-faults.js';
