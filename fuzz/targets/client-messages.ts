/** What a client may send, command by command: nearly right, with fields that go wrong. */
import { Command } from '../../lib/protocol/constants.js';
import type { Script } from '../engine/script.js';

const HEADER = 16;
const NO_REPLY = 0x10;
const COMMANDS = Object.values(Command);
const FEATURES = [1, 2, 6, 7, 8, 9, 0xffff];

export function message(id: number, command: number, flags: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEADER), payload]);
  bytes.writeUInt16LE(id & 0xffff, 0);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt32LE(flags >>> 0, 8);
  return bytes;
}

/** VERSION as most clients say it. */
export function version(capabilities: object, minor = 2): Buffer {
  const data = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
  const head = Buffer.alloc(4);
  head.writeUInt16LE(minor, 2);
  return message(1, Command.VERSION, 0, Buffer.concat([head, data]));
}

/** VERSION, right or wrong. */
export function versionOf(script: Script): Buffer {
  const capabilities: Record<string, unknown> = {};
  const named = script.byte();
  if ((named & 1) !== 0) capabilities['max_msg_fds'] = script.number();
  if ((named & 2) !== 0) capabilities['max_data_xfer_size'] = script.number();
  if ((named & 4) !== 0) capabilities['max_dma_maps'] = script.number();
  if ((named & 8) !== 0) capabilities['pgsizes'] = Number(script.wide());
  if ((named & 16) !== 0) capabilities['twin_socket'] = { supported: true };
  if ((named & 32) !== 0) capabilities['write_multiple'] = true;
  const bytes = version(capabilities, script.below(4));
  if ((named & 64) !== 0) script.bytes(32).copy(bytes, HEADER + script.below(16));
  if ((named & 128) !== 0) bytes.writeUInt32LE(NO_REPLY, 8);
  return bytes;
}

/** A command; of one in eight a header field or the rest is wrong. */
export function commandOf(script: Script, id: number): Buffer {
  const kind = script.byte();
  const command = kind < 250 ? COMMANDS[kind % COMMANDS.length]! : script.byte();
  const how = script.byte();
  const bytes = message(id, command, how % 16 === 1 ? NO_REPLY : 0, payloadOf(command, script));
  if (how % 8 === 2) bytes.writeUInt32LE(script.number(), script.below(4) * 4);
  if (how % 8 === 3) return Buffer.concat([bytes, script.bytes(64)]);
  if (how % 8 === 4 && bytes.length >= HEADER + 4) bytes.writeUInt32LE(script.number(), HEADER);
  return bytes;
}

/** Little-endian fields, one after the other. */
class Fields {
  readonly #parts: Buffer[] = [];
  readonly #script: Script;

  constructor(script: Script) {
    this.#script = script;
  }

  u32(value = this.#script.number()): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value >>> 0);
    this.#parts.push(bytes);
    return this;
  }

  u64(value = this.#script.wide()): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.#parts.push(bytes);
    return this;
  }

  data(most = 64): this {
    this.#parts.push(this.#script.bytes(most));
    return this;
  }

  build(): Buffer {
    return Buffer.concat(this.#parts);
  }

  /** With argsz in front, which counts itself. */
  sized(more = 0): Buffer {
    const rest = this.build();
    const head = Buffer.alloc(4);
    head.writeUInt32LE(rest.length + 4 + more);
    return Buffer.concat([head, rest]);
  }
}

function payloadOf(command: number, script: Script): Buffer {
  const fields = new Fields(script);
  const pick = script.byte();
  switch (command) {
    case Command.DMA_MAP:
      return fields
        .u32(pick % 16)
        .u64()
        .u64()
        .u64()
        .sized();
    case Command.DMA_UNMAP:
      fields
        .u32(pick % 4)
        .u64()
        .u64();
      return (pick % 4 === 1 ? fields.u64().u64() : fields).sized(pick > 128 ? script.number() : 0);
    case Command.DEVICE_GET_REGION_INFO:
      return fields
        .u32(0)
        .u32(pick % 12)
        .u32(0)
        .u32(0)
        .u64(0n)
        .u64(0n)
        .sized(pick > 128 ? 256 : 0);
    case Command.DEVICE_GET_REGION_IO_FDS:
    case Command.DEVICE_GET_INFO:
    case Command.DEVICE_GET_IRQ_INFO:
      return fields
        .u32(0)
        .u32(pick % 12)
        .u32(0)
        .sized(pick > 128 ? 256 : 0);
    case Command.DEVICE_SET_IRQS:
      return fields
        .u32(pick & 0x3f)
        .u32(script.below(6))
        .u32()
        .u32()
        .data()
        .sized();
    case Command.REGION_READ:
    case Command.DMA_READ:
      return fields
        .u64()
        .u32(pick % 10)
        .u32()
        .build();
    case Command.REGION_WRITE:
    case Command.DMA_WRITE:
      return writeOf(script, pick % 10);
    case Command.DIRTY_PAGES:
      fields.u32(1 << (pick % 3));
      return (pick % 3 === 2 ? fields.u64().u64().u64().u64() : fields).sized(script.number());
    case Command.REGION_WRITE_MULTI:
      return multiOf(script, pick % 4);
    case Command.DEVICE_FEATURE:
      return fields
        .u32((FEATURES[pick % FEATURES.length]! | (1 << (16 + (pick % 3)))) >>> 0)
        .data()
        .sized(script.number());
    case Command.MIG_DATA_READ:
      return fields.u32().sized(script.number());
    case Command.MIG_DATA_WRITE: {
      const data = script.bytes(255);
      return Buffer.concat([fields.u32(data.length).sized(data.length), data]);
    }
    default:
      return script.bytes(64);
  }
}

/** A write of the sizes that registers have, or of any. */
function writeOf(script: Script, region: number): Buffer {
  const data = script.byte() < 192 ? new Fields(script).u32().build() : script.bytes(64);
  const offset = script.byte();
  const at = BigInt(offset < 192 ? offset * 4 : script.number());
  return Buffer.concat([new Fields(script).u64(at).u32(region).u32(data.length).build(), data]);
}

function multiOf(script: Script, count: number): Buffer {
  const writes = Array.from({ length: count }, () => {
    const data = script.bytes(8);
    const head = new Fields(script)
      .u64(BigInt(script.byte() * 4))
      .u32(script.below(10))
      .u32(data.length);
    return Buffer.concat([head.build(), data, Buffer.alloc(8 - data.length)]);
  });
  return Buffer.concat([new Fields(script).u64(BigInt(count)).build(), ...writes]);
}
