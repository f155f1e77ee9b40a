/**
 * What is measured, as data: a server, our way of doing it, and the rivals that do the same. A ratio is ours to theirs
 * in operations a second, so more than 1 is faster; `goal` is the least that is aimed at.
 */
import { CLI, reference } from './servers.js';
import { parseLast, type Measurement, type TrialCommand } from './trial.js';

/** Where a workload's server comes from. */
export type ServerKind =
  | { kind: 'target'; dmaSize?: number; dmaCount?: number }
  | { kind: 'emulator'; args: readonly string[] }
  /** Running already: the directory that holds its socket. */
  | { kind: 'running'; socket: string };

export interface Rival {
  name: string;
  goal: number | undefined;
  /** Both processors are kept busy by others meanwhile. */
  busy?: boolean;
  trial: (socket: string, quick: boolean) => TrialCommand;
}

export interface Workload {
  name: string;
  title: string;
  server: ServerKind;
  /** The server prints the measurement, not the client. */
  measuredByServer?: boolean;
  ours: (socket: string, quick: boolean) => TrialCommand;
  rivals: readonly Rival[];
}

const node = process.execPath;

interface Access {
  op?: 'read' | 'write';
  size: number;
  depth?: number;
  count: number;
}

function count(access: Access, quick: boolean): string {
  return String(quick ? Math.ceil(access.count / 20) : access.count);
}

function ours(mode: 'sync' | 'async', { op = 'read', size, depth = 1, ...rest }: Access) {
  return (socket: string, quick: boolean): TrialCommand => ({
    command: node,
    args: [
      ...[CLI, 'bench', 'region', socket, '--region', '1', '--json', '--mode', mode, '--op', op],
      ...['--size', String(size), '--depth', String(depth), '--count', count({ size, ...rest }, quick)],
    ],
  });
}

function floor(spinUs: number, { op = 'read', size, depth = 1, ...rest }: Access) {
  return (socket: string, quick: boolean): TrialCommand => ({
    command: reference('floor'),
    args: [
      ...[socket, op, '1', '0', String(size), String(depth)],
      ...[count({ size, ...rest }, quick), String(spinUs)],
    ],
  });
}

/** The ceiling of a synchronous call's spin, where nothing else is said. */
const SPIN_US = 50;

const REGISTER: Access = { size: 4, count: 100_000 };
const REGISTER_32: Access = { size: 4, count: 200_000, depth: 32 };
const WRITE: Access = { size: 4, count: 100_000, op: 'write' };
const MEGABYTE: Access = { size: 1 << 20, count: 2_000 };

function driver(name: string, ...args: string[]) {
  return (socket: string, quick: boolean): TrialCommand => ({
    command: node,
    args: [
      new URL(`./drivers/${name}.js`, import.meta.url).pathname,
      socket,
      quick ? 'quick' : 'full',
      ...args,
    ],
  });
}

function dma(size: number, requests: number): Workload {
  const bytes = 4 << 20;
  return {
    name: `dma-${size}`,
    title: `DMA by message, ${size} bytes a request`,
    server: { kind: 'target', dmaSize: size, dmaCount: requests },
    measuredByServer: true,
    ours: driver('dma', String(bytes)),
    rivals: [
      {
        name: 'C floor',
        goal: 0.9,
        trial: (socket) => ({ command: reference('floor'), args: [socket, 'dma', String(bytes)] }),
      },
    ],
  };
}

export const REGION_WORKLOADS: readonly Workload[] = [
  {
    name: 'read-sync',
    title: '4-byte region read by message, synchronous',
    server: { kind: 'target' },
    ours: ours('sync', REGISTER),
    rivals: [
      { name: 'C floor, same spin', goal: 1 / 1.1, trial: floor(SPIN_US, REGISTER) },
      { name: 'C floor, blocking', goal: 2, trial: floor(0, REGISTER) },
      {
        name: 'C floor, blocking, both processors busy',
        goal: 1 / 1.05,
        busy: true,
        trial: floor(0, REGISTER),
      },
    ],
  },
  {
    name: 'write-sync',
    title: '4-byte region write by message, synchronous',
    server: { kind: 'target' },
    ours: ours('sync', WRITE),
    rivals: [{ name: 'C floor, same spin', goal: 1 / 1.1, trial: floor(SPIN_US, WRITE) }],
  },
  {
    name: 'read-async-1',
    title: '4-byte region read by message, asynchronous, depth 1',
    server: { kind: 'target' },
    ours: ours('async', REGISTER),
    rivals: [{ name: 'C floor, blocking', goal: 1 / 1.25, trial: floor(0, REGISTER) }],
  },
  {
    name: 'read-async-32',
    title: '4-byte region read by message, asynchronous, depth 32',
    server: { kind: 'target' },
    ours: ours('async', REGISTER_32),
    rivals: [{ name: 'C floor, pipelined', goal: 1 / 1.05, trial: floor(0, REGISTER_32) }],
  },
  {
    name: 'read-1m',
    title: '1 MiB region read into a buffer of the caller',
    server: { kind: 'target' },
    ours: ours('sync', MEGABYTE),
    rivals: [{ name: 'C floor, blocking', goal: 0.95, trial: floor(0, MEGABYTE) }],
  },
  dma(4096, 50_000),
  dma(1 << 20, 2_000),
];

