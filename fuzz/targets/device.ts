/**
 * A device over a stream, opened and used, whose server answers with the input: a script of answers, each with a header
 * that fits the command it answers. So the fields behind the headers are reached. The session ends in nothing but an error
 * of the library, or in a TypeError or RangeError where the device lacks what is asked of it.
 *
 * The input: answers, each a byte that says how, two for its length, and the payload. How: bit 0 an error, bit 1 a
 * request of the server's own in front, bit 2 in two pieces, bit 3 twice, bit 4 the bytes without a header.
 */
import { Duplex } from 'node:stream';
import { VfioUserError } from '../../lib/errors.js';
import { connect, type Device } from '../../lib/index.js';
import { configReader, decodeConfigSpace, lspciDump } from '../../lib/pci/index.js';
import type { Target } from '../engine/target.js';

const HEADER = 16;
const GET_REGION_INFO = 5;
const REGION_READ = 9;
const REGION_WRITE = 10;
/** Of an answer that is none the rest is waited for. */
const DEADLINE_MS = 20;

class Server extends Duplex {
  readonly #script: Buffer;
  #at = 0;
  #came = Buffer.alloc(0);
  #isOver = false;

  constructor(script: Buffer) {
    super();
    this.#script = script;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#came = Buffer.concat([this.#came, chunk]);
    while (this.#came.length >= HEADER && this.#came.length >= this.#came.readUInt32LE(4)) {
      const size = this.#came.readUInt32LE(4);
      const asked = this.#came.subarray(0, size);
      this.#came = this.#came.subarray(size);
      // Answers to the server's own requests want nothing.
      if ((asked.readUInt32LE(8) & 0xf) === 0) this.#answer(asked);
    }
    done();
  }

  #answer(asked: Buffer): void {
    if (this.#isOver) return;
    if (this.#at + 3 > this.#script.length) {
      this.#isOver = true;
      this.push(null);
      return;
    }
    const how = this.#script[this.#at]!;
    const length = this.#script.readUInt16LE(this.#at + 1);
    const payload = this.#script.subarray(this.#at + 3, this.#at + 3 + length);
    this.#at += 3 + length;
    if ((how & 2) !== 0) this.#say(message(7, 11 + (how >> 7), 0, payload.subarray(0, 40)), how);
    const bytes =
      (how & 16) !== 0
        ? Buffer.from(payload)
        : message(
            asked.readUInt16LE(0),
            asked.readUInt16LE(2),
            (how & 1) === 0 ? 1 : 0x21,
            fit(asked, payload),
          );
    this.#say(bytes, how);
    if ((how & 8) !== 0) this.#say(bytes, 0);
  }

  #say(bytes: Buffer, how: number): void {
    const middle = (how & 4) === 0 ? bytes.length : bytes.length >> 1;
    if (middle > 0) this.push(bytes.subarray(0, middle));
    if (middle < bytes.length) this.push(bytes.subarray(middle));
  }
}

/** Puts the asked index or access in front, so that a script need not know them: wrong ones are the codec's target. */
function fit(asked: Buffer, payload: Buffer): Buffer {
  const command = asked.readUInt16LE(2);
  const bytes = Buffer.from(payload);
  if (command === REGION_READ || command === REGION_WRITE) {
    const count = command === REGION_READ ? asked.readUInt32LE(HEADER + 12) : 0;
    const data = Buffer.alloc(Math.min(count, 1 << 20));
    bytes.copy(data);
    return Buffer.concat([asked.subarray(HEADER, HEADER + 16), data]);
  }
  if ((command === GET_REGION_INFO || command === 7) && bytes.length >= 12)
    asked.copy(bytes, 8, HEADER + 8, HEADER + 12);
  return bytes;
}

function message(id: number, command: number, flags: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEADER), payload]);
  bytes.writeUInt16LE(id, 0);
  bytes.writeUInt16LE(command, 2);
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt32LE(flags, 8);
  if (flags === 0x21) bytes.writeUInt32LE(22, 12);
  return bytes;
}

async function use(device: Device): Promise<void> {
  if (device.hasConfig) {
    const bytes = device.config.bytes();
    lspciDump(bytes);
    decodeConfigSpace(configReader(bytes));
    await device.enable().catch(expected);
  }
  const region = device.regions.find(({ size, readable }) => size >= 8 && readable);
  await region?.readUInt32(0).catch(expected);
  await region?.read(0, Math.min(region.size, 64)).catch(expected);
  await device.migration.support().catch(expected);
  await device.regions[0]?.ioFds().catch(expected);
  const buffer = await device.dma.alloc(4096);
  await device.fence().catch(expected);
  await buffer.free().catch(expected);
}

/** What a caller may be told. */
function expected(error: unknown): void {
  if (error instanceof VfioUserError || error instanceof RangeError || error instanceof TypeError) return;
  throw error;
}

export const device: Target = {
  name: 'device',
  async run(input) {
    let opened: Device | undefined;
    try {
      opened = await connect({ stream: new Server(input) }, { timeoutMs: DEADLINE_MS, arenaBytes: 2 << 20 });
      await use(opened);
    } catch (error) {
      // A TypeError of the library's own code is a mistake: connect was called rightly.
      if (!(error instanceof VfioUserError || error instanceof RangeError)) throw error;
    } finally {
      await opened?.close();
    }
  },
};
