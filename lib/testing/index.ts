/**
 * Rigs: a device under test, its server and what is needed to look at them, for any test framework.
 *
 * ```ts
 * await using rig = await openRig({ command: ['./my-device', '{socket}'], map: 'uart.svd' });
 * await rig.field('CTRL.ENABLE').write(1);
 * await rig.expectRegister('STATUS.READY', 1, { within: 100 });
 * ```
 * `vfio-user/testing/vitest`, `/playwright`, `/jest` and `/node-test` have it in the words of those.
 * @packageDocumentation
 */
export { VfioUserError } from '../errors.js';
export type { DeviceModel, EmulatorOptions } from '../emulator/index.js';
export { FaultPlan, type FaultPlanSpec, type FaultReport, type FaultSpec } from '../faults/index.js';
export type { ConnectOptions, Device, DmaBuffer, Endpoint, Vector } from '../index.js';
export {
  RegisterMap,
  RegisterPlacement,
  type Field,
  type FieldValues,
  type Register,
  type RegisterValue,
} from '../registers/index.js';
export type { RigAttachment } from './evidence.js';
export type {
  DmaExpectation,
  DmaRange,
  ExpectedValue,
  InterruptOptions,
  NoInterruptOptions,
  WithinOptions,
} from './expectations.js';
export { leftOpen } from './left-open.js';
export { ExpectationError, RigError } from './rig-error.js';
export type { RigMap } from './rig-map.js';
export type { RigDevice, RigOptions, RigPlace } from './rig-options.js';
export { Rig, openRig, withRig, type RestartOptions } from './rig.js';
