/** `vfio-user write`: bytes into a region. */
import { open, stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { CHUNK_BYTES, checkWidth, regionRange, withEnableHint, writeRange } from '../region-io.js';
import { UsageError } from '../errors.js';
import { withDevice } from '../global-options.js';
import { accessWidth, size, uint64, type AccessWidth } from '../numbers.js';
import { withFate } from '../output-file.js';
import { startProgress } from '../progress.js';
import {
  MAP_DESCRIPTION,
  MAP_FLAGS,
  loadPlacement,
  mapOption,
  namedWrite,
  type MapOption,
} from '../register-map.js';
import { regionOrName, unknownRegion, type RegionOrName } from '../region-names.js';
import { interruptible } from '../stop-signals.js';
import { byteCount, hex } from '../format-text.js';

interface WriteOptions {
  width?: AccessWidth;
  input?: string;
  enable?: boolean;
  map?: MapOption;
}

const DEFAULT_WIDTH = 4;

const HELP = `
VALUE is a number, decimal or 0x hexadecimal, and is written little-endian in --width bytes (4 where nothing is said).
With --input the bytes of a file are written instead, in as few accesses as can be or in accesses of --width. Where not all
of it is written, a line on stderr says how much was.

Examples:
  $ vfio-user write /run/dev.sock bar0 0x14 0x460001            one 32-bit register
  $ vfio-user write /run/dev.sock bar0 0x28 0x1000 --width 8    one 64-bit register
  $ vfio-user write /run/dev.sock bar1 0 --input image.bin
  $ vfio-user write /run/dev.sock CTRL.MODE FAST --map uart.svd`;

export function registerWrite(program: Command): void {
  program
    .command('write')
    .description("write a region: one register's value, or a file")
    .argument('<SOCKET>', 'where the server listens')
    .argument('<REGION>', 'an index, or bar0 to bar5, rom, config, vga; with --map a register', regionOrName)
    .argument('<OFFSET>', 'where to begin, decimal or 0x hexadecimal; of a register or field its value')
    .argument('[VALUE]', 'what to write', uint64)
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--width <bytes>', 'the width of each access: 1, 2, 4 or 8', accessWidth)
    .option('--input <file>', 'write the bytes of a file')
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits')
    .addHelpText('after', HELP)
    .action(write);
}

async function write(
  socket: string,
  index: RegionOrName,
  offsetText: string,
  value: bigint | undefined,
  options: WriteOptions,
  command: Command,
): Promise<void> {
  if (typeof index === 'object') return writeNamed(socket, index.name, offsetText, options, command);
  const offset = parsed('OFFSET', offsetText, size);
  const { width, input } = options;
  if ((value === undefined) === (input === undefined)) {
    throw new UsageError('give either VALUE or --input FILE');
  }
  const bytes = value === undefined ? undefined : encode(value, width ?? DEFAULT_WIDTH);
  const length = bytes?.length ?? (await fileSize(input!));
  checkWidth(length, width);
  await withDevice(command, socket, async (device) => {
    const range = regionRange(device, index, offset, length, width);
    if (options.enable === true) await device.enable();
    const put = (at: number, data: Buffer): Promise<void> =>
      withEnableHint(device, range, () => writeRange(range, at, data));
    await (bytes === undefined ? writeFile(input!, length, put) : put(0, bytes));
  });
}

/** A register, all of it; or one of its fields, and the others stay as they are. */
async function writeNamed(
  socket: string,
  name: string,
  text: string,
  { map, enable }: WriteOptions,
  command: Command,
): Promise<void> {
  if (map === undefined) throw unknownRegion(name);
  const work = namedWrite(await loadPlacement(map), name, text);
  await withDevice(command, socket, async (device) => {
    if (enable === true) await device.enable();
    await work(device);
  });
}

function parsed<T>(argument: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    throw new UsageError(`'${text}' is invalid for argument '${argument}'. ${(error as Error).message}`);
  }
}

/** `put` writes bytes at so many from where to begin. @throws what went wrong, with how much had been written by then. */
async function writeFile(
  path: string,
  length: number,
  put: (at: number, data: Buffer) => Promise<void>,
): Promise<void> {
  const progress = startProgress(length);
  let written = 0;
  try {
    await interruptible(async (signal) => {
      for await (const chunk of chunksOf(path, length)) {
        signal.throwIfAborted();
        await put(written, chunk);
        written += chunk.length;
        progress.add(chunk.length);
      }
    });
  } catch (error) {
    // Of the chunk that failed some accesses may have been made.
    const sure = written === 0 ? 'nothing is sure to have' : `at least the first ${byteCount(written)} have`;
    throw withFate(error, `${sure} been written`);
  } finally {
    progress.stop();
  }
}

function encode(value: bigint, width: AccessWidth): Buffer {
  if (value >> BigInt(8 * width) !== 0n) {
    throw new UsageError(`${hex(value)} does not fit ${width} bytes: say --width`);
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes.subarray(0, width);
}

async function fileSize(path: string): Promise<number> {
  const stats = await stat(path);
  if (!stats.isFile()) throw new UsageError(`${path} is not a regular file`);
  if (stats.size === 0) throw new UsageError(`${path} is empty`);
  return stats.size;
}

/** The file's first `length` bytes, in chunks that are full but for the last. */
async function* chunksOf(path: string, length: number): AsyncGenerator<Buffer, void, undefined> {
  const file = await open(path);
  try {
    for (let at = 0; at < length; at += CHUNK_BYTES) {
      const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, length - at));
      for (let filled = 0; filled < chunk.length;) {
        const { bytesRead } = await file.read(chunk, filled);
        if (bytesRead === 0) throw new Error(`${path} became shorter while it was read`);
        filled += bytesRead;
      }
      yield chunk;
    }
  } finally {
    await file.close();
  }
}
