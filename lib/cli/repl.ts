/** The prompt, and what is in it; Node's own REPL does the rest. Where stdin is no terminal its lines are a script. */
import { chmodSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { start, type REPLServer } from 'node:repl';
import { inspect } from 'node:util';
import type { Device } from '../index.js';
import { pciId } from '../pci/index.js';
import { describeError } from './errors.js';
import { regionName } from './region-names.js';
import { runScript } from './repl-script.js';
import { hex } from './format-text.js';

const HISTORY_FILE = 'repl_history';
/** Numbers below look the same. */
const LEAST_HEX = 10;

/** Runs until the user or the script ends it. @throws what a script threw, and why the device was lost under one. */
export async function runRepl(device: Device, useColors: boolean): Promise<void> {
  const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  if (isTerminal) await atTerminal(device, useColors);
  else await runScript(process.stdin, device, { names: surroundings(device), writer: writerOf(useColors) });
}

/** The prompt stays when the device is lost: what has happened can be looked at. */
async function atTerminal(device: Device, useColors: boolean): Promise<void> {
  process.stdout.write(`${banner(device)}\n`);
  const prompt = `${nameOf(device)}> `;
  const writer = writerOf(useColors);
  const server = start({ prompt, useColors, terminal: true, ignoreUndefined: true, writer });
  const provide = () => void Object.assign(server.context, surroundings(device));
  provide();
  server.on('reset', provide);
  const ended = new Promise<void>((resolve) => server.once('exit', resolve));
  let isOpen = true;
  void ended.then(() => (isOpen = false));
  void device.closed.then((reason) => {
    if (!isOpen) return;
    process.stderr.write(`\nthe device is lost: ${describeError(reason)}\n`);
    server.displayPrompt(true);
  });
  await remember(server);
  await ended;
}

/** What the user finds. */
export function surroundings(device: Device): Record<string, unknown> {
  const regions = device.isPci ? device.regions.filter(({ size }) => size > 0) : [];
  const named = regions.map((region) => [regionName(region.index, true), region] as const);
  return {
    device,
    ...Object.fromEntries(named.filter(([name]) => /^[a-z]+\d?$/.test(name))),
    ...(device.hasConfig && { config: device.config }),
    irqs: device.irqs,
    dma: device.dma,
    hex: (value: number | bigint) => hex(value),
  };
}

function banner(device: Device): string {
  const names = Object.keys(surroundings(device)).join(', ');
  return `${names} are there; await works; .help, .exit`;
}

function nameOf(device: Device): string {
  return device.hasConfig ? pciId(device.config.vendorId, device.config.deviceId) : 'device';
}

/** Values as Node shows them; numbers, which are registers most of the time, as hexadecimal, too. */
function writerOf(colors: boolean): (value: unknown) => string {
  return (value) => {
    const text = inspect(value, { colors, showProxy: true });
    const isInteger = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value));
    return isInteger && value >= LEAST_HEX ? `${text} (${hex(value)})` : text;
  };
}

/** Lines are for their user alone: they may hold what a device holds. A history that cannot be kept is none. */
async function remember(server: REPLServer): Promise<void> {
  const directory = stateDirectory(process.env);
  const file = path.join(directory, HISTORY_FILE);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    await new Promise<void>((resolve, reject) => {
      server.setupHistory(file, (error) => (error === null ? resolve() : reject(error)));
    });
    chmodSync(file, 0o600);
  } catch (error) {
    process.stderr.write(`lines are not remembered: ${describeError(error)}\n`);
  }
}

/** XDG Base Directory Specification: a relative path is no path. */
export function stateDirectory({ XDG_STATE_HOME = '' }: NodeJS.ProcessEnv): string {
  const base = path.isAbsolute(XDG_STATE_HOME) ? XDG_STATE_HOME : path.join(homedir(), '.local', 'state');
  return path.join(base, 'vfio-user');
}
