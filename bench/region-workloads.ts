/** Region accesses by message, on the reference target. */
import { atLeast, atMostAtP90, atMostInTime, type Goal } from './goal.js';
import { CLI } from './paths.js';
import { CRATE_CLIENT, missingCrateClient, reference } from './rivals.js';
import { driver } from './driver-trial.js';
import type { MakeTrial, Rival, Workload } from './workload.js';

interface Access {
  op: 'read' | 'write';
  size: number;
  depth: number;
  count: number;
}

/** The ceiling of a synchronous call's spin, where nothing else is said. */
const SPIN_US = 50;
const QUICK_PART = 20;

const READ: Access = { op: 'read', size: 4, depth: 1, count: 100_000 };
const READ_32: Access = { ...READ, depth: 32, count: 200_000 };
const WRITE: Access = { ...READ, op: 'write' };
const WRITE_32: Access = { ...READ_32, op: 'write' };
const MEGABYTE: Access = { op: 'read', size: 1 << 20, depth: 1, count: 2_000 };

function counted({ count }: Access, quick: boolean): string {
  return String(quick ? Math.ceil(count / QUICK_PART) : count);
}

function ours(mode: 'sync' | 'async', access: Access, spinUs = SPIN_US): MakeTrial {
  const { op, size, depth } = access;
  return (socket, quick) => ({
    command: process.execPath,
    args: [
      ...[CLI, 'bench', 'region', socket, '--region', '1', '--json', '--mode', mode, '--op', op],
      ...['--size', String(size), '--depth', String(depth), '--count', counted(access, quick)],
      ...['--spin', String(spinUs)],
    ],
  });
}

function floor(spinUs: number, access: Access): MakeTrial {
  const { op, size, depth } = access;
  return (socket, quick) => ({
    command: reference('floor'),
    args: [socket, op, '1', '0', String(size), String(depth), counted(access, quick), String(spinUs)],
  });
}

function crate(access: Access): Rival {
  const { op, size } = access;
  return {
    name: 'vfio_user crate',
    missing: missingCrateClient,
    trial: (socket, quick) => ({
      command: CRATE_CLIENT,
      args: [socket, op, '1', '0', String(size), counted(access, quick)],
    }),
  };
}

function blocking(access: Access, goal?: Goal): Rival {
  return { name: 'C floor, blocking', ...(goal && { goal }), trial: floor(0, access) };
}

function pipelined(access: Access, goal: Goal): Rival {
  return { name: 'C floor, pipelined', goal, trial: floor(0, access) };
}

function sameSpin(access: Access, goal: Goal): Rival {
  return { name: 'C floor, same spin', goal, trial: floor(SPIN_US, access) };
}

/** Itself, never spinning: what spinning may cost at most. */
function neverSpinning(access: Access): Rival[] {
  const trial = ours('async', access, 0);
  return (
    [
      ['idle', undefined],
      ['a processor busy', 'one'],
      ['all processors busy', 'all'],
    ] as const
  ).flatMap(([when, busy]) => {
    const rival = { trial, ...(busy && { busy }) };
    return [
      { ...rival, name: `itself with --spin 0, ${when}`, goal: atMostInTime(1.1) },
      { ...rival, name: `itself with --spin 0, ${when}, 90th percentile`, goal: atMostAtP90(1.25) },
    ];
  });
}

const base = { server: { kind: 'target' }, check: driver('check-region') } as const;

/** One that the crate talks to. */
const pciBase = { ...base, server: { kind: 'target', isPci: true } } as const;

const SYNC_LIMITS =
  'One send and at least one receive for each access are the floor’s too; what is added is the way from JavaScript ' +
  'into the addon and back, a few hundred nanoseconds (see request-path). Whether spinning pays depends on a second ' +
  'processor that is free for the server.';
const ASYNC_LIMITS =
  'Answers arrive through Node’s event loop: an epoll_wait before each batch, a promise and a microtask for each ' +
  'access. At depth 1 nothing shares that cost.';
const PIPELINED_LIMITS =
  'The target answers one message at a time, with one send each: it is the slower side, and how many answers a ' +
  'receive finds depends on who runs when. Ours adds a promise for each access.';
const BULK_LIMITS =
  'Bytes are copied twice by the kernel, into the socket and out of it, for both sides alike; the socket’s buffer ' +
  'decides how often the two have to take turns.';

export const REGION_WORKLOADS: readonly Workload[] = [
  {
    ...pciBase,
    name: 'read-sync',
    title: '4-byte region read by message, synchronous',
    ours: ours('sync', READ),
    rivals: [
      sameSpin(READ, atMostInTime(1.3)),
      blocking(READ, atMostInTime(1)),
      {
        ...blocking(READ, atMostInTime(1.05)),
        name: 'C floor, blocking, all processors busy',
        busy: 'all',
      },
      crate(READ),
    ],
    limits: SYNC_LIMITS,
  },
  {
    ...pciBase,
    name: 'write-sync',
    title: '4-byte region write by message, synchronous',
    ours: ours('sync', WRITE),
    rivals: [sameSpin(WRITE, atMostInTime(1.3)), blocking(WRITE, atMostInTime(1)), crate(WRITE)],
    limits: SYNC_LIMITS,
  },
  {
    ...base,
    name: 'read-async-1',
    title: '4-byte region read by message, asynchronous, depth 1',
    ours: ours('async', READ),
    rivals: [blocking(READ), ...neverSpinning(READ)],
    limits: ASYNC_LIMITS,
  },
  {
    ...base,
    name: 'write-async-1',
    title: '4-byte region write by message, asynchronous, depth 1',
    ours: ours('async', WRITE),
    rivals: [blocking(WRITE)],
    limits: ASYNC_LIMITS,
  },
  {
    ...base,
    name: 'read-async-32',
    title: '4-byte region read by message, asynchronous, depth 32',
    ours: ours('async', READ_32),
    rivals: [pipelined(READ_32, atMostInTime(1.1))],
    limits: PIPELINED_LIMITS,
  },
  {
    ...base,
    name: 'write-async-32',
    title: '4-byte region write by message, asynchronous, depth 32',
    ours: ours('async', WRITE_32),
    rivals: [pipelined(WRITE_32, atMostInTime(1.1))],
    limits: PIPELINED_LIMITS,
  },
  {
    ...pciBase,
    name: 'read-1m',
    title: '1 MiB region read into a buffer of the caller',
    ours: ours('sync', MEGABYTE),
    rivals: [blocking(MEGABYTE, atLeast(0.95)), crate(MEGABYTE)],
    limits: BULK_LIMITS,
  },
];
