/** NVMe, on the embedded emulator or beside spdk_nvme_perf on SPDK's target. */
import { atLeast } from './goal.js';
import { CLI } from './paths.js';
import { parsePerf } from './perf-output.js';
import { parseLast, type Measurement, type TrialCommand } from './trial.js';
import type { NvmePlace, Workload } from './workload.js';

const SIZE = 4096;
const QUICK_SECONDS = 0.3;
const SECONDS = 3;
/** Of a run that stamps blocks and looks at every answer. */
const CHECK_SECONDS = 0.2;

const DEPTHS = [1, 32, 128] as const;
const RWS = ['randread', 'randwrite', 'read', 'write'] as const;

interface NvmeReport extends Omit<Measurement, 'opsPerSecond'> {
  iops: number;
}

/**
 * Where the buffers of writes begin in a page, as those of spdk_nvme_perf do not begin with one either: SPDK's malloc
 * namespace copies some 4 % faster from there. Into such buffers it copies 5 % slower, so those of reads begin with a page.
 */
const WRITE_OFFSET = 1024;

function bench(socket: string, { rw, depth, api }: NvmePlace, ...options: string[]): TrialCommand {
  return {
    command: process.execPath,
    args: [
      ...[CLI, '--wait', 'nvme', 'bench', socket, '--rw', rw, '--size', String(SIZE), '--json'],
      ...['--qd', String(depth), '--api', api, ...options],
      ...(api === 'poll' && rw.endsWith('write') ? ['--page-offset', String(WRITE_OFFSET)] : []),
    ],
    parse: (output) => {
      const { iops, ...report } = parseLast(output) as NvmeReport;
      return { opsPerSecond: iops, ...report };
    },
  };
}

function nameOf({ target, rw, depth, api }: NvmePlace): string {
  return `nvme-${target}-${rw}-${depth}-${api}`;
}

function titleOf({ target, rw, depth, api }: NvmePlace): string {
  const words = {
    randread: 'random read',
    randwrite: 'random write',
    read: 'sequential read',
    write: 'sequential write',
  };
  const face = api === 'poll' ? 'submit/poll' : 'promises';
  return `NVMe 4 KiB ${words[rw as keyof typeof words]}, ${target} namespace, depth ${depth}, ${face}`;
}

/** `seconds` of a full trial. */
function workload(
  place: NvmePlace,
  rest: Pick<Workload, 'server' | 'rivals' | 'limits'> & { cpus?: string },
): Workload {
  const { cpus, ...others } = rest;
  return {
    name: nameOf(place),
    title: titleOf(place),
    nvme: place,
    // A null namespace keeps nothing: there is nothing to check but the status of each command, which trials do.
    ...(place.target !== 'null' && {
      check: (socket) => bench(socket, place, '--seconds', String(CHECK_SECONDS), '--verify'),
    }),
    ours: (socket, quick) => ({
      ...bench(socket, place, '--seconds', String(quick ? QUICK_SECONDS : SECONDS)),
      cpus,
    }),
    ...others,
  };
}

function places(target: string): NvmePlace[] {
  const poll = RWS.flatMap((rw) => DEPTHS.map((depth) => ({ target, rw, depth, api: 'poll' as const })));
  const promise = DEPTHS.map((depth) => ({ target, rw: 'randread', depth, api: 'promise' as const }));
  return [...poll, ...promise];
}

/** By default: no rival knows the emulator's controller, so figures stand alone. */
export function emulatedNvmeWorkloads(quick: boolean): Workload[] {
  // All of it is stamped before answers are checked.
  const args = ['emulate', 'nvme', '--socket', '{socket}', '--size', quick ? '8M' : '64M'];
  const limits =
    'The emulated controller is JavaScript on the other processor: its pace is what is measured.';
  return places('emulated').map((place) =>
    workload(place, { server: { kind: 'emulator', args }, rivals: [], limits }),
  );
}

export interface SpdkPlaces {
  /** The directory with `malloc/cntrl` and `null/cntrl`. */
  directory: string;
  /** spdk_nvme_perf. */
  perf: string;
  /** NQN of a subsystem, by its name. */
  nqn: (name: string) => string;
  /** The processor for the client; the target has another. */
  cpu: number;
}

const SPDK_LIMITS: Readonly<Record<NvmePlace['api'], string>> = {
  poll:
    'The target’s one polling thread does all the work of a transfer and is what both wait for; ours adds the ' +
    'composing of each command in JavaScript and an uncached store for the doorbell of each batch.',
  promise: 'A promise and a microtask for each transfer, on the thread that polls.',
};

export function spdkNvmeWorkloads(spdk: SpdkPlaces): Workload[] {
  const all = [
    ...places('malloc'),
    ...places('null').filter(({ rw, api }) => rw === 'randread' && api === 'poll'),
  ];
  return all.map((place) => {
    const perf = (socket: string, quick: boolean, ...options: string[]): TrialCommand => ({
      command: spdk.perf,
      cpus: String(spdk.cpu),
      parse: parsePerf,
      args: [
        ...[
          '-q',
          String(place.depth),
          '-o',
          String(SIZE),
          '-w',
          place.rw,
          '-t',
          quick ? '1' : String(SECONDS),
        ],
        ...['-c', `0x${(1 << spdk.cpu).toString(16)}`, '--no-huge', '-s', '256', ...options],
        ...['-r', perfTarget(socket, spdk.nqn(place.target))],
      ],
    });
    const rival = {
      name: 'spdk_nvme_perf',
      goal: atLeast(place.api === 'promise' ? 0.9 : 0.95),
      trial: (socket: string, quick: boolean) => perf(socket, quick),
      distribution: (socket: string, quick: boolean) => perf(socket, quick, '-L'),
    };
    return workload(place, {
      server: { kind: 'running', socket: `${spdk.directory}/${place.target}/cntrl` },
      cpus: String(spdk.cpu),
      rivals: [rival],
      limits: SPDK_LIMITS[place.api],
    });
  });
}

function perfTarget(socket: string, nqn: string): string {
  return `trtype:VFIOUSER traddr:${socket.replace(/\/cntrl$/, '')} subnqn:${nqn} ns:1`;
}
