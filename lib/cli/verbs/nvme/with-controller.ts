/** What the NVMe verbs have in common: a namespace by its number, and a controller for the time that it is needed. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { NvmeController, type NvmeNamespace } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { withDevice, type GlobalOptions } from '../../global-options.js';
import { length } from '../../numbers.js';

const NSID_MAX = 0xffff_fffe;

export function namespaceId(text: string): number {
  const value = length(text);
  if (value > NSID_MAX) throw new InvalidArgumentError(`It is at most ${NSID_MAX}.`);
  return value;
}

/** @throws UsageError where the controller has no such namespace now; what identifying it throws. */
export async function activeNamespace(
  controller: NvmeController,
  nsid: number | undefined,
): Promise<NvmeNamespace> {
  const namespace = await controller.namespace(nsid);
  // What is identified of one that is inactive is all zeroes.
  if (namespace.blocks === 0) throw new UsageError(`namespace ${namespace.id} is not active`);
  return namespace;
}

/** Brings the controller up, does `work` with it and shuts it down, whatever comes of it. */
export async function withController(
  command: Command,
  socket: string,
  work: (controller: NvmeController) => Promise<void>,
): Promise<void> {
  const { timeout } = command.optsWithGlobals<GlobalOptions>();
  await withDevice(command, controllerSocket(socket), async (device) => {
    const controller = await NvmeController.open(device, { timeoutMs: timeout });
    try {
      await work(controller);
    } catch (error) {
      // The first error is the one to report.
      await controller.close().catch(() => undefined);
      throw error;
    }
    await controller.close();
  });
}

/** SPDK's listener names a directory, and the socket is `cntrl` in it. */
export function controllerSocket(socket: string): string {
  const isDirectory = statSync(socket, { throwIfNoEntry: false })?.isDirectory() === true;
  return isDirectory ? join(socket, 'cntrl') : socket;
}
