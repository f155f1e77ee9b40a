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
import type { RegisterPlacement } from '../../registers/index.js';
import { fieldValue, isReadSafe, isReadable } from '../../register-map/values.js';
import {
  MAP_DESCRIPTION,
  MAP_FLAGS,
  bindPlacement,
  loadPlacement,
  mapOption,
  namedWrite,
  type BoundRegister,
  type MapOption,
} from '../register-map.js';

interface ConfigOptions {
  names: boolean;
  json: boolean;
  map?: MapOption;
}

/** A register and what it holds. */
interface Value {
  register: string;
  offset: number;
  width: number;
  value: number;
  /** What it says, where the map has it. */
  text?: string;
}

/** What is done for one argument: what setpci takes, or a register of the map. */
type Work = { operation: Operation } | { name: string; write: string | undefined };

const HELP = `
A register is what setpci takes; all of its numbers are hexadecimal, with or without 0x:

  COMMAND             by name, with the register's own width
  40.l                by offset, with a width: .b for 1 byte, .w for 2, .l for 4
  CAP_PM+4.w          from a capability on; ECAP_… for those of the extended space
  CAP09+2.b@1         by the capability's id, the second (@1) of those that have it

Without =, the register is read and its value printed, hexadecimal, one on a line. With =VALUE it is written, with
=VALUE:MASK only the bits under the mask are changed, and =V1,V2 writes registers that follow each other. Everything is
done in the order given. Without any register all those that the header has are listed.
With --map its registers and fields in config space have their names as well, NAME and NAME=VALUE, numbers decimal or 0x.

Examples:
  $ vfio-user config /run/dev.sock VENDOR_ID DEVICE_ID
  $ vfio-user config /run/dev.sock COMMAND=0x6:0x6                 memory and bus mastering on
  $ vfio-user config /run/dev.sock CAP_PM+4.b BASE_ADDRESS_0.l
  $ vfio-user config /run/dev.sock --json | jq '.[] | select(.register == "STATUS")'
  $ vfio-user config /run/dev.sock VSEC.CTRL VSEC.CTRL.MODE=2 --map vsec.json@config+0x100
  $ vfio-user config --names | grep MSI`;

export function registerConfig(program: Command): void {
  program
    .command('config')
    .description('read and write config space by the names of registers, as setpci does')
    .argument('[SOCKET]', 'where the server listens')
    .argument('[REGISTER...]', 'what to read, or to write: NAME, NAME=VALUE, NAME=VALUE:MASK')
    .option('--names', 'list the names of registers and capabilities', false)
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption)
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
  const placement = await placementOf(options);
  const operations = registers.map((text) => workOf(text, placement));
  await withDevice(command, socket, async (device) => {
    const values =
      operations.length === 0
        ? await readHeader(device, placement)
        : await perform(device, operations, placement, options.json);
    if (options.json) await print(`${toJson(values)}\n`);
    else if (operations.length === 0) await print(`${headerTable(values)}\n`);
  });
}

async function placementOf({ map }: ConfigOptions): Promise<RegisterPlacement | undefined> {
  if (map === undefined) return undefined;
  const placement = await loadPlacement(map);
  if (placement.region === PciRegion.CONFIG) return placement;
  throw new UsageError(`--map: config is about config space: say ${map.file}@config, or @config+OFFSET`);
}

/** What the map has a name for is the map's; all else is setpci's. @throws UsageError */
function workOf(text: string, placement: RegisterPlacement | undefined): Work {
  const { name = text, write } = /^(?<name>[^=]+)(?:=(?<write>.*))?$/.exec(text)?.groups ?? {};
  if (placement === undefined || !hasName(placement, name)) return { operation: parseOperation(text) };
  if (write !== undefined) namedWrite(placement, name, write);
  return { name, write };
}

function hasName(placement: RegisterPlacement, name: string): boolean {
  try {
    return placement.find(name) !== undefined;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** In order; values are printed as they are read unless they are to be JSON. */
async function perform(
  device: Device,
  work: readonly Work[],
  placement: RegisterPlacement | undefined,
  quiet: boolean,
): Promise<Value[]> {
  // Capabilities are found before anything is written.
  const placed = work.map((one) => ({
    one,
    at: 'operation' in one ? resolve(one.operation, device.config) : 0,
  }));
  const values: Value[] = [];
  for (const { one, at } of placed) {
    if ('operation' in one) values.push(...(await performOne(device, one.operation, at, quiet)));
    else if (placement !== undefined) values.push(...(await performNamed(device, one, placement, quiet)));
  }
  return values;
}

async function performOne(
  device: Device,
  operation: Operation,
  at: number,
  quiet: boolean,
): Promise<Value[]> {
  const region = configRegion(device);
  const { text, width, writes } = operation;
  for (const [i, write] of writes.entries()) await change(region, at + i * width, width, write);
  // What has been written is read again for JSON: read-only bits stay what they are.
  if (writes.length > 0 && !quiet) return [];
  const values: Value[] = [];
  for (let i = 0; i < Math.max(1, writes.length); i++) {
    const value = await readRegister(region, at + i * width, width);
    if (!quiet) await print(`${digits(value, width)}\n`);
    values.push({ register: text, offset: at + i * width, width, value });
  }
  return values;
}

async function performNamed(
  device: Device,
  { name, write }: { name: string; write: string | undefined },
  placement: RegisterPlacement,
  quiet: boolean,
): Promise<Value[]> {
  if (write !== undefined) {
    await namedWrite(placement, name, write)(device);
    if (!quiet) return [];
  }
  const { register, field } = placement.find(name);
  const one = bindPlacement(device, placement).find((bound) => bound.register === register);
  if (one === undefined) throw new UsageError(`${name} is beyond config space`);
  const whole = await one.bound.read();
  const own = field === undefined ? Number(whole) : Number(fieldOf(one, field.name, whole));
  const text = field === undefined ? one.bound.format(whole) : hex(own);
  if (!quiet) await print(`${text}\n`);
  return [{ register: name, offset: one.offset, width: register.bits / 8, value: own, text }];
}

function fieldOf({ register }: BoundRegister, name: string, whole: number | bigint): bigint {
  const field = register.fields.find((one) => one.name === name);
  return field === undefined ? BigInt(whole) : fieldValue(field, BigInt(whole));
}

async function readHeader(device: Device, placement: RegisterPlacement | undefined): Promise<Value[]> {
  const region = configRegion(device);
  const type = device.config.header.headerType;
  const values: Value[] = [];
  for (const { name, offset, width } of registersOf(type)) {
    values.push({ register: name, offset, width, value: await readRegister(region, offset, width) });
  }
  if (placement === undefined) return values;
  for (const one of bindPlacement(device, placement)) {
    if (!isReadable(one.register) || !isReadSafe(one.register)) continue;
    const value = await one.bound.read();
    const width = one.register.bits / 8;
    values.push({
      register: one.name,
      offset: one.offset,
      width,
      value: Number(value),
      text: one.bound.format(value),
    });
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

function digits(value: number, width: number): string {
  return value.toString(16).padStart(2 * width, '0');
}

function headerTable(values: readonly Value[]): string {
  return columns(
    values.map(({ register, offset, width, value, text }) => [
      hex(offset, 2),
      register,
      text ?? `0x${digits(value, width)}`,
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
