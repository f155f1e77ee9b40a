/** `vfio-user config`: registers of config space, by name. */
import type { Command } from 'commander';
import { UnsupportedError, type Device, type Region } from '../../index.js';
import { PciRegion } from '../../protocol/index.js';
import { UsageError } from '../errors.js';
import { withDevice } from '../global-options.js';
import { toJson } from '../json.js';
import { print } from '../output.js';
import { CAPABILITY_NAMES, REGISTERS, registersOf, type RegisterWidth } from '../setpci-names.js';
import { parseOperation, resolve, type Operation, type Write } from '../setpci.js';
import { columns, hex } from '../format-text.js';

interface ConfigOptions {
  names: boolean;
  json: boolean;
}

/** A register and what it holds. */
interface Value {
  register: string;
  offset: number;
  width: RegisterWidth;
  value: number;
}

const HELP = `
A register is what setpci takes; all of its numbers are hexadecimal, with or without 0x:

  COMMAND             by name, with the register's own width
  40.l                by offset, with a width: .b for 1 byte, .w for 2, .l for 4
  CAP_PM+4.w          from a capability on; ECAP_… for those of the extended space
  CAP09+2.b@1         by the capability's id, the second (@1) of those that have it

Without =, the register is read and its value printed, hexadecimal, one on a line. With =VALUE it is written, with
=VALUE:MASK only the bits under the mask are changed, and =V1,V2 writes registers that follow each other. Everything is
done in the order given. Without any register all those that the header has are listed.

Examples:
  $ vfio-user config /run/dev.sock VENDOR_ID DEVICE_ID
  $ vfio-user config /run/dev.sock COMMAND=0x6:0x6                 memory and bus mastering on
  $ vfio-user config /run/dev.sock CAP_PM+4.b BASE_ADDRESS_0.l
  $ vfio-user config /run/dev.sock --json | jq '.[] | select(.register == "STATUS")'
  $ vfio-user config --names | grep MSI`;

export function registerConfig(program: Command): void {
  program
    .command('config')
    .description('read and write config space by the names of registers, as setpci does')
    .argument('[SOCKET]', 'where the server listens')
    .argument('[REGISTER...]', 'what to read, or to write: NAME, NAME=VALUE, NAME=VALUE:MASK')
    .option('--names', 'list the names of registers and capabilities', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP)
    .action(config);
}

async function config(
  socket: string | undefined,
  registers: string[],
  options: ConfigOptions,
  command: Command,
): Promise<void> {
  if (options.names) return print(options.json ? `${toJson(names())}\n` : nameTable());
  if (socket === undefined) throw new UsageError("missing required argument 'SOCKET'");
  // All of them are understood before anything is written.
  const operations = registers.map(parseOperation);
  await withDevice(command, socket, async (device) => {
    const values =
      operations.length === 0 ? await readHeader(device) : await perform(device, operations, options.json);
    if (options.json) await print(`${toJson(values)}\n`);
    else if (operations.length === 0) await print(`${headerTable(values)}\n`);
  });
}

/** In order; values are printed as they are read unless they are to be JSON. */
async function perform(device: Device, operations: readonly Operation[], quiet: boolean): Promise<Value[]> {
  const region = configRegion(device);
  const placed = operations.map((operation) => ({ operation, at: resolve(operation, device.config) }));
  const values: Value[] = [];
  for (const { operation, at } of placed) {
    const { text, width, writes } = operation;
    for (const [i, write] of writes.entries()) await change(region, at + i * width, width, write);
    // What has been written is read again for JSON: read-only bits stay what they are.
    if (writes.length > 0 && !quiet) continue;
    for (let i = 0; i < Math.max(1, writes.length); i++) {
      const value = await readRegister(region, at + i * width, width);
      if (!quiet) await print(`${digits(value, width)}\n`);
      values.push({ register: text, offset: at + i * width, width, value });
    }
  }
  return values;
}

async function readHeader(device: Device): Promise<Value[]> {
  const region = configRegion(device);
  const type = device.config.header.headerType;
  const values: Value[] = [];
  for (const { name, offset, width } of registersOf(type)) {
    values.push({ register: name, offset, width, value: await readRegister(region, offset, width) });
  }
  return values;
}

/** The region itself rather than its shadow: what the device says now. */
function configRegion(device: Device): Region {
  if (!device.hasConfig) throw new UnsupportedError('the device has no config space');
  return device.region(PciRegion.CONFIG);
}

async function change(region: Region, at: number, width: RegisterWidth, write: Write): Promise<void> {
  const isWhole = write.mask === 2 ** (8 * width) - 1;
  const old = isWhole ? 0 : await readRegister(region, at, width);
  const mask = BigInt(write.mask);
  const value = Number((BigInt(old) & ~mask) | (BigInt(write.value) & mask));
  if (width === 1) await region.writeUInt8(at, value);
  else if (width === 2) await region.writeUInt16(at, value);
  else await region.writeUInt32(at, value);
}

function readRegister(region: Region, at: number, width: RegisterWidth): Promise<number> {
  if (width === 1) return region.readUInt8(at);
  return width === 2 ? region.readUInt16(at) : region.readUInt32(at);
}

function digits(value: number, width: RegisterWidth): string {
  return value.toString(16).padStart(2 * width, '0');
}

function headerTable(values: readonly Value[]): string {
  return columns(
    values.map(({ register, offset, width, value }) => [
      hex(offset, 2),
      register,
      `0x${digits(value, width)}`,
    ]),
  );
}

function names() {
  return { registers: REGISTERS, capabilities: CAPABILITY_NAMES };
}

function nameTable(): string {
  const letters = { 1: 'b', 2: 'w', 4: 'l' } as const;
  const registers = REGISTERS.map(({ name, offset, width }) => [name, hex(offset, 2), `.${letters[width]}`]);
  const capabilities = CAPABILITY_NAMES.map(({ name, id, extended }) => [name, hex(id, extended ? 4 : 2)]);
  return `Registers\n${columns(registers)}\n\nCapabilities, by id\n${columns(capabilities)}\n`;
}
