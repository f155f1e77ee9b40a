/** The NVMe controller of `vfio-user emulate nvme`. */
import type { Command } from 'commander';
import { FileStore, MemoryStore, NvmeDevice } from '../emulator/index.js';
import { UsageError } from './errors.js';
import { byteSize, length } from './numbers.js';

export interface EmulateNvmeOptions {
  size?: number;
  file?: string;
  blockSize?: number;
}

/** Adds the options that only this device has. */
export function addNvmeOptions(command: Command): Command {
  return command
    .option('--size <bytes>', 'nvme: how large the namespace is, for example 1G', byteSize)
    .option('--file <file>', 'nvme: keep the namespace in a file, which is made where there is none')
    .option('--block-size <bytes>', 'nvme: 512 (where nothing is said), 1024, 2048 or 4096', length);
}

export async function emulatedNvme({ size, file, blockSize = 512 }: EmulateNvmeOptions): Promise<NvmeDevice> {
  const store = await openStore(size, file);
  try {
    return new NvmeDevice({ namespaces: [{ store, blockSize }] });
  } catch (error) {
    await store.close();
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

async function openStore(
  size: number | undefined,
  file: string | undefined,
): Promise<MemoryStore | FileStore> {
  if (file !== undefined) return FileStore.open(file, size);
  if (size !== undefined) return new MemoryStore(size);
  throw new UsageError('emulate nvme wants a --size, or a --file that has one');
}
