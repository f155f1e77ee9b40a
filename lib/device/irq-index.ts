/** One type of interrupt of a device. In libvfio-user and QEMU, INTx, MSI and MSI-X share one array of eventfds. */
import { forbidCloning } from '../cloning.js';
import { forUndoing, type CallOptions, type Exclusive } from '../connection/index.js';
import { UnsupportedError, type VfioUserError } from '../errors.js';
import { boolean, integer, UINT32_MAX, wrongType } from '../fields.js';
import * as option from '../options.js';
import {
  IRQ_FLAG_AUTOMASKED,
  IRQ_FLAG_EVENTFD,
  IRQ_FLAG_MASKABLE,
  IRQ_FLAG_NORESIZE,
  IRQ_SET_ACTION_MASK,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_BOOL,
  IRQ_SET_DATA_NONE,
} from '../protocol/constants.js';
import type { IrqInfo } from '../protocol/irq-info.js';
import { IrqEventfds, disableRequest, setIrqs, type IrqAction } from './irq-eventfds.js';
import { isPinOrMessage, type MsiConfig } from './msi-config.js';
import type { DeviceContext } from './device-context.js';
import type { Vector } from './irq-vector.js';

/** Which interrupts of an index. */
export interface IrqRange {
  /** The first. Default 0. */
  start?: number | undefined;
  /** How many. Default 1. */
  count?: number | undefined;
}

/** Options of what is done with interrupts. */
export interface IrqOptions extends CallOptions {
  /**
   * Whether to do what a host does in the device's registers, and to go by what they say of the index's size. Without,
   * only SET_IRQS is sent and the server's count is the bound. Default true.
   */
  host?: boolean | undefined;
}

/** Options of `IrqIndex.disable`. */
export interface DisableOptions extends IrqOptions {
  /** Sends the message even though nothing is enabled here: some servers answer EINVAL to that. Default false. */
  force?: boolean | undefined;
}

/** What the indexes of a device share. */
export interface IrqGroup {
  readonly context: DeviceContext;
  readonly msiConfig: MsiConfig;
  /** Enabling, disabling and restoring happen one after the other: they are several messages each. */
  readonly exclusive: Exclusive;
  readonly all: readonly IrqIndex[];
  /** The indexes are those of PCI. */
  readonly isPci: boolean;
}

const IRQ_CHECKS = { ...option.CALL_CHECKS, host: option.boolean } as const;
const IRQ_OPTIONS = new option.OptionTable<IrqOptions>(IRQ_CHECKS);
const DISABLE_OPTIONS = new option.OptionTable<DisableOptions>({ ...IRQ_CHECKS, force: option.boolean });
const RANGE = new option.OptionTable<IrqRange>({
  start: option.wholeNumber(0, UINT32_MAX),
  count: option.wholeNumber(1, UINT32_MAX),
});

const NAMES = ['INTx', 'MSI', 'MSI-X', 'ERR', 'REQ'];

/** The vectors of a range, of which there is at least one. */
type Vectors = [first: Vector, ...others: Vector[]];

function inOrder(vectors: Vector[]): Vectors {
  return vectors.sort((a, b) => a.subindex - b.subindex) as Vectors;
}

/**
 * One type of interrupt of a device: INTx, MSI, MSI-X, ERR, REQ (specification: VFIO_USER_DEVICE_GET_IRQ_INFO
 * and VFIO_USER_DEVICE_SET_IRQS).
 *
 * On PCI, INTx, MSI and MSI-X exclude each other: enabling one of them disables the others first, and closes
 * their vectors. The indexes of a device on another bus are numbers, which do not touch each other.
 *
 * @example
 * ```ts
 * const [first, second] = await device.irqs.msix.enable(2);
 * await first.wait({ timeoutMs: 1_000 });
 * await device.irqs.msix.disable();
 * ```
 */
export class IrqIndex {
  /** `PciIrq` numbers for a PCI device. */
  readonly index: number;
  /** On PCI `INTx`, `MSI`, `MSI-X`, `ERR`, `REQ`; else `IRQ n`. */
  readonly name: string;
  /** VFIO_IRQ_INFO_* bits. */
  readonly flags: number;
  /** The count that the server reported. */
  readonly reportedCount: number;
  readonly #group: IrqGroup;
  readonly #triggers: IrqEventfds;
  /** Made with their first use: few devices have any. */
  #masks: IrqEventfds | undefined;
  #unmasks: IrqEventfds | undefined;
  #referenced = true;
  /** The device's registers are set up for the vectors. */
  #isConfigured = false;

