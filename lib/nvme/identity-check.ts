/** Whether a controller that was reset, or whose server has come back, is the one that it was. */
import { NvmeControllerError } from './errors.js';
import type { ControllerIdentity } from './identify-controller.js';
import type { ControllerCapabilities } from './registers.js';

/** @throws NvmeControllerError where another controller has come: nothing that was meant for the first is sent to it. */
export function requireSameController(was: ControllerIdentity, is: ControllerIdentity): void {
  requireSame([
    ['serial number', was.serialNumber, is.serialNumber],
    ['model number', was.modelNumber, is.modelNumber],
    ['subsystem NQN', was.subsystemNqn, is.subsystemNqn],
    ['vendor', was.vendorId, is.vendorId],
  ]);
}

/** @throws NvmeControllerError where the registers and queues that exist do not fit any more. */
export function requireSameCapabilities(was: ControllerCapabilities, is: ControllerCapabilities): void {
  requireSame([
    ['doorbell stride', was.doorbellStride, is.doorbellStride],
    ['smallest memory page', was.minPageSize, is.minPageSize],
    ['command sets', was.commandSets, is.commandSets],
  ]);
}

function requireSame(pairs: readonly [what: string, was: unknown, is: unknown][]): void {
  const other = pairs.find(([, was, is]) => was !== is);
  if (other === undefined) return;
  const [what, was, is] = other;
  throw new NvmeControllerError(
    `the controller is another one than before: its ${what} was ${JSON.stringify(was)} and is ${JSON.stringify(is)}`,
  );
}
