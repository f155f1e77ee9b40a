import { brand } from '../brand.js';
import { VfioUserError } from '../errors.js';

/**
 * A capture file is not what it should be. `code` is `ERR_VFIO_USER_CAPTURE`.
 *
 * @example
 * ```ts
 * try {
 *   for await (const message of new CaptureReader('dev.pcapng')) console.log(message.direction);
 * } catch (error) {
 *   if (!(error instanceof CaptureError)) throw error;
 *   console.error(`not a whole capture: ${error.message}`);
 * }
 * ```
 */
export class CaptureError extends VfioUserError {
  /** Where in the file the block begins that is wrong, in bytes; undefined where it is not about one block. */
  readonly offset: number | undefined;

  constructor(message: string, offset?: number, options?: ErrorOptions) {
    const where = offset === undefined ? '' : ` (in the block at ${offset})`;
    super('ERR_VFIO_USER_CAPTURE', `${message}${where}`, options);
    this.offset = offset;
  }

  static {
    brand(this, 'CaptureError');
  }
}
