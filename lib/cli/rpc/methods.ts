/** What a client of `vfio-user rpc` can ask for: the parameters of each method, and what it does. */
import type { Device, Region, Width } from '../../index.js';
import { outOfRange } from '../../fields.js';
import * as option from '../../options.js';
import type { Field, Register } from '../../registers/index.js';
import { memberNames } from '../../register-map/names.js';
import { regionIndex, regionName } from '../region-names.js';
import type { Json, Params, RpcSession } from './session.js';
import { MOST_BYTES, base64, integer, integerOf, shown } from './values.js';

export interface Method {
  readonly params: option.OptionTable<Params>;
  run(session: RpcSession, params: Params): Promise<Json> | Json;
}

const MOST_TIMEOUT_MS = 0x7fff_ffff;
const MOST_DMA_BYTES = 1 << 30;
const WIDTHS = [1, 2, 4, 8] as const;

const timeoutMs = option.wholeNumber(1, MOST_TIMEOUT_MS);
const place = { region: option.unchecked, offset: option.wholeNumber(), register: option.string };
const width = option.oneOf(...WIDTHS);
const irqType = option.oneOf('intx', 'msi', 'msix');
const buffer = option.wholeNumber(1);
const length = option.wholeNumber(0, MOST_BYTES);
const fields: option.Check = (value, caller, name) =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? undefined
    : outOfRange(`${caller}: ${name} must be an object of field names and values`);

function method(
  checks: Readonly<Record<string, option.Check>>,
  required: readonly string[],
  run: Method['run'],
): Method {
  return { params: new option.OptionTable<Params>(checks, required), run };
}

/** Opening, closing, resetting. */
const DEVICE: Readonly<Record<string, Method>> = {
  open: method({ enable: option.boolean }, [], async (session, { enable = true }) => {
    const device = await session.open();
    try {
      if (enable === true && device.isPci) await device.enable();
    } catch (error) {
      await session.giveUp();
      throw error;
    }
    return description(device);
  }),
  close: method({}, [], async (session) => {
    await session.close();
    return null;
  }),
  reset: method({}, [], async (session) => {
    await session.device.reset();
    return null;
  }),
};

/** A register by its name, or an access of so many bytes at an offset of a region. */
const ACCESSES: Readonly<Record<string, Method>> = {
  read: method({ ...place, width, timeoutMs }, [], async (session, params) => {
    const call = callOf(params);
    if (params['register'] === undefined) {
      const { region, offset } = placed(session, params);
      return shown(await readWidth(region, offset, widthOf(params), call));
    }
    const { bound, field } = named(session, params);
    return shown(await (field ?? bound).read(call));
  }),
  write: method({ ...place, width, timeoutMs, value: integer, fields }, [], async (session, params) => {
    const call = callOf(params);
    if (params['register'] === undefined) {
      const { region, offset } = placed(session, params);
      await writeWidth(region, offset, widthOf(params), valueOf('write', params), call);
      return null;
    }
    const { bound, field } = named(session, params);
    if (field !== undefined) await field.write(plain(valueOf('write', params), field.info.bits), call);
    else if (params['fields'] !== undefined) await bound.write(fieldsOf(bound, params), call);
    else await bound.write(plain(valueOf('write', params), bound.info.bits), call);
    return null;
  }),
  modify: method(
    { register: option.string, fields, timeoutMs },
    ['register', 'fields'],
    async (session, params) => {
      const { bound, field } = named(session, params);
      if (field !== undefined) throw outOfRange('modify: register must be a register, not a field');
      await bound.modify(fieldsOf(bound, params), callOf(params));
      return null;
    },
  ),
  waitFor: method(
    { ...place, width, mask: integer, value: integer, timeoutMs },
    ['value'],
    async (session, params) => {
      const call = callOf(params);
      const value = valueOf('waitFor', params);
      if (params['register'] === undefined) {
        const { region, offset } = placed(session, params);
        return shown(await waitWidth(region, offset, widthOf(params), params, call));
      }
      const { bound, field, region } = named(session, params);
      if (field === undefined) {
        return shown(await waitWidth(region, bound.offset, bound.info.bits / 8, params, call));
      }
      await field.waitFor(plain(value, field.info.bits), call);
      return shown(value);
    },
  ),
  readBytes: method(
    { ...place, length, timeoutMs },
    ['region', 'offset', 'length'],
    async (session, params) => {
      const { region, offset } = placed(session, params);
      const bytes = await region.read(offset, params['length'] as number, callOf(params));
      return bytes.toString('base64');
    },
  ),
  writeBytes: method(
    { ...place, data: base64, timeoutMs },
    ['region', 'offset', 'data'],
    async (session, params) => {
      const { region, offset } = placed(session, params);
      await region.write(offset, bytesOf(params), callOf(params));
      return null;
    },
  ),
};

