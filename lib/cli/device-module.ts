/** `vfio-user emulate ./uart.ts`: a device out of the user's own module. */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { DeviceModel } from '../emulator/index.js';
import { checkModel } from '../emulator/in-process.js';
import { VfioUserError } from '../errors.js';
import { UsageError } from './errors.js';

const MODULE = /\.[cm]?[jt]s$/;
const TYPESCRIPT = /\.[cm]?ts$/;

/** Whether it is meant as a file: the emulated devices have names without a dot or a slash. */
export function isModulePath(name: string): boolean {
  return name.includes('/') || MODULE.test(name);
}

/**
 * The device that a module's default export is, or gives: a model, a class of one, or a function.
 * @throws VfioUserError `ERR_VFIO_USER_DEVICE_MODULE` where it has none; what the module throws.
 */
export async function loadDeviceModule(file: string): Promise<DeviceModel> {
  if (!MODULE.test(file)) {
    throw new UsageError(`a module's name ends with .js, .mjs, .cjs, .ts, .mts or .cts, '${file}' does not`);
  }
  const exports = await importModule(file);
  const given = exports['default'];
  if (given === undefined) {
    const names = Object.keys(exports).slice(0, 8).join(', ');
    throw noDevice(file, `it has no default export; its exports are ${names === '' ? 'none' : names}`);
  }
  const device: unknown = typeof given === 'function' ? await called(given) : given;
  const origin = typeof given === 'function' ? 'what its default export gives' : 'its default export';
  if (typeof device !== 'object' || device === null || !('regions' in device) || !('irqs' in device)) {
    throw noDevice(file, `${origin} must be a device (with regions and irqs), and is ${described(device)}`);
  }
  try {
    checkModel(origin, device as DeviceModel);
  } catch (cause) {
    throw noDevice(file, (cause as Error).message, cause);
  }
  return device as DeviceModel;
}

async function importModule(file: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path.resolve(file)).href)) as Record<string, unknown>;
  } catch (cause) {
    const { code = '' } = cause as NodeJS.ErrnoException;
    if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && TYPESCRIPT.test(file)) {
      const advice = 'use Node 22.18 or later, or compile it to JavaScript';
      throw noDevice(file, `Node ${process.versions.node} does not run TypeScript: ${advice}`, cause);
    }
    if (code === 'ERR_MODULE_NOT_FOUND' && /'vfio-user'/.test((cause as Error).message)) {
      throw noDevice(
        file,
        `the package vfio-user is not installed where it is: npm install vfio-user`,
        cause,
      );
    }
    throw cause;
  }
}

function called(given: object): unknown {
  const isClass = /^class\b/.test(Function.prototype.toString.call(given));
  if (isClass) return new (given as new () => unknown)();
  return (given as () => unknown)();
}

function described(value: unknown): string {
  if (value === null || typeof value !== 'object') return value === undefined ? 'nothing' : typeof value;
  const names = Object.keys(value).slice(0, 8).join(', ');
  return names === '' ? 'an object without members' : `an object with ${names}`;
}

function noDevice(file: string, why: string, cause?: unknown): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_DEVICE_MODULE', `${file}: ${why}`, { cause });
}

/** Gives back what the device has, where it says how. */
export async function closeDevice(device: DeviceModel | undefined): Promise<void> {
  const { close } = (device ?? {}) as { close?: unknown };
  if (typeof close === 'function') await close.call(device);
}
