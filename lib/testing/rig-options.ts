/** What a rig can be told. */
import type { DeviceModel, EmulatorOptions } from '../emulator/index.js';
import type { FaultPlan, FaultPlanSpec, FaultSpec } from '../faults/index.js';
import { wrongType } from '../fields.js';
import type { ConnectOptions, Endpoint, PciEndpoint } from '../index.js';
import * as option from '../options.js';
import type { RigMap } from './rig-map.js';

/** Where a rig's device may keep its files. */
export interface RigPlace {
  /**
   * The rig's directory, which goes with it. Of a failed test are kept: `waveform.*`, `simulator.log`, and what the rig itself
   * writes there.
   */
  readonly directory: string;
}

/** A device model in this process, or a function that makes one. */
export type RigDevice = DeviceModel | ((place: RigPlace) => DeviceModel | Promise<DeviceModel>);

/**
 * Options of `openRig`: where the device is, one of `device`, `command`, `socket`, `endpoint` and `pci`, and how it is looked at.
 */
export interface RigOptions {
  /**
   * A device model in this process: itself, which stays its creator's, or a function that makes one, which is called for each
   * start and whose device is closed by the rig (`close()`, where it has one).
   */
  device?: RigDevice | undefined;
  /** How the `device` is reached: by a call (`call`, the default, where synchronous calls work) or through a socket. */
  via?: 'call' | 'socket' | undefined;
  /** A program and its arguments that serve the device; `{socket}` in them is where it is to listen. No shell. */
  command?: readonly string[] | undefined;
  /** The program's environment, beside this process's. */
  env?: Readonly<Record<string, string>> | undefined;
  /** Where the program runs; here where nothing is said. */
  cwd?: string | undefined;
  /** The socket of a server that runs already. */
  socket?: string | undefined;
  /** Anything else that `connect` takes. */
  endpoint?: Endpoint | undefined;
  /** A function that the kernel's vfio-pci has: `0000:01:00.0`. */
  pci?: string | undefined;
  /** Names of registers. */
  map?: RigMap | undefined;
  /** What goes wrong: faults, a plan, or the name of a JSON file. A plan of one's own has the map that it was made with. */
  faults?: readonly FaultSpec[] | FaultPlanSpec | FaultPlan | string | undefined;
  /** Which traffic is kept as pcapng: of failed tests (the default), of all, or none. */
  capture?: 'on-failure' | 'always' | 'never' | undefined;
  /** Where evidence is put; `rig-results` in the working directory, or what `VFIO_USER_RIG_OUTPUT` says. */
  outputDir?: string | undefined;
  /** What the rig is called there: the test's name. */
  name?: string | undefined;
  /** Does what a host does before the test begins: `device.enable()`. Default true. */
  enable?: boolean | undefined;
  /** Options of `connect`; its `capture` is the rig's. */
  connect?: ConnectOptions | undefined;
  /** Options of the emulator, for a `device`; its `faults` are the rig's. */
  serve?: EmulatorOptions | undefined;
  /** How long the server may take to start and to be connected to, in milliseconds. Default 20,000. */
  timeoutMs?: number | undefined;
}

/** Of `timeoutMs`. */
export const DEFAULT_TIMEOUT_MS = 20_000;

const SOURCES = ['device', 'command', 'socket', 'endpoint', 'pci'] as const;

const OPTIONS = new option.OptionTable<RigOptions>({
  device: option.byType('a device model, or a function that makes one', {
    object: option.unchecked,
    function: option.callback,
  }),
  via: option.oneOf('call', 'socket'),
  command: option.listOf('words', option.string),
  env: option.byType('an object', { object: option.unchecked }),
  cwd: option.path,
  socket: option.path,
  endpoint: option.unchecked,
  pci: option.string,
  map: option.unchecked,
  faults: option.unchecked,
  capture: option.oneOf('on-failure', 'always', 'never'),
  outputDir: option.path,
  name: option.string,
  enable: option.boolean,
  connect: option.byType('an object', { object: option.unchecked }),
  serve: option.byType('an object', { object: option.unchecked }),
  timeoutMs: option.timeout,
});

/** Where the device is. */
export type RigSource =
  | { kind: 'device'; device: RigDevice; via: 'call' | 'socket' }
  | { kind: 'command'; command: readonly string[] }
  | { kind: 'endpoint'; endpoint: Endpoint }
  | { kind: 'pci'; endpoint: PciEndpoint };

/** @throws TypeError and RangeError for options that make no sense. */
export function sourceOf(options: RigOptions): RigSource {
  OPTIONS.check('openRig', options);
  const given = SOURCES.filter((name) => options[name] !== undefined);
  if (given.length !== 1) {
    const found = given.length === 0 ? 'none of them' : given.join(' and ');
    throw wrongType('openRig: options', `given one of ${SOURCES.join(', ')}`, found);
  }
  const { device, via = 'call', command, socket, endpoint, pci } = options;
  if (device !== undefined) return { kind: 'device', device, via };
  if (options.via !== undefined) throw wrongType('openRig: via', 'given with device', options.via);
  if (command !== undefined) {
    if (command.length === 0) throw wrongType('openRig: command', 'a program and its arguments', command);
    if (!command.some((word) => word.includes('{socket}')))
      throw wrongType('openRig: command', "a program that is told of '{socket}'", command.join(' '));
    return { kind: 'command', command };
  }
  if (pci !== undefined) {
    if (options.faults !== undefined)
      throw wrongType('openRig: faults', 'left out: hardware has its own', options.faults);
    return { kind: 'pci', endpoint: { pci } };
  }
  return { kind: 'endpoint', endpoint: (socket ?? endpoint) as Endpoint };
}
