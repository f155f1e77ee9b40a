/** All workloads, in the order of the report. */
import { deviceWorkloads } from './device-workloads.js';
import { emulatedNvmeWorkloads, spdkNvmeWorkloads } from './nvme-workloads.js';
import { REGION_WORKLOADS } from './region-workloads.js';
import type { Workload } from './workload.js';

/** The environment says which other servers there are. */
export function allWorkloads(quick: boolean, env: NodeJS.ProcessEnv = process.env): Workload[] {
  return [
    ...REGION_WORKLOADS,
    ...deviceWorkloads(quick),
    ...emulatedNvmeWorkloads(quick),
    ...spdkWorkloads(env),
  ];
}

function spdkWorkloads(env: NodeJS.ProcessEnv): Workload[] {
  const { BENCH_SPDK: directory, BENCH_SPDK_PERF: perf, BENCH_SPDK_NQN: nqn, BENCH_CPU: cpu = '0' } = env;
  if (directory === undefined || perf === undefined) return [];
  const pattern = nqn ?? 'nqn.2019-07.io.spdk:{name}';
  return spdkNvmeWorkloads({
    directory,
    perf,
    nqn: (name) => pattern.replace('{name}', name),
    cpu: Number(cpu),
  });
}
