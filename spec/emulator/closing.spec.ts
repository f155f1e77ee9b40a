/** What servers, devices and stores say of being closed, and that they can be closed twice. */
import { afterAll, describe, expect, test } from '@jest/globals';
import {
  EduDevice,
  FileStore,
  MemoryStore,
  NvmeDevice,
  RamDevice,
  serve,
  SharedMemory,
  type ConnectedClient,
} from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import { proxy } from '../../lib/proxy/index.js';
import { Scratch } from '../cli/cli.js';

const scratch = new Scratch();
afterAll(() => scratch.remove());

interface Closable {
  readonly isClosed: boolean;
  close(): void | Promise<void>;
}

describe('isClosed and close() of', () => {
  test.each<[string, () => Closable | Promise<Closable>]>([
    ['an EmulatorServer', () => serve(new EduDevice(), { path: scratch.path('server') })],
    ['a ProxyServer', () => proxy({ listen: scratch.path('front'), connect: scratch.path('none') })],
    ['a SharedMemory', () => new SharedMemory(4096)],
    ['a MemoryStore', () => new MemoryStore(4096)],
    ['a FileStore', () => FileStore.open(scratch.path('store'), 4096)],
    ['a RamDevice', () => new RamDevice()],
    ['an NvmeDevice', () => new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] })],
  ])('%s', async (_name, make) => {
    const closable = await make();
    expect(closable.isClosed).toBe(false);
    await closable.close();
    expect(closable.isClosed).toBe(true);
    await closable.close();
  });

  test('a ConnectedClient', async () => {
    const clients: ConnectedClient[] = [];
    const path = scratch.path('watched');
    await using server = await serve(new EduDevice(), { path, onClient: (client) => clients.push(client) });
    const device = await connect(server.path!);
    expect(clients[0]!.isClosed).toBe(false);
    clients[0]!.close();
    expect(clients[0]!.isClosed).toBe(true);
    await device.close();
  });
});
