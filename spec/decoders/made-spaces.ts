/**
 * Config spaces with every capability whose fields we decode, and noise in the fields: the same each time. What is reserved
 * where programs differ in what they make of it (types of BARs, widths of windows) is left as the specification has it.
 */

const EXTENDED_SIZE = 4096;
/** Devices of each kind: what eight functions on 16 buses hold. */
const COUNT = 120;

/** xorshift32: fields need no better noise. */
class Noise {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  next(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return this.#state >>> 0;
  }

  /** One of `[0, count)`. */
  below(count: number): number {
    return this.next() % count;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

type Capability = (noise: Noise) => Buffer;

function body(
  id: number,
  length: number,
  change: (bytes: Buffer, noise: Noise) => void = () => {},
): Capability {
  return (noise) => {
    const bytes = noise.bytes(length);
    bytes[0] = id;
    change(bytes, noise);
    return bytes;
  };
}

const express: Capability = body(0x10, 0x3c, (bytes, noise) => {
  const type = [0, 1, 4, 5, 6, 7, 8, 9, 10][noise.below(9)]!;
  bytes.writeUInt16LE(((bytes.readUInt16LE(2) & 0xff00) | (type << 4) | (1 + noise.below(2))) & 0xbfff, 2);
  // Power limits up to 239 W, whose values stand for themselves; no flag that is reserved for the type.
  bytes.writeUInt32LE((bytes.readUInt32LE(4) & ~(1 << 25)) >>> 0, 4);
  if (type !== 7) bytes[9]! &= 0x7f;
  // Cache lines of 64 bytes, or none.
  bytes[0x25]! &= 0x7f;
  bytes.writeUInt32LE((bytes.readUInt32LE(0x14) & ~(1 << 14)) >>> 0, 0x14);
  // Codes of speeds that are assigned.
  bytes[0x0c] = (bytes[0x0c]! & 0xf0) | (1 + noise.below(5));
  bytes[0x12] = (bytes[0x12]! & 0xf0) | (1 + noise.below(5));
  bytes[0x2c] = bytes[0x2c]! & 0x3e;
  bytes[0x30] = (bytes[0x30]! & 0xf0) | noise.below(6);
});

const CONVENTIONAL: readonly Capability[] = [
  body(0x01, 8),
  body(0x05, 24, (bytes, noise) => {
    // Up to 32 vectors, in one of four layouts.
    bytes.writeUInt16LE((noise.next() & 0x181) | (noise.below(6) << 1) | (noise.below(6) << 4), 2);
  }),
  body(0x11, 12),
  body(0x0d, 8),
  express,
];

/** A 32-bit memory BAR, or a 64-bit one that takes the next register, too. */
function memoryBars(bytes: Buffer, at: number, count: number, noise: Noise): void {
  for (let i = 0; i < count; i++) {
    const isWide = i + 1 < count && noise.below(2) === 0;
    const address = bytes.readUInt32LE(at + 4 * i) & ~0xf;
    bytes.writeUInt32LE((address | (noise.below(2) << 3) | (isWide ? 4 : 0)) >>> 0, at + 4 * i);
    if (isWide) i++;
  }
}

const EXTENDED: readonly Capability[] = [
  body(0x01, 0x48),
  body(0x03, 12),
  body(0x0b, 0x20, (bytes) => bytes.writeUInt16LE((bytes.readUInt16LE(6) & 0xf) | 0x200, 6)),
  body(0x0d, 8),
  body(0x0e, 8),
  body(0x0f, 8),
  body(0x10, 0x40, (bytes, noise) => memoryBars(bytes, 0x24, 6, noise)),
  body(0x13, 16),
  body(0x15, 4 + 8 * 6, resizable),
  body(0x18, 8),
  body(0x1b, 8),
  body(0x1d, 12),
  body(0x1e, 16),
  body(0x1f, 12),
  // Of a vendor whose registers nobody knows.
  body(0x23, 0x20, (bytes) =>
    bytes.writeUInt32LE(((bytes.readUInt32LE(4) & 0xf_ffff) | 0x0200_0000) >>> 0, 4),
  ),
  body(0x24, 4 + 8 * 6, resizable),
  body(0x2e, 0x18),
];

/** As many BARs as it says, each once. */
function resizable(bytes: Buffer, noise: Noise): void {
  const count = 1 + noise.below(6);
  for (let i = 0; i < 6; i++) {
    const at = 8 + 8 * i;
    bytes[at] = ((i + 3) % 6) | (count << 5);
    bytes[at + 1]! &= 0x3f;
  }
}

function header(bytes: Buffer, type: number, noise: Noise): void {
  noise.bytes(0x40).copy(bytes);
  bytes.writeUInt16LE(0x1af4, 0);
  bytes.writeUInt16LE((bytes.readUInt16LE(6) & ~6) | 0x10, 6);
  // lspci shows no revision 0, and knows the interfaces of bridges.
  bytes[0x0e] = type | (noise.below(2) << 7);
  bytes[0x0f]! &= 0xbf;
  bytes[0x3d] = noise.below(5);
  if (type === 0) memoryBars(bytes, 0x10, 6, noise);
  if (type === 1) bridge(bytes, noise);
  if (type === 2) cardBus(bytes, noise);
  bytes[type === 2 ? 0x14 : 0x34] = type === 2 ? 0x48 : 0x40;
}

function bridge(bytes: Buffer, noise: Noise): void {
  memoryBars(bytes, 0x10, 2, noise);
  const ioWidth = noise.below(2);
  const memoryWidth = noise.below(2);
  for (const at of [0x1c, 0x1d]) bytes[at] = (bytes[at]! & 0xf0) | ioWidth;
  for (const at of [0x20, 0x22]) bytes[at]! &= 0xf0;
  for (const at of [0x24, 0x26]) bytes[at] = (bytes[at]! & 0xf0) | memoryWidth;
}

function cardBus(bytes: Buffer, noise: Noise): void {
  memoryBars(bytes, 0x10, 1, noise);
  for (const at of [0x1c, 0x20, 0x24, 0x28]) bytes.writeUInt32LE((bytes.readUInt32LE(at) & ~0xfff) >>> 0, at);
}

/** Capabilities in some order, as many as fit below `end`, linked. */
function place(bytes: Buffer, start: number, end: number, list: readonly Capability[], noise: Noise): void {
  const isExtended = start >= 0x100;
  let at = start;
  let link: number | undefined;
  for (const make of [...list].sort(() => noise.below(2) - 0.5)) {
    const capability = make(noise);
    if (at + capability.length > end) continue;
    capability.copy(bytes, at);
    if (isExtended) bytes.writeUInt32LE((capability[0]! | (noise.below(16) << 16)) >>> 0, at);
    else bytes[at + 1] = 0;
    if (link !== undefined && isExtended)
      bytes.writeUInt32LE((bytes.readUInt32LE(link) | (at << 20)) >>> 0, link);
    else if (link !== undefined) bytes[link + 1] = at;
    link = at;
    at += (capability.length + 3) & ~3;
  }
}

function space(type: number, noise: Noise): Buffer {
  const bytes = Buffer.alloc(EXTENDED_SIZE);
  header(bytes, type, noise);
  if (type === 2) noise.bytes(8).copy(bytes, 0x40);
  place(bytes, type === 2 ? 0x48 : 0x40, 0x100, CONVENTIONAL, noise);
  place(bytes, 0x100, EXTENDED_SIZE, EXTENDED, noise);
  return bytes;
}

export function madeSpaces(): [string, Buffer[]][] {
  return ['devices', 'PCI-to-PCI bridges', 'CardBus bridges'].map((name, type) => {
    const noise = new Noise(0x9e37_79b9 + type);
    return [name, Array.from({ length: COUNT }, () => space(type, noise))];
  });
}
