/**
 * An NVMe controller: what it is, a write and a read, and a thousand reads by the submit/poll API, which allocates nothing.
 * `--socket PATH` for a controller of your own, whose first blocks are overwritten.
 */
import { connect } from 'vfio-user';
import { decodeStatus, NvmeController, NvmeStatusError } from 'vfio-user/nvme';
import { openNvmeTarget } from './support/nvme-target.js';

await using target = await openNvmeTarget();
await using device = await connect(target.path, { waitForSocket: true });
await using controller = await NvmeController.open(device);
const queue = await controller.createQueue({ buffers: { count: 32, bytes: 4096 } });
const { namespace } = queue;
const { modelNumber, serialNumber } = controller.identity;
console.log(`${modelNumber}, ${serialNumber}: ${namespace.blocks} blocks of ${namespace.blockSize} bytes`);

// Promises: any length, split where the controller's limit is.
const text = 'written by a driver in TypeScript';
const data = Buffer.alloc(64 * namespace.blockSize);
data.write(text);
await queue.write(0, data);
await queue.flush();
console.log(`read back: "${(await queue.read(0, 1)).toString('utf8', 0, text.length)}"`);

// Errors have the specification's names.
try {
  await queue.compare(0, Buffer.alloc(namespace.blockSize));
} catch (error) {
  if (!(error instanceof NvmeStatusError)) throw error;
  console.log(`compared with zeroes: ${error.statusName}`);
}

// The submit/poll API: 32 reads in flight, one doorbell for each batch.
const blocks = 4096 / namespace.blockSize;
let begun = 0;
let done = 0;
const submit = (tag: number) => queue.submitRead((begun++ % 8) * blocks, blocks, tag, tag);
for (let tag = 0; tag < 32; tag++) submit(tag);
queue.ring();
while (done < 1000) {
  const count = queue.poll();
  for (let i = 0; i < count; i++) {
    const status = queue.completedStatus[i]!;
    if (status !== 0) throw new Error(decodeStatus(status).name);
    // Its data is in queue.buffer(tag) until the tag is submitted again.
    if (begun < 1000) submit(queue.completedTags[i]!);
  }
  queue.ring();
  done += count;
  // A controller in this process needs the loop to turn; others do not.
  if (count === 0) await new Promise(setImmediate);
}
console.log(`${done} reads by polling`);
