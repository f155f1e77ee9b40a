export { KernelDevice, type ResetKind } from './kernel-device.js';
export { pciAddress } from './pci-address.js';
