/** The check of a plan: what each fault may say, and what it means. */
import * as is from './checks.js';
import type { MemberCheck, Schema } from './checks.js';
import type { FaultAction, FaultCounting, FaultRegisters, FaultSelection } from './spec.js';

/** Where in a device a fault is, once names are numbers. */
export interface Place {
  readonly region: number;
  readonly offset: number;
  /** All of the region where it is not given. */
  readonly bytes: number | undefined;
  /** Which bits of the bytes, the first byte's being the lowest. */
  readonly mask: bigint;
  /** Its register's name, or what stands for it. */
  readonly name: string;
}

interface Selected extends FaultCounting {
  readonly place?: Place;
  readonly access?: 'read' | 'write';
  readonly afterMs?: number;
}

type CheckedAction = Exclude<FaultAction, { fault: 'errno' }> | { fault: 'errno'; errno: number };

/** A fault of messages that was checked, names made numbers. */
export type CheckedMessageFault = Omit<FaultSelection, 'command'> & { command?: number } & CheckedAction;

/** One of a register. */
export type CheckedRegisterFault = Selected & { readonly place: Place } & (
    | { fault: 'stuck-bits'; value: bigint }
    | { fault: 'wrong-value'; value?: bigint; bits?: number }
    | { fault: 'lost-write' }
  );

/** One of interrupts. */
export type CheckedInterruptFault = FaultCounting & { irq?: number; vector?: number } & (
    { fault: 'lost-interrupt' } | { fault: 'late-interrupt'; ms: number } | { fault: 'doubled-interrupt' }
  );

/** One of DMA. */
export type CheckedDmaFault = FaultCounting & {
  dma?: 'read' | 'write';
  address?: bigint;
  size?: bigint;
} & (
    | { fault: 'dma-corrupted'; bits?: number; offset?: number; xor?: number }
    | { fault: 'dma-delayed'; ms: number }
    | { fault: 'dma-refused'; errno?: number }
    | { fault: 'dma-out-of-range'; to?: bigint }
  );

/** One that happens by itself. */
export type CheckedEventFault = Selected &
  (
    | { fault: 'spurious-interrupt'; irq: number; vector?: number }
    | { fault: 'interrupt-storm'; irq: number; vector?: number; count?: number; ms?: number }
    | { fault: 'all-ones'; ms?: number; accesses?: number }
    | { fault: 'surprise-removal' }
    | { fault: 'server-killed' }
    | { fault: 'server-stalled'; ms?: number }
    | { fault: 'server-restarted'; ms?: number }
  );

/** A fault that was checked. */
export type Fault =
  CheckedMessageFault | CheckedRegisterFault | CheckedInterruptFault | CheckedDmaFault | CheckedEventFault;

/** What a fault happens to. */
export type FaultKind = 'message' | 'register' | 'interrupt' | 'dma' | 'event';

type Members = Readonly<Record<string, MemberCheck>>;
type Given = Readonly<Record<string, unknown>>;

const MAX_FAULTS = 1_000;
const MAX_MS = 3_600_000;
const MAX_PIECES = 1_000;
const MAX_BITS = 4_096;
const MAX_COUNT = Number.MAX_SAFE_INTEGER;
const MAX_STORM = 1_000_000;
const MAX_REGISTER_BYTES = 8;
const DEFAULT_BYTES = 4;

const MS = is.whole(1, MAX_MS);
const BITS = is.whole(1, MAX_BITS);
const XOR = is.whole(1, 255);

const COUNTING: Members = {
  nth: is.whole(1, MAX_COUNT),
  every: is.whole(1, MAX_COUNT),
  probability: is.probability,
  times: is.whole(1, MAX_COUNT),
};
const TARGET: Members = {
  register: is.text,
  region: is.regionNumber,
  offset: is.whole(0, MAX_COUNT),
  bytes: is.whole(1, MAX_REGISTER_BYTES),
};
const IRQ: Members = { irq: is.irqNumber, vector: is.whole(0, is.MAX_OFFSET) };

