/**
 * Names what keeps a process from ending: rigs and devices that nobody closed. A timer that keeps nothing alive itself looks
 * whether anything happens; where nothing does for some time, and the process is still there, it says what is open.
 */
import diagnosticsChannel from 'node:diagnostics_channel';
import { DEVICE_CHANNEL, type Device } from '../index.js';

const LOOK_MS = 1_000;
/** So long nothing happened. */
const IDLE_MS = 10_000;

interface Opened {
  readonly what: () => { name: string; isClosed: boolean; work: number } | undefined;
  readonly where: string;
  isNamed: boolean;
}

const opened = new Set<Opened>();
let timer: NodeJS.Timeout | undefined;
let lastWork = -1;
let idleSince = 0;

/** The line of the program that has opened it. */
function whereOpened(): string {
  const stack = new Error().stack ?? '';
  const lines = stack
    .split('\n')
    .slice(1)
    .map((line) => line.trim().replace(/^at /, ''));
  const own = /[\\/](?:vfio-user|dist|lib)[\\/](?:dist[\\/])?(?:testing|device)[\\/]|^async Promise|node:/;
  return lines.find((line) => !own.test(line)) ?? lines[0] ?? 'somewhere';
}

function watch(entry: Omit<Opened, 'where' | 'isNamed'>): void {
  opened.add({ ...entry, where: whereOpened(), isNamed: false });
  idleSince = performance.now();
  timer ??= setInterval(look, LOOK_MS).unref();
}

/** A rig, from when it is open until it is closed. */
export function watchRig(rig: { readonly name: string; readonly isClosed: boolean }): void {
  watch({ what: () => ({ name: `rig ${rig.name}`, isClosed: rig.isClosed, work: 0 }) });
}

let isSubscribed = false;

/** Devices, from now on. */
export function watchDevices(): void {
  if (isSubscribed) return;
  isSubscribed = true;
  diagnosticsChannel.subscribe(DEVICE_CHANNEL, (message) => {
    const { device, endpoint } = message as { device: Device; endpoint: string };
    // Who has lost it cannot close it any more; it is no reason to keep it.
    const weak = new WeakRef(device);
    watch({
      what: () => {
        const one = weak.deref();
        if (one === undefined) return undefined;
        const { sent, received } = one.counters;
        return { name: `device ${endpoint}`, isClosed: one.isClosed, work: Number(sent) + Number(received) };
      },
    });
  });
}

/** What is open: its name, and the line that has opened it. */
export function leftOpen(): { readonly name: string; readonly where: string }[] {
  return [...opened].flatMap((one) => {
    const state = one.what();
    if (state !== undefined && !state.isClosed) return [{ name: state.name, where: one.where }];
    opened.delete(one);
    return [];
  });
}

function look(): void {
  const open = leftOpen();
  const work = [...opened].reduce((sum, one) => sum + (one.what()?.work ?? 0), 0) + open.length;
  const now = performance.now();
  if (work !== lastWork) idleSince = now;
  lastWork = work;
  if (open.length === 0) {
    clearInterval(timer);
    timer = undefined;
    return;
  }
  if (now - idleSince < IDLE_MS) return;
  for (const one of opened) {
    if (one.isNamed) continue;
    one.isNamed = true;
    const name = one.what()?.name;
    if (name !== undefined) process.stderr.write(`vfio-user: ${name} is still open, from ${one.where}\n`);
  }
}
