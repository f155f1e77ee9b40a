/** `vfio-user dump`: a region, or a range of one, into a file. */
import type { Command } from 'commander';
import { RemoteError, type Device } from '../../index.js';
import { checkWidth, readRange, regionRange, withEnableHint, type RegionRange } from '../region-io.js';
import { formatter, type Formatter } from '../byte-formats.js';
import { withDevice } from '../global-options.js';
import { accessWidth, byteValue, length as parseLength, size, type AccessWidth } from '../numbers.js';
import { readMapped } from '../mapped-read.js';
import { STANDARD_STREAM, withFate, writeOutput, type OutputFile } from '../output-file.js';
import { print } from '../output.js';
import { startProgress } from '../progress.js';
import { regionIndex, regionName } from '../region-names.js';
import { describeHoles, holeBytes, readSparse, type Hole } from '../sparse-read.js';
import { byteCount } from '../format-text.js';

interface DumpOptions {
  output?: string;
  offset: number;
  length?: number;
  width?: AccessWidth;
  enable: boolean;
  sparse: boolean;
  mapped: boolean;
  fill: number;
  keepPartial: boolean;
}

const HELP = `
The bytes go to a file, or to stdout: raw through a pipe, as hexadecimal lines on a terminal. A file gets its name when it
is whole; a failure leaves what was there, and what was read as FILE.partial where --keep-partial is given.

Registers want a --width, memory is read in as few accesses as can be. --sparse goes on where the server answers an
error: what cannot be read has the bytes of --fill, and is listed on stderr (in steps of --width, or of 4096 bytes).
--mapped copies what can be mapped out of the server's memory instead of asking for it, whatever the --width: SPDK's
doorbells, for one, answer no read.

Examples:
  $ vfio-user dump /run/dev.sock rom --output rom.bin
  $ vfio-user dump /run/dev.sock bar0 --offset 0x1000 --length 256 --width 4
  $ vfio-user dump /run/dev.sock config | xxd
  $ vfio-user dump /run/dev.sock bar2 --sparse --output bar2.bin --enable
  $ vfio-user dump /run/nvme/cntrl bar0 --mapped --width 4 --output bar0.bin`;

export function registerDump(program: Command): void {
  program
    .command('dump')
    .description('copy a region into a file')
    .argument('<SOCKET>', 'where the server listens')
    .argument('<REGION>', 'an index, or bar0 to bar5, rom, config, vga', regionIndex)
    .option('--output <file>', 'write to a file; - is stdout')
    .option('--offset <bytes>', 'where to begin', size, 0)
    .option('--length <bytes>', 'how many bytes; all that follow where nothing is said', parseLength)
    .option('--width <bytes>', 'the width of each access: 1, 2, 4 or 8', accessWidth)
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .option('--sparse', 'go on where something cannot be read', false)
    .option('--mapped', 'read what can be mapped through its mapping', false)
    .option('--fill <byte>', 'with --sparse: what stands for bytes that cannot be read', byteValue, 0xff)
    .option('--keep-partial', 'after a failure, keep what was read', false)
    .addHelpText('after', HELP)
    .action(dump);
}

async function dump(socket: string, index: number, options: DumpOptions, command: Command): Promise<void> {
  if (options.length !== undefined) checkWidth(options.length, options.width);
  await withDevice(command, socket, async (device) => {
    const range = wantedRange(device, index, options);
    const holes: Hole[] = [];
    const name = regionName(index, device.isPci);
    await writeOutput(
      options.output,
      async (file, signal) => {
        if (options.enable) await device.enable();
        await withHints(device, range, options, () => copy(range, name, options, file, holes, signal));
      },
      options.keepPartial,
    );
    await report(range, name, options, holes);
  });
}

function wantedRange(device: Device, index: number, { offset, length, width }: DumpOptions): RegionRange {
  const { size: regionSize } = device.region(index);
  // One byte at the least, so that an offset past the end is told as such.
  const wanted = length ?? Math.max(1, regionSize - offset);
  checkWidth(wanted, width);
  return regionRange(device, index, offset, wanted, width);
}

async function copy(
  range: RegionRange,
  region: string,
  { output, sparse, mapped, fill }: DumpOptions,
  file: OutputFile,
  holes: Hole[],
  signal: AbortSignal,
): Promise<void> {
  const toTerminal = isStdout(output) && process.stdout.isTTY === true;
  const format = formatFor(toTerminal, range, region);
  const byMessage = (part: RegionRange) => (sparse ? readSparse(part, fill, holes) : readRange(part));
  const chunks = mapped ? readMapped(range, byMessage) : byMessage(range);
  const progress = startProgress(toTerminal ? 0 : range.length);
  try {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      await file.write(format.push(chunk));
      progress.add(chunk.length);
    }
    const [hole] = holes;
    if (hole !== undefined && holeBytes(holes) === range.length) throw hole.error;
  } finally {
    progress.stop();
  }
}

/** What would help, where the server answers an error: to enable the device, or to go on without. */
async function withHints(
  device: Device,
  range: RegionRange,
  { sparse }: DumpOptions,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await withEnableHint(device, range, work);
  } catch (error) {
    if (sparse || !(error instanceof RemoteError)) throw error;
    throw withFate(error, '--sparse goes on where something cannot be read');
  }
}

function formatFor(toTerminal: boolean, { offset, length }: RegionRange, region: string): Formatter {
  return formatter(toTerminal ? 'dump' : 'raw', { region, offset, length, width: 1 });
}

async function report(
  { length }: RegionRange,
  region: string,
  { output }: DumpOptions,
  holes: readonly Hole[],
): Promise<void> {
  for (const line of describeHoles(holes)) process.stderr.write(`vfio-user: ${region}: ${line}\n`);
  if (isStdout(output)) return;
  const missing = holeBytes(holes);
  const unread = missing === 0 ? '' : `, ${byteCount(missing)} of it could not be read`;
  await print(`${output} has ${byteCount(length)} of ${region}${unread}\n`);
}

function isStdout(output: string | undefined): boolean {
  return output === undefined || output === STANDARD_STREAM;
}
