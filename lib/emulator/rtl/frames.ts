/**
 * Bytes ↔ frames between the bridge and a simulator (docs/rtl.md). All integers are little-endian.
 *
 * ```
 *   0  u32  size of the frame, with this header
 *   4  u8   type
 *   5  u8   status, of answers
 *   6  u16  0
 *   8  u64  simulated time in picoseconds, from the simulator; 0 from the bridge
 *  16  what the type says
 * ```
 */
import { RtlError } from './rtl-error.js';

export const RTL_VERSION = 1;
const HEADER = 16;
/** Bytes of host memory in one frame. */
export const MOST_DMA_BYTES = 4096;
const DMA_HEAD = 16;
const LARGEST_FRAME = HEADER + DMA_HEAD + MOST_DMA_BYTES;
/** "VRTL". */
const MAGIC = 0x4c545256;
const ADDRESS_SPACE_END = 1n << 64n;
/** Of an answer, set in its request's type. */
const ANSWER = 0x80;
const BARS = 6;

/** Requests of the bridge, and what the simulator says by itself. */
export const FrameType = {
  WELCOME: 0x01,
  READ: 0x02,
  WRITE: 0x03,
  RUN: 0x04,
  RESET: 0x05,
  BYE: 0x06,
  HELLO: 0x11,
  DMA_READ: 0x12,
  DMA_WRITE: 0x13,
  INTERRUPT: 0x14,
} as const;
const NAMES = new Map<number, string>(Object.entries(FrameType).map(([name, type]) => [type, name]));

/** How a request ended. */
export const FrameStatus = { OK: 0, ERROR: 1, TIMEOUT: 2 } as const;

/** A part of an access that the bus carries at once. */
export interface Beat {
  /** The BAR. */
  readonly region: number;
  /** Of the first lane: a multiple of the bus's width. */
  readonly offset: number;
  /** A bit for each byte that the access has. */
  readonly strobes: number;
  /** How many clock cycles it may take. */
  readonly cycles: number;
}

/** A frame of the simulator's, whose length has been checked and whose content has not. */
export interface Frame {
  readonly type: number;
  readonly status: number;
  readonly time: bigint;
  readonly size: number;
  readonly payload: Buffer;
}

/** Host memory that the simulator reads, or writes with `data`. */
export interface DmaFrame {
  readonly address: bigint;
  readonly length: number;
  readonly data: Buffer | undefined;
}

/** `READ`, `answer to READ`, `type 0x77`. */
export function frameName(type: number): string {
  const name = NAMES.get(type & ~ANSWER) ?? `type 0x${type.toString(16)}`;
  return (type & ANSWER) !== 0 && NAMES.has(type & ~ANSWER) ? `answer to ${name}` : name;
}

export function answerTo(type: number): number {
  return type | ANSWER;
}

function frame(type: number, payload: number, status = 0): Buffer {
  const bytes = Buffer.alloc(HEADER + payload);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes[4] = type;
  bytes[5] = status;
  return bytes;
}

/** What the simulator is told of the device. `sizes` are those of its BARs, in bytes; of a BAR that it has not it is 0. */
export function welcome(busBytes: number, vectors: number, sizes: readonly number[]): Buffer {
  const bytes = frame(FrameType.WELCOME, 16 + BARS * 8);
  bytes.writeUInt32LE(RTL_VERSION, HEADER);
  bytes.writeUInt32LE(busBytes, HEADER + 4);
  bytes.writeUInt32LE(vectors, HEADER + 8);
  bytes.writeUInt32LE(MOST_DMA_BYTES, HEADER + 12);
  for (let bar = 0; bar < BARS; bar++) bytes.writeBigUInt64LE(BigInt(sizes[bar] ?? 0), HEADER + 16 + bar * 8);
  return bytes;
}

/** READ without `data`, else WRITE. */
export function beatFrame({ region, offset, strobes, cycles }: Beat, data?: bigint): Buffer {
  const bytes = frame(data === undefined ? FrameType.READ : FrameType.WRITE, data === undefined ? 16 : 24);
  bytes[HEADER] = region;
  bytes[HEADER + 1] = strobes;
  bytes.writeUInt32LE(cycles, HEADER + 4);
  bytes.writeBigUInt64LE(BigInt(offset), HEADER + 8);
  if (data !== undefined) bytes.writeBigUInt64LE(data, HEADER + 16);
  return bytes;
}

/** `untilIdle` ends it earlier, when the device has nothing to do. */
export function runFrame(cycles: number, untilIdle: boolean): Buffer {
  const bytes = frame(FrameType.RUN, 8);
  bytes.writeUInt32LE(cycles, HEADER);
  bytes.writeUInt32LE(untilIdle ? 1 : 0, HEADER + 4);
  return bytes;
}

