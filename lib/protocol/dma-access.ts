/**
 * DMA_READ and DMA_WRITE, the commands that a server sends: the 16 bytes in front of the data, the same in requests
 * and replies.
 *
 * ```
 *  0                       8                       16
 *  |      address u64      |       count u64       |  data: count bytes
 * ```
 *
 * A read's data comes in the reply, a write's in the request. The text of the specification gives the count in
 * DMA_WRITE's reply 4 bytes; every server reads 8, so 8 it is.
 */
import { ProtocolError } from '../errors.js';
import { atLeast, exactly, readSize, writeSize, writeUInt64 } from './bytes.js';

/** Bytes before the data. */
export const DMA_ACCESS_SIZE = 16;

/** VFIO_USER_DMA_READ and VFIO_USER_DMA_WRITE: what the server reads or writes. */
export interface DmaAccess {
  /** The DMA address of the first byte. Not checked against any mapping, nor against the end of the address space. */
  address: bigint;
  /** Bytes of data. Not checked against `max_data_xfer_size`. */
  count: number;
}

/**
 * Writes the 16 bytes to `into[at..)`. Hot.
 *
 * @throws TypeError, RangeError for what a field cannot hold; a `count` that is a number ends at 2^53-1.
 */
export function writeDmaAccess(into: Buffer, at: number, address: bigint, count: number | bigint): void {
  writeUInt64(into, at, address, 'DMA access: address');
  if (typeof count === 'bigint') writeUInt64(into, at + 8, count, 'DMA access: count');
  else writeSize(into, at + 8, count, 'DMA access: count');
}

/**
 * Reads the 16 bytes of any DMA_READ or DMA_WRITE; what follows them is not looked at. Hot.
 *
 * @throws ProtocolError where there are fewer, or the count is above `Number.MAX_SAFE_INTEGER`.
 */
export function decodeDmaAccess(
  bytes: Buffer,
  start: number,
  end: number,
  message = 'DMA access',
): DmaAccess {
  atLeast(message, 'the DMA access structure', bytes, start, end, DMA_ACCESS_SIZE);
  return {
    address: bytes.readBigUInt64LE(start),
    count: readSize(message, 'count', bytes, start + 8),
  };
}

/**
 * A DMA_READ request.
 *
 * @throws ProtocolError unless it is exactly the 16 bytes.
 */
export function decodeDmaRead(bytes: Buffer, start: number, end: number): DmaAccess {
  exactly('DMA_READ', 'the DMA access structure', bytes, start, end, DMA_ACCESS_SIZE);
  return decodeDmaAccess(bytes, start, end, 'DMA_READ');
}

/**
 * A DMA_WRITE request. The data is the `count` bytes from `start + DMA_ACCESS_SIZE`.
 *
 * @throws ProtocolError unless exactly `count` bytes follow the 16.
 */
export function decodeDmaWrite(bytes: Buffer, start: number, end: number): DmaAccess {
  const access = decodeDmaAccess(bytes, start, end, 'DMA_WRITE');
  exactly('DMA_WRITE', `a write of ${access.count} bytes`, bytes, start, end, DMA_ACCESS_SIZE + access.count);
  return access;
}

/**
 * For servers: checks that a DMA_READ reply is the one that was asked for. The data is then the `count` bytes from
 * `start + DMA_ACCESS_SIZE`.
 *
 * @throws ProtocolError where address, count or the amount of data differ.
 */
export function checkDmaReadReply(
  bytes: Buffer,
  start: number,
  end: number,
  address: bigint,
  count: number,
): void {
  checkReply('DMA_READ reply', bytes, start, end, address, count);
  exactly(
    'DMA_READ reply',
    `the data of a read of ${count} bytes`,
    bytes,
    start,
    end,
    DMA_ACCESS_SIZE + count,
  );
}

/**
 * For servers: checks that a DMA_WRITE reply is the one that was asked for: the 16 bytes alone.
 *
 * @throws ProtocolError where address, count or the size differ.
 */
export function checkDmaWriteReply(
  bytes: Buffer,
  start: number,
  end: number,
  address: bigint,
  count: number,
): void {
  checkReply('DMA_WRITE reply', bytes, start, end, address, count);
  exactly('DMA_WRITE reply', 'the DMA access structure', bytes, start, end, DMA_ACCESS_SIZE);
}

function checkReply(
  message: string,
  bytes: Buffer,
  start: number,
  end: number,
  address: bigint,
  count: number,
): void {
  const got = decodeDmaAccess(bytes, start, end, message);
  if (got.address !== address) {
    throw new ProtocolError(
      `${message}: address is 0x${got.address.toString(16)}, 0x${address.toString(16)} was asked for`,
    );
  }
  if (got.count !== count) {
    throw new ProtocolError(`${message}: count is ${got.count}, ${count} was asked for`);
  }
}
