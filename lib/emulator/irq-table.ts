/**
 * The interrupts of a device as one client has set them up ("VFIO_USER_DEVICE_SET_IRQS").
 *
 * Each interrupt has up to three eventfds: `trigger` is signalled when the device interrupts, `mask` and `unmask`
 * when the interrupt is masked and unmasked. They are the table's from the moment that a command brought them.
 */
import { readlinkSync } from 'node:fs';
import { native, type NativeEventFd } from '../native.js';
import {
  IRQ_FLAG_AUTOMASKED,
  IRQ_FLAG_EVENTFD,
  IRQ_FLAG_MASKABLE,
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_EVENTFD,
} from '../protocol/constants.js';
import type { IrqInfo } from '../protocol/irq-info.js';
import type { SetIrqs } from '../protocol/set-irqs.js';
import { DeviceError, EINVAL, EMFILE } from './device-error.js';
import type { Hardware, IrqLine, IrqModel } from './device-model.js';

/** Interrupt indexes that every PCI device is said to have. */
const PCI_IRQS = 5;

const ACTIONS = ['trigger', 'mask', 'unmask'] as const;
type Action = (typeof ACTIONS)[number];

class Line implements IrqLine {
  readonly #automasked: boolean;
  readonly #isRaised: (() => boolean) | undefined;
  readonly #events: Record<Action, NativeEventFd | undefined> = {
    trigger: undefined,
    mask: undefined,
    unmask: undefined,
  };
  #masked = false;
  /** Triggered while it was masked. */
  #pending = false;

  /** `isRaised` is what a level-triggered interrupt is asked. */
  constructor(automasked: boolean, isRaised: (() => boolean) | undefined) {
    this.#automasked = automasked;
    this.#isRaised = isRaised;
  }

  get isArmed(): boolean {
    return this.#events.trigger !== undefined;
  }

  get isMasked(): boolean {
    return this.#masked;
  }

  trigger(): boolean {
    if (this.#masked) {
      this.#pending = true;
      return false;
    }
    if (this.#automasked) this.#masked = true;
    return this.#signal('trigger');
  }

  mask(): void {
    if (this.#masked) return;
    this.#masked = true;
    this.#signal('mask');
  }

  /** For a level this is the end of an interrupt as well: as long as it is raised there is another one. */
  unmask(): void {
    const wasMasked = this.#masked;
    const isDue = this.#pending || this.#isRaised?.() === true;
    this.#masked = false;
    this.#pending = false;
    if (wasMasked) this.#signal('unmask');
    if (isDue) this.trigger();
  }

  has(action: Action): boolean {
    return this.#events[action] !== undefined;
  }

  /** Takes `event`, or de-assigns what was there. */
  assign(action: Action, event: NativeEventFd | undefined): void {
    this.#events[action]?.close();
    this.#events[action] = event;
  }

  disable(): void {
    for (const action of ACTIONS) this.assign(action, undefined);
    this.#masked = false;
    this.#pending = false;
  }

  #signal(action: Action): boolean {
    // -EAGAIN: the count is full, and the client has been signalled all the same.
    return this.#events[action]?.signal(1) === 0;
  }
}

interface Index {
  readonly flags: number;
  readonly lines: readonly Line[];
}

export class IrqTable {
  /** Indexes run from 0 to here. */
  readonly count: number;
  readonly #indexes = new Map<number, Index>();
  readonly #maxEventFds: number;
  readonly #hardware: Hardware | undefined;

  /** No more than `maxEventFds` are kept. */
  constructor(irqs: readonly IrqModel[], maxEventFds: number, hardware?: Hardware) {
    this.#maxEventFds = maxEventFds;
    this.#hardware = hardware;
    for (const { index, count, flags = IRQ_FLAG_EVENTFD, isRaised } of irqs) {
      const automasked = (flags & IRQ_FLAG_AUTOMASKED) !== 0;
      const lines = Array.from({ length: count }, () => new Line(automasked, isRaised));
      this.#indexes.set(index, { flags, lines });
    }
    this.count = Math.max(PCI_IRQS, ...irqs.map(({ index }) => index + 1));
  }

  /** Undefined where the device has no such interrupt. */
  line(index: number, sub: number): IrqLine | undefined {
    return this.#indexes.get(index)?.lines[sub];
  }