const INTERRUPTS: Readonly<Record<string, Method>> = {
  irqEnable: method(
    { type: irqType, count: option.wholeNumber(1, 2048) },
    ['type'],
    async (session, params) => {
      const vectors = await session
        .irq(params['type'] as string)
        .enable((params['count'] as number | undefined) ?? 1);
      return vectors.length;
    },
  ),
  irqDisable: method({ type: irqType }, ['type'], async (session, params) => {
    await session.irq(params['type'] as string).disable();
    return null;
  }),
  irqWait: method(
    { type: irqType, vector: option.wholeNumber(0, 2047), timeoutMs },
    ['type'],
    async (session, params) => {
      const number = (params['vector'] as number | undefined) ?? 0;
      return session.vector(params['type'] as string, number).wait(callOf(params));
    },
  ),
  irqTake: method({ type: irqType, vector: option.wholeNumber(0, 2047) }, ['type'], (session, params) =>
    session.vector(params['type'] as string, (params['vector'] as number | undefined) ?? 0).take(),
  ),
};

const DMA: Readonly<Record<string, Method>> = {
  dmaAlloc: method(
    { size: option.wholeNumber(1, MOST_DMA_BYTES), addressBits: option.wholeNumber(12, 64) },
    ['size'],
    async (session, params) => {
      session.requireRoom();
      const addressBits = params['addressBits'] as number | undefined;
      const made = await session.device.dma.alloc(params['size'] as number, { addressBits });
      return { buffer: session.keep(made), iova: shown(made.iova), size: made.size };
    },
  ),
  dmaRead: method({ buffer, offset: option.wholeNumber(), length }, ['buffer'], (session, params) => {
    const { bytes } = session.buffer(params['buffer'] as number);
    const offset = (params['offset'] as number | undefined) ?? 0;
    const count = (params['length'] as number | undefined) ?? Math.min(MOST_BYTES, bytes.length - offset);
    requireWithin('dmaRead', bytes.length, offset, count);
    return bytes.toString('base64', offset, offset + count);
  }),
  dmaWrite: method(
    { buffer, offset: option.wholeNumber(), data: base64 },
    ['buffer', 'data'],
    (session, params) => {
      const { bytes } = session.buffer(params['buffer'] as number);
      const data = bytesOf(params);
      const offset = (params['offset'] as number | undefined) ?? 0;
      requireWithin('dmaWrite', bytes.length, offset, data.length);
      data.copy(bytes, offset);
      return null;
    },
  ),
  dmaFree: method({ buffer }, ['buffer'], async (session, params) => {
    const number = params['buffer'] as number;
    await session.buffer(number).close();
    session.forget(number);
    return null;
  }),
};

/** By name. */
export const METHODS: Readonly<Record<string, Method>> = { ...DEVICE, ...ACCESSES, ...INTERRUPTS, ...DMA };

function description(device: Device): Json {
  const regions = device.regions.filter(({ size }) => size > 0);
  return {
    ...(device.isPci && { vendorId: device.config.vendorId, deviceId: device.config.deviceId }),
    regions: regions.map(({ index, size }) => ({ index, name: regionName(index, device.isPci), size })),
    irqs: { intx: device.irqs.intx.count, msi: device.irqs.msi.count, msix: device.irqs.msix.count },
  };
}

