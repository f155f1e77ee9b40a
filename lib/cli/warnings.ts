/** Warnings of the process, on stderr like everything else that is said there. */
import { CAPTURE_WARNING } from '../trace/index.js';
import { printable } from './errors.js';

let isCaptureLost = false;

/** From now on a warning is one line. */
export function printWarnings(): void {
  // Node's own listener prints them otherwise.
  process.removeAllListeners('warning');
  process.on('warning', (warning: Error & { code?: string }) => {
    const { name, message, code = name } = warning;
    if (code === CAPTURE_WARNING) isCaptureLost = true;
    process.stderr.write(`vfio-user: warning: ${printable(message)} [${code}]\n`);
  });
}

/** A capture that is not whole is a failure; the warning has been printed. */
export function wasCaptureLost(): boolean {
  return isCaptureLost;
}
