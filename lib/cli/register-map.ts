/** `--map FILE[:BLOCK][@REGION[+OFFSET]]`: registers by name on the command line. */
import { InvalidArgumentError } from 'commander';
import type { Device } from '../index.js';
import type { RegisterCoverage } from '../registers/index.js';
import {
  RegisterPlacement,
  bindRegisters,
  loadRegisterMap,
  type PlacedRegister,
  type Register,
} from '../registers/index.js';
import { describe } from '../trace/index.js';
import { UsageError, printable } from './errors.js';
import { hex } from './format-text.js';
import { size, uint64 } from './numbers.js';
import { regionIndex } from './region-names.js';

/** What `--map` says. */
export interface MapOption {
  readonly file: string;
  readonly block: string | undefined;
  /** Its number. */
  readonly region: number;
  readonly offset: number;
}

/** For the help of every verb that has it. */
export const MAP_FLAGS = '--map <file[:block][@region[+offset]]>';
export const MAP_DESCRIPTION =
  'names of registers: CMSIS-SVD, IP-XACT, compiled SystemRDL or JSON; at the beginning of bar0 where nothing is said';

const FORM = /^(?<file>.+?)(?::(?<block>[\w-]+))?(?:@(?<region>\w+)(?:\+(?<offset>\w+))?)?$/;
/** More of an importer's warnings are counted. */
const MOST_WARNINGS = 5;

export function mapOption(text: string): MapOption {
  const { file, block, region = 'bar0', offset = '0' } = FORM.exec(text)?.groups ?? {};
  if (file === undefined) throw new InvalidArgumentError('A map is FILE[:BLOCK][@REGION[+OFFSET]].');
  return { file, block, region: regionIndex(region), offset: size(offset) };
}

/** Reads the map; what of its file it does not say is told on stderr, in short. @throws UsageError for what is no map. */
export async function loadPlacement({ file, block, region, offset }: MapOption): Promise<RegisterPlacement> {
  const { map, warnings } = await asUsage(file, () => loadRegisterMap(file));
  for (const { message, line } of warnings.slice(0, MOST_WARNINGS)) {
    note(`${file}${line === undefined ? '' : `:${line}`}: ${message}`);
  }
  const more = warnings.length - MOST_WARNINGS;
  if (more > 0) note(`${file}: ${more} more such warnings (vfio-user registers gen ${file} has all)`);
  return asUsage(file, async () => new RegisterPlacement(map, { block, region, offset }));
}

/** An error of the map's is one of the file that the user has named. */
export async function asUsage<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string };
    const isOfMap = code === 'ERR_VFIO_USER_REGISTER_MAP' || error instanceof RangeError;
    throw isOfMap ? new UsageError(`${file}: ${message}`, { cause: error }) : error;
  }
}

export function note(text: string): void {
  process.stderr.write(`vfio-user: ${printable(text)}\n`);
}

/** The register of a name, or the field's; @throws UsageError where there is none. */
export function findRegister(
  placement: RegisterPlacement,
  name: string,
): ReturnType<RegisterPlacement['find']> {
  try {
    return placement.find(name);
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

/**
 * What writes `text` to a register, all of it, or to one of its fields, and leaves the others as they are.
 * @throws UsageError for a name that there is not, and for what is no value of it.
 */
export function namedWrite(
  placement: RegisterPlacement,
  name: string,
  text: string,
): (device: Device) => Promise<void> {
  const { register, field } = findRegister(placement, name);
  const called = field?.writeValues.find((known) => known.name.toLowerCase() === text.toLowerCase())?.value;
  const value = called ?? numberOf(text);
  const bits = field?.bits ?? register.bits;
  if (value >> BigInt(bits) !== 0n)
    throw new UsageError(`${hex(value)} does not fit the ${bits} bits of ${name}`);
  return async (device) => {
    const one = bindPlacement(device, placement).find((placed) => placed.register === register);
    if (one === undefined) throw new UsageError(`${name} is beyond its region`);
    if (field === undefined) await one.bound.write(bits === 64 ? value : Number(value));
    else await one.bound.field(field.name).write(bits > 32 ? value : Number(value));
  };
}

function numberOf(text: string): bigint {
  try {
    return uint64(text);
  } catch (error) {
    throw new UsageError(`'${text}' is invalid for argument 'VALUE'. ${(error as Error).message}`);
  }
}

/** Adds the accesses of a message, where it is one that asks for some. */
export function addAccesses(coverage: RegisterCoverage, message: Buffer): void {
  const { command, kind, fields } = describe(message, { previewBytes: 0 });
  if (kind !== 'request' || !/^REGION_(?:READ|WRITE)/.test(command)) return;
  const accesses = command === 'REGION_WRITE_MULTI' ? (fields['wrs'] as object[] | undefined) : [fields];
  const how = command === 'REGION_READ' ? 'read' : 'write';
  for (const access of accesses ?? []) {
    const { region, offset, count } = access as Record<string, number | bigint | undefined>;
    if (region === undefined || offset === undefined || count === undefined) continue;
    coverage.add(how, Number(region), Number(offset), Number(count));
  }
}

/** A register of a device. */
export interface BoundRegister extends PlacedRegister {
  readonly bound: Register;
}

/** All of a placement's registers that the region has, bound to the device. */
export function bindPlacement(device: Device, placement: RegisterPlacement): BoundRegister[] {
  const region = device.region(placement.region);
  const bound = new Map<unknown, Register>();
  for (const { block, start } of placement.blocks) {
    for (const one of bindRegisters(block, region, { offset: start }).registers()) bound.set(one.info, one);
  }
  const registers = placement.registers.flatMap((placed): BoundRegister[] => {
    const own = bound.get(placed.register);
    const isWithin = placed.offset + placed.register.bits / 8 <= region.size;
    return own === undefined || !isWithin ? [] : [{ ...placed, bound: own }];
  });
  const missing = placement.registers.length - registers.length;
  if (registers.length === 0)
    throw new UsageError(`no register of the map is within the region's ${region.size} bytes`);
  if (missing > 0) note(`${missing} registers of the map are beyond the region's ${region.size} bytes`);
  return registers;
}
