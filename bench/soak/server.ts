/** A server of the soak, in a process of its own: `server.js OPTIONS`, JSON. Ends with whoever started it. */
import { createServer, type Socket } from 'node:net';
import { rmSync } from 'node:fs';
import {
  FileStore,
  NvmeDevice,
  RamDevice,
  serve,
  serveStream,
  type DeviceModel,
  type Intercept,
} from 'vfio-user/emulator';
import { breaking } from './broken-stream.js';
import { DurableRam } from './durable-ram.js';
import { Random } from './random.js';

export interface SoakServerOptions {
  kind: 'durable' | 'broken' | 'ram' | 'nvme';
  path: string;
  /** Where what was written is kept. */
  file: string;
  /** Bytes of BAR2, or of the namespace. */
  size: number;
  seed: number;
  /** No faults: for the verification at the end. */
  calm?: boolean;
}

const REGION_READ = 9;
const REGION_WRITE = 10;

const options = JSON.parse(process.argv[2]!) as SoakServerOptions;
const random = new Random(options.seed);

/** Slow, silent and failing answers, to accesses only: a device that cannot be opened shows nothing. */
const intercept: Intercept = ({ command }) => {
  if (options.calm === true || (command !== REGION_READ && command !== REGION_WRITE)) return 'pass';
  if (random.oneIn(700)) return { delayMs: random.between(1, 40) };
  if (random.oneIn(3_000)) return { errno: 5 };
  if (random.oneIn(6_000)) return 'drop';
  if (random.oneIn(8_000)) return 'close';
  return 'pass';
};

async function makeDevice(): Promise<DeviceModel> {
  const { kind, file, size } = options;
  if (kind === 'nvme') {
    return new NvmeDevice({ namespaces: [{ store: await FileStore.open(file, size) }], queues: 4 });
  }
  if (kind === 'ram') return new RamDevice({ ramSize: size, migration: 'pre-copy' });
  return new DurableRam(file, { ramSize: size, sharedSize: 0 });
}

async function listen(device: DeviceModel): Promise<void> {
  const { kind, path } = options;
  if (kind === 'broken') await listenBroken(device, path);
  else await serve(device, kind === 'durable' ? { path, intercept } : { path });
}

/** One client at a time: what the last one sent and nobody has read must not be carried out any more. */
async function listenBroken(device: DeviceModel, path: string): Promise<void> {
  rmSync(path, { force: true });
  let last: Socket | undefined;
  const server = createServer((socket) => {
    last?.destroy();
    last = socket;
    serveStream(device, options.calm === true ? socket : breaking(socket, random), { intercept });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

process.once('disconnect', () => process.exit());
await listen(await makeDevice());
process.send!('listening');
