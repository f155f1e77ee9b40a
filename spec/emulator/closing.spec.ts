/** What servers, devices and stores say of being closed, and that they can be closed twice. */
import { afterAll, describe, expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
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
import { native } from '../../lib/native.js';
import { proxy } from '../../lib/proxy/index.js';
import { replay } from '../../lib/replay/index.js';
import { Scratch } from '../cli/cli.js';
import { writeRecording } from '../hostile/clients/recording.js';
import { openFds } from '../support/fds.js';

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

describe.each<[string, (path: string) => Promise<AsyncDisposable>]>([
  ['an EmulatorServer', (path) => serve(new EduDevice(), { path })],
  ['a ProxyServer', (path) => proxy({ listen: path, connect: scratch.path('none') })],
  [
    'a ReplayServer',
    async (path) => {
      await writeRecording(scratch.path('recording'));
      return replay(scratch.path('recording'), { path });
    },
  ],
])('%s whose socket is in a directory', (name, open) => {
  /** Closes a server whose directory has become something else: it listens no more, and nothing of it is left. */
  async function closeAfter(what: (directory: string) => void): Promise<void> {
    const directory = scratch.path(`${name} ${Math.random()}`);
    mkdirSync(directory);
    const before = openFds();
    const server = await open(join(directory, 'socket'));
    what(directory);
    await server[Symbol.asyncDispose]();
    expect(openFds()).toBe(before);
  }

  test.each<[string, (directory: string) => void]>([
    ['a loop of symbolic links', (directory) => symlinkSync(directory, directory)],
    ['a file', (directory) => writeFileSync(directory, '')],
    ['a FIFO', (directory) => void execFileSync('mkfifo', [directory])],
    ['gone', () => undefined],
  ])('that is now %s closes, and listens no more', async (_what, put) => {
    let moved = '';
    await closeAfter((directory) => {
      moved = `${directory} moved`;
      renameSync(directory, moved);
      put(directory);
    });
    expect(native().connectUnix(join(moved, 'socket'))).toBeLessThan(0);
  });

  test('that cannot be searched any more closes', async () => {
    const isRoot = process.geteuid?.() === 0;
    await closeAfter((directory) => {
      chmodSync(directory, 0);
      if (isRoot) process.seteuid!(65534);
    }).finally(() => isRoot && process.seteuid!(0));
  });
});
