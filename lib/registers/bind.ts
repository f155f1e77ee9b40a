/** A block's registers, bound to where they are. */
import * as option from '../options.js';
import {
  isRegister,
  registerByPath,
  type BlockInfo,
  type GroupInfo,
  type MemberInfo,
  type RegisterInfo,
} from '../register-map/map.js';
import { memberNames } from '../register-map/names.js';
import { portOf, type Port, type RegisterTarget } from './port.js';
import { Register, type Field, type RegisterAccessEvent } from './register.js';

/** How a block is bound. */
export interface BindOptions {
  /** Where the block begins in what it is bound to, in bytes. Default 0. */
  offset?: number | undefined;
  /** Told of each access before it is made. */
  onAccess?: ((access: RegisterAccessEvent) => void) | undefined;
}

const OPTIONS = new option.OptionTable<BindOptions>({
  offset: option.wholeNumber(),
  onAccess: option.callback,
});

/**
 * Registers of a block, where they are in a device: by the names of the file (`register`, `field`), or as members in camelCase.
 *
 * @example
 * ```ts
 * const uart = bindRegisters(map.block('UART0'), device.bar(0), { offset: 0x100 });
 * await uart.field('CTRL.ENABLE').write(1);
 * ```
 */
export class BoundRegisters {
  /** What the map says of the block. */
  readonly block: BlockInfo;
  readonly #port: Port;
  readonly #options: BindOptions;
  readonly #registers = new Map<string, Register>();

  /** @internal */
  constructor(block: BlockInfo, port: Port, options: BindOptions) {
    this.block = block;
    this.#port = port;
    this.#options = options;
  }

  /** The register of this path: `CTRL`, `CH[2].CTRL`. @throws RangeError */
  register(path: string): Register {
    const info = registerByPath(this.block, path);
    if (info === undefined) throw new RangeError(`${this.block.name} has no register ${path}`);
    return this.#bound(info);
  }

  #bound(info: RegisterInfo): Register {
    let register = this.#registers.get(info.path);
    if (register === undefined) {
      const { offset = 0, onAccess } = this.#options;
      register = new Register(this.#port, info, offset + info.offset, onAccess);
      this.#registers.set(info.path, register);
    }
    return register;
  }

  /** The field of this path: `CTRL.ENABLE`, `CH[2].CTRL.ENABLE`. @throws RangeError */
  field(path: string): Field {
    const dot = path.lastIndexOf('.');
    if (dot < 1) throw new RangeError(`${path} is no path of a field: those are REGISTER.FIELD`);
    return this.register(path.slice(0, dot)).field(path.slice(dot + 1));
  }

  /**
   * The registers as members in camelCase, of the type that a generated file has for them: `members<Uart>().ctrl.enable`. Arrays
   * are arrays. Each is made when it is asked for.
   */
  members<T extends object>(): T {
    return this.#membersOf(this.block, '') as T;
  }

  /** All of them, by their offsets. */
  registers(): Register[] {
    return this.block.registers.map((info) => this.#bound(info));
  }

  /** Forgets what was written to registers: the device has been reset. */
  forget(): void {
    for (const register of this.#registers.values()) register.forget();
  }

  #membersOf(group: GroupInfo, prefix: string): object {
    const names = memberNames(group.members.map(({ name }) => name));
    const made = {};
    for (const [i, member] of group.members.entries()) {
      let value: unknown;
      const get = (): unknown => (value ??= this.#member(member, prefix));
      Object.defineProperty(made, names[i] ?? member.name, { get, enumerable: true });
    }
    return made;
  }

  #member({ name, isArray, items }: MemberInfo, prefix: string): unknown {
    const made = items.map((item, i) => {
      const path = `${prefix}${name}${isArray ? `[${i}]` : ''}`;
      return isRegister(item) ? this.#bound(item) : this.#membersOf(item, `${path}.`);
    });
    return isArray ? made : made[0];
  }
}

/**
 * Binds a block to a region, a mapping or config space.
 * @throws TypeError and RangeError for what it cannot be bound to; RangeError for a block that the map does not have.
 */
export function bindRegisters(
  block: BlockInfo,
  target: RegisterTarget,
  options: BindOptions = {},
): BoundRegisters {
  OPTIONS.check('bindRegisters', options);
  return new BoundRegisters(block, portOf('bindRegisters', target), options);
}
