/** What goes wrong beside a TimeoutError where no completion comes, and a ClosedError where the driver is closed. */
import { brand } from '../brand.js';
import { VfioUserError } from '../index.js';

/**
 * The device has failed, or does not come up: it broke the rules of a virtqueue, refused the features, does not reset, or
 * could not be brought back. `code` is `ERR_VIRTIO_DEVICE`.
 * @example
 * ```ts
 * if (error.code === 'ERR_VIRTIO_DEVICE') console.error('the device is lost:', error.message);
 * ```
 */
export class VirtioDeviceError extends VfioUserError {
  /** @param message - for people */
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_VIRTIO_DEVICE', message, options);
  }

  static {
    brand(this, 'VirtioDeviceError');
  }
}

/**
 * The request was in flight when the device was reset, and its `retries` are used up: it may have been carried out. `code`
 * is `ERR_VIRTIO_RESET`.
 * @example
 * ```ts
 * if (error.code === 'ERR_VIRTIO_RESET') await disk.write(lba, data);
 * ```
 */
export class VirtioResetError extends VfioUserError {
  /** @param request - its name, for people */
  constructor(request: string, options?: ErrorOptions) {
    super('ERR_VIRTIO_RESET', `${request}: the device was reset`, options);
  }

  static {
    brand(this, 'VirtioResetError');
  }
}

/**
 * The device completed a request with an error. `code` is `ERR_VIRTIO_` and the status's name.
 * @example
 * ```ts
 * if (error instanceof VirtioStatusError) console.error(`${error.request}: ${error.statusName}`);
 * ```
 */
export class VirtioStatusError extends VfioUserError {
  /** The status as the device gave it. */
  readonly status: number;
  /** Its name: `IOERR`, `UNSUPP`; `STATUS_7` where there is none. */
  readonly statusName: string;
  /** What was asked for. */
  readonly request: string;

  /**
   * @param request - its name, for people
   * @param status - as the device gave it
   * @param statusName - its name
   */
  constructor(request: string, status: number, statusName: string, options?: ErrorOptions) {
    super(`ERR_VIRTIO_${statusName}`, `${request}: the device answered ${statusName} (${status})`, options);
    this.status = status;
    this.statusName = statusName;
    this.request = request;
  }

  static {
    brand(this, 'VirtioStatusError');
  }
}