  /** @internal */
  constructor(group: IrqGroup, info: IrqInfo) {
    this.#group = group;
    this.index = info.index;
    this.name = (group.isPci ? NAMES[info.index] : undefined) ?? `IRQ ${info.index}`;
    this.flags = info.flags;
    this.reportedCount = info.count;
    this.#triggers = this.#newSet(IRQ_SET_ACTION_TRIGGER);
    forbidCloning(this, 'an IrqIndex');
  }

  /**
   * How many interrupts the index has: what the server reported, but for MSI no more than config space's capability has
   * (none without one) and for MSI-X no more than its table. 0 where the device has none.
   */
  get count(): number {
    return this.#group.msiConfig.limit(this.index, this.reportedCount);
  }

  /** The server says that it signals by eventfd. Some take eventfds and do not say so: `enable` does not insist. */
  get supportsEventfd(): boolean {
    return (this.flags & IRQ_FLAG_EVENTFD) !== 0;
  }

  /** The server says that `mask` and `unmask` work. */
  get maskable(): boolean {
    return (this.flags & IRQ_FLAG_MASKABLE) !== 0;
  }

  /** An interrupt masks itself when it fires: `unmask` before the next one. */
  get automasked(): boolean {
    return (this.flags & IRQ_FLAG_AUTOMASKED) !== 0;
  }

  /** Vectors are enabled as one set: for others `disable` comes first. */
  get noResize(): boolean {
    return (this.flags & IRQ_FLAG_NORESIZE) !== 0;
  }

  /** Whether the server has eventfds of this index, also those of vectors that were closed. */
  get enabled(): boolean {
    return this.#triggers.isArmed;
  }

  /** @internal All that was counted, also by vectors that are closed: it never becomes less. */
  get signalled(): number {
    return this.#triggers.count;
  }

  /** The open vectors, by subindex. */
  get vectors(): readonly Vector[] {
    return this.#triggers.vectors;
  }

