/** The emulator's RAM device on stdin and stdout: what a relay such as ssh starts. */
import { Duplex } from 'node:stream';
import { RamDevice, serveStream } from '../../dist/emulator/index.js';

const stream = Duplex.from({ readable: process.stdin, writable: process.stdout });
const server = serveStream(new RamDevice({ sharedSize: 0 }), stream);
await server.closed;
process.exit();
