import { VfioUserError } from '../errors.js';

/** A capture file is not what it should be. `code` is `ERR_VFIO_USER_CAPTURE`. */
export class CaptureError extends VfioUserError {
  /** Where in the file the block begins that is wrong, in bytes. */
  readonly offset: number;

  constructor(message: string, offset: number, options?: ErrorOptions) {
    super('ERR_VFIO_USER_CAPTURE', `${message} (in the block at ${offset})`, options);
    this.offset = offset;
  }

  static {
    this.prototype.name = 'CaptureError';
  }
}
