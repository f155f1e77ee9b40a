/** Where the figures come from: a figure without its machine says nothing. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import path from 'node:path';
import { ROOT } from './paths.js';
import { spdkVersion } from './spdk-rpc.js';
import { compiler, crateVersion, missingCrateClient, versionOf } from './rivals.js';

export interface Machine {
  cpu: string;
  processors: number;
  memoryBytes: number;
  kernel: string;
}

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    processors: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
  };
}

/** Of everything that takes part, by name. */
export async function versions(env: NodeJS.ProcessEnv = process.env): Promise<Record<string, string>> {
  const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const all: Record<string, string> = {
    'vfio-user': manifest.version,
    Node: process.version,
    'C floor and target': `${versionOf(compiler) ?? compiler}, -O2`,
  };
  if (missingCrateClient() === undefined) {
    all['vfio_user crate'] = `${crateVersion()}, ${versionOf('rustc') ?? 'rustc'}`;
  }
  // spdk_nvme_perf does not say its version; the target that it was built with does.
  const { BENCH_SPDK: spdk, BENCH_SPDK_RPC: rpc } = env;
  if (rpc !== undefined)
    all['SPDK'] = await spdkVersion(rpc).catch((error: Error) => `unknown: ${error.message}`);
  else if (spdk !== undefined) all['SPDK'] = 'unknown: BENCH_SPDK_RPC is not set';
  return all;
}
