/** A section of a pcapng file: the sockets that it describes, and the messages that its packets are. */
import { readUInt16, readUInt32, type Block } from './block-source.js';
import { CaptureError } from './capture-error.js';
import { eventOf } from './packet.js';
import type { TracedEvent } from './traced-message.js';
import {
  BLOCK_INTERFACE,
  BLOCK_OBSOLETE_PACKET,
  BLOCK_PACKET,
  BLOCK_SIMPLE_PACKET,
  FDS_COMMENT,
  INTERFACE_NAME,
  INTERFACE_OFFSET,
  INTERFACE_RESOLUTION,
  LINKTYPE_WIRESHARK_UPPER_PDU,
  OPTION_COMMENT,
  OPTION_END,
  PACKET_FLAGS,
  PACKET_HEAD,
  SIMPLE_PACKET_HEAD,
  padding,
} from './pcapng.js';

const MAX_INTERFACES = 4_096;
const SECTION_BODY = 16;
const INTERFACE_BODY = 8;
const MAJOR = 1;
const SECOND = 1_000_000_000n;
/** Where an interface says nothing: microseconds. */
const DEFAULT_RESOLUTION = 6;
/** The most digits of a time stamp's fraction: those of 64 bits. */
const MAX_DECIMAL_RESOLUTION = 19;
const MAX_BINARY_RESOLUTION = 63;
const BINARY = 0x80;
/** As many as a message can bring on any system, and numbers of 32 bits. */
const FDS = /^\d{1,10}(?:,\d{1,10}){0,1023}$/;

interface Interface {
  name: string;
  /** Other link types may be in a merged file: their packets are passed over. */
  isOurs: boolean;
  /** How many time stamps are a second. */
  stampsPerSecond: bigint;
  /** Added to each time stamp, in seconds. */
  offset: bigint;
  /** The most bytes that are captured of a packet; Infinity for all. */
  snapLength: number;
}

interface PacketOptions {
  flags: number;
  fds: readonly number[];
  note: string | undefined;
}

export class CaptureSection {
  readonly #interfaces: Interface[] = [];

  constructor({ body, offset, littleEndian }: Block) {
    if (body.length < SECTION_BODY) throw new CaptureError('the section header is too short', offset);
    const major = readUInt16(body, 4, littleEndian);
    if (major !== MAJOR) throw new CaptureError(`the file is pcapng version ${major}, not ${MAJOR}`, offset);
  }

  /**
   * The message, or the interrupt, that a block is; `foreign` for a packet of another protocol; undefined for blocks that are no packets.
   * @throws CaptureError
   */
  take(block: Block): TracedEvent | 'foreign' | undefined {
    switch (block.type) {
      case BLOCK_PACKET:
      case BLOCK_OBSOLETE_PACKET:
        return this.#packet(block);
      case BLOCK_SIMPLE_PACKET:
        return this.#simplePacket(block);
      case BLOCK_INTERFACE:
        this.#describe(block);
        return undefined;
      default:
        return undefined;
    }
  }

