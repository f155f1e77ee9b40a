/** A PCI function behind a socket that only this process knows, for what takes sockets alone. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { serve } from '../emulator/index.js';
import { KernelDevice } from '../vfio/index.js';
import { printable } from './errors.js';

export interface LocalServer extends AsyncDisposable {
  /** Where it listens. */
  readonly path: string;
}

/** @throws VfioUserError that says why the function cannot be opened. */
export async function serveLocally(address: string): Promise<LocalServer> {
  const device = new KernelDevice(address);
  // For its owner alone.
  const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-pci-'));
  const remove = (): void => {
    device.close();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const socket = path.join(directory, 'socket');
    const server = await serve(device, { path: socket, onError: tell });
    return {
      path: socket,
      [Symbol.asyncDispose]: async () => {
        await server.close();
        remove();
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

function tell(error: unknown): void {
  process.stderr.write(`vfio-user: ${printable(error instanceof Error ? error.message : String(error))}\n`);
}
