/** What keeps memory out of an IOMMU, in words: what was needed, and what is allowed. */
import { readFileSync } from 'node:fs';

const KIB = 1024n;

/** Why the kernel answered ENOSPC: `allowed` is how many it said that it takes. */
export function noMoreMappings(allowed: number | undefined): string {
  const most =
    allowed === undefined ? 'as many mappings as it takes' : `the ${allowed} mappings that it takes`;
  return `the IOMMU has ${most} (dma_entry_limit of the module vfio_iommu_type1); give some back, or map more at once`;
}

/** Why the kernel answered ENOMEM: memory that a device reaches is locked, for all devices of the process together. */
export function tooMuchLocked(size: bigint): string {
  const limit = lockLimit();
  const locked = lockedBytes();
  const needed = locked + size;
  if (limit === undefined || needed <= limit) return 'the kernel has not enough memory';
  return (
    `memory for DMA is locked, and ${needed} bytes are needed (${locked} of them are locked now), but RLIMIT_MEMLOCK is ${limit}: ` +
    'raise it (`ulimit -l`, LimitMEMLOCK= of a systemd unit), or use less (`arenaBytes` of `connect`)'
  );
}

/** What this process may lock, in bytes; undefined where that is not limited, or not known. */
function lockLimit(): bigint | undefined {
  const soft = fieldOf('/proc/self/limits', /^Max locked memory\s+(\d+)/m);
  return soft === undefined ? undefined : BigInt(soft);
}

function lockedBytes(): bigint {
  return BigInt(fieldOf('/proc/self/status', /^VmLck:\s+(\d+) kB/m) ?? 0) * KIB;
}

function fieldOf(file: string, pattern: RegExp): string | undefined {
  try {
    return pattern.exec(readFileSync(file, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}