function callOf(params: Params): { timeoutMs?: number } {
  return params['timeoutMs'] === undefined ? {} : { timeoutMs: params['timeoutMs'] as number };
}

function widthOf(params: Params): number {
  return (params['width'] as number | undefined) ?? 4;
}

function bytesOf(params: Params): Buffer {
  return Buffer.from(params['data'] as string, 'base64');
}

function valueOf(method: string, params: Params): bigint {
  if (params['value'] === undefined) throw outOfRange(`${method}: value must be given`);
  return integerOf(params['value']);
}

/** A number where it has at most 32 bits, as accessors have it. */
function plain(value: bigint, bits: number): number | bigint {
  return bits > 32 ? value : Number(value);
}

function requireWithin(method: string, size: number, offset: number, count: number): void {
  if (offset <= size && count <= size - offset) return;
  throw outOfRange(`${method}: ${count} bytes at ${offset} are not within the buffer's ${size}`);
}

/** @throws RangeError for what is no region, or no offset. */
function placed(session: RpcSession, { region, offset }: Params): { region: Region; offset: number } {
  if (offset === undefined) throw outOfRange('offset must be given, or register');
  if (typeof region !== 'string' && typeof region !== 'number') {
    throw outOfRange('region must be a name such as bar0, or a number');
  }
  const { device } = session;
  let index: number;
  try {
    index = regionIndex(String(region).slice(0, 20));
  } catch (error) {
    throw outOfRange((error as Error).message);
  }
  return { region: device.region(index), offset: offset as number };
}

function named(
  session: RpcSession,
  params: Params,
): { bound: Register; field: Field | undefined; region: Region } {
  const { bound, field, region } = session.register(params['register'] as string);
  return { bound: bound.bound, field: field === undefined ? undefined : bound.bound.field(field), region };
}

/** By the members' names; the map's are understood as well. */
function fieldsOf(register: Register, params: Params): Record<string, number | bigint> {
  const given = Object.entries(params['fields'] as Record<string, unknown>);
  return Object.fromEntries(
    given.map(([name, value]) => {
      const problem = integer(value, register.info.path, name);
      if (problem !== undefined) throw problem;
      const { info } = register.field(name);
      const { fields } = register.info;
      const member = memberNames(fields.map((one) => one.name))[fields.indexOf(info)] ?? name;
      return [member, plain(integerOf(value), info.bits)];
    }),
  );
}

type Call = ReturnType<typeof callOf>;

async function readWidth(
  region: Region,
  offset: number,
  bytes: number,
  call: Call,
): Promise<number | bigint> {
  if (bytes === 8) return region.readUInt64(offset, call);
  if (bytes === 4) return region.readUInt32(offset, call);
  return bytes === 2 ? region.readUInt16(offset, call) : region.readUInt8(offset, call);
}

async function writeWidth(
  region: Region,
  offset: number,
  bytes: number,
  value: bigint,
  call: Call,
): Promise<void> {
  if (bytes === 8) return region.writeUInt64(offset, value, call);
  const number = Number(value);
  if (bytes === 4) return region.writeUInt32(offset, number, call);
  return bytes === 2 ? region.writeUInt16(offset, number, call) : region.writeUInt8(offset, number, call);
}

async function waitWidth(
  region: Region,
  offset: number,
  bytes: number,
  params: Params,
  call: Call,
): Promise<number | bigint> {
  const all = (1n << BigInt(bytes * 8)) - 1n;
  const mask = params['mask'] === undefined ? all : integerOf(params['mask']);
  const value = valueOf('waitFor', params);
  if (bytes === 8) return region.waitFor(offset, mask, value, call);
  const options = { ...call, width: bytes as Width };
  return region.waitFor(offset, Number(mask), Number(value), options);
}
