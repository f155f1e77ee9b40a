/**
 * Adds what was measured to bench/history.jsonl, and makes the tables of docs/benchmarks.md and docs/reliability.md anew.
 *
 *     npm run bench:record                                  the last report of `npm run bench`
 *     npm run bench:record -- build/scale.jsonl             what `npm run scale -- --json` printed
 *     npm run bench:record -- build/soak/soak.json          the report of `npm run soak`
 *     npm run bench:record -- --tables                      only the tables
 *
 * Figures are recorded with the commit that is checked out, which lib/ and addon/ must be as: `--commit` says another one.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import { withTables } from './figure-tables.js';
import {
  appendHistory,
  benchFigures,
  machineClass,
  readHistory,
  scaleFigures,
  soakFigures,
  type RecordedRun,
} from './history.js';
import { OUTPUT, ROOT } from './paths.js';
import type { Report } from './report-data.js';
import type { SoakReport } from './soak/report.js';

export const DOCUMENTS = ['docs/benchmarks.md', 'docs/reliability.md'];

type Measured = Omit<RecordedRun, 'commit'>;

const program = new Command('bench:record')
  .argument('[file]', 'report.json, soak.json, or the lines of scale', path.join(OUTPUT, 'report.json'))
  .option('--commit <hash>', 'what was measured, where it is not what is checked out')
  .option('--machine <name>', "the class of machines, where it is not the processor's name")
  .option('--tables', 'records nothing', false)
  .parse();
const options = program.opts<{ commit?: string; machine?: string; tables: boolean }>();

if (!options.tables) {
  const measured = read(program.processedArgs[0] as string);
  const commit = options.commit ?? checkedOut();
  appendHistory({ ...measured, commit, ...(options.machine && { machine: options.machine }) });
}
const history = readHistory();
for (const name of DOCUMENTS) {
  const file = path.join(ROOT, name);
  writeFileSync(file, withTables(readFileSync(file, 'utf8'), history));
}

function read(file: string): Measured {
  const text = readFileSync(file, 'utf8');
  if (text.startsWith('{"what"')) {
    return {
      date: new Date().toISOString().slice(0, 10),
      machine: machineClass(cpus()[0]?.model ?? 'unknown'),
      command: 'npm run scale -- --json',
      figures: scaleFigures(text),
    };
  }
  const report = JSON.parse(text) as Report | SoakReport;
  const machine = machineClass(report.machine.cpu);
  const date = report.date.slice(0, 10);
  if ('outcomes' in report) {
    if (report.quick) throw new RangeError('a quick run is too short to record');
    return { date, machine, command: report.command, figures: benchFigures(report) };
  }
  const command = `npm run soak -- --minutes ${Math.round(report.minutes)} --seed ${report.seed}`;
  return { date, machine, command, figures: soakFigures(report) };
}

function checkedOut(): string {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
  if (git('status', '--porcelain', '--', 'lib', 'addon') !== '')
    throw new Error('lib/ or addon/ is not as committed: --commit says what was measured');
  return git('rev-parse', '--short=7', 'HEAD');
}
