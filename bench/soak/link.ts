/** A device that comes back: by reconnecting, and where it is lost for good by being opened anew. */
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, VfioUserError, type ConnectOptions, type Device } from 'vfio-user';
import type { Soak } from './soak.js';

/** The deadline of every call. */
export const CALL_MS = 2_000;
const RECONNECT_MS = 10_000;
const PAUSE_MS = 20;

type Endpoint = Parameters<typeof connect>[0];

export class Link {
  /** How often the connection was lost: what needs the server's memory, or an interrupt, holds within one count only. */
  losses = 0;
  reconnects = 0;
  reopens = 0;
  readonly name: string;
  readonly #soak: Soak;
  readonly #endpoint: Endpoint;
  readonly #options: ConnectOptions;
  #device: Device | undefined;
  #isUp = false;
  #wake: (() => void) | undefined;

  constructor(soak: Soak, name: string, endpoint: Endpoint, options: ConnectOptions = {}) {
    this.#soak = soak;
    this.name = name;
    this.#endpoint = endpoint;
    this.#options = options;
  }

  /** The device, once calls can be made. Undefined where the soak ends. */
  async ready(): Promise<Device | undefined> {
    while (!this.#soak.isEnding) {
      if (this.#device !== undefined && this.#isUp) return this.#device;
      if (this.#device === undefined) await this.#open();
      else {
        const change = new Promise<void>((resolve) => (this.#wake = resolve));
        await this.#soak.watchdog.watch(`${this.name}: reconnect`, RECONNECT_MS + 5_000, change);
      }
    }
    return undefined;
  }

  /** Gives the device up, and takes another: for a driver that cannot go on with it. */
  async drop(): Promise<void> {
    await this.#device?.close();
    this.#device = undefined;
    this.#isUp = false;
  }

  async close(): Promise<void> {
    await this.drop();
    this.#wake?.();
  }

  async #open(): Promise<void> {
    try {
      const opening = connect(this.#endpoint, {
        timeoutMs: CALL_MS,
        waitForSocket: true,
        reconnect: { timeoutMs: RECONNECT_MS },
        ...this.#options,
      });
      const device = await this.#soak.watchdog.watch(`${this.name}: connect`, CALL_MS + 5_000, opening);
      this.#watch(device);
    } catch (error) {
      if (!(error instanceof VfioUserError)) throw error;
      this.#soak.recorder.fail('connect', error.code);
      await sleep(PAUSE_MS);
    }
  }

  #watch(device: Device): void {
    this.reopens++;
    this.#device = device;
    this.#isUp = true;
    device.on('lost', () => {
      this.losses++;
      this.#isUp = false;
    });
    device.on('reconnected', () => {
      this.reconnects++;
      this.#isUp = this.#device === device;
      this.#wake?.();
    });
    void device.closed.then(async () => {
      if (this.#device !== device) return;
      this.losses++;
      this.#isUp = false;
      this.#device = undefined;
      await device.close();
      this.#wake?.();
    });
  }
}
