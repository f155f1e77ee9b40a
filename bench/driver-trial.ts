/** What the programs in drivers/ are run as. */
import path from 'node:path';
import { ROOT } from './paths.js';
import type { MakeTrial } from './workload.js';

/** They are run as they are compiled, whatever this is run from. */
const DRIVERS = path.join(ROOT, 'build/tools/bench/drivers');

export function driver(name: string, ...args: string[]): MakeTrial {
  return (socket, quick) => ({
    command: process.execPath,
    args: [path.join(DRIVERS, `${name}.js`), socket, quick ? 'quick' : 'full', ...args],
  });
}
