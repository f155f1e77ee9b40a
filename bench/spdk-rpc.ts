/** SPDK's JSON-RPC, as far as a benchmark wants to know anything from it. */
import { connect } from 'node:net';

const TIMEOUT_MS = 5_000;

/** Reads and writes that a block device has served. */
export interface IoCounts {
  reads: number;
  writes: number;
}

/** `SPDK v26.09 git sha1 …`. */
export async function spdkVersion(socket: string): Promise<string> {
  const { version } = (await call(socket, 'spdk_get_version')) as { version: string };
  return version;
}

/** bdev_get_iostat. */
export async function ioCounts(socket: string, name: string): Promise<IoCounts> {
  // Of all: how one of them is named has changed between versions.
  const { bdevs } = (await call(socket, 'bdev_get_iostat')) as {
    bdevs: { name: string; num_read_ops: number; num_write_ops: number }[];
  };
  const found = bdevs.find((bdev) => bdev.name === name);
  if (found === undefined) throw new Error(`${socket}: no block device ${name}`);
  return { reads: found.num_read_ops, writes: found.num_write_ops };
}

/** bdev_null_resize: the target tells its hosts that the namespace has changed. */
export async function resizeNull(socket: string, name: string, sizeMiB: number): Promise<void> {
  await call(socket, 'bdev_null_resize', { name, new_size: sizeMiB });
}

function call(path: string, method: string, params?: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setEncoding('utf8').setTimeout(TIMEOUT_MS);
    socket.on('timeout', () => socket.destroy(new Error(`${path}: no answer to ${method}`)));
    socket.on('error', reject);
    socket.on('data', (part: string) => {
      text += part;
      const answer = parsed(text);
      if (answer === undefined) return;
      socket.destroy();
      if (answer.error === undefined) resolve(answer.result);
      else reject(new Error(`${path}: ${method}: ${answer.error.message}`));
    });
    socket.on('close', () => reject(new Error(`${path}: closed without an answer to ${method}`)));
    socket.write(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }));
  });
}

interface Answer {
  result?: unknown;
  error?: { message: string };
}

/** The server keeps the connection open, and nothing but the JSON itself says where it ends. */
function parsed(text: string): Answer | undefined {
  try {
    return JSON.parse(text) as Answer;
  } catch {
    return undefined;
  }
}
