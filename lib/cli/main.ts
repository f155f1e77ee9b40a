#!/usr/bin/env node
/** The command line, `vfio-user`. Where to start: `program.ts` has the verbs, `verbs/` one file for each. */
import { run } from './program.js';
import { printWarnings } from './warnings.js';

printWarnings();

// Only the status is set: what is still to be written goes out, and a handle left open would show.
process.exitCode = await run(process.argv.slice(2));
