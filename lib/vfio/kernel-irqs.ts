/**
 * A device's interrupts, as the kernel has them: VFIO_DEVICE_SET_IRQS. The kernel is given the client's eventfds; we keep
 * duplicates, for an index that takes no more of them than it was enabled with (NORESIZE): it is disabled, and enabled
 * with all of them.
 */
import { DeviceError } from '../emulator/device-error.js';
import { check, holdFd, native, type HeldFd } from '../native.js';
import {
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_BOOL,
  IRQ_SET_DATA_EVENTFD,
} from '../protocol/constants.js';
import type { SetIrqs } from '../protocol/set-irqs.js';
import { EINVAL } from '../system-numbers.js';

const ACTIONS = IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK | IRQ_SET_ACTION_TRIGGER;
const NO_FD = -1;

/** The ioctl: 0 or -errno. `fds` are eventfds, where -1 takes one away; null is DATA_NONE. */
export type SetIrqsCall = (
  index: number,
  start: number,
  count: number,
  action: number,
  fds: readonly number[] | null,
) => number;

export class KernelIrqs {
  readonly #call: SetIrqsCall;
  /** The eventfds of each index, by subindex. */
  readonly #armed = new Map<number, Map<number, HeldFd>>();

  constructor(call: SetIrqsCall) {
    this.#call = call;
  }

  /** Does what a client's SET_IRQS asks. The fds stay the caller's. @throws DeviceError with the kernel's errno. */
  set({ index, start, count, flags, data }: SetIrqs, fds: readonly number[]): void {
    const action = flags & ACTIONS;
    if ((flags & IRQ_SET_DATA_EVENTFD) !== 0) {
      this.#assign(index, start, action, fds.length > 0 ? fds : new Array<number>(count).fill(NO_FD));
    } else if ((flags & IRQ_SET_DATA_BOOL) !== 0) {
      for (let i = 0; i < count; i++) if (data?.[i] !== 0) this.#act(index, start + i, 1, action);
    } else {
      this.#act(index, start, count, action);
      if (count === 0) this.#forget(index);
    }
  }

  /** Disables every index that has eventfds. What the kernel answers changes nothing: the eventfds are gone. */
  disableAll(): void {
    for (const index of this.#armed.keys()) this.#call(index, 0, 0, IRQ_SET_ACTION_TRIGGER, null);
    this.close();
  }

  /** Closes the duplicates. */
  close(): void {
    for (const index of [...this.#armed.keys()]) this.#forget(index);
  }

  /** DATA_NONE: does the action, or disables the whole index where `count` is 0. */
  #act(index: number, start: number, count: number, action: number): void {
    const result = this.#call(index, start, count, action, null);
    if (result < 0) throw refused(index, result);
  }

  #assign(index: number, start: number, action: number, fds: readonly number[]): void {
    let result = this.#call(index, start, fds.length, action, fds);
    const armed = this.#armed.get(index) ?? new Map<number, HeldFd>();
    if (result === -EINVAL && action === IRQ_SET_ACTION_TRIGGER && armed.size > 0) {
      result = this.#enableAgain(index, armed, start, fds);
    }
    if (result < 0) throw refused(index, result);
    if (action !== IRQ_SET_ACTION_TRIGGER) return;
    fds.forEach((fd, i) => {
      armed.get(start + i)?.close();
      armed.delete(start + i);
      if (fd !== NO_FD) armed.set(start + i, holdFd(check(native().dupFd(fd), 'dup')));
    });
    this.#armed.set(index, armed);
  }

  /** With those that were enabled and those that are new; where that fails, with those that were. */
  #enableAgain(
    index: number,
    armed: ReadonlyMap<number, HeldFd>,
    start: number,
    fds: readonly number[],
  ): number {
    const before: number[] = [];
    for (const [sub, held] of armed) before[sub] = held.fd;
    const all = [...before];
    fds.forEach((fd, i) => (all[start + i] = fd));
    const enable = (some: readonly (number | undefined)[]): number => {
      const whole = Array.from(some, (fd) => fd ?? NO_FD);
      return this.#call(index, 0, whole.length, IRQ_SET_ACTION_TRIGGER, whole);
    };
    this.#act(index, 0, 0, IRQ_SET_ACTION_TRIGGER);
    const result = enable(all);
    if (result < 0) enable(before);
    return result;
  }

  #forget(index: number): void {
    for (const held of this.#armed.get(index)?.values() ?? []) held.close();
    this.#armed.delete(index);
  }
}

function refused(index: number, result: number): DeviceError {
  return new DeviceError(-result, `VFIO_DEVICE_SET_IRQS of index ${index}`);
}
