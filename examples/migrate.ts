/** Moves a running device from one server process to another, its interrupt armed at the destination. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { connect, type Device } from 'vfio-user';
import { RamRegister } from 'vfio-user/emulator';

const SERVER = fileURLToPath(new URL('support/ram-server.js', import.meta.url));
/** What TRIGGER takes: index 2, MSI-X, and the vector's number. */
const MSIX_VECTOR_0 = 2 << 16;

const directory = await mkdtemp(join(tmpdir(), 'vfio-user-'));
await using _directory = { [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };

async function openDevice(name: string): Promise<Device> {
  const path = join(directory, name);
  const child = fork(SERVER, [path]);
  await once(child, 'message');
  const device = await connect(path);
  // It closes its server then, and ends.
  void device.closed.then(() => child.disconnect());
  await device.enable();
  console.log(`${name}: process ${child.pid}`);
  return device;
}

await using source = await openDevice('source');
await using destination = await openDevice('destination');

const message = Buffer.from('what the device knew');
await source.bar(2).write(0, message);
await source.bar(0).writeUInt32(RamRegister.SCRATCH, 0xcafe);

// Whoever owns the interrupt arms it anew: an eventfd belongs to one connection.
const [vector] = await destination.irqs.msix.enable(1);

const state = source.migration.save();
let bytes = 0;
state.on('data', (chunk: Buffer) => (bytes += chunk.byteLength));
await pipeline(state, destination.migration.restore());
console.log(`${bytes} bytes moved`);

const got = await destination.bar(2).read(0, message.byteLength);
const scratch = await destination.bar(0).readUInt32(RamRegister.SCRATCH);
if (!got.equals(message) || scratch !== 0xcafe) throw new Error('the state did not arrive');
console.log(`the destination knows it: "${got.toString()}", 0x${scratch.toString(16)}`);

await destination.bar(0).writeUInt32(RamRegister.TRIGGER, MSIX_VECTOR_0);
console.log(`${await vector.wait()} interrupt from the destination`);
