/** Serves the target's DMA requests by message; the target measures. Arguments: SOCKET quick|full BYTES. */
import { connect } from 'vfio-user';

const [socket, , bytes] = process.argv.slice(2);

const device = await connect(socket!, { secureDma: true });
const buffer = await device.dma.alloc(Number(bytes));
for (let i = 0; i < buffer.size; i++) buffer.bytes[i] = (i * 7) & 0xff;
// A write to the first register is the target's word for: begin. It is answered when all is done.
await device.bar(0).writeUInt32(0, 1, { timeoutMs: 120_000 });
await device.close();
