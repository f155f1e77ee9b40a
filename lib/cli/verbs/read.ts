/** `vfio-user read`: bytes of a region. */
import { Option, type Command } from 'commander';
import { checkWidth, readRange, regionRange, withEnableHint, type RegionRange } from '../region-io.js';
import { UsageError } from '../errors.js';
import { FORMATS, MAX_JSON_BYTES, formatter, type Format, type Formatter } from '../byte-formats.js';
import { withDevice } from '../global-options.js';
import { accessWidth, length as parseLength, size, type AccessWidth } from '../numbers.js';
import { STANDARD_STREAM, writeOutput, type OutputFile } from '../output-file.js';
import { startProgress } from '../progress.js';
import { hex } from '../format-text.js';
import { print } from '../output.js';
import {
  MAP_DESCRIPTION,
  MAP_FLAGS,
  bindPlacement,
  findRegister,
  loadPlacement,
  mapOption,
  type MapOption,
} from '../register-map.js';
import { regionName, regionOrName, unknownRegion, type RegionOrName } from '../region-names.js';

interface ReadOptions {
  width?: AccessWidth;
  format?: Format;
  output?: string;
  enable?: boolean;
  map?: MapOption;
}

const DEFAULT_WIDTH = 4;

const HELP = `
Without LENGTH one value is read, of --width bytes (4 where nothing is said). With LENGTH and without --width the
bytes are read in as few accesses as can be; registers want a --width. Values are little-endian.

Examples:
  $ vfio-user read /run/dev.sock bar0 0x1c                      one 32-bit register
  $ vfio-user read /run/dev.sock bar0 0 --width 8               one 64-bit register
  $ vfio-user read /run/dev.sock config 0 64                    a dump of 64 bytes
  $ vfio-user read /run/dev.sock bar0 0 64 --width 4 --format hex
  $ vfio-user read /run/dev.sock rom 0 0x10000 --output rom.bin
  $ vfio-user read /run/dev.sock STATUS.READY --map uart.svd`;

export function registerRead(program: Command): void {
  program
    .command('read')
    .description("read a region: one register's value, or many bytes")
    .argument('<SOCKET>', 'where the server listens')
    .argument('<REGION>', 'an index, or bar0 to bar5, rom, config, vga; with --map a register', regionOrName)
    .argument('[OFFSET]', 'where to begin, decimal or 0x hexadecimal', size)
    .argument('[LENGTH]', 'how many bytes', parseLength)
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--width <bytes>', 'the width of each access: 1, 2, 4 or 8', accessWidth)
    .addOption(
      new Option(
        '--format <format>',
        'how to print: hex for one value, dump for more, raw with --output',
      ).choices(FORMATS),
    )
    .option('--output <file>', 'write to a file; - is stdout, as is nothing')
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits')
    .addHelpText('after', HELP)
    .action(read);
}

async function read(
  socket: string,
  index: RegionOrName,
  offset: number | undefined,
  lengthGiven: number | undefined,
  options: ReadOptions,
  command: Command,
): Promise<void> {
  if (typeof index === 'object') return readNamed(socket, index.name, options, command);
  if (offset === undefined) throw new UsageError("missing required argument 'OFFSET'");
  if (options.output === STANDARD_STREAM) delete options.output;
  const length = lengthGiven ?? options.width ?? DEFAULT_WIDTH;
  const width = options.width ?? valueWidth(length);
  const format = options.format ?? defaultFormat(length, options);
  checkWidth(length, options.width);
  checkFormat(format, length, options);
  await withDevice(command, socket, async (device) => {
    const range = regionRange(device, index, offset, length, options.width);
    const region = regionName(index, device.isPci);
    const text = formatter(format, { region, offset, length, width });
    await writeOutput(options.output, async (file, signal) => {
      if (options.enable === true) await device.enable();
      await withEnableHint(device, range, () => copy(range, text, file, signal, options.output));
    });
  });
}

/** A register, or one of its fields. Asking for it is asking for what a read does to it. */
async function readNamed(
  socket: string,
  name: string,
  { map, enable }: ReadOptions,
  command: Command,
): Promise<void> {
  if (map === undefined) throw unknownRegion(name);
  const placement = await loadPlacement(map);
  const { register, field } = findRegister(placement, name);
  await withDevice(command, socket, async (device) => {
    if (enable === true) await device.enable();
    const one = bindPlacement(device, placement).find((placed) => placed.register === register);
    if (one === undefined) throw new UsageError(`${name} is beyond its region`);
    if (field === undefined) return print(`${one.bound.format(await one.bound.read())}\n`);
    const value = await one.bound.field(field.name).read();
    const called = field.values.find((known) => known.value === BigInt(value))?.name;
    await print(`${hex(value)}${called === undefined ? '' : ` ${called}`}\n`);
  });
}

async function copy(
  range: RegionRange,
  format: Formatter,
  file: OutputFile,
  signal: AbortSignal,
  name: string | undefined,
): Promise<void> {
  const progress = startProgress(name === undefined ? 0 : range.length);
  try {
    for await (const chunk of readRange(range)) {
      signal.throwIfAborted();
      await file.write(format.push(chunk));
      progress.add(chunk.length);
    }
    await file.write(format.end());
  } finally {
    progress.stop();
  }
}

/** How bytes that were read together are shown as values. */
function valueWidth(length: number): AccessWidth {
  if (length === 1 || length === 2 || length === 4 || length === 8) return length;
  return length % 4 === 0 ? 4 : 1;
}

function defaultFormat(length: number, { width, output }: ReadOptions): Format {
  if (output !== undefined) return 'raw';
  return length === (width ?? valueWidth(length)) ? 'hex' : 'dump';
}

function checkFormat(format: Format, length: number, { output }: ReadOptions): void {
  if (format === 'raw' && output === undefined && process.stdout.isTTY === true) {
    throw new UsageError('raw bytes are not written to a terminal: use --output FILE, or a pipe');
  }
  if (format === 'json' && length > MAX_JSON_BYTES) {
    throw new UsageError(`--format json takes at most ${MAX_JSON_BYTES} bytes`);
  }
}
