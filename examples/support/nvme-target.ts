/** Where the NVMe example finds a controller: at `--socket PATH`, or an emulated one in this process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MemoryStore, NvmeDevice, serve } from 'vfio-user/emulator';

export async function openNvmeTarget(): Promise<AsyncDisposable & { path: string }> {
  const { values } = parseArgs({ options: { socket: { type: 'string' } } });
  if (values.socket !== undefined) return { path: values.socket, async [Symbol.asyncDispose]() {} };
  const directory = await mkdtemp(join(tmpdir(), 'vfio-user-'));
  const path = join(directory, 'nvme.sock');
  const emulated = new NvmeDevice({ namespaces: [{ store: new MemoryStore(64 << 20) }] });
  const server = await serve(emulated, { path });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await server.close();
      await emulated.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