/** By what a fault happens to: how that is selected. */
const SELECTIONS: Readonly<Record<FaultKind, Members>> = {
  message: {
    direction: is.oneOf('to-server', 'to-client'),
    socket: is.oneOf('main', 'twin'),
    command: is.commandNumber,
    kind: is.oneOf('request', 'reply'),
    ...COUNTING,
  },
  register: { ...TARGET, ...COUNTING },
  interrupt: { ...IRQ, ...COUNTING },
  dma: {
    dma: is.oneOf('read', 'write'),
    address: is.integer64,
    size: is.integer64,
    ...COUNTING,
  },
  event: { ...TARGET, access: is.oneOf('read', 'write'), afterMs: MS, ...COUNTING },
};

interface Action {
  readonly kind: FaultKind;
  readonly members: Members;
  readonly needs: readonly string[];
}

function action(kind: FaultKind, members: Members = {}, ...needs: string[]): Action {
  return { kind, members, needs };
}

const ACTIONS: Readonly<Record<string, Action>> = {
  delay: action('message', { ms: MS }, 'ms'),
  drop: action('message'),
  split: action('message', { pieces: is.whole(2, MAX_PIECES), at: is.offsets, ms: MS }),
  duplicate: action('message'),
  corrupt: action('message', { offset: is.whole(0, is.MAX_OFFSET), xor: XOR, bits: BITS }),
  'withhold-fd': action('message', { fd: is.fdIndex }),
  errno: action('message', { errno: is.errnoNumber }, 'errno'),
  disconnect: action('message', { bytes: is.whole(0, is.MAX_OFFSET) }),
  'stuck-bits': action('register', { value: is.integer64, mask: is.integer64 }, 'value'),
  'wrong-value': action('register', { value: is.integer64, bits: BITS }),
  'lost-write': action('register'),
  'lost-interrupt': action('interrupt'),
  'late-interrupt': action('interrupt', { ms: MS }, 'ms'),
  'doubled-interrupt': action('interrupt'),
  'spurious-interrupt': action('event', IRQ, 'irq'),
  'interrupt-storm': action('event', { ...IRQ, count: is.whole(1, MAX_STORM), ms: MS }, 'irq'),
  'dma-corrupted': action('dma', { offset: is.whole(0, is.MAX_OFFSET), xor: XOR, bits: BITS }),
  'dma-delayed': action('dma', { ms: MS }, 'ms'),
  'dma-refused': action('dma', { errno: is.errnoNumber }),
  'dma-out-of-range': action('dma', { to: is.integer64 }),
  'all-ones': action('event', { ms: MS, accesses: is.whole(1, MAX_COUNT) }),
  'surprise-removal': action('event'),
  'server-killed': action('event'),
  'server-stalled': action('event', { ms: MS }),
  'server-restarted': action('event', { ms: MS }),
};

/** What a fault of this name happens to. */
export function kindOf({ fault }: Fault): FaultKind {
  return ACTIONS[fault]?.kind ?? 'message';
}

/**
 * Checks a plan, or a bare list of faults, as a file has it.
 * @throws TypeError that says where and what is wrong.
 */
export function checkPlan(value: unknown): { seed: number; faults: Fault[] } {
  const { seed = 1, faults, map } = Array.isArray(value) ? { faults: value as unknown[] } : planOf(value);
  if (!Array.isArray(faults)) throw new TypeError('faults is a list');
  if (faults.length > MAX_FAULTS) throw new TypeError(`${faults.length} faults; at most ${MAX_FAULTS}`);
  if (map !== undefined && !isRegisters(map)) throw new TypeError('map is no RegisterPlacement');
  return {
    seed: is.whole(0, 0xffff_ffff)('seed', seed) as number,
    faults: faults.map((fault, i) => checkFault(`faults[${i}]`, fault, map)),
  };
}

function isRegisters(value: unknown): value is FaultRegisters {
  const { find, region } = (typeof value === 'object' && value !== null ? value : {}) as Given;
  return typeof find === 'function' && typeof region === 'number';
}

