/** `vfio-user registers`: a device's registers by the names of a map. */
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { VfioUserError, type Device } from '../../index.js';
import {
  RegisterCoverage,
  checkRegisters,
  generateAccessors,
  loadRegisterMap,
  type RegisterPlacement,
} from '../../registers/index.js';
import { isReadSafe, isReadable } from '../../register-map/values.js';
import { CaptureReader, isMessage } from '../../trace/index.js';
import { UsageError } from '../errors.js';
import { withDevice } from '../global-options.js';
import { toJson } from '../json.js';
import { length as positive, milliseconds } from '../numbers.js';
import { writeOutput } from '../output-file.js';
import { print } from '../output.js';
import {
  MAP_DESCRIPTION,
  MAP_FLAGS,
  addAccesses,
  asUsage,
  bindPlacement,
  findRegister,
  loadPlacement,
  mapOption,
  note,
  type BoundRegister,
  type MapOption,
} from '../register-map.js';
import {
  checkJson,
  checkText,
  coverageText,
  registerJson,
  registerTable,
  type ReadRegister,
} from '../render-registers.js';
import { interruptible } from '../stop-signals.js';

interface DeviceOptions {
  map: MapOption;
  enable: boolean;
  json: boolean;
}

const DEFAULT_INTERVAL_MS = 200;
const ENABLE = 'first do what a host does: assign BARs, set memory, I/O and bus-master bits';

const HELP = `
A map is a file of CMSIS-SVD, IP-XACT (2009, 2014), of the JSON that PeakRDL's compiler exports from SystemRDL, or of this
package's own JSON. --map FILE:BLOCK@REGION+OFFSET says which block of it is where; without BLOCK all of them are, the one at the
lowest address at the beginning. Registers that change by being read are never read.`;

/** By the name of the verb. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  show: [
    'show /run/dev.sock --map uart.svd:UART0@bar0+0x100',
    'show /run/dev.sock STATUS CTRL --map uart.svd --json',
  ],
  diff: ['diff /run/dev.sock --map uart.svd'],
  watch: [
    'watch /run/dev.sock STATUS IRQ --map uart.svd',
    'watch /run/dev.sock STATUS --map uart.svd --count 1',
  ],
  check: ['check /run/dev.sock --map uart.svd', 'check /run/dev.sock --map uart.svd --no-reset --read-only'],
  coverage: ['coverage run.pcapng --map uart.svd'],
  gen: ['gen uart.svd --output uart.ts', 'gen uart.svd --block UART0 --output uart.ts'],
};

function examplesOf(name: string): string {
  return `\nExamples:\n${(EXAMPLES[name] ?? []).map((one) => `  $ vfio-user registers ${one}`).join('\n')}`;
}

export function registerRegisters(program: Command): void {
  const registers = program.command('registers').description("a device's registers by the names of a map");
  registers.addHelpText('after', HELP);
  onDevice(registers, 'show', 'print what registers hold', show);
  onDevice(registers, 'diff', 'print registers that do not hold what the map says of a reset', diff);
  onDevice(registers, 'watch', 'print registers as they change', watch)
    .option('--interval <ms>', 'between two looks', milliseconds, DEFAULT_INTERVAL_MS)
    .option('--count <n>', 'end after so many changes', positive);
  onDevice(registers, 'check', 'compare a device with its map: this writes registers', check)
    .option('--no-reset', 'do not reset the device before')
    .option('--read-only', 'compare values after a reset alone, and write nothing', false);
  registers
    .command('coverage')
    .description('print which registers a capture touched')
    .argument('<FILE>', 'a pcapng or pcap file')
    .requiredOption(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--json', 'print JSON', false)
    .addHelpText('after', examplesOf('coverage'))
    .action(coverage);
  registers
    .command('gen')
    .description('write TypeScript with typed accessors')
    .argument('<FILE>', 'the map')
    .option('--output <file>', 'where to; stdout where nothing is said')
    .option(
      '--block <name>',
      'this block alone; may be repeated',
      (name: string, all: string[]) => [...all, name],
      [],
    )
    .option('--json', "write the map as this package's JSON instead", false)
    .addHelpText('after', examplesOf('gen'))
    .action(gen);
}

function onDevice<T extends DeviceOptions>(
  registers: Command,
  name: string,
  description: string,
  work: (device: Device, all: readonly BoundRegister[], options: T) => Promise<void>,
): Command {
  return registers
    .command(name)
    .description(description)
    .argument('<SOCKET>', 'where the server listens')
    .argument('[REGISTER...]', 'these registers alone, by name')
    .requiredOption(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
    .option('--enable', ENABLE, false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', examplesOf(name))
    .action(async (socket: string, names: string[], options: T, command: Command) => {
      const placement = await loadPlacement(options.map);
      const wanted = new Set(names.map((one) => findRegister(placement, one).register));
      await withDevice(command, socket, async (device) => {
        if (options.enable) await device.enable();
        const all = bindPlacement(device, placement);
        const some = wanted.size === 0 ? all : all.filter(({ register }) => wanted.has(register));
        await work(device, some, options);
      });
    });
}

/** One after the other: a device's side effects come in the order of the map. */
async function readAll(registers: readonly BoundRegister[]): Promise<ReadRegister[]> {
  const read: ReadRegister[] = [];
  for (const one of registers) {
    const may = isReadable(one.register) && isReadSafe(one.register);
    read.push({ one, value: may ? await one.bound.read() : undefined });
  }
  return read;
}

