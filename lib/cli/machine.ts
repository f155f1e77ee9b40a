/** The machine that the command line looks at. */
import { UsageError } from './errors.js';
import { Machine } from '../vfio/machine.js';

/** Where its /sys, /proc, /dev and /run are: another root than this machine's is for specs, and for what was copied of one. */
const ROOT_VARIABLE = 'VFIO_USER_MACHINE';

export function thisMachine(): Machine {
  const root = process.env[ROOT_VARIABLE] ?? '/';
  try {
    return new Machine(root);
  } catch (error) {
    throw new UsageError(`${ROOT_VARIABLE}: ${(error as Error).message}`);
  }
}
