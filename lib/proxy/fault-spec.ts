/** What faults can be asked for, and the check of what was: a file or a command line is not trusted to make sense. */
import { constants } from 'node:os';
import { errnoName } from '../errors.js';
import { wrongType } from '../fields.js';
import { Command, commandName } from '../protocol/constants.js';

/** Which way a message goes. */
export type Way = 'to-server' | 'to-client';

/** Which messages a fault is for: all where nothing is said. Counting is over all clients, from 1. */
export interface FaultSelection {
  /** From client to server, or back; both where it is not given. */
  direction?: Way;
  /** `main`, or the `twin` socket that the server's own requests go through. */
  socket?: 'main' | 'twin';
  /** A name of the specification (`REGION_READ`) or a number. */
  command?: string | number;
  /** Requests or replies; both where it is not given. */
  kind?: 'request' | 'reply';
  /** Only the n-th of the messages selected so far. */
  nth?: number;
  /** Each n-th of them. */
  every?: number;
  /** Each of them with this probability, from 0 to 1, by a generator that begins with the seed. */
  probability?: number;
  /** The most that it happens. */
  times?: number;
}

/** What happens to the message. */
export type FaultAction =
  /** It, and what follows it, arrives so many milliseconds later. */
  | { fault: 'delay'; ms: number }
  /** It does not arrive. */
  | { fault: 'drop' }
  /** It arrives in as many pieces (2), or cut at these offsets, `ms` (10) apart. */
  | { fault: 'split'; pieces?: number; at?: readonly number[]; ms?: number }
  /** It arrives twice, its fds too. */
  | { fault: 'duplicate' }
  /** The byte at `offset` of the message is xored (0xff), or so many random `bits` from `offset` (0) on are turned. */
  | { fault: 'corrupt'; offset?: number; xor?: number; bits?: number }
  /** It arrives without its fd number `fd` (0), or without any (`all`). */
  | { fault: 'withhold-fd'; fd?: number | 'all' }
  /** Requests only: they do not arrive, and are answered with this errno, a name or a number. */
  | { fault: 'errno'; errno: string | number }
  /** The first so many `bytes` (0) of it arrive, and then both sides are disconnected. */
  | { fault: 'disconnect'; bytes?: number };

/** Which messages, and what happens to them. */
export type FaultSpec = FaultSelection & FaultAction;

/** A list of faults and the seed of what is random in them (1). */
export interface FaultPlanSpec {
  /** Default 1. The same seed makes the same choices. */
  seed?: number;
  /** Tried in this order for each message. */
  faults: readonly FaultSpec[];
}

type CheckedAction = Exclude<FaultAction, { fault: 'errno' }> | { fault: 'errno'; errno: number };

/** A fault that was checked, names made numbers. */
export type Fault = Omit<FaultSelection, 'command'> & { command?: number } & CheckedAction;

type Members = Readonly<Record<string, unknown>>;
type Check = (at: string, value: unknown) => unknown;

const MAX_FAULTS = 1_000;
const MAX_MS = 3_600_000;
const MAX_PIECES = 1_000;
const MAX_OFFSET = 0xffff_ffff;
const MAX_BITS = 4_096;
const MAX_COUNT = Number.MAX_SAFE_INTEGER;
const MAX_ERRNO = 4_095;

const SELECTION: Readonly<Record<string, Check>> = {
  direction: oneOf('to-server', 'to-client'),
  socket: oneOf('main', 'twin'),
  command: commandNumber,
  kind: oneOf('request', 'reply'),
  nth: whole(1, MAX_COUNT),
  every: whole(1, MAX_COUNT),
  probability,
  times: whole(1, MAX_COUNT),
};

const ACTIONS: Readonly<
  Record<string, { members: Readonly<Record<string, Check>>; needs: readonly string[] }>
> = {
  delay: { members: { ms: whole(1, MAX_MS) }, needs: ['ms'] },
  drop: { members: {}, needs: [] },
  split: {
    members: { pieces: whole(2, MAX_PIECES), at: offsets, ms: whole(1, MAX_MS) },
    needs: [],
  },
  duplicate: { members: {}, needs: [] },
  corrupt: {
    members: { offset: whole(0, MAX_OFFSET), xor: whole(1, 255), bits: whole(1, MAX_BITS) },
    needs: [],
  },
  'withhold-fd': { members: { fd: fdIndex }, needs: [] },
  errno: { members: { errno: errnoNumber }, needs: ['errno'] },
  disconnect: { members: { bytes: whole(0, MAX_OFFSET) }, needs: [] },
};

