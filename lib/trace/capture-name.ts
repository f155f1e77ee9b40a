/** `VFIO_USER_CAPTURE=dev.pcapng`: programs that know nothing of captures can be captured. */
import path from 'node:path';
import { isMainThread, threadId } from 'node:worker_threads';

let devices = 0;

/**
 * The file for the next device of this thread, undefined where the environment names none. `%p` is the process's id.
 * Each device has a file of its own: `dev.pcapng`, then `dev-2.pcapng`; in a worker `dev-w1.pcapng`, `dev-w1-2.pcapng`.
 */
export function captureName(): string | undefined {
  const { VFIO_USER_CAPTURE: wanted = '' } = process.env;
  if (wanted === '') return undefined;
  devices++;
  const { dir, name, ext } = path.parse(wanted.replaceAll('%p', String(process.pid)));
  const worker = isMainThread ? '' : `-w${threadId}`;
  const number = devices === 1 ? '' : `-${devices}`;
  return path.join(dir, `${name}${worker}${number}${ext}`);
}