function planOf(value: unknown): Given {
  const plan = membersOf('the faults', value);
  for (const name of Object.keys(plan)) {
    if (!['seed', 'faults', 'map', '$schema'].includes(name))
      throw new TypeError(`'${name}' is unknown here: seed and faults are`);
  }
  return plan;
}

function checkFault(at: string, value: unknown, map: FaultRegisters | undefined): Fault {
  const given = membersOf(at, value);
  const { fault } = given;
  const known = typeof fault === 'string' && Object.hasOwn(ACTIONS, fault) ? ACTIONS[fault] : undefined;
  if (known === undefined) {
    throw new TypeError(`${at}.fault is ${is.shown(fault)}; it is one of ${Object.keys(ACTIONS).join(', ')}`);
  }
  const checks = { ...SELECTIONS[known.kind], ...known.members };
  const checked: Record<string, unknown> = { fault };
  for (const [name, member] of Object.entries(given)) {
    if (name === 'fault' || member === undefined) continue;
    const check = Object.hasOwn(checks, name) ? checks[name] : undefined;
    if (check === undefined) {
      const names = [...Object.keys(known.members), ...Object.keys(SELECTIONS[known.kind])];
      throw new TypeError(
        `${at}.${name} is unknown to ${fault as string}; it knows ${[...new Set(names)].join(', ')}`,
      );
    }
    checked[name] = check(`${at}.${name}`, member);
  }
  for (const name of known.needs) {
    if (checked[name] === undefined) throw new TypeError(`${at}: ${fault as string} needs '${name}'`);
  }
  agree(at, checked);
  if (known.kind === 'register' || known.kind === 'event') place(at, checked, map, known.kind);
  return checked as unknown as Fault;
}

function exclude(at: string, fault: Given, names: readonly string[]): void {
  const given = names.filter((name) => fault[name] !== undefined);
  if (given.length > 1) throw new TypeError(`${at}: ${given.join(' and ')} exclude each other`);
}

/** Members that contradict each other. */
function agree(at: string, fault: Record<string, unknown>): void {
  exclude(at, fault, ['nth', 'every', 'probability']);
  exclude(at, fault, ['pieces', 'at']);
  exclude(at, fault, ['bits', 'xor']);
  exclude(at, fault, ['bits', 'value']);
  exclude(at, fault, ['ms', 'accesses']);
  for (const name of ['nth', 'every', 'probability', 'register', 'region'])
    exclude(at, fault, ['afterMs', name]);
  exclude(at, fault, ['register', 'region']);
  switch (fault['fault']) {
    case 'corrupt':
      if (fault['bits'] === undefined && fault['offset'] === undefined)
        throw new TypeError(`${at}: corrupt needs 'offset' or 'bits'`);
      break;
    case 'wrong-value':
      if (fault['bits'] === undefined && fault['value'] === undefined)
        throw new TypeError(`${at}: wrong-value needs 'value' or 'bits'`);
      break;
    case 'errno':
      if (fault['kind'] === 'reply')
        throw new TypeError(`${at}: only requests can be answered with an errno`);
      fault['kind'] = 'request';
      break;
    default:
  }
}

