/**
 * The interrupts of a driver: MSI-X with a vector for the configuration and one for each queue, as far as there are as many;
 * INTx and the ISR status where there is no MSI-X (Virtual I/O Device 1.2, sections 4.1.4.5 and 4.1.5.1.2).
 */
import { UnsupportedError, type Vector } from '../index.js';
import type { VirtioTransport } from './transport.js';

const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

export interface InterruptHandlers {
  /** Takes the completions of that queue; without one, of all. */
  poll: (queue: number | undefined) => void;
  onConfigChange: () => void;
}

export class DriverInterrupts {
  readonly #transport: VirtioTransport;
  readonly #handlers: InterruptHandlers;
  #isPolled = true;
  #stopListening: (() => void)[] = [];

  constructor(transport: VirtioTransport, handlers: InterruptHandlers) {
    this.#transport = transport;
    this.#handlers = handlers;
  }

  /** Before each start. */
  async prepare(isPolled: boolean): Promise<void> {
    this.#isPolled = isPolled;
    await this.#transport.disableMsix();
  }

  /** The vector of each queue, and the configuration's is told to the device; none where there is no MSI-X. */
  async enable(queues: readonly { readonly index: number }[]): Promise<ReadonlyMap<number, number>> {
    const vectors = new Map<number, number>();
    if (this.#isPolled) return vectors;
    const { msix, intx } = this.#transport.device.irqs;
    const isFirst = this.#stopListening.length === 0;
    if (msix.count === 0) {
      if (intx.count === 0) throw new UnsupportedError('the device has no interrupts');
      if (isFirst) {
        const [vector] = await intx.enable(1);
        this.#listen(vector, () => void this.#onIntx());
      }
      return vectors;
    }
    const count = Math.min(msix.count, queues.length + 1);
    for (const [i, { index }] of queues.entries())
      vectors.set(index, count === 1 ? 0 : 1 + (i % (count - 1)));
    if (isFirst) {
      for (const vector of await msix.enable(count)) {
        const own = [...vectors].filter(([, number]) => number === vector.subindex).map(([index]) => index);
        this.#listen(vector, () => {
          for (const index of own) this.#handlers.poll(index);
          if (vector.subindex === 0) this.#handlers.onConfigChange();
        });
      }
    }
    await this.#transport.setConfigVector(0);
    return vectors;
  }

  /** Of a device that was reset. */
  async disable(): Promise<void> {
    if (this.#stopListening.length === 0) return;
    for (const stop of this.#stopListening.splice(0)) stop();
    const { msix, intx } = this.#transport.device.irqs;
    await (msix.count === 0 ? intx : msix).disable().catch(() => undefined);
  }

  #listen(vector: Vector, listener: () => void): void {
    this.#stopListening.push(vector.onInterrupt(listener));
  }

  async #onIntx(): Promise<void> {
    const { intx } = this.#transport.device.irqs;
    try {
      const isr = await this.#transport.takeIsr();
      if ((isr & ISR_QUEUE) !== 0) this.#handlers.poll(undefined);
      if ((isr & ISR_CONFIG) !== 0) this.#handlers.onConfigChange();
      if (intx.automasked) await intx.unmask();
    } catch {
      // The connection is lost, or the device closed: requests tell of it.
    }
  }
}
