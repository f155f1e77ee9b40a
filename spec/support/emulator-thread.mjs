/**
 * The emulator's RAM device in a thread of its own, for specs of synchronous calls: they block the thread that makes them,
 * and with it a server on the same loop.
 *
 * workerData: `fd`, the server's end; `options`, for serveFd; `device`, for RamDevice; `drops`, offsets in BAR 0 at which
 * accesses are not answered. The parent gets `[command, offset, count]` for each region access when it sends anything.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { RamDevice, serveFd } from '../../dist/emulator/index.js';

const accesses = [];
const device = new RamDevice(workerData.device);
const server = serveFd(device, workerData.fd, {
  ...workerData.options,
  intercept: ({ command, payload }) => {
    if (command !== 9 && command !== 10) return undefined;
    const offset = Number(payload.readBigUInt64LE(0));
    accesses.push([command, offset, payload.readUInt32LE(12)]);
    return payload.readUInt32LE(8) === 0 && workerData.drops?.includes(offset) ? 'drop' : undefined;
  },
});
parentPort.on('message', () => parentPort.postMessage(accesses.splice(0)));
await server.closed;
device.close();
parentPort.close();
