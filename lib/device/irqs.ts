/** The interrupts of a device, by index. */
import { wrongType } from '../fields.js';
import { forbidCloning } from '../cloning.js';
import { Exclusive, type CallOptions, type Connection } from '../connection/index.js';
import * as option from '../options.js';
import { PciIrq } from '../protocol/constants.js';
import type { IrqInfo } from '../protocol/irq-info.js';
import { MsiConfig, type MsiConfigParts } from './msi-config.js';
import { IrqIndex, type IrqGroup } from './irq-index.js';
import type { DeviceContext } from './device-context.js';

/** INTx to REQ: there whether or not the server knows them. */
const PCI_INDEXES = 5;

/**
 * The interrupts of a device, by index (specification: VFIO_USER_DEVICE_GET_IRQ_INFO). Iterating gives all
 * indexes.
 *
 * @example
 * ```ts
 * for (const irq of device.irqs) console.log(irq.name, irq.count);
 * ```
 */
export class Irqs implements Iterable<IrqIndex> {
  /** The interrupt pin. */
  readonly intx: IrqIndex;
  /** Message signalled interrupts (PCI Local Bus 3.0, section 6.8.1). */
  readonly msi: IrqIndex;
  /** MSI-X (PCI Local Bus 3.0, section 6.8.2). */
  readonly msix: IrqIndex;
  /** Signalled by the server on an unrecoverable error of the device. */
  readonly err: IrqIndex;
  /** Signalled by the server when it wants the device back. */
  readonly req: IrqIndex;
  readonly #context: DeviceContext;
  readonly #all: readonly IrqIndex[];
  readonly #exclusive = new Exclusive();
  /** The connection whose end the vectors will hear of. */
  #watched: Connection | undefined;

  /** @internal `infos` are what GET_IRQ_INFO said, in any order. */
  constructor(context: DeviceContext, infos: readonly IrqInfo[], parts: MsiConfigParts) {
    this.#context = context;
    const byIndex = new Map(infos.map((info) => [info.index, info]));
    const all: IrqIndex[] = [];
    const group: IrqGroup = {
      context,
      msiConfig: new MsiConfig(parts),
      exclusive: this.#exclusive,
      all,
      isPci: parts.isPci,
    };
    for (let index = 0; index < Math.max(PCI_INDEXES, infos.length); index++) {
      all.push(new IrqIndex(group, byIndex.get(index) ?? { index, flags: 0, count: 0 }));
    }
    this.#all = all;
    this.intx = this.byIndex(PciIrq.INTX);
    this.msi = this.byIndex(PciIrq.MSI);
    this.msix = this.byIndex(PciIrq.MSIX);
    this.err = this.byIndex(PciIrq.ERR);
    this.req = this.byIndex(PciIrq.REQ);
    this.#watchConnection();
    forbidCloning(this, 'an Irqs');
  }

  /** The interrupts of that index, by number. @throws RangeError where the device has no such index. */
  byIndex(index: number): IrqIndex {
    if (typeof index !== 'number') throw wrongType('Irqs.byIndex: index', 'a number', index);
    const irqs = Number.isInteger(index) ? this.#all[index] : undefined;
    if (irqs === undefined)
      throw new RangeError(`the device has IRQ indexes 0 to ${this.#all.length - 1}, not ${index}`);
    return irqs;
  }

  /** All indexes, also those of which the device has no interrupts. */
  [Symbol.iterator](): Iterator<IrqIndex> {
    return this.#all[Symbol.iterator]();
  }

  /**
   * Sets up again all that is enabled, with the eventfds that exist: after a reset, which clears the enable bits, and on
   * a new connection, where vectors that were cut off go on.
   * @throws RemoteError, TimeoutError, ClosedError; the signal's reason.
   */
  async restore(options?: CallOptions): Promise<void> {
    option.CALL_OPTIONS.check('Irqs.restore', options);
    this.#context.requireAvailable(options);
    await this.#exclusive.run('setting interrupts up again', options, async (call) => {
      this.#watchConnection();
      for (const index of this.#all) await index.restore(call);
    });
  }

  /** Vectors, present and to come, keep the process alive while they are open (as they do at first). */
  ref(): void {
    for (const index of this.#all) index.setReferenced(true);
  }

  /** Lets the process end although vectors, present or to come, are open. */
  unref(): void {
    for (const index of this.#all) index.setReferenced(false);
  }

  #watchConnection(): void {
    const { connection } = this.#context;
    if (connection === this.#watched) return;
    this.#watched = connection;
    void connection.closed.then((reason) => {
      for (const index of this.#all) index.disconnect(reason);
    });
  }
}