/** What has no rival: figures alone. */
export const OWN_WORKLOADS: readonly Workload[] = [
  {
    name: 'request-path',
    title: 'the request path beside a bare send and receive on the same socket pair',
    server: { kind: 'target' },
    ours: driver('request-path'),
    rivals: [],
  },
  {
    name: 'open-close',
    title: 'open and close',
    server: { kind: 'target' },
    ours: driver('open-close'),
    rivals: [],
  },
  {
    name: 'interrupt',
    title: 'interrupt, from eventfd to callback',
    server: { kind: 'emulator', args: ['emulate', 'edu', '--socket', '{socket}'] },
    ours: driver('interrupt'),
    rivals: [],
  },
];

/** spdk_nvme_perf's table: the line of totals has the I/O a second first. */
function parsePerf(output: string): Measurement {
  const total = /^Total\s*:\s+([\d.]+)/m.exec(output);
  if (total === null) throw new Error(`no total in: ${output}`);
  return { opsPerSecond: Number(total[1]) };
}

interface SpdkPlaces {
  /** The directory with `malloc/cntrl` and `null/cntrl`. */
  directory: string;
  /** spdk_nvme_perf. */
  perf: string;
  /** NQN of a subsystem, by its name. */
  nqn: (name: string) => string;
  /** The processor for the client; the target has the other. */
  cpus: string;
}

export function nvmeWorkloads(spdk: SpdkPlaces): Workload[] {
  const cases: { device: string; rw: string; depth: number; api: 'poll' | 'promise'; goal: number }[] = [
    ...[1, 32, 128].map((depth) => ({
      device: 'malloc',
      rw: 'randread',
      depth,
      api: 'poll' as const,
      goal: 1,
    })),
    { device: 'malloc', rw: 'randwrite', depth: 32, api: 'poll', goal: 1 },
    ...[1, 32, 128].map((depth) => ({
      device: 'null',
      rw: 'randread',
      depth,
      api: 'poll' as const,
      goal: 1,
    })),
    ...[32, 128].map((depth) => ({
      device: 'malloc',
      rw: 'randread',
      depth,
      api: 'promise' as const,
      goal: 0.9,
    })),
  ];
  return cases.map(({ device, rw, depth, api, goal }) => ({
    name: `nvme-${device}-${rw}-${depth}-${api}`,
    title: `NVMe 4 KiB ${rw}, ${device} namespace, depth ${depth}, ${api}`,
    server: { kind: 'running', socket: `${spdk.directory}/${device}/cntrl` },
    ours: (socket, quick) => ({
      command: node,
      cpus: spdk.cpus,
      args: [
        ...[CLI, 'nvme', 'bench', socket, '--nsid', '1', '--rw', rw, '--size', '4096', '--json'],
        ...['--qd', String(depth), '--seconds', quick ? '1' : '3', '--api', api],
      ],
      parse: (output) => ({ opsPerSecond: (parseLast(output) as { iops: number }).iops }),
    }),
    rivals: [
      {
        name: 'spdk_nvme_perf',
        goal,
        trial: (socket, quick) => ({
          command: spdk.perf,
          cpus: spdk.cpus,
          parse: parsePerf,
          args: [
            ...[
              '-q',
              String(depth),
              '-o',
              '4096',
              '-w',
              rw,
              '-t',
              quick ? '1' : '3',
              '-c',
              '0x1',
              '--no-huge',
            ],
            ...['-s', '256', '-r', perfTarget(socket, spdk.nqn(device))],
          ],
        }),
      },
    ],
  }));
}

function perfTarget(socket: string, nqn: string): string {
  return `trtype:VFIOUSER traddr:${socket.replace(/\/cntrl$/, '')} subnqn:${nqn} ns:1`;
}
