/** Serves the target's DMA requests by message; the target measures. Arguments: SOCKET quick|full BYTES. */
import { connect } from 'vfio-user';

const [socket, , bytes] = process.argv.slice(2);

const device = await connect(socket!, { secureDma: true });
const buffer = await device.dma.alloc(Number(bytes));
const pattern = Uint8Array.from({ length: buffer.size }, (_, i) => (i * 7) & 0xff);
buffer.bytes.set(pattern);
// A write to the first register is the target's word for: begin. It is answered when all is done.
await device.bar(0).writeUInt32(0, 1, { timeoutMs: 120_000 });
// It writes what it has read: any wrong byte would be here now.
if (!buffer.bytes.equals(pattern)) throw new Error('the memory is not as the server should have left it');
await device.close();
