/** The MSI-X table and pending bit array in a BAR's memory (PCI Express Base 7.7.2.5 to 7.7.2.10). */

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

export interface MsixEntry {
  /** Where the message is written: a multiple of 4. */
  readonly address: bigint;
  /** What is written there: 32 bits. */
  readonly data: number;
  readonly masked: boolean;
}

/** Offset in the table's BAR of the entry of `vector`, for a table that begins at `tableOffset`. */
export function msixEntryOffset(tableOffset: number, vector: number): number {
  checkVector(vector);
  return tableOffset + vector * MSIX_ENTRY_SIZE;
}

/** Where the pending bit of `vector` is: the offset in the array's BAR of a dword, and the bit in it. */
export function msixPendingBit(pbaOffset: number, vector: number): { offset: number; bit: number } {
  checkVector(vector);
  return { offset: pbaOffset + Math.floor(vector / 32) * 4, bit: vector % 32 };
}

/** The 16 bytes of a table entry. Throws a RangeError for an address or data that an entry cannot hold. */
export function encodeMsixEntry(entry: MsixEntry): Buffer {
  const { address, data, masked } = entry;
  if (address < 0n || address >= 1n << 64n || (address & 3n) !== 0n) {
    throw new RangeError(`0x${address.toString(16)} is no message address: 64 bits, a multiple of 4`);
  }
  const bytes = Buffer.alloc(MSIX_ENTRY_SIZE);
  bytes.writeBigUInt64LE(address, MsixEntryOffset.ADDRESS_LOW);
  bytes.writeUInt32LE(data, MsixEntryOffset.DATA);
  bytes.writeUInt32LE(masked ? MSIX_VECTOR_MASKED : 0, MsixEntryOffset.VECTOR_CONTROL);
  return bytes;
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

function checkVector(vector: number): void {
  if (!Number.isInteger(vector) || vector < 0 || vector >= MSIX_MAX_VECTORS) {
    throw new RangeError(`no MSI-X table has the vector ${vector}`);
  }
}
