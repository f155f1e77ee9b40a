/** What all virtio drivers have in common for their users. */
import { EventEmitter } from 'node:events';
import { forbidCloning } from '../cloning.js';
import { DeviceLifecycle } from '../commands/device-lifecycle.js';
import { withSeat } from '../commands/driver-seat.js';
import { wrongType } from '../fields.js';
import { Device } from '../index.js';
import type { VirtioSettings } from './driver-options.js';
import { DriverSetup, type DriverKind } from './driver-setup.js';
import { hasFeature, virtioFeatureNames } from './features.js';
import { VirtioTransport } from './transport.js';

/**
 * What a device is doing: `opening` until the driver's `open` resolves; `live`; `resetting` from a reset's beginning to its
 * end, also while a lost connection is made again; `failed` where it could not be brought back, or lost its memory; `closed`
 * after `close`, or with its device.
 */
export type VirtioState = 'opening' | 'live' | 'resetting' | 'failed' | 'closed';

/**
 * A virtio device, driven (Virtual I/O Device 1.2, section 3): what all drivers have in common. Any call rejects with
 * ClosedError once the driver or its device is closed, and with VirtioDeviceError once the device has failed.
 * @example
 * ```ts
 * const driver: VirtioDriver = await VirtioBlk.open(device);
 * console.log(driver.featureNames.join(' '));
 * await driver.close();
 * ```
 */
export abstract class VirtioDriver<
  Events extends Record<keyof Events, unknown[]> = Record<never, never>,
> extends EventEmitter<Events> {
  /** The device that the driver was opened on. It stays its owner's. */
  readonly device: Device;
  /** @internal */
  protected readonly setup: DriverSetup;
  /** @internal */
  protected readonly lifecycle: DeviceLifecycle;

  /**
   * @internal Finds the device's structures, makes the driver and starts it: no other one has the device meanwhile.
   */
  protected static async start<E extends Record<keyof E, unknown[]>, D extends VirtioDriver<E>>(
    caller: string,
    device: Device,
    type: number,
    settings: VirtioSettings,
    make: (parts: VirtioParts) => D,
  ): Promise<D> {
    if (!(device instanceof Device)) throw wrongType(`${caller}: device`, 'a Device', device);
    return withSeat(caller, device, async (sit) => {
      const late: { onNotifyError: (error: unknown) => void } = { onNotifyError: () => undefined };
      const transport = await VirtioTransport.open(device, type, settings.timeoutMs, (error) =>
        late.onNotifyError(error),
      );
      const driver = make({ transport, settings, late });
      sit(driver.lifecycle);
      await driver.lifecycle.open();
      return driver;
    });
  }

  /** @internal */
  protected constructor({ transport, settings, late }: VirtioParts, kind: DriverKind) {
    super();
    const { device } = transport;
    this.device = device;
    this.setup = new DriverSetup(transport, settings, kind, {
      resetOrFail: () => this.lifecycle.resetOrFail(),
      fail: (error) => void this.lifecycle.fail(error),
      onMemoryLost: (reason) => this.lifecycle.onMemoryLost(reason),
    });
    this.lifecycle = new DeviceLifecycle(device, this.setup);
    late.onNotifyError = () => void this.lifecycle.resetOrFail();
    forbidCloning(this, 'a virtio driver');
  }

  /** What the device is doing. */
  get state(): VirtioState {
    return this.lifecycle.state;
  }

  /** Settles, never rejects, with the reason when the device has failed or the driver is closed. */
  get closed(): Promise<Error> {
    return this.lifecycle.closed;
  }

  /** Whether `close` has been called, or the device has failed, or is closed. */
  get isClosed(): boolean {
    return this.lifecycle.isClosed;
  }

  /** The features that were negotiated, as the specification numbers them. */
  get features(): bigint {
    return this.setup.features;
  }

  /** The names of those: `VERSION_1`, `INDIRECT_DESC`. */
  get featureNames(): string[] {
    return virtioFeatureNames(this.setup.transport.type, this.setup.features);
  }

  /** The names of what the device offers. */
  get offeredNames(): string[] {
    return virtioFeatureNames(this.setup.transport.type, this.setup.offered);
  }

  /** Whether the feature with that number was negotiated. */
  hasFeature(feature: number): boolean {
    return hasFeature(this.setup.features, feature);
  }

  /**
   * Resets the device (section 2.4) and sets it up again. Requests in flight are sent again once (`retries`); those that
   * must not be are rejected with VirtioResetError. Several resets at a time are one.
   * @throws VirtioDeviceError where the device does not come back, or another one does: it has failed then; ClosedError.
   */
  reset(): Promise<void> {
    return this.lifecycle.reset();
  }

  /**
   * Waits for what is in flight, resets the device and gives its memory back. The device stays its owner's. Idempotent.
   * @throws what the device's calls throw; the driver is closed all the same.
   */
  close(): Promise<void> {
    return this.lifecycle.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** @internal What a driver is made of before it is started. */
export interface VirtioParts {
  readonly transport: VirtioTransport;
  readonly settings: VirtioSettings;
  readonly late: { onNotifyError: (error: unknown) => void };
}
