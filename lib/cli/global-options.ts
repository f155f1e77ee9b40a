/** The options that every verb has, and what verbs that need a device do first. */
import type { Command } from 'commander';
import picocolors from 'picocolors';
import { connect, type Device, type MmapPolicy } from '../index.js';
import { endpointOf } from './endpoint.js';

export interface GlobalOptions {
  /** Milliseconds. */
  timeout: number;
  wait?: boolean;
  mmap: MmapPolicy;
  verbose?: boolean;
  color: boolean;
}

/** Colours for stdout: none where it is no terminal, where the user or the environment says so. */
export type Colors = ReturnType<typeof picocolors.createColors>;

export function colorsOf(command: Command): Colors {
  const { color } = command.optsWithGlobals<GlobalOptions>();
  const { NO_COLOR = '', TERM = '' } = process.env;
  return picocolors.createColors(
    color && process.stdout.isTTY === true && NO_COLOR === '' && TERM !== 'dumb',
  );
}

/** Opens the device, does `work` with it and closes it, whatever comes of it. */
export async function withDevice(
  command: Command,
  socket: string,
  work: (device: Device) => Promise<void>,
): Promise<void> {
  const { timeout, wait, mmap } = command.optsWithGlobals<GlobalOptions>();
  const endpoint = await endpointOf(socket, timeout);
  const device = await connect(endpoint, { timeoutMs: timeout, waitForSocket: wait, mmap });
  try {
    await work(device);
  } finally {
    await device.close();
  }
}