async function show(_: Device, all: readonly BoundRegister[], { json }: DeviceOptions): Promise<void> {
  const read = await readAll(all);
  await print(json ? `${toJson(registerJson(read))}\n` : `${registerTable(read)}\n`);
}

async function diff(_: Device, all: readonly BoundRegister[], { json }: DeviceOptions): Promise<void> {
  const changed = (await readAll(all)).filter(({ one: { register }, value }) => {
    const { reset, resetMask } = register;
    return value !== undefined && reset !== undefined && ((BigInt(value) ^ reset) & resetMask) !== 0n;
  });
  if (json) return print(`${toJson(registerJson(changed))}\n`);
  if (changed.length > 0) await print(`${registerTable(changed)}\n`);
}

async function watch(
  _: Device,
  all: readonly BoundRegister[],
  { json, interval, count = Infinity }: DeviceOptions & { interval: number; count?: number },
): Promise<void> {
  let known = await readAll(all);
  await print(json ? `${toJson(registerJson(known))}\n` : `${registerTable(known)}\n`);
  let changes = 0;
  await interruptible(async (signal) => {
    while (changes < count) {
      await sleep(interval, undefined, { signal });
      const now = await readAll(all);
      for (const [i, { one, value }] of now.entries()) {
        if (value === undefined || value === known[i]?.value || changes >= count) continue;
        changes++;
        const line = json ? toJson(registerJson([{ one, value }])) : `${one.name} ${one.bound.format(value)}`;
        await print(`${line}\n`);
      }
      known = now;
    }
  });
}

async function check(
  device: Device,
  all: readonly BoundRegister[],
  { json, reset, readOnly }: DeviceOptions & { reset: boolean; readOnly: boolean },
): Promise<void> {
  if (reset) await device.reset();
  const report = await checkRegisters(
    all.map(({ bound }) => bound),
    readOnly ? { tests: ['reset'] } : {},
  );
  await print(json ? `${toJson(checkJson(report))}\n` : `${checkText(report)}\n`);
  if (report.findings.length === 0) return;
  throw new VfioUserError('ERR_VFIO_USER_REGISTERS', 'the device is not as its map says');
}

async function coverage(path: string, { map, json }: { map: MapOption; json: boolean }): Promise<void> {
  const placement = await loadPlacement(map);
  const report = (await coverageOf(path, placement)).report();
  await print(json ? `${toJson(report)}\n` : `${coverageText(report)}\n`);
}

async function coverageOf(path: string, placement: RegisterPlacement): Promise<RegisterCoverage> {
  const seen = new RegisterCoverage(placement);
  for await (const event of new CaptureReader(path).events()) {
    if (isMessage(event)) addAccesses(seen, event.bytes);
  }
  return seen;
}

async function gen(
  file: string,
  { output, block, json }: { output?: string; block: string[]; json: boolean },
): Promise<void> {
  const { map, warnings } = await asUsage(file, () => loadRegisterMap(file));
  for (const { message, line } of warnings)
    note(`${file}${line === undefined ? '' : `:${line}`}: ${message}`);
  if (json && block.length > 0) throw new UsageError('--json writes the whole map: leave out --block');
  const source = basename(file);
  const text = json
    ? `${JSON.stringify(map, undefined, 2)}\n`
    : await asUsage(file, async () =>
        generateAccessors(map, { source, ...(block.length > 0 && { blocks: block }) }),
      );
  await writeOutput(output, (out) => out.write(text));
}
