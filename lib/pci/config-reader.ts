/**
 * What the decoders of this folder read from: the bytes of a configuration space, little-endian, wherever they are.
 * The decoders never read outside `[0, size)`, so an implementation may throw there.
 */
export interface ConfigReader {
  /** Bytes that can be read, from offset 0: 256 for a conventional device, 4096 for PCI Express. */
  readonly size: number;
  /** The byte at `offset`. */
  getUInt8(offset: number): number;
  /** The 16-bit little-endian value at `offset`. */
  getUInt16(offset: number): number;
  /** The 32-bit little-endian value at `offset`. */
  getUInt32(offset: number): number;
}

/**
 * A reader over `bytes`, which are not copied: later changes to them are seen.
 * The reader throws a RangeError for what lies outside.
 */
export function configReader(bytes: Uint8Array): ConfigReader {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    size: buffer.length,
    getUInt8: (offset) => buffer.readUInt8(offset),
    getUInt16: (offset) => buffer.readUInt16LE(offset),
    getUInt32: (offset) => buffer.readUInt32LE(offset),
  };
}

/** The bytes `[start, end)`, copied. The caller has checked that they are there. */
export function copyBytes(config: ConfigReader, start: number, end: number): Uint8Array {
  return Uint8Array.from({ length: end - start }, (_, i) => config.getUInt8(start + i));
}

/** The same space followed by zeroes, for a header that may have been cut short. */
export function zeroExtended(config: ConfigReader): ConfigReader {
  const within = (offset: number, width: number) => offset + width <= config.size;
  return {
    size: config.size,
    getUInt8: (offset) => (within(offset, 1) ? config.getUInt8(offset) : 0),
    getUInt16: (offset) => (within(offset, 2) ? config.getUInt16(offset) : 0),
    getUInt32: (offset) => (within(offset, 4) ? config.getUInt32(offset) : 0),
  };
}
