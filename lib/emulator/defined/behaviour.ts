/** What the author of a device writes: what happens when a register or a field is read or written. */
import { outOfRange, wrongType } from '../../fields.js';
import type { FieldInfo, RegisterInfo } from '../../register-map/map.js';
import type { RegisterPlacement } from '../../register-map/placement.js';
import type { DeviceHandle } from './device-handle.js';

/** What a register or a field holds: a bigint where it has more than 32 bits. */
export type DeviceValue = number | bigint;

/** A write, as the function that is called for it sees it. */
export interface RegisterWrite {
  /** `CTRL.START`, `CH[2].CTRL.START`: what was written. */
  readonly name: string;
  /** The indexes in it: `[2]`. */
  readonly indexes: readonly number[];
  /** What it held before. */
  readonly previous: DeviceValue;
}

/** What happens at reads and writes. */
export interface RegisterBehaviour {
  /**
   * Gives what is read, in place of what is kept. The client waits for a promise, and nothing else of it is carried out
   * meanwhile.
   */
  read?(this: void, device: DeviceHandle): DeviceValue | Promise<DeviceValue>;
  /**
   * Called after a write has done what its access says: with what was written where bits act (W1C, self-clearing), else with
   * what the field now holds. The write is answered when it returns; what a promise does goes on beside. A `DeviceError` that
   * it throws is the answer.
   */
  write?(this: void, device: DeviceHandle, value: DeviceValue, write: RegisterWrite): void | Promise<void>;
}

/** Called as `RegisterBehaviour.write`; a method's type, so that its `value` may be declared a number or a bigint. */
export type RegisterWriteFunction = NonNullable<RegisterBehaviour['write']>;

/**
 * By names of registers and fields: `CTRL`, `CTRL.START`, `UART0.CTRL.START`; `CH[*].CTRL.START` is that of all elements. A
 * function is what happens at writes.
 */
export type DeviceBehaviour = { readonly [name: string]: RegisterBehaviour | RegisterWriteFunction };

/** A register or a field of it. */
export interface Named {
  readonly register: RegisterInfo;
  readonly field: FieldInfo | undefined;
}

/** What a name of the behaviour means. @throws RangeError where nothing is called so, or several things are. */
export function namedBy(placements: readonly RegisterPlacement[], name: string): readonly Named[] {
  if (name.includes('[*]')) {
    const found = placements.flatMap((placement) => matching(placement, name));
    if (found.length > 0) return found;
    throw outOfRange(`defineDevice: no register or field is called ${JSON.stringify(name.slice(0, 80))}`);
  }
  return [oneNamed(placements, name)];
}

/** The register or field of a name. @throws RangeError */
export function oneNamed(placements: readonly RegisterPlacement[], name: string): Named {
  const found = placements.flatMap((placement) => placement.findAll(name));
  const [first, second] = found;
  const shown = JSON.stringify(name.slice(0, 80));
  if (first === undefined) throw outOfRange(`the device has no register or field ${shown}`);
  if (second === undefined) return first;
  const names = `${first.register.block}.${name} and ${second.register.block}.${name}`;
  throw outOfRange(`${shown} is the name of several registers: say ${names}`);
}

function matching(placement: RegisterPlacement, name: string): Named[] {
  const whole = pattern(name);
  const dot = name.lastIndexOf('.');
  const parent = dot < 0 ? undefined : pattern(name.slice(0, dot));
  const fieldName = name.slice(dot + 1).toLowerCase();
  return placement.registers.flatMap(({ register }): Named[] => {
    const paths = [register.path, `${register.block}.${register.path}`];
    if (paths.some((path) => whole.test(path))) return [{ register, field: undefined }];
    if (parent === undefined || !paths.some((path) => parent.test(path))) return [];
    return register.fields
      .filter((field) => field.name.toLowerCase() === fieldName)
      .map((field) => ({ register, field }));
  });
}

/** Every `[*]` is any index. */
function pattern(name: string): RegExp {
  const parts = name.split('[*]').map((part) => part.replaceAll(/[^\w-]/g, '\\$&'));
  return new RegExp(`^${parts.join('\\[\\d+\\]')}$`, 'i');
}

/** @throws TypeError for what is neither a function nor an object with `read` and `write`. */
export function behaviourOf(name: string, value: unknown): RegisterBehaviour {
  if (typeof value === 'function') return { write: value as RegisterWriteFunction };
  const what = `defineDevice: on[${JSON.stringify(name.slice(0, 80))}]`;
  if (typeof value !== 'object' || value === null) {
    throw wrongType(what, 'a function, or an object with read or write', value);
  }
  const { read, write } = value as RegisterBehaviour;
  for (const [member, given] of Object.entries(value)) {
    if (member !== 'read' && member !== 'write') {
      throw new TypeError(`${what} has ${member.slice(0, 40)}; it may have read and write`);
    }
    if (given !== undefined && typeof given !== 'function')
      throw wrongType(`${what}.${member}`, 'a function', given);
  }
  if (read === undefined && write === undefined) throw new TypeError(`${what} has neither read nor write`);
  return value;
}