export function resetFrame(): Buffer {
  return frame(FrameType.RESET, 0);
}

export function byeFrame(): Buffer {
  return frame(FrameType.BYE, 0);
}

/** `data` answers DMA_READ; without `status` OK there is none. */
export function dmaAnswer(type: number, status: number, data: Uint8Array = new Uint8Array()): Buffer {
  const bytes = frame(answerTo(type), data.length, status);
  bytes.set(data, HEADER);
  return bytes;
}

/** The frame that begins at `at`; undefined where not all of it is there. @throws RtlError for what no frame can be. */
export function frameAt(bytes: Buffer, at: number): Frame | undefined {
  if (bytes.length - at < 4) return undefined;
  const size = bytes.readUInt32LE(at);
  if (size < HEADER || size > LARGEST_FRAME) {
    throw new RtlError(`the simulator sent a frame of ${size} bytes; it has ${HEADER} to ${LARGEST_FRAME}`);
  }
  if (bytes.length - at < size) return undefined;
  const type = bytes[at + 4]!;
  const reserved = bytes.readUInt16LE(at + 6);
  if (reserved !== 0) throw broken(type, `has ${reserved} where 0 must be`);
  const payload = bytes.subarray(at + HEADER, at + size);
  return { type, status: bytes[at + 5]!, time: bytes.readBigUInt64LE(at + 8), size, payload };
}

/** @throws RtlError for a peer that is no simulator, or speaks another version. */
export function checkHello({ type, payload }: Frame): void {
  if (type !== FrameType.HELLO)
    throw new RtlError(`the simulator began with ${frameName(type)}, not with HELLO`);
  expectLength(type, payload, 8);
  if (payload.readUInt32LE(0) !== MAGIC)
    throw broken(type, `has no "VRTL": the peer is not of vfio-user's RTL`);
  const version = payload.readUInt32LE(4);
  if (version !== RTL_VERSION) throw broken(type, `is of version ${version}, not ${RTL_VERSION}`);
}

/** The data of a READ that was carried out. @throws RtlError */
export function readAnswer({ type, payload }: Frame): bigint {
  expectLength(type, payload, 8);
  return payload.readBigUInt64LE(0);
}

/** @throws RtlError */
export function runAnswer({ type, payload }: Frame): { cycles: number; isIdle: boolean } {
  expectLength(type, payload, 8);
  const idle = payload.readUInt32LE(4);
  if (idle > 1) throw broken(type, `says idle ${idle}; it is 0 or 1`);
  return { cycles: payload.readUInt32LE(0), isIdle: idle === 1 };
}

/** Of WRITE and RESET. @throws RtlError */
export function emptyAnswer({ type, payload }: Frame): void {
  expectLength(type, payload, 0);
}

/** @throws RtlError for a vector that the device does not have. */
export function interruptOf({ type, payload }: Frame, vectors: number): { vector: number; isUp: boolean } {
  expectLength(type, payload, 8);
  const vector = payload.readUInt32LE(0);
  const level = payload.readUInt32LE(4);
  if (vector >= vectors) throw broken(type, `has vector ${vector}; the device has ${vectors}`);
  if (level > 1) throw broken(type, `has level ${level}; it is 0 or 1`);
  return { vector, isUp: level === 1 };
}

/** @throws RtlError for a length or an address that cannot be. */
export function dmaOf({ type, payload }: Frame): DmaFrame {
  if (payload.length < DMA_HEAD)
    throw broken(type, `has ${payload.length} bytes; it has at least ${DMA_HEAD}`);
  const address = payload.readBigUInt64LE(0);
  const length = payload.readUInt32LE(8);
  const reserved = payload.readUInt32LE(12);
  if (reserved !== 0) throw broken(type, `has ${reserved} where 0 must be`);
  if (length < 1 || length > MOST_DMA_BYTES)
    throw broken(type, `is of ${length} bytes; it may be of 1 to ${MOST_DMA_BYTES}`);
  if (address + BigInt(length) > ADDRESS_SPACE_END)
    throw broken(type, `of ${length} bytes at 0x${address.toString(16)} ends above the 64-bit address space`);
  const isWrite = type === FrameType.DMA_WRITE;
  expectLength(type, payload, DMA_HEAD + (isWrite ? length : 0));
  return { address, length, data: isWrite ? payload.subarray(DMA_HEAD) : undefined };
}

function expectLength(type: number, payload: Buffer, length: number): void {
  if (payload.length !== length)
    throw broken(type, `has ${payload.length} bytes behind its header, not ${length}`);
}

function broken(type: number, how: string): RtlError {
  return new RtlError(`the simulator's ${frameName(type)} ${how}`);
}