/**
 * Checks a plan, or a bare list of faults, as a file has it.
 * @throws TypeError that says where and what is wrong.
 */
export function checkPlan(value: unknown): { seed: number; faults: Fault[] } {
  const { seed = 1, faults } = Array.isArray(value) ? { faults: value as unknown[] } : planOf(value);
  if (!Array.isArray(faults)) throw new TypeError('faults is a list');
  if (faults.length > MAX_FAULTS) throw new TypeError(`${faults.length} faults; at most ${MAX_FAULTS}`);
  return {
    seed: whole(0, 0xffff_ffff)('seed', seed) as number,
    faults: faults.map((fault, i) => checkFault(`faults[${i}]`, fault)),
  };
}

function planOf(value: unknown): Members {
  const plan = members('the faults', value);
  for (const name of Object.keys(plan)) {
    if (name !== 'seed' && name !== 'faults')
      throw new TypeError(`'${name}' is unknown here: seed and faults are`);
  }
  return plan;
}

function checkFault(at: string, value: unknown): Fault {
  const given = members(at, value);
  const { fault } = given;
  const action = typeof fault === 'string' && Object.hasOwn(ACTIONS, fault) ? ACTIONS[fault] : undefined;
  if (action === undefined) {
    throw new TypeError(`${at}.fault is ${shown(fault)}; it is one of ${Object.keys(ACTIONS).join(', ')}`);
  }
  const checked: Record<string, unknown> = { fault };
  for (const [name, member] of Object.entries(given)) {
    if (name === 'fault' || member === undefined) continue;
    const check = Object.hasOwn(SELECTION, name)
      ? SELECTION[name]
      : Object.hasOwn(action.members, name)
        ? action.members[name]
        : undefined;
    if (check === undefined) {
      const known = [...Object.keys(action.members), ...Object.keys(SELECTION)];
      throw new TypeError(`${at}.${name} is unknown to ${fault as string}; it knows ${known.join(', ')}`);
    }
    checked[name] = check(`${at}.${name}`, member);
  }
  for (const name of action.needs) {
    if (checked[name] === undefined) throw new TypeError(`${at}: ${fault as string} needs '${name}'`);
  }
  agree(at, checked);
  return checked as unknown as Fault;
}

/** Members that contradict each other. */
function agree(at: string, fault: Record<string, unknown>): void {
  const counted = ['nth', 'every', 'probability'].filter((name) => fault[name] !== undefined);
  if (counted.length > 1) throw new TypeError(`${at}: ${counted.join(' and ')} exclude each other`);
  if (fault['pieces'] !== undefined && fault['at'] !== undefined) {
    throw new TypeError(`${at}: pieces and at exclude each other`);
  }
  if (fault['bits'] !== undefined && fault['xor'] !== undefined) {
    throw new TypeError(`${at}: bits and xor exclude each other`);
  }
  if (fault['fault'] === 'corrupt' && fault['bits'] === undefined && fault['offset'] === undefined) {
    throw new TypeError(`${at}: corrupt needs 'offset' or 'bits'`);
  }
  if (fault['fault'] !== 'errno') return;
  if (fault['kind'] === 'reply') throw new TypeError(`${at}: only requests can be answered with an errno`);
  fault['kind'] = 'request';
}

function members(at: string, value: unknown): Members {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Members;
  throw new TypeError(`${at} is ${shown(value)}, not an object`);
}

function oneOf(...choices: string[]): Check {
  return (at, value) => {
    if (choices.includes(value as string)) return value;
    throw new TypeError(`${at} is ${shown(value)}; it is ${choices.join(' or ')}`);
  };
}

function whole(least: number, most: number): Check {
  return (at, value) => {
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value;
    throw new TypeError(`${at} is ${shown(value)}; it is a whole number from ${least} to ${most}`);
  };
}