  /** What GET_IRQ_INFO says of an index. Throws a DeviceError EINVAL for one that no PCI device has either. */
  describe(index: number): IrqInfo {
    if (index >= this.count) throw new DeviceError(EINVAL, `no interrupt index ${index}`);
    const found = this.#indexes.get(index);
    return { index, flags: found?.flags ?? 0, count: found?.lines.length ?? 0 };
  }

  /**
   * Does what SET_IRQS asks. The fds are the table's in any case.
   *
   * @throws DeviceError EINVAL for what the device does not have or cannot do, EMFILE for more eventfds than are kept.
   */
  set(request: SetIrqs, fds: readonly number[]): void {
    // Wrapped at once: closing the objects is closing the fds.
    const events = fds.map((fd) => new (native().EventFd)(fd, () => {}));
    try {
      this.#set(request, events);
    } catch (error) {
      for (const event of events) event.close();
      throw error;
    }
  }

  /** The client has gone: its eventfds are closed. */
  close(): void {
    for (const { lines } of this.#indexes.values()) for (const line of lines) line.disable();
  }

  #set(request: SetIrqs, events: readonly NativeEventFd[]): void {
    const { start, count, flags, data } = request;
    const lines = this.#linesOf(request);
    const action = actionOf(flags);
    if (this.#hardware !== undefined) {
      if (!events.every(({ fd }) => isEventFd(fd))) throw new DeviceError(EINVAL, 'an fd is not an eventfd');
      const fds = events.map(({ fd }) => fd);
      if (fds.length !== 0 && fds.length !== count)
        throw new DeviceError(EINVAL, `${fds.length} eventfds for ${count} interrupts`);
      this.#hardware.setIrqs(request, fds);
      // It has taken what it keeps.
      for (const event of events) event.close();
      return;
    }
    if ((flags & IRQ_SET_DATA_EVENTFD) === 0) {
      if (events.length > 0) throw new DeviceError(EINVAL, 'fds without DATA_EVENTFD');
      if (count === 0) lines.forEach((line) => line.disable());
      else lines.slice(start, start + count).forEach((line, i) => data?.[i] !== 0 && line[action]());
      return;
    }
    if (events.length !== 0 && events.length !== count) {
      throw new DeviceError(EINVAL, `${events.length} eventfds for ${count} interrupts`);
    }
    if (!events.every(({ fd }) => isEventFd(fd))) throw new DeviceError(EINVAL, 'an fd is not an eventfd');
    const meant = lines.slice(start, start + count);
    if (events.length > 0) this.#checkRoom(meant.filter((line) => !line.has(action)).length);
    meant.forEach((line, i) => line.assign(action, events[i]));
  }

  #checkRoom(more: number): void {
    let kept = 0;
    for (const { lines } of this.#indexes.values()) {
      for (const line of lines) for (const action of ACTIONS) if (line.has(action)) kept++;
    }
    if (kept + more <= this.#maxEventFds) return;
    throw new DeviceError(EMFILE, `${kept} eventfds are kept, at most ${this.#maxEventFds} are`);
  }

  /** The lines of the index, once it is sure that it has those that are meant and knows the action. */
  #linesOf({ index, start, count, flags }: SetIrqs): readonly Line[] {
    const found = this.#indexes.get(index);
    if (found === undefined || found.lines.length === 0) {
      throw new DeviceError(EINVAL, `no interrupts of index ${index}`);
    }
    if (start + count > found.lines.length) {
      throw new DeviceError(EINVAL, `interrupts ${start} to ${start + count - 1} of ${found.lines.length}`);
    }
    const masking = (flags & (IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK)) !== 0;
    if (masking && (found.flags & IRQ_FLAG_MASKABLE) === 0) {
      throw new DeviceError(EINVAL, `index ${index} is not MASKABLE`);
    }
    if ((flags & IRQ_SET_DATA_EVENTFD) !== 0 && (found.flags & IRQ_FLAG_EVENTFD) === 0) {
      throw new DeviceError(EINVAL, `index ${index} takes no eventfds`);
    }
    return found.lines;
  }
}

function actionOf(flags: number): Action {
  if ((flags & IRQ_SET_ACTION_TRIGGER) !== 0) return 'trigger';
  return (flags & IRQ_SET_ACTION_MASK) !== 0 ? 'mask' : 'unmask';
}

/** Anything else would be written to, or make us wait. */
export function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}
