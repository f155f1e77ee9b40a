/** What can go wrong with a simulator. */
import { brand } from '../../brand.js';
import { VfioUserError } from '../../errors.js';

/**
 * The simulator ended, did not answer in time, or broke the protocol of docs/rtl.md: its device is lost. `code` is
 * `ERR_VFIO_USER_RTL`.
 *
 * @example
 * ```ts
 * const device = await openRtl({ command: ['./engine', '{socket}'], id, bars });
 * const reason = await device.closed;
 * if (reason instanceof RtlError) console.error(reason.message);
 * ```
 */
export class RtlError extends VfioUserError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_VFIO_USER_RTL', message, options);
  }

  static {
    brand(this, 'RtlError');
  }
}
