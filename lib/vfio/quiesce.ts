/** Keeps a device from its client's memory and eventfds, before they are taken back. */
import { PciCommand } from '../pci/index.js';
import type { KernelIrqs } from './kernel-irqs.js';

/** COMMAND in config space. Both throw where the device does not answer. */
export interface CommandRegister {
  read(): number;
  write(value: number): void;
}

/** Bus mastering off, so that it writes nowhere, and interrupts disabled: also of a device that does not answer any more. */
export function quiesce(command: CommandRegister, irqs: Pick<KernelIrqs, 'disableAll'>): void {
  try {
    command.write(command.read() & ~PciCommand.BUS_MASTER);
  } finally {
    irqs.disableAll();
  }
}