  /**
   * Enables `count` interrupts from 0, or a range: makes an eventfd for each, gives them to the server in groups of its
   * max_msg_fds, then sets up the device's registers as a host does (`host: false` leaves them alone): for MSI and
   * MSI-X the message addresses, the unmasked table and the enable bit, with INTx turned off; for INTx the latter turned
   * on. An MSI-X table that the server refuses access to is left as it is. Nothing is read from the vectors before this
   * returns: whoever listens at once misses nothing.
   *
   * Interrupts of the range that are enabled already keep their vectors, which are returned with the others. When it
   * fails, what it had enabled is disabled again, and the error says so.
   * @returns the vectors of the range, by subindex.
   * @throws RangeError for interrupts that the index does not have, UnsupportedError where no fds can be passed or where
   * the server wants vectors enabled as one set (NORESIZE), RemoteError, TimeoutError, ClosedError, TransportError where
   * this process has no fds left; the signal's reason.
   */
  async enable(
    range: number | IrqRange = 1,
    options: IrqOptions = {},
  ): Promise<[first: Vector, ...others: Vector[]]> {
    const subindexes = this.#subindexes('IrqIndex.enable', range, options);
    this.#triggers.groupSize();
    return this.#group.exclusive.run(`enabling ${this.name}`, options, (call = {}) =>
      this.#enable(subindexes, call),
    );
  }

  /**
   * Disables the whole index: undoes the enable bit, tells the server, closes the vectors, whatever the server answers.
   * Nothing is sent where nothing is enabled, unless forced.
   * @throws RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async disable(options: DisableOptions = {}): Promise<void> {
    DISABLE_OPTIONS.check('IrqIndex.disable', options);
    const { context } = this.#group;
    // With a device that is lost for good there is nobody to ask, and all is closed.
    if (!context.isEnded) context.requireAvailable(options);
    await this.#group.exclusive.run(`disabling ${this.name}`, options, (call = {}) => this.#disable(call));
  }

  /**
   * Masks `count` interrupts from `start`, or those of which `which` is true. Servers that do not report `maskable` may
   * ignore it.
   * @throws RangeError for interrupts that the index does not have; UnsupportedError for `which` on a server that
   * answered minor 0 (see `tryOptional`); RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  mask(start?: number, count?: number, options?: IrqOptions): Promise<void>;
  /** Masks those interrupts, from `start` on (default 0), of which `which` is true. Errors as of `mask`. */
  mask(which: readonly boolean[], start?: number, options?: IrqOptions): Promise<void>;
  mask(what: number | readonly boolean[] = 0, second?: number, options?: IrqOptions): Promise<void> {
    return this.#act('IrqIndex.mask', IRQ_SET_ACTION_MASK, what, second, options);
  }

  /** Unmasks; see `mask`. */
  unmask(start?: number, count?: number, options?: IrqOptions): Promise<void>;
  /** Unmasks those interrupts, from `start` on (default 0), of which `which` is true. Errors as of `mask`. */
  unmask(which: readonly boolean[], start?: number, options?: IrqOptions): Promise<void>;
  unmask(what: number | readonly boolean[] = 0, second?: number, options?: IrqOptions): Promise<void> {
    return this.#act('IrqIndex.unmask', IRQ_SET_ACTION_UNMASK, what, second, options);
  }

  /** Has the server signal the interrupts as if the device had raised them; see `mask` for the arguments and errors. */
  trigger(start?: number, count?: number, options?: IrqOptions): Promise<void>;
  /** Triggers those interrupts, from `start` on (default 0), of which `which` is true. Errors as of `mask`. */
  trigger(which: readonly boolean[], start?: number, options?: IrqOptions): Promise<void>;
  trigger(what: number | readonly boolean[] = 0, second?: number, options?: IrqOptions): Promise<void> {
    return this.#act('IrqIndex.trigger', IRQ_SET_ACTION_TRIGGER, what, second, options);
  }

  /**
   * Vectors that the server signals when it masks interrupts of the range. Ranges and errors are those of `enable`.
   * libvfio-user takes the message for a plain mask.
   */
  maskEvents(
    range: number | IrqRange = 1,
    options: IrqOptions = {},
  ): Promise<[first: Vector, ...others: Vector[]]> {
    const set = (this.#masks ??= this.#newSet(IRQ_SET_ACTION_MASK));
    return this.#events('IrqIndex.maskEvents', set, range, options);
  }

  /** Vectors that the server signals when it unmasks interrupts of the range; see `maskEvents`. */
  unmaskEvents(
    range: number | IrqRange = 1,
    options: IrqOptions = {},
  ): Promise<[first: Vector, ...others: Vector[]]> {
    const set = (this.#unmasks ??= this.#newSet(IRQ_SET_ACTION_UNMASK));
    return this.#events('IrqIndex.unmaskEvents', set, range, options);
  }

  /** @internal Gives everything that is open to the server again. It is the group's turn. */
  async restore(options: CallOptions | undefined): Promise<void> {
    const subindexes = this.vectors.map((vector) => vector.subindex);
    const { msiConfig } = this.#group;
    if (this.#isConfigured) await msiConfig.prepare(this.index, options);
    for (const set of this.#sets) await set.restore(options);
    if (this.#isConfigured) await msiConfig.apply(this.index, subindexes, options);
  }

  /** @internal */
  disconnect(reason: VfioUserError): void {
    for (const set of this.#sets) set.disconnect(reason);
  }

  /** @internal Also for vectors to come. */
  setReferenced(on: boolean): void {
    this.#referenced = on;
    for (const set of this.#sets) set.setReferenced(on);
  }

  get #sets(): IrqEventfds[] {
    return [this.#triggers, this.#masks, this.#unmasks].filter((set) => set !== undefined);
  }

  #newSet(action: IrqAction): IrqEventfds {
    const set = new IrqEventfds(this.#group.context, this.index, this.name, action);
    set.setReferenced(this.#referenced);
    return set;
  }

  async #enable(subindexes: readonly number[], options: IrqOptions): Promise<Vectors> {
    const triggers = this.#triggers;
    const present = triggers.present(subindexes);
    const fresh = subindexes.filter((subindex) => !present.has(subindex));
    this.#checkResize(fresh);
    await this.#disableRivals(options);
    const { host: wantsHost = true, ...call } = options;
    const msiConfig = wantsHost ? this.#group.msiConfig : undefined;
    await msiConfig?.prepare(this.index, call);
    const armed = await triggers.arm(fresh, () => this.#configure(msiConfig, call), call);
    return inOrder([...present.values(), ...armed]);
  }

  async #configure(msiConfig: MsiConfig | undefined, call: CallOptions): Promise<void> {
    if (msiConfig === undefined) return;
    const first = !this.#isConfigured;
    try {
      this.#isConfigured = true;
      await msiConfig.apply(
        this.index,
        this.vectors.map(({ subindex }) => subindex),
        call,
      );
    } catch (error) {
      const undo = forUndoing(call, this.#group.context.connection.timeoutMs);
      if (first) await this.#unconfigure(undo).catch(() => undefined);
      throw error;
    }
  }

  async #unconfigure({ host, force: _force, ...call }: DisableOptions): Promise<void> {
    const undo = this.#isConfigured && host !== false;
    this.#isConfigured = false;
    if (undo) await this.#group.msiConfig.undo(this.index, call);
  }

  async #disable(options: DisableOptions): Promise<void> {
    const told = this.#triggers.isArmed || options.force === true;
    try {
      await this.#unconfigure(options);
    } finally {
      try {
        if (told) await setIrqs(this.#group.context, disableRequest(this.index), null, options);
      } finally {
        for (const set of this.#sets) set.clear();
      }
    }
  }

  async #disableRivals(options: IrqOptions): Promise<void> {
    if (!this.#group.isPci || !isPinOrMessage(this.index)) return;
    for (const other of this.#group.all) {
      if (other !== this && isPinOrMessage(other.index) && other.enabled) await other.#disable(options);
    }
  }

  /** A set that cannot be resized comes in one message, and nothing is added to it. */
  #checkResize(fresh: readonly number[]): void {
    if (!this.noResize || fresh.every((subindex) => this.#triggers.has(subindex))) return;
    if (this.#triggers.isArmed) {
      throw new UnsupportedError(
        `${this.name} vectors are enabled as one set (NORESIZE): disable the index, then enable all that are wanted`,
      );
    }
    const most = this.#triggers.groupSize();
    if (fresh.length > most) {
      throw new UnsupportedError(
        `${this.name} vectors are enabled as one set (NORESIZE), and one message to this server takes ${most} file descriptors`,
      );
    }
  }

  async #events(
    caller: string,
    set: IrqEventfds,
    range: number | IrqRange,
    options: IrqOptions,
  ): Promise<Vectors> {
    const subindexes = this.#subindexes(caller, range, options);
    set.groupSize();
    return this.#group.exclusive.run(`enabling events of ${this.name}`, options, async (call) => {
      const present = set.present(subindexes);
      const fresh = subindexes.filter((subindex) => !present.has(subindex));
      const armed = await set.arm(fresh, () => Promise.resolve(), call);
      return inOrder([...present.values(), ...armed]);
    });
  }

  async #act(
    caller: string,
    action: IrqAction,
    what: number | readonly boolean[],
    second: number | undefined,
    options: IrqOptions = {},
  ): Promise<void> {
    IRQ_OPTIONS.check(caller, options);
    const { context } = this.#group;
    if (typeof what === 'number') {
      const { start, count } = this.#check(caller, what, second === undefined ? 1 : second, options);
      await setIrqs(
        context,
        { index: this.index, start, count, flags: IRQ_SET_DATA_NONE | action },
        null,
        options,
      );
      return;
    }
    if (!Array.isArray(what)) throw wrongType(`${caller}: start`, 'a number, or an array of booleans', what);
    const { start, count } = this.#check(caller, second === undefined ? 0 : second, what.length, options);
    if (!context.mayTryOptional) {
      throw new UnsupportedError(
        `${this.name}: the server answered minor 0, and such servers lose step at SET_IRQS with booleans (tryOptional sends it)`,
      );
    }
    const data = Uint8Array.from(what as readonly boolean[], (chosen, i) =>
      boolean(`which[${i}]`, chosen) ? 1 : 0,
    );
    await setIrqs(
      context,
      { index: this.index, start, count, flags: IRQ_SET_DATA_BOOL | action, data },
      null,
      options,
    );
  }

  #subindexes(caller: string, range: number | IrqRange, options: IrqOptions): number[] {
    IRQ_OPTIONS.check(caller, options);
    if (typeof range !== 'number' && (typeof range !== 'object' || range === null)) {
      throw wrongType(`${caller}: range`, 'a number of interrupts, or { start, count }', range);
    }
    const wanted = typeof range === 'number' ? { count: range } : range;
    const problem = RANGE.find(caller, 'range.', wanted);
    if (problem !== undefined) throw problem;
    const { start, count } = this.#check(caller, wanted.start ?? 0, wanted.count ?? 1, options);
    this.#group.context.requireAvailable(options);
    return Array.from({ length: count }, (_, i) => start + i);
  }

  /** The range as it is, where the index has it. */
  #check(
    caller: string,
    start: number,
    count: number,
    options: IrqOptions,
  ): { start: number; count: number } {
    integer(`${caller}: start`, start);
    integer(`${caller}: count`, count, 1);
    const limit = options.host === false ? this.reportedCount : this.count;
    if (start + count <= limit) return { start, count };
    const reported =
      limit === this.reportedCount
        ? ''
        : `, as config space has it (the server reports ${this.reportedCount}, and { host: false } goes by that)`;
    const wrong = `${this.name} has ${limit} interrupts${reported}`;
    throw new RangeError(`${wrong}; ${count} from ${start} is no range of them`);
  }
}
