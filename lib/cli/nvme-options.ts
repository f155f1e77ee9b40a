/** What the NVMe verbs have in common: sizes as people type them, and a controller for the time that it is needed. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { NvmeController, type NvmeNamespace } from '../nvme/index.js';
import { UsageError } from './errors.js';
import { withDevice, type GlobalOptions } from './global-options.js';
import { length } from './numbers.js';

const SUFFIXES = 'KMGT';
const WITH_SUFFIX = /^(?<digits>\d+)(?<suffix>[KMGT])(?:iB)?$/i;
const NSID_MAX = 0xffff_fffe;

/** A number of bytes: digits, 0x hexadecimal, or `4K`, `512M`, `1G`, `2T`, which are powers of 1,024. */
export function byteSize(text: string): number {
  const groups = WITH_SUFFIX.exec(text)?.groups;
  if (groups === undefined) return length(text);
  const value = Number(groups['digits']) * 1024 ** (SUFFIXES.indexOf(groups['suffix']!.toUpperCase()) + 1);
  if (value === 0 || !Number.isSafeInteger(value)) throw new InvalidArgumentError('It is out of range.');
  return value;
}

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
      // What went wrong first is what is told.
      await controller.close().catch(() => undefined);
      throw error;
    }
    await controller.close();
  });
}

/** SPDK is told a directory, and listens on `cntrl` there. */
function controllerSocket(socket: string): string {
  const isDirectory = statSync(socket, { throwIfNoEntry: false })?.isDirectory() === true;
  return isDirectory ? join(socket, 'cntrl') : socket;
}
