export { KernelDevice } from './kernel-device.js';
export { pciAddress } from './pci-address.js';
