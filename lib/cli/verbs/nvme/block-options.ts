/** What nvme-cli's verbs for blocks have in common: which blocks, and the flags and tags of their commands. */
import type { Command } from 'commander';
import type { NvmeController } from '../../../nvme/index.js';
import { UsageError } from '../../errors.js';
import { bits, uint64WithSuffix } from '../../numbers.js';
import { print } from '../../output.js';
import { toJsonC } from '../../nvme-cli/json-c.js';
import { namespaceIdOrAll } from '../../nvme-cli/output.js';

export interface BlockOptions {
  namespaceId?: number;
  startBlock?: bigint;
  /** Zeroes based, as NLB is. */
  blockCount: number;
  limitedRetry: boolean;
  forceUnitAccess: boolean;
  prinfo: number;
  refTag?: bigint;
  appTag: number;
  appTagMask: number;
  storageTagCheck: boolean;
}

/** Bits of CDW12 (NVM Command Set 1.0, section 3.2). */
const LIMITED_RETRY = 1 << 31;
const FORCE_UNIT_ACCESS = 1 << 30;
const STORAGE_TAG_CHECK = 1 << 24;
export const DEALLOCATE = 1 << 25;
const PRINFO_SHIFT = 26;
const DWORD_MAX = 0xffff_ffffn;

export const NAMESPACE_TEXT = 'the namespace; the first active one where nothing is said';

export function withBlocks(command: Command): Command {
  return command
    .option('-n, --namespace-id <id>', NAMESPACE_TEXT, namespaceIdOrAll)
    .option('-s, --start-block <lba>', 'the first block', uint64WithSuffix)
    .option('-c, --block-count <n>', 'how many blocks less one: 0 is one block', bits(16), 0)
    .option('-l, --limited-retry', 'the controller tries less hard', false)
    .option('-f, --force-unit-access', 'from and to the medium itself', false)
    .option('-p, --prinfo <n>', 'protection: action and checks, 4 bits', bits(4), 0)
    .option('-r, --ref-tag <n>', 'reference tag', uint64WithSuffix)
    .option('-a, --app-tag <n>', 'application tag', bits(16), 0)
    .option('-m, --app-tag-mask <n>', 'its mask', bits(16), 0)
    .option('-C, --storage-tag-check', 'the storage tag is checked', false);
}

/** Dwords 10 to 15. @throws UsageError. */
export function blockDwords(options: BlockOptions): Record<`cdw${10 | 11 | 12 | 14 | 15}`, number> {
  const { startBlock = 0n, blockCount, refTag = 0n, appTag, appTagMask, prinfo } = options;
  if (refTag > DWORD_MAX) throw new UsageError(`--ref-tag has 32 bits, got ${refTag}`);
  const flags =
    (options.limitedRetry ? LIMITED_RETRY : 0) |
    (options.forceUnitAccess ? FORCE_UNIT_ACCESS : 0) |
    (options.storageTagCheck ? STORAGE_TAG_CHECK : 0) |
    (prinfo << PRINFO_SHIFT);
  return {
    cdw10: Number(startBlock & DWORD_MAX),
    cdw11: Number(startBlock >> 32n),
    cdw12: (blockCount | flags) >>> 0,
    cdw14: Number(refTag),
    cdw15: (appTag | (appTagMask << 16)) >>> 0,
  };
}

/** The first active one where nothing is said. */
export async function namespaceOf(controller: NvmeController, id: number | undefined): Promise<number> {
  return id ?? (await controller.namespace()).id;
}

/** What a verb says that prints nothing else. */
export async function printSuccess(isJson: boolean, nsid: number | undefined, text: string): Promise<void> {
  if (!isJson) await print(`${text}\n`);
  else await print(toJsonC({ ...(nsid !== undefined && { nsid }), status: 'success' }));
}