function probability(at: string, value: unknown): unknown {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new TypeError(`${at} is ${shown(value)}; it is a number from 0 to 1`);
}

function offsets(at: string, value: unknown): unknown {
  const check = whole(1, MAX_OFFSET);
  const list = Array.isArray(value) ? (value as unknown[]) : [value];
  if (list.length === 0 || list.length > MAX_PIECES) {
    throw new TypeError(`${at} has ${list.length} offsets; it has 1 to ${MAX_PIECES}`);
  }
  for (const [i, offset] of list.entries()) {
    check(`${at}[${i}]`, offset);
    if (i > 0 && (offset as number) <= (list[i - 1] as number)) throw new TypeError(`${at} does not ascend`);
  }
  return list;
}

function commandNumber(at: string, value: unknown): unknown {
  if (typeof value === 'number') return whole(0, 0xffff)(at, value);
  const name = typeof value === 'string' ? value.toUpperCase() : '';
  if (Object.hasOwn(Command, name)) return Command[name as keyof typeof Command];
  throw new TypeError(
    `${at} is ${shown(value)}; it is a number or one of ${Object.keys(Command).join(', ')}`,
  );
}

function fdIndex(at: string, value: unknown): unknown {
  return value === 'all' ? value : whole(0, 252)(at, value);
}

function errnoNumber(at: string, value: unknown): unknown {
  if (typeof value === 'number') return whole(1, MAX_ERRNO)(at, value);
  const numbers = constants.errno as Readonly<Record<string, number>>;
  const name = typeof value === 'string' ? value.toUpperCase() : '';
  if (Object.hasOwn(numbers, name)) return numbers[name];
  throw new TypeError(`${at} is ${shown(value)}; it is an errno's name, as EIO, or its number`);
}

function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value) ?? typeof value;
  return text.length <= 60 ? text : `${text.slice(0, 60)}…`;
}

/** What a fault does, for people: `delay 50 ms`, `errno EIO`. */
export function describeFault(fault: Fault): string {
  switch (fault.fault) {
    case 'delay':
      return `delay ${fault.ms} ms`;
    case 'errno':
      return `errno ${errnoName(fault.errno)}`;
    case 'withhold-fd':
      return `withhold-fd ${fault.fd ?? 0}`;
    case 'disconnect':
      return fault.bytes === undefined ? 'disconnect' : `disconnect after ${fault.bytes} bytes`;
    case 'drop':
    case 'split':
    case 'duplicate':
    case 'corrupt':
      return fault.fault;
  }
}

/** A command's name and kind: `REGION_READ reply`. */
export function describeMessage(command: number, isReply: boolean): string {
  return isReply ? `${commandName(command)} reply` : commandName(command);
}

/** A number of the command line: decimal or 0x hexadecimal, a fraction too. */
const NUMBER = /^(?:0x[\da-f]+|\d+(?:\.\d+)?|\.\d+)$/i;

/**
 * A fault as people type it: `drop`, `delay:ms=50,command=REGION_READ,kind=reply,nth=3`, `split:at=8+16`.
 * @throws TypeError for what is no list of names and values; what they mean is checked with the plan.
 */
export function parseFault(text: string): Record<string, unknown> {
  if (typeof text !== 'string') throw wrongType('parseFault: text', 'a string', text);
  const colon = text.indexOf(':');
  const fault = colon === -1 ? text : text.slice(0, colon);
  const spec: Record<string, unknown> = { fault };
  if (colon === -1) return spec;
  for (const part of text.slice(colon + 1).split(',')) {
    const equals = part.indexOf('=');
    const name = part.slice(0, equals).trim();
    if (equals < 1 || Object.hasOwn(spec, name)) {
      throw new TypeError(
        `'${part}' in '${text}': ${equals < 1 ? 'name=value is wanted' : `${name} is there twice`}`,
      );
    }
    spec[name] =
      name === 'at'
        ? part
            .slice(equals + 1)
            .split('+')
            .map(typed)
        : typed(part.slice(equals + 1));
  }
  return spec;
}

function typed(text: string): string | number {
  const trimmed = text.trim();
  return NUMBER.test(trimmed) ? Number(trimmed) : trimmed;
}
