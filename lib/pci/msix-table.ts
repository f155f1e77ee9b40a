/** The MSI-X table and pending bit array in a BAR's memory (PCI Express Base 7.7.2.5 to 7.7.2.10). */
import { bigInteger, boolean, integer, outOfRange } from '../fields.js';

/** Bytes of a table entry. */
export const MSIX_ENTRY_SIZE = 16;
/** Entries of the largest table. */
export const MSIX_MAX_VECTORS = 2048;

/** Offsets of an entry's registers, each a dword. */
export const MsixEntryOffset = {
  ADDRESS_LOW: 0,
  ADDRESS_HIGH: 4,
  DATA: 8,
  VECTOR_CONTROL: 12,
} as const;

/** The bit of the vector control register that masks the vector. */
export const MSIX_VECTOR_MASKED = 0x1;

/** A vector of the MSI-X table. */
export interface MsixEntry {
  /** Where the message is written: a multiple of 4. */
  readonly address: bigint;
  /** What is written there: 32 bits. */
  readonly data: number;
  /** The vector is masked: it becomes pending instead of being signalled. */
  readonly masked: boolean;
}

/**
 * Offset in the table's BAR of the entry of `vector`, for a table that begins at `tableOffset`.
 *
 * @throws TypeError, RangeError for a vector that no table has (0 to 2047) and an offset that is not 32 bits.
 */
export function msixEntryOffset(tableOffset: number, vector: number): number {
  return integer('tableOffset', tableOffset) + checkVector(vector) * MSIX_ENTRY_SIZE;
}

/**
 * Where the pending bit of `vector` is: the offset in the array's BAR of a dword, and the bit in it.
 *
 * @throws TypeError, RangeError as `msixEntryOffset` does.
 */
export function msixPendingBit(pbaOffset: number, vector: number): { offset: number; bit: number } {
  const offset = integer('pbaOffset', pbaOffset) + Math.floor(checkVector(vector) / 32) * 4;
  return { offset, bit: vector % 32 };
}

/**
 * The 16 bytes of a table entry.
 *
 * @throws TypeError, RangeError for what an entry cannot hold: an address that is not a multiple of 4 among it.
 */
export function encodeMsixEntry(entry: MsixEntry): Buffer {
  const { address, data, masked } = entry;
  if ((bigInteger('MSI-X entry: address', address) & 3n) !== 0n) {
    throw outOfRange(`MSI-X entry: address must be a multiple of 4, got 0x${address.toString(16)}`);
  }
  const control = boolean('MSI-X entry: masked', masked) ? MSIX_VECTOR_MASKED : 0;
  const words = new DataView(new ArrayBuffer(MSIX_ENTRY_SIZE));
  words.setBigUint64(MsixEntryOffset.ADDRESS_LOW, address, true);
  words.setUint32(MsixEntryOffset.DATA, integer('MSI-X entry: data', data), true);
  words.setUint32(MsixEntryOffset.VECTOR_CONTROL, control, true);
  return Buffer.from(words.buffer);
}

/** Decodes the table entry at `offset` of `bytes`. Throws a RangeError where the bytes end before it does. */
export function decodeMsixEntry(bytes: Uint8Array, offset = 0): MsixEntry {
  const entry = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // The low two bits of the address are reserved and read as anything.
  const address = entry.readBigUInt64LE(offset + MsixEntryOffset.ADDRESS_LOW) & ~3n;
  const control = entry.readUInt32LE(offset + MsixEntryOffset.VECTOR_CONTROL);
  return {
    address,
    data: entry.readUInt32LE(offset + MsixEntryOffset.DATA),
    masked: (control & MSIX_VECTOR_MASKED) !== 0,
  };
}

function checkVector(vector: number): number {
  return integer('vector', vector, 0, MSIX_MAX_VECTORS - 1);
}