  #describe(block: Block): void {
    const { body, offset, littleEndian } = block;
    if (body.length < INTERFACE_BODY)
      throw new CaptureError('the interface description is too short', offset);
    if (this.#interfaces.length === MAX_INTERFACES) {
      throw new CaptureError(`more than ${MAX_INTERFACES} interfaces`, offset);
    }
    const described: Interface = {
      name: `interface ${this.#interfaces.length}`,
      isOurs: readUInt16(body, 0, littleEndian) === LINKTYPE_WIRESHARK_UPPER_PDU,
      stampsPerSecond: stampsPerSecond(DEFAULT_RESOLUTION, offset),
      offset: 0n,
      snapLength: readUInt32(body, 4, littleEndian) || Infinity,
    };
    for (const [code, value] of options(block, INTERFACE_BODY)) {
      if (code === INTERFACE_NAME && value.length > 0) described.name = value.toString('utf8');
      if (code === INTERFACE_RESOLUTION && value.length === 1) {
        described.stampsPerSecond = stampsPerSecond(value[0]!, offset);
      }
      if (code === INTERFACE_OFFSET && value.length === 8) {
        described.offset = littleEndian ? value.readBigInt64LE(0) : value.readBigInt64BE(0);
      }
    }
    this.#interfaces.push(described);
  }

  #packet(block: Block): TracedEvent | 'foreign' {
    const { body, offset, littleEndian, type } = block;
    if (body.length < PACKET_HEAD) throw new CaptureError('the packet block is too short', offset);
    // An obsolete one has how many packets were lost in the upper half.
    const id = type === BLOCK_PACKET ? readUInt32(body, 0, littleEndian) : readUInt16(body, 0, littleEndian);
    const [high, low, captured, size] = [4, 8, 12, 16].map((at) => readUInt32(body, at, littleEndian)) as [
      number,
      number,
      number,
      number,
    ];
    const socket = this.#interface(id, offset);
    const data = packetData(block, PACKET_HEAD, captured);
    const stamp = (BigInt(high) << 32n) | BigInt(low);
    const time = (stamp * SECOND) / socket.stampsPerSecond + socket.offset * SECOND;
    if (!socket.isOurs) return 'foreign';
    const options = packetOptions(block, PACKET_HEAD + captured + padding(captured));
    return eventOf({ socket: socket.name, time, data, size, offset, ...options }) ?? 'foreign';
  }

  /** Of the first interface, without a time or anything else. */
  #simplePacket(block: Block): TracedEvent | 'foreign' {
    const { body, offset, littleEndian } = block;
    if (body.length < SIMPLE_PACKET_HEAD) throw new CaptureError('the packet block is too short', offset);
    const size = readUInt32(body, 0, littleEndian);
    const socket = this.#interface(0, offset);
    const data = packetData(block, SIMPLE_PACKET_HEAD, Math.min(size, socket.snapLength));
    if (!socket.isOurs) return 'foreign';
    const packet = { socket: socket.name, time: 0n, data, size, offset, flags: 0, fds: [], note: undefined };
    return eventOf(packet) ?? 'foreign';
  }

  #interface(id: number, offset: number): Interface {
    const described = this.#interfaces[id];
    if (described !== undefined) return described;
    throw new CaptureError(
      `the packet is of interface ${id}, of ${this.#interfaces.length} described`,
      offset,
    );
  }
}

function packetData({ body, offset }: Block, start: number, captured: number): Buffer {
  if (captured + padding(captured) > body.length - start) {
    throw new CaptureError(`${captured} bytes of packet in a block of ${body.length}`, offset);
  }
  return body.subarray(start, start + captured);
}

/** What `if_tsresol` means: a negative power of 10, or of 2 where the highest bit is set. */
function stampsPerSecond(resolution: number, offset: number): bigint {
  const exponent = resolution & ~BINARY;
  const isBinary = (resolution & BINARY) !== 0;
  if (exponent > (isBinary ? MAX_BINARY_RESOLUTION : MAX_DECIMAL_RESOLUTION)) {
    throw new CaptureError(`a time resolution of ${isBinary ? 2 : 10}^-${exponent} seconds`, offset);
  }
  return (isBinary ? 2n : 10n) ** BigInt(exponent);
}

function packetOptions(block: Block, at: number): PacketOptions {
  let flags = 0;
  let fds: readonly number[] = [];
  let note: string | undefined;
  for (const [code, value] of options(block, at)) {
    if (code === PACKET_FLAGS && value.length === 4) flags = readUInt32(value, 0, block.littleEndian);
    if (code !== OPTION_COMMENT) continue;
    const comment = value.toString('utf8');
    const listed = fdsOf(comment);
    if (listed !== undefined) fds = listed;
    else note = note === undefined ? comment : `${note}; ${comment}`;
  }
  return { flags, fds, note };
}

/** Other comments are notes: a proxy's, or people's. */
function fdsOf(comment: string): number[] | undefined {
  if (!comment.startsWith(FDS_COMMENT)) return undefined;
  const list = comment.slice(FDS_COMMENT.length);
  return FDS.test(list) ? list.split(',').map(Number) : undefined;
}

/** The options from `body[at)` on; the end of the block ends them as well. */
function* options({ body, offset, littleEndian }: Block, from: number): Generator<[number, Buffer]> {
  for (let at = from; at + 4 <= body.length;) {
    const code = readUInt16(body, at, littleEndian);
    const length = readUInt16(body, at + 2, littleEndian);
    if (code === OPTION_END) return;
    if (at + 4 + length > body.length) {
      throw new CaptureError(
        `an option of ${length} bytes, the block has ${body.length - at - 4} left`,
        offset,
      );
    }
    yield [code, body.subarray(at + 4, at + 4 + length)];
    at += 4 + length + padding(length);
  }
}
