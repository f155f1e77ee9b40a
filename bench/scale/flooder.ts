/**
 * A server that asks and tells without end: `flooder.js PATH KIND`. It answers what opening a device needs, and floods
 * from the first DMA_MAP on:
 * - `read`: DMA_READs of 4 KiB, whose answers it reads;
 * - `unread`: the same, and it reads nothing any more;
 * - `refused`: DMA_READs of memory that is not mapped;
 * - `stray`: replies that nobody waits for;
 * - `write`: DMA_WRITEs of 64 bytes.
 */
import { createServer, type Socket } from 'node:net';

export const FLOODS = ['read', 'unread', 'refused', 'stray', 'write'] as const;

const HEADER = 16;
const COMMAND = {
  VERSION: 1,
  DMA_MAP: 2,
  GET_INFO: 4,
  REGION_INFO: 5,
  IRQ_INFO: 7,
  DMA_READ: 11,
  DMA_WRITE: 12,
};
const REPLY = 1;
const BATCH_BYTES = 32 << 10;
const PCI_REGIONS = 9;
const PCI_IRQS = 5;
/** Above what the client gives: nothing is mapped there. */
const NOWHERE = 1n << 60n;
const READ_BYTES = 4096;
const WRITE_BYTES = 64;

const [path, kind] = process.argv.slice(2);

function message(id: number, command: number, flags: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(HEADER + payload.byteLength);
  bytes.writeUInt16LE(id, 0);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(bytes.byteLength, 4);
  bytes.writeUInt32LE(flags, 8);
  payload.copy(bytes, HEADER);
  return bytes;
}

function dma(command: number, address: bigint, count: number, data: number): Buffer {
  const payload = Buffer.alloc(16 + data);
  payload.writeBigUInt64LE(address, 0);
  payload.writeBigUInt64LE(BigInt(count), 8);
  return message(7, command, 0, payload);
}

function oneOfFlood(address: bigint): Buffer {
  if (kind === 'stray') return message(0x1234, 9, REPLY, Buffer.alloc(16));
  if (kind === 'write') return dma(COMMAND.DMA_WRITE, address, WRITE_BYTES, WRITE_BYTES);
  return dma(COMMAND.DMA_READ, kind === 'refused' ? NOWHERE : address, READ_BYTES, 0);
}

/** Writes as fast as it is read. */
function flood(socket: Socket, address: bigint): void {
  const one = oneOfFlood(address);
  const batch = Buffer.concat(Array.from({ length: Math.floor(BATCH_BYTES / one.byteLength) }, () => one));
  const more = () => {
    while (!socket.destroyed && socket.write(batch));
    if (!socket.destroyed) socket.once('drain', more);
  };
  if (kind === 'unread') socket.pause();
  more();
}

function answer(command: number, payload: Buffer): Buffer {
  const index = payload.byteLength >= 12 ? payload.readUInt32LE(8) : 0;
  const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  switch (command) {
    case COMMAND.VERSION:
      return Buffer.concat([words(1 << 16), Buffer.from('{"capabilities":{"max_msg_fds":8}}\0')]);
    case COMMAND.GET_INFO:
      return words(16, 1, PCI_REGIONS, PCI_IRQS);
    case COMMAND.REGION_INFO:
      return words(32, 0, index, 0, 0, 0, 0, 0);
    case COMMAND.IRQ_INFO:
      return words(16, 0, index, 0);
    default:
      return Buffer.alloc(0);
  }
}

createServer((socket) => {
  let bytes: Buffer = Buffer.alloc(0);
  let isFlooding = false;
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    if (isFlooding) return;
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.byteLength >= HEADER && bytes.byteLength >= bytes.readUInt32LE(4)) {
      const [id, command, size] = [bytes.readUInt16LE(0), bytes.readUInt16LE(2), bytes.readUInt32LE(4)];
      const payload = bytes.subarray(HEADER, size);
      socket.write(message(id, command, REPLY, answer(command, payload)));
      if (command === COMMAND.DMA_MAP) {
        isFlooding = true;
        flood(socket, payload.readBigUInt64LE(16));
        return;
      }
      bytes = bytes.subarray(size);
    }
  });
}).listen(path, () => process.send!('listening'));
process.once('disconnect', () => process.exit());
