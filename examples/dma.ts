/** DMA with an edu device: memory that both sides see, moved by the device in both directions. */
import { connect } from 'vfio-user';
import { EduDriver } from './support/edu-driver.js';
import { openTarget } from './support/target.js';

await using target = await openTarget();
await using device = await connect(target.path, { waitForSocket: true });
const edu = await EduDriver.attach(device);

// QEMU's server takes memory without a file descriptor too, and then reads zeroes from it.
for (const share of target.isOurs ? [true, false] : [true]) {
  // Shared: the server maps our memory. Not shared: it asks for each byte by message, and gets no file descriptor.
  const options = { addressBits: EduDriver.addressBits, share };
  const source = await device.dma.alloc(4096, options);
  const destination = await device.dma.alloc(4096, options);

  const text = `moved by the device, ${share ? 'through shared memory' : 'by messages'}`;
  const length = source.bytes.write(text);
  await edu.copyIn(source, length);
  await edu.copyOut(destination, length);

  const got = destination.bytes.toString('utf8', 0, length);
  console.log(`0x${source.iova.toString(16)} to 0x${destination.iova.toString(16)}: "${got}"`);
  if (got !== text) throw new Error(`expected "${text}"`);

  await source.close();
  await destination.close();
}
