/** The options that every verb has, and what verbs that need a device do first. */
import type { Command } from 'commander';
import picocolors from 'picocolors';
import {
  connect,
  type ConnectOptions,
  type Device,
  type MmapPolicy,
  type Quirks,
  type TlsSettings,
} from '../index.js';
import { endpointOf } from './endpoint.js';
import { readFile } from 'node:fs/promises';
import { checkQuirks } from '../device/quirks.js';
import { UsageError } from './errors.js';

export interface GlobalOptions {
  /** Milliseconds. */
  timeout: number;
  wait?: boolean;
  mmap: MmapPolicy;
  quirks?: string;
  tlsCa?: string;
  tlsCert?: string;
  tlsKey?: string;
  tlsServername?: string;
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
  const device = await openDevice(command, socket, more);
  try {
    await work(device);
  } finally {
    await device.close();
  }
}

/** The device, as the global options say; the caller closes it. */
export async function openDevice(
  command: Command,
  socket: string,
  more: Pick<ConnectOptions, 'spinUs'> = {},
): Promise<Device> {
  const globals = command.optsWithGlobals<GlobalOptions>();
  const { timeout, wait, mmap, quirks } = globals;
  const endpoint = endpointOf(socket);
  const options = {
    timeoutMs: timeout,
    waitForSocket: wait,
    mmap,
    quirks: await readQuirks(quirks),
    tls: await tlsOf(globals),
    ...more,
  };
  return connect(endpoint, options);
}

/** What `tls://` needs; undefined where nothing is said. @throws UsageError for half of a pair; what reading the files throws. */
export async function tlsOf(options: GlobalOptions): Promise<TlsSettings | undefined> {
  const { tlsCa, tlsCert, tlsKey, tlsServername: servername } = options;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new UsageError('--tls-cert and --tls-key need each other');
  }
  if ([tlsCa, tlsCert, servername].every((one) => one === undefined)) return undefined;
  const read = async (file: string | undefined) => (file === undefined ? undefined : readFile(file));
  return { ca: await read(tlsCa), cert: await read(tlsCert), key: await read(tlsKey), servername };
}

/** A report of the doctor's, of which the `quirks` are wanted. */
interface Report {
  format: unknown;
  quirks: Quirks;
}

/**
 * Reads quirks, or the quirks of a whole report (`doctor --json`).
 * @throws UsageError for what is no JSON, or makes no sense; what reading the file throws.
 */
export async function readQuirks(file: string | undefined): Promise<Quirks | undefined> {
  if (file === undefined) return undefined;
  const text = await readFile(file, 'utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UsageError(`${file} is no JSON`);
  }
  const quirks = isReport(value) ? value.quirks : (value as Quirks);
  try {
    checkQuirks(quirks);
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message}`);
  }
  return quirks;
}

function isReport(value: unknown): value is Report {
  return typeof value === 'object' && value !== null && 'format' in value && 'quirks' in value;
}
