/** The options that every verb has, and what verbs that need a device do first. */
import type { Command } from 'commander';
import picocolors from 'picocolors';
import { connect, type ConnectOptions, type Device, type MmapPolicy } from '../index.js';
import { endpointOf } from './endpoint.js';
import { readQuirks } from './quirks-file.js';

export interface GlobalOptions {
  /** Milliseconds. */
  timeout: number;
  wait?: boolean;
  mmap: MmapPolicy;
  quirks?: string;
  verbose?: boolean;
  color: boolean;
}

/** Colours for stdout: none where it is no terminal, or where the user or the environment says so. */
export type Colors = ReturnType<typeof picocolors.createColors>;

export function colorsOf(command: Command): Colors {
  const { color } = command.optsWithGlobals<GlobalOptions>();
  return picocolors.createColors(color && hasColors(process.stdout, process.env));
}

/** By the terminal and the environment: NO_COLOR forbids them, FORCE_COLOR wants them where nobody looks, too. */
export function hasColors({ isTTY }: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  const { NO_COLOR = '', FORCE_COLOR = '', TERM = '' } = env;
  if (NO_COLOR !== '' || FORCE_COLOR === '0' || FORCE_COLOR === 'false') return false;
  return FORCE_COLOR !== '' || (isTTY === true && TERM !== 'dumb');
}

/** Opens the device, does `work` with it and closes it, whatever comes of it. */
export async function withDevice(
  command: Command,
  socket: string,
  work: (device: Device) => Promise<void>,
  more: Pick<ConnectOptions, 'spinUs'> = {},
): Promise<void> {
  const { timeout, wait, mmap, quirks } = command.optsWithGlobals<GlobalOptions>();
  const endpoint = endpointOf(socket);
  const options = {
    timeoutMs: timeout,
    waitForSocket: wait,
    mmap,
    quirks: await readQuirks(quirks),
    ...more,
  };
  const device = await connect(endpoint, options);
  try {
    await work(device);
  } finally {
    await device.close();
  }
}
