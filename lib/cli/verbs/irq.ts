/** `vfio-user irq watch`: interrupts as they come. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { VfioUserError, type Device, type IrqIndex, type IrqRange } from '../../index.js';
import { withDevice } from '../global-options.js';
import { watchInterrupts } from '../irq-watch.js';
import { length as positive } from '../numbers.js';
import { UsageError } from '../errors.js';
import { performWrite, registerWrite, type RegisterWrite } from '../region-io.js';
import {
  MAP_DESCRIPTION,
  MAP_FLAGS,
  loadPlacement,
  mapOption,
  namedWrite,
  type MapOption,
} from '../register-map.js';

/** A register of a region, or one that has a name in the map. */
type Write = RegisterWrite | { readonly name: string; readonly value: string };

interface WatchOptions {
  index?: IndexName;
  vectors?: IrqRange;
  count?: number;
  write: Write[];
  map?: MapOption;
  enable: boolean;
  json: boolean;
}

type IndexName = (typeof INDEXES)[number];
const INDEXES = ['intx', 'msi', 'msix', 'err', 'req'] as const;
/** The best that the device has. */
const PREFERRED = ['msix', 'msi', 'intx'] as const;
/** Where nothing is said: each takes an fd here and one in the server. */
const MOST_VECTORS = 64;

const HELP = `
Enables the interrupts and prints a line for each time that some arrive: when, how many at once, how many of the vector
so far, and how many a second since the vector's last ones. Ends after --count of them, or when it is interrupted (^C),
with a summary; exit status 1 where there were fewer than --count by then.

A server has one client, most of the time: --write has this one set registers once the interrupts are enabled.

Examples:
  $ vfio-user irq watch /run/dev.sock
  $ vfio-user irq watch /run/dev.sock --index msix --vectors 0-3 --count 100 --json
  $ vfio-user irq watch /tmp/edu.sock --index msi --count 1 --write bar0:0x60=1 --enable
  $ vfio-user irq watch /tmp/edu.sock --index msi --count 1 --write IRQ_RAISE=1 --map edu.json --enable`;

export function registerIrq(program: Command): void {
  const irq = program.command('irq').description('interrupts of a device');
  irq
    .command('watch')
    .description('print interrupts as they come')
    .argument('<SOCKET>', 'where the server listens')
    .addOption(
      new Option('--index <index>', 'which ones: the best of msix, msi, intx where nothing is said').choices(
        INDEXES,
      ),
    )
    .option(
      '--vectors <range>',
      `one, or a range (0-3); all, up to ${MOST_VECTORS}, where nothing is said`,
      range,
    )
    .option('--count <n>', 'end after so many', positive)
    .option(
      '--write <region:offset=value>',
      'then write a register: 4 bytes, or offset.b, .w, .l, .q; with --map NAME=VALUE; may be repeated',
      (text: string, all: Write[]) => [...all, writeOf(text)],
      [],
    )
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--enable', 'first do what a host does: assign BARs, set memory, I/O and bus-master bits', false)
    .option('--json', 'print JSON, one object on a line', false)
    .addHelpText('after', HELP)
    .action(watch);
}

/** What is no region and an offset is the name of a register, or of a field. */
function writeOf(text: string): Write {
  const { name, value } = /^(?<name>[^:=]+)=(?<value>.+)$/.exec(text)?.groups ?? {};
  return name === undefined || value === undefined ? registerWrite(text) : { name, value };
}

/** @throws UsageError for names that there are not, before anything is done. */
async function writesOf({ write, map }: WatchOptions): Promise<((device: Device) => Promise<void>)[]> {
  const placement = map === undefined ? undefined : await loadPlacement(map);
  return write.map((one) => {
    if (!('name' in one)) return (device) => performWrite(device, one);
    if (placement === undefined) throw new UsageError(`--write ${one.name}: a register's name needs --map`);
    return namedWrite(placement, one.name, one.value);
  });
}

async function watch(socket: string, options: WatchOptions, command: Command): Promise<void> {
  const writes = await writesOf(options);
  await withDevice(command, socket, async (device) => {
    const index = indexOf(device, options.index);
    if (options.enable) await device.enable();
    const vectors = await index.enable(vectorsOf(index, options.vectors));
    try {
      const seen = await watchInterrupts(device, index, vectors, {
        ...options,
        begin: async () => {
          for (const write of writes) await write(device);
        },
      });
      if (seen < (options.count ?? 0)) {
        throw new VfioUserError('EINTR', `interrupted after ${seen} of ${options.count} interrupts`);
      }
    } finally {
      // The device is closed next: what a server that has gone says to this is of no interest.
      await index.disable().catch(() => undefined);
    }
  });
}

function indexOf(device: Device, name: IndexName | undefined): IrqIndex {
  const wanted = name === undefined ? PREFERRED : [name];
  const index = wanted.map((candidate) => device.irqs[candidate]).find(({ count }) => count > 0);
  if (index !== undefined) return index;
  const has = [...device.irqs]
    .filter(({ count }) => count > 0)
    .map((other) => `${other.name}: ${other.count}`);
  const missing = name === undefined ? 'INTx, MSI or MSI-X' : device.irqs[name].name;
  throw new VfioUserError(
    'ERR_VFIO_USER_UNSUPPORTED',
    `the device has no ${missing} interrupts (it has ${has.join(', ') || 'none'})`,
  );
}

function vectorsOf(index: IrqIndex, wanted: IrqRange | undefined): IrqRange {
  if (wanted !== undefined) return wanted;
  if (index.count > MOST_VECTORS) {
    const all = `${index.name} has ${index.count} vectors; the first ${MOST_VECTORS} are watched (--vectors)`;
    process.stderr.write(`vfio-user: ${all}\n`);
  }
  return { start: 0, count: Math.min(index.count, MOST_VECTORS) };
}

/** `2`, or `0-3`. */
function range(text: string): IrqRange {
  const groups = /^(?<first>\d{1,5})(?:-(?<last>\d{1,5}))?$/.exec(text)?.groups;
  const first = Number(groups?.['first']);
  const last = Number(groups?.['last'] ?? first);
  if (groups === undefined || last < first) {
    throw new InvalidArgumentError('Vectors are a number, or a range like 0-3.');
  }
  return { start: first, count: last - first + 1 };
}
