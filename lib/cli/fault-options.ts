/** `--faults`, `--fault` and `--seed`: of the verbs that can make things go wrong. */
import { readFile } from 'node:fs/promises';
import { InvalidArgumentError, type Command } from 'commander';
import { FaultPlan, parseFault, type FaultPlanSpec, type FaultReport } from '../faults/index.js';
import { UsageError, printable } from './errors.js';
import { counted } from './format-text.js';
import { size } from './numbers.js';
import { MAP_DESCRIPTION, MAP_FLAGS, loadPlacement, mapOption, type MapOption } from './register-map.js';
import type { RegisterPlacement } from '../registers/index.js';

export interface FaultOptions {
  faults?: string;
  fault: Record<string, unknown>[];
  seed?: number;
  map?: MapOption;
}

/** Part of the help. */
export const DEVICE_FAULTS_HELP = `
Faults of the device, by a register's name (--map) or region=bar0,offset=0x10,bytes=4:
  stuck-bits:register=STATUS.READY,value=0   wrong-value:register=ID,value=0xdead,nth=3   (or bits=2, random ones)
  lost-write:register=CTRL
of its interrupts (irq=intx|msi|msix, vector=0):
  lost-interrupt   late-interrupt:ms=5   doubled-interrupt
of its DMA (dma=read|write, address=0x1000,size=0x1000):
  dma-corrupted:bits=1   dma-delayed:ms=5   dma-refused:errno=EFAULT   dma-out-of-range:to=0xfffffffffffff000
and what happens at an access (register=…, region=…, access=read|write) or once, afterMs=500:
  spurious-interrupt:irq=msi   interrupt-storm:irq=msi,count=1000,ms=1   all-ones:ms=50 (or accesses=3)
  surprise-removal   server-killed   server-stalled:ms=500   server-restarted:ms=100
and of all those: nth=3 | every=10 | probability=0.01, at most times=5. --seed makes chance repeatable (1).`;

export function addFaultOptions(command: Command): Command {
  return command
    .option('--faults <file>', 'faults, in JSON')
    .option('--fault <fault>', 'a fault; may be given several times', fault, [])
    .option('--seed <number>', 'where chance begins, for faults with a probability', size)
    .option(MAP_FLAGS, MAP_DESCRIPTION, mapOption);
}

function fault(text: string, before: Record<string, unknown>[]): Record<string, unknown>[] {
  try {
    return [...before, parseFault(text)];
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/**
 * Those of the file first; a seed on the command line goes before the file's. Undefined where there are none.
 * @throws UsageError for what makes no sense.
 */
export async function faultPlanOf(
  { faults: file, fault: typed, seed }: FaultOptions,
  names: RegisterPlacement | undefined,
): Promise<FaultPlan | undefined> {
  if (file === undefined && typed.length === 0) {
    if (seed !== undefined) throw new UsageError('--seed needs --fault or --faults');
    return undefined;
  }
  const plan = file === undefined ? { faults: [] } : await readPlan(file);
  const faults = [...plan.faults, ...typed];
  const all = { ...plan, faults, ...(seed !== undefined && { seed }), ...(names && { map: names }) };
  try {
    return new FaultPlan(all as unknown as FaultPlanSpec);
  } catch (error) {
    throw error instanceof TypeError ? new UsageError(error.message) : error;
  }
}

/** The names of registers, where there are any. */
export async function namesOf({ map }: { map?: MapOption }): Promise<RegisterPlacement | undefined> {
  return map === undefined ? undefined : loadPlacement(map);
}

/** JSON: a list, or an object with a list. */
async function readPlan(file: string): Promise<{ faults: unknown[] }> {
  const text = await readFile(file, 'utf8');
  let plan: unknown;
  try {
    plan = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${file} is not JSON: ${(error as Error).message}`);
  }
  if (Array.isArray(plan)) return { faults: plan as unknown[] };
  const { faults } = (plan ?? {}) as { faults?: unknown };
  if (Array.isArray(faults)) return { ...(plan as object), faults: faults as unknown[] };
  throw new UsageError(`${file} is neither a list of faults nor an object with such a list as faults`);
}

/** What has become of the faults; empty where there were none. */
export function reportText(report: FaultReport | undefined): string {
  if (report === undefined) return '';
  const fired = report.faults.reduce((sum, one) => sum + one.fired, 0);
  const lines = report.faults.map(
    (one) => `  fault ${one.number}: ${one.fault}: happened ${one.fired} of ${counted(one.seen, 'time')}`,
  );
  return [`${counted(fired, 'fault')}, seed ${report.seed}`, ...lines].map(printable).join('\n');
}
