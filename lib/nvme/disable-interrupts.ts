/** Interrupts that nobody would hear are switched off before the controller is brought up. */
import { RemoteError, type Device } from '../index.js';
import { findCapability, MsixControl, PciCommand, PciConfig } from '../pci/index.js';

/**
 * Completions are polled for, or come as MSI-X vectors that are enabled for them. What another driver has left enabled
 * would be signalled in vain, and SPDK's controller takes that for fatal.
 */
export async function disableInterrupts(device: Device): Promise<void> {
  if (!device.hasConfig) return;
  const { config, irqs } = device;
  try {
    await config.update(PciConfig.COMMAND, 2, PciCommand.INTX_DISABLE, PciCommand.INTX_DISABLE);
    const msix = findCapability(config.capabilities, 'msix');
    if (msix !== undefined && !irqs.msix.enabled)
      await config.update(msix.controlOffset, 2, MsixControl.ENABLE, 0);
  } catch (error) {
    // A device that cannot be told so signals in vain.
    if (!(error instanceof RemoteError)) throw error;
  }
}