/** Puts a `place` in the place of names and numbers, and shifts values of fields to where their bits are. */
function place(
  at: string,
  fault: Record<string, unknown>,
  map: FaultRegisters | undefined,
  kind: 'register' | 'event',
): void {
  const { register, region, offset, bytes, afterMs } = fault;
  for (const name of ['register', 'region', 'offset', 'bytes']) delete fault[name];
  if (register !== undefined) {
    if (offset !== undefined || bytes !== undefined)
      throw new TypeError(`${at}: register says where it is: offset and bytes go with region`);
    const { found, lsb } = findRegister(at, register as string, map);
    if (fault['fault'] === 'lost-write' && found.mask !== allBits(found.bytes))
      throw new TypeError(`${at}: a write is lost as a whole: name the register, not a field of it`);
    fault['place'] = found;
    fitValues(at, fault, found, lsb);
    return;
  }
  if (region === undefined) {
    if (kind === 'event' && afterMs !== undefined) return;
    throw new TypeError(
      `${at}: ${String(fault['fault'])} needs 'register' or 'region'${kind === 'event' ? " or 'afterMs'" : ''}`,
    );
  }
  if (kind === 'register' && offset === undefined) throw new TypeError(`${at}: region needs 'offset'`);
  const count = offset === undefined ? undefined : ((bytes as number | undefined) ?? DEFAULT_BYTES);
  const name = is.regionWord(region as number);
  const found: Place = {
    region: region as number,
    offset: (offset as number | undefined) ?? 0,
    bytes: count,
    mask: count === undefined ? 0n : allBits(count),
    name: offset === undefined ? name : `${name}+0x${(offset as number).toString(16)}`,
  };
  fault['place'] = found;
  fitValues(at, fault, found, 0n);
}

function allBits(bytes: number | undefined): bigint {
  return (1n << BigInt((bytes ?? 0) * 8)) - 1n;
}

function findRegister(
  at: string,
  name: string,
  map: FaultRegisters | undefined,
): { found: Place & { bytes: number }; lsb: bigint } {
  if (map === undefined)
    throw new TypeError(`${at}.register is ${is.shown(name)}, and there is no map of names`);
  let found: ReturnType<FaultRegisters['find']>;
  try {
    found = map.find(name);
  } catch (error) {
    throw new TypeError(`${at}.register: ${(error as Error).message}`, { cause: error });
  }
  const { offset, register, field } = found;
  const bytes = register.bits / 8;
  const lsb = BigInt(field?.lsb ?? 0);
  const mask = field === undefined ? allBits(bytes) : ((1n << BigInt(field.bits)) - 1n) << lsb;
  return { found: { region: map.region, offset, bytes, mask, name }, lsb };
}

/** `value` and `mask` are of the field, or of the bytes. */
function fitValues(at: string, fault: Record<string, unknown>, found: Place, lsb: bigint): void {
  for (const name of ['value', 'mask']) {
    const value = fault[name] as bigint | undefined;
    if (value === undefined) continue;
    const shifted = value << lsb;
    if ((shifted & ~found.mask) !== 0n)
      throw new TypeError(`${at}.${name} is 0x${value.toString(16)}, more than ${found.name} holds`);
    fault[name] = shifted;
  }
  const mask = fault['mask'] as bigint | undefined;
  if (mask === undefined) return;
  fault['place'] = { ...found, mask };
  fault['value'] = (fault['value'] as bigint) & mask;
  delete fault['mask'];
}

function membersOf(at: string, value: unknown): Given {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Given;
  throw new TypeError(`${at} is ${is.shown(value)}, not an object`);
}

function schemaOf(name: string, { kind, members, needs }: Action): Schema {
  const all = { ...SELECTIONS[kind], ...members };
  const properties = Object.fromEntries(Object.entries(all).map(([member, { schema }]) => [member, schema]));
  return {
    type: 'object',
    properties: { fault: { const: name }, ...properties },
    required: ['fault', ...needs],
    additionalProperties: false,
  };
}

const LIST: Schema = {
  type: 'array',
  maxItems: MAX_FAULTS,
  items: { oneOf: Object.entries(ACTIONS).map(([name, one]) => schemaOf(name, one)) },
};

/**
 * The JSON schema (draft 7) of a file of faults. What members exclude each other, and whether registers exist, is checked where
 * the file is used.
 */
export const FAULT_PLAN_SCHEMA: Readonly<Record<string, unknown>> = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'Faults of vfio-user',
  anyOf: [
    LIST,
    {
      type: 'object',
      properties: {
        $schema: { type: 'string' },
        seed: { type: 'integer', minimum: 0, maximum: 0xffff_ffff },
        faults: LIST,
      },
      required: ['faults'],
      additionalProperties: false,
    },
  ],
};
