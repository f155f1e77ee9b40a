/** A client as its device sees it, and all that must go when it goes. */
import type { VfioUserError } from '../errors.js';
import { DmaClient } from './dma-client.js';
import type { ClientContext, DeviceModel, Hardware, IrqLine } from './device-model.js';
import { DmaRegions } from './dma-regions.js';
import { DirtyTracking } from './dirty-tracking.js';
import type { Settings } from './emulator-options.js';
import { IrqTable } from './irq-table.js';
import type { ServerRequests } from './server-requests.js';

/** Devices interrupt from timers and the like, where what is thrown would end the process. */
class NoLine implements IrqLine {
  readonly isArmed = false;
  readonly isMasked = false;
  readonly #name: string;
  readonly #onError: (error: unknown) => void;

  constructor(index: number, sub: number, onError: (error: unknown) => void) {
    this.#name = `interrupt ${sub} of index ${index}`;
    this.#onError = onError;
  }

  trigger(): boolean {
    this.#onError(new RangeError(`${this.#name} was raised, which the device does not have`));
    return false;
  }
}

export class ClientState implements ClientContext {
  readonly dma: DmaClient;
  readonly dmaTable: DmaRegions;
  readonly dirty: DirtyTracking;
  readonly irqs: IrqTable;
  readonly #requests: ServerRequests;
  readonly #onError: (error: unknown) => void;
  readonly #hardware: Hardware | undefined;
  #connected = true;

  /** `maxDataXferSize` is the client's: the most that it takes in one message. */
  constructor(device: DeviceModel, settings: Settings, requests: ServerRequests, maxDataXferSize: number) {
    this.irqs = new IrqTable(device.irqs, settings.maxEventFds, device.hardware);
    this.dmaTable = new DmaRegions(settings.maxDmaMaps, settings.pgsizes, device.hardware);
    this.#hardware = device.hardware;
    // What a message brings back must be no more than we take ourselves.
    const chunk = Math.min(maxDataXferSize, settings.maxDataXferSize);
    this.dirty = new DirtyTracking(settings.dirtyPages, this.dmaTable);
    this.dma = new DmaClient(this.dmaTable, requests, chunk, this.dirty);
    this.#requests = requests;
    this.#onError = settings.onError;
  }

  get isConnected(): boolean {
    return this.#connected;
  }

  irq(index: number, sub = 0): IrqLine {
    return this.irqs.line(index, sub) ?? new NoLine(index, sub, this.#onError);
  }

  /** "Client Disconnection": its memory is unmapped, its eventfds are closed. */
  end(reason: VfioUserError): void {
    this.#connected = false;
    try {
      this.#hardware?.quiesce();
    } catch (error) {
      this.#onError(error);
    }
    this.dma.close(reason);
    this.#requests.end(reason);
    this.irqs.close();
    this.dmaTable.close();
  }
}
