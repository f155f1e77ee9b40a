/** A base for PCI devices: config space as region 7, clients, and interrupts that go to all of them. */
import { PciIrq, PciRegion, REGION_FLAG_READ, REGION_FLAG_WRITE } from '../protocol/constants.js';
import { PciCommand } from '../pci/index.js';
import type { ClientContext, DeviceModel, IrqModel, RegionModel } from './device-model.js';
import type { PciConfigSpace } from './pci-config.js';

/**
 * A base for PCI devices. Extend it: add regions in the constructor, and override `reset`, which DEVICE_RESET calls.
 *
 * @example
 * ```ts
 * class Counter extends PciDevice {
 *   #value = 0;
 *
 *   constructor() {
 *     super(new PciConfigSpace({ vendorId: 0x1234, deviceId: 1, bars: [{ index: 0, size: 4096 }] }), []);
 *     const read = (_offset: number, count: number) => Buffer.alloc(count, ++this.#value);
 *     this.addRegion({ index: 0, size: 4096, handler: { read, write: () => undefined } });
 *   }
 * }
 * ```
 */
export class PciDevice implements DeviceModel {
  /** The device's config space, region 7. */
  readonly config: PciConfigSpace;
  /** The types of interrupts it has. */
  readonly irqs: readonly IrqModel[];
  readonly #regions: RegionModel[];
  readonly #clients = new Set<ClientContext>();
  /** What the device wants of its INTx line. */
  #intxLevel = false;
  /** What is seen of it: nothing while the command register disables it. */
  #intxAsserted = false;

  /** `config` and `irqs` are the device's from here on. */
  constructor(config: PciConfigSpace, irqs: readonly IrqModel[]) {
    this.config = config;
    const isRaised = () => this.#intxAsserted;
    this.irqs = irqs.map((irq) => (irq.index === PciIrq.INTX ? { isRaised, ...irq } : irq));
    const flags = REGION_FLAG_READ | REGION_FLAG_WRITE;
    this.#regions = [{ index: PciRegion.CONFIG, size: config.size, flags, handler: config }];
    config.onWrite = () => this.configWritten();
  }

  /** Config space, and what `addRegion` has added. */
  get regions(): readonly RegionModel[] {
    return this.#regions;
  }

  /** The clients that are connected. */
  get clients(): ReadonlySet<ClientContext> {
    return this.#clients;
  }

  /** A client has negotiated: it is in `clients` from now on. */
  attach(client: ClientContext): void {
    this.#clients.add(client);
  }

  /** The client has disconnected. */
  detach(client: ClientContext): void {
    this.#clients.delete(client);
  }

  /** Config space as it was at first, INTx lowered. */
  reset(): void | Promise<void> {
    this.#intxLevel = false;
    this.config.reset();
    this.#updateIntx();
  }

  /** Software has written config space. Override it to look there for what the device itself acts on. */
  protected configWritten(): void {
    this.#updateIntx();
  }

  /** To be called before a client is served. */
  protected addRegion(region: RegionModel): void {
    this.#regions.push(region);
  }

  /** Signals an interrupt to every client that has armed it. */
  protected trigger(index: number, sub = 0): void {
    for (const client of this.#clients) client.irq(index, sub).trigger();
  }

  /** Raises or lowers INTx. Clients are signalled when it rises, once, and not again until it was lowered. */
  protected setIntx(level: boolean): void {
    this.#intxLevel = level;
    this.config.setInterruptStatus(level);
    this.#updateIntx();
  }

  #updateIntx(): void {
    const asserted = this.#intxLevel && (this.config.command & PciCommand.INTX_DISABLE) === 0;
    const rises = asserted && !this.#intxAsserted;
    this.#intxAsserted = asserted;
    if (rises) this.trigger(PciIrq.INTX);
  }
}
