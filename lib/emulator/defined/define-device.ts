/** `defineDevice`: what an author says of a device, checked, and the device that it makes. */
import { inspect } from 'node:util';
import { wrongType } from '../../fields.js';
import * as option from '../../options.js';
import type { RegisterMapData } from '../../register-map/data.js';
import { readRegisterMapSync } from '../../register-map/load.js';
import { RegisterMap } from '../../register-map/map.js';
import type { ConfigCapability } from '../pci-config.js';
import { behaviourOf, namedBy, type DeviceBehaviour } from './behaviour.js';
import { DefinedDevice, type CheckedDefinition, type DeviceIdentity } from './defined-device.js';
import type { DeviceHandle } from './device-handle.js';
import { DEVICE_INTERRUPTS, placeMsix, type DeviceInterrupts } from './interrupts.js';
import { DEVICE_BAR, checkMsix, layBars, type DeviceBar } from './layout.js';

/** What a device is. */
export interface DeviceDefinition {
  /** What config space says of it. */
  readonly id: DeviceIdentity;
  /** Its registers: a map, a map's data, or the path of a file in CMSIS-SVD, IP-XACT, SystemRDL's JSON or the JSON of this package. */
  readonly map: RegisterMap | RegisterMapData | string | URL;
  /** Its BARs; by default BAR 0 with all registers. */
  readonly bars?: readonly DeviceBar[] | undefined;
  /** Its interrupts; none by default. */
  readonly interrupts?: DeviceInterrupts | undefined;
  /** Further capabilities of config space. */
  readonly capabilities?: readonly ConfigCapability[] | undefined;
  /** What happens when registers and fields are read and written. Storage and what their access says are done. */
  readonly on?: DeviceBehaviour | undefined;
  /** Called when the device has been reset, with its registers as at first. */
  readonly reset?: ((device: DeviceHandle) => void | Promise<void>) | undefined;
  /**
   * Called with what a function of `on` rejects with, which nobody waits for; what a reset or the client's end made of it is
   * left out. A process warning by default.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
}

export const IDENTITY = new option.OptionTable<DeviceIdentity>(
  {
    vendorId: option.wholeNumber(0, 0xffff),
    deviceId: option.wholeNumber(0, 0xffff),
    classCode: option.wholeNumber(0, 0xff_ffff),
    revisionId: option.wholeNumber(0, 0xff),
    subsystemVendorId: option.wholeNumber(0, 0xffff),
    subsystemId: option.wholeNumber(0, 0xffff),
  },
  ['vendorId', 'deviceId'],
);
const OPTIONS = new option.OptionTable<DeviceDefinition>(
  {
    id: option.options(IDENTITY),
    map: (value, caller, name) =>
      typeof value === 'string' || (typeof value === 'object' && value !== null)
        ? undefined
        : wrongType(`${caller}: ${name}`, 'a RegisterMap, its data, or the path of a file', value),
    bars: option.listOf('BARs', option.options(DEVICE_BAR)),
    interrupts: option.options(DEVICE_INTERRUPTS),
    capabilities: option.unchecked,
    on: (value, caller, name) =>
      typeof value === 'object' && value !== null
        ? undefined
        : wrongType(`${caller}: ${name}`, 'an object', value),
    reset: option.callback,
    onError: option.callback,
  },
  ['id', 'map'],
);

/**
 * Makes a device of a register map: what registers keep and what reads and writes do by their access, resets, BARs, config
 * space, MSI-X with its table and pending bits are done; what is left to write is what the device does.
 *
 * @throws TypeError and RangeError for what makes no sense: an unknown name, registers that do not fit their BAR;
 * RegisterMapError for a map that makes none; what reading its file throws.
 *
 * @example
 * ```ts
 * export default defineDevice({
 *   id: { vendorId: 0x1234, deviceId: 0x5541 },
 *   map: new URL('timer.svd', import.meta.url),
 *   interrupts: { msix: 1 },
 *   on: {
 *     'CTRL.START': async (device) => {
 *       await setTimeout(device.get('PERIOD'), undefined, { signal: device.signal });
 *       device.set('STATUS.EXPIRED', 1);
 *       device.raise();
 *     },
 *   },
 * });
 * ```
 */
export function defineDevice(definition: DeviceDefinition): DefinedDevice {
  OPTIONS.check('defineDevice', definition);
  const { id, map, interrupts = {}, capabilities = [], on = {}, reset, onError = warn } = definition;
  const bars = layBars(mapOf(map), definition.bars ?? [{ index: 0 }]);
  const msix = placeMsix(
    interrupts.msix,
    new Map(bars.map(({ index, kind }) => [index, { is64: kind === 'memory64' }])),
  );
  if (msix !== undefined) checkMsix(bars, msix);
  const placements = bars.flatMap(({ content }) => ('placement' in content ? [content.placement] : []));
  const behaviour = Object.entries(on).flatMap(([name, value]) => {
    const checked = behaviourOf(name, value);
    return namedBy(placements, name).map((named) => ({ named, behaviour: checked }));
  });
  const checked: CheckedDefinition = {
    id,
    bars,
    msix,
    msi: interrupts.msi ?? 0,
    intx: interrupts.intx ?? false,
    capabilities,
    behaviour,
    onReset: reset ?? (() => undefined),
    onError,
  };
  return new DefinedDevice(checked);
}

function mapOf(map: DeviceDefinition['map']): RegisterMap {
  if (map instanceof RegisterMap) return map;
  if (typeof map === 'string' || map instanceof URL) return readRegisterMapSync(map).map;
  // Of another copy of the package it comes as its data.
  const { toJSON } = map as Partial<Pick<RegisterMap, 'toJSON'>>;
  return RegisterMap.from(typeof toJSON === 'function' ? toJSON.call(map) : map);
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : inspect(error));
}
