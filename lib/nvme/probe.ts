/** Whether a device is a controller that the driver knows to use, and what its registers say of it. */
import { UnsupportedError, type Device, type Region } from '../index.js';
import { decodeCapabilities, NvmeRegister, versionText, type ControllerCapabilities } from './registers.js';

/** CAP.CSS bits: the NVM command set, or a set of I/O command sets, which the NVM command set is in. */
const USABLE_COMMAND_SETS = 0b0100_0001;

/** What can be known of a controller before it is brought up. */
export interface Probed {
  /** BAR 0. */
  bar: Region;
  capabilities: ControllerCapabilities;
  /** VS, for example `1.4.0`. */
  version: string;
}

/** @throws UnsupportedError for what is no NVMe controller, or not for the NVM command set; what reads throw. */
export async function probe(device: Device): Promise<Probed> {
  const bar = controllerRegisters(device);
  const capabilities = decodeCapabilities(await bar.readUInt64(NvmeRegister.CAP));
  if ((capabilities.commandSets & USABLE_COMMAND_SETS) === 0) {
    throw new UnsupportedError('the controller does not support the NVM command set');
  }
  if (queuesWithDoorbells(bar, capabilities) < 1) {
    throw new UnsupportedError(
      `BAR 0 (${bar.size} bytes) is too small for the doorbells of an I/O queue (stride ${capabilities.doorbellStride} bytes)`,
    );
  }
  return { bar, capabilities, version: versionText(await bar.readUInt32(NvmeRegister.VS)) };
}

/** For how many queue pairs BAR 0 has doorbells. */
export function queuesWithDoorbells(bar: Region, { doorbellStride }: ControllerCapabilities): number {
  return Math.floor((bar.size - NvmeRegister.DOORBELLS) / (2 * doorbellStride));
}

/** BAR 0, where it can be the registers of a controller. */
function controllerRegisters(device: Device): Region {
  const bar =
    device.isPci && (device.regions[0]?.size ?? 0) > NvmeRegister.DOORBELLS ? device.bar(0) : undefined;
  if (bar === undefined)
    throw new UnsupportedError('the device is not an NVMe controller: BAR 0 is missing or too small');
  const { classCode } = device.hasConfig ? device.config.header : { classCode: undefined };
  const isNvme = classCode === undefined || (classCode.base === 0x01 && classCode.sub === 0x08);
  if (!isNvme)
    throw new UnsupportedError('the device is not an NVMe controller: its class code is not 01h, 08h');
  return bar;
}
